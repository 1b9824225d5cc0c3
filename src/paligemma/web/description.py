"""What a folder for browsers is, in words and numbers, and whether it is as it was written, for `paligemma info`. Needs no onnx."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..checkpoint.locate import WEB_INDEX
from ..errors import CheckpointError
from ..sealed import is_sealed, unseal

VERSION = 1
"""Of the layout of a folder for browsers."""
AGAIN = "pack the model again (paligemma pack --target web)"


def web_facts(folder: Path) -> dict[str, Any]:
    """Reads all of the model's files. Raises `CheckpointError` for a `web.json` that is none, or of another version."""
    path = folder / WEB_INDEX
    try:
        text = path.read_bytes()
        data = json.loads(text)
        if data["web"] != VERSION:
            raise CheckpointError(f"{path}: its version is {data['web']!r}, expected {VERSION}", hint=AGAIN, code="bad_pack")
        files = [data["vocabulary"], *(file for graph in data["graphs"].values() for file in (graph["graph"], *graph["data"]))]
        listed = [(folder / "model" / file["path"], int(file["bytes"]), str(file["sha256"])) for file in files]
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
    looked = [_changed(text) if is_sealed(data) else None, *(_damaged(*one) for one in listed)]
    return facts | {
        "bytes": sum(size for _, size, _ in listed),
        "files": [str(file) for file, _, _ in listed],
        "warnings": [] if is_sealed(data) else [f"{WEB_INDEX} has no checksum, as older pages: what it says could not be checked"],
        "problems": [problem for problem in looked if problem is not None],
    }


def _changed(text: bytes) -> str | None:
    try:
        unseal(text)
    except (ValueError, RecursionError):
        return f"{WEB_INDEX}: it was changed after it was written: its checksum is wrong"
    return None


def _damaged(path: Path, size: int, sha256: str) -> str | None:
    if not path.is_file() or path.stat().st_size != size:
        return f"{path.name}: expected {size:,} bytes"
    with path.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == sha256
    return None if same else f"{path.name}: not the bytes that were written"
