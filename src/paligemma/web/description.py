"""What a folder for browsers is, in words and numbers, for `paligemma info`. Needs no onnx."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..checkpoint.locate import WEB_INDEX
from ..errors import CheckpointError

VERSION = 1
"""Of the layout of a folder for browsers."""
AGAIN = "pack the model again (paligemma pack --target web)"


def web_facts(folder: Path) -> dict[str, Any]:
    """Raises `CheckpointError` for a `web.json` that is none, or of another version."""
    path = folder / WEB_INDEX
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["web"] != VERSION:
            raise CheckpointError(f"{path}: its version is {data['web']!r}, expected {VERSION}", hint=AGAIN, code="bad_pack")
        files = [data["vocabulary"], *(file for graph in data["graphs"].values() for file in (graph["graph"], *graph["data"]))]
        listed = [(folder / "model" / file["path"], int(file["bytes"])) for file in files]
        facts = {
            "model": data["about"],
            "name": data["name"],
            "parameters": int(data["parameters"]),
            "format": f"page for browsers: python -m http.server --directory {folder}",
            "number_type": data["quantize"],
            "runtime": data["runtime"],
            "masks": "mask decoder included" if "masks" in data["graphs"] else "no mask decoder, so nothing is outlined",
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: it describes no page", hint=AGAIN, code="bad_pack") from None
    wrong = [f"{file.name}: expected {size:,} bytes" for file, size in listed if not file.is_file() or file.stat().st_size != size]
    return facts | {
        "bytes": sum(size for _, size in listed),
        "files": [str(file) for file, _ in listed],
        "warnings": [],
        "problems": wrong,
    }
