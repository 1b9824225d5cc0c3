"""From what the user names, a file or a folder, to the weight files of one model in one format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import CheckpointError
from .recognise import pickle_refused, refuse_by_name
from .safetensors_files import find_safetensors, weight_files

Format = Literal["huggingface", "big_vision"]
FORMATS: dict[Format, str] = {
    "huggingface": "a folder with config.json and safetensors",
    "big_vision": "one .npz file",
}
CODEC_FILES = ("mask_codec.safetensors", "vae-oid.npz")
"""The mask codec beside a model or its folder, looked for in this order; never taken for the model itself."""
CALIBRATION = "calibration.json"
COMPANIONS = ("tokenizer.model", "tokenizer.json", CALIBRATION)
"""Beside a model too, and copied along, with the mask codec: a model is of no use without them."""
PACK_INDEX, PACK_WEIGHTS = "pack.json", "weights.packed"
"""In the folder of a pack, which is no checkpoint."""
WEB_INDEX = "web.json"
"""In a folder for browsers, which is none either."""
BROKEN_PACKS = (
    (PACK_WEIGHTS, PACK_INDEX, "a pack", ""),
    ("model/decoder.onnx", WEB_INDEX, "a page for browsers", " --target web"),
)
"""What still shows what a folder was, where the file that says what lies in it is missing: (file that is there, missing, what, option)."""


@dataclass(frozen=True)
class Located:
    format: Format
    files: tuple[Path, ...]
    folder: Path


def locate(path: str | Path) -> Located:
    """Raises `CheckpointError` for nothing, two formats, a pickle, half a download; says what was found instead."""
    path = Path(path).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        looks_like_id = str(path).count("/") == 1 and not str(path).startswith((".", "/", "~"))
        raise CheckpointError(
            f"{path}: no such file or folder",
            hint=f"if it is a Hugging Face id, fetch it once with `paligemma pull {path}`" if looks_like_id else None,
            code="not_found",
        )
    if path.suffix == ".safetensors":
        return Located("huggingface", (path,), path.parent)
    if path.suffix == ".npz":
        return Located("big_vision", (path,), path.parent)
    if path.name.endswith(".safetensors.index.json") or path.name == "config.json":
        return _in_folder(path.parent)
    refuse_by_name(path)
    raise CheckpointError(f"{path}: neither .safetensors nor .npz", hint=_EXPECTED, code="unknown_format")


_EXPECTED = "name " + " or ".join(FORMATS.values())


def _in_folder(folder: Path) -> Located:
    archives = npz_files(folder)
    if weight_files(folder) or any(folder.glob("*.safetensors.index.json")):
        if archives:
            found = ", ".join(path.name for path in (*weight_files(folder), *archives)[:8])
            raise CheckpointError(
                f"{folder}: two formats in one folder: {found}", hint="name the file to load instead of the folder", code="ambiguous"
            )
        return Located("huggingface", tuple(find_safetensors(folder)), folder)
    if len(archives) > 1:
        raise CheckpointError(
            f"{folder}: {len(archives)} archives: {', '.join(path.name for path in archives[:8])}",
            hint="name the file to load instead of the folder",
            code="ambiguous",
        )
    if archives:
        return Located("big_vision", (archives[0],), folder)
    raise _nothing(folder)


def npz_files(folder: Path) -> list[Path]:
    """The archives of a folder that could hold a model."""
    return sorted(path for path in folder.glob("*.npz") if path.name not in CODEC_FILES and not path.name.startswith("mask_codec"))


def _nothing(folder: Path) -> CheckpointError:
    """Why a folder without weights is refused: what lies in it says most."""
    if (folder / PACK_INDEX).is_file():
        return CheckpointError(
            f"{folder} is a pack: it can be asked, but not trained or converted", hint="name the checkpoint it was made of",
            code="is_pack",
        )  # fmt: skip
    if (folder / WEB_INDEX).is_file():
        return CheckpointError(
            f"{folder} is a page for browsers (paligemma pack --target web): no model that is answered from here",
            hint=f"look at it: python -m http.server --directory {folder}; or name the checkpoint it was made of",
            code="is_web_pack",
        )  # fmt: skip
    for rest, index, what, how in BROKEN_PACKS:
        if (folder / rest).is_file():
            return CheckpointError(
                f"{folder} is {what} that lacks {index}, without which {rest} cannot be read",
                hint=f"copy {index} from where the folder came from, or pack the model again (paligemma pack{how})",
                code="bad_pack",
            )
    present = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in present:
        if path.name.startswith("adapter_"):
            return CheckpointError(
                f"{folder}: a LoRA adapter ({path.name}), not a model",
                hint="what asks pictures, info and convert take it; else name its base, or merge the two: paligemma convert ADAPTER FOLDER",
                code="adapter",
            )
    for path in present:
        if path.suffix.lower() in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}:
            return pickle_refused(path)
    for path in present:
        try:
            refuse_by_name(path)
        except CheckpointError as error:
            return error
    names = ", ".join(path.name for path in present[:10]) + (f" and {len(present) - 10} more" if len(present) > 10 else "")
    return CheckpointError(f"{folder}: no weights; found {names or 'nothing'}", hint=_EXPECTED, code="no_weights")
