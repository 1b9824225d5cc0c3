"""Files that the pages share which ask a picture, the server's and the packed one: their look, the camera, drawing, lists."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def shared_files() -> dict[str, Path]:
    """Where a page looks for them, below its own address -> where they are."""
    shared = sorted((_HERE / "shared").glob("*.*"))
    return {"style.css": _HERE / "style.css", **{f"shared/{path.name}": path for path in shared}}
