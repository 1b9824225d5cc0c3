"""From one format to the other, tensor by tensor: a model far larger than memory passes through. Bits are kept where the number type is."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from .codec import find_codec
from .load import tied_problems
from .locate import FORMATS, Format, npz_files
from .opening import Opened, open_checkpoint, surplus_rows
from .outgoing import CheckedSource
from .safetensors_files import weight_files
from .source import dtype_name
from .values import ValueCheck
from .write import SHARD_BYTES, Progress, save_huggingface, save_npz

COMPANIONS = ("tokenizer.model", "tokenizer.json", "calibration.json")
"""Copied along, with the mask codec: a model is of no use without them."""
CARD = ("README.md", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json")
"""Copied along from folder to folder only."""


@dataclass(frozen=True)
class Converted:
    """`copied`: files taken along. `dropped_rows`: rows of the embedding table that stand for no token. `zeros`: tensors of zeros only."""

    path: Path
    format: Format
    dtype: str
    copied: tuple[str, ...]
    dropped_rows: int
    zeros: tuple[str, ...]


def convert(
    source: str | Path,
    target: str | Path,
    format: Format | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
    max_shard_bytes: int | None = SHARD_BYTES,
    prefix: str = "params/",
) -> Converted:
    """Write `source` to `target` as a Hugging Face folder or a big_vision `.npz`; by default the one that `target`'s name suggests.

    `dtype`: float32, float16 or bfloat16; the source's own by default, and then no bit changes. Tokenizer, mask codec and calibration
    beside the source are copied along. Raises `CheckpointError` for a source that `load_model` would refuse, `UsageError` for a target
    that exists (`overwrite=True` replaces it) or whose name does not fit the format, `ResourceError` for a full disk.
    """
    target = Path(target).expanduser()
    if format is None:
        format = "big_vision" if target.suffix == ".npz" else "huggingface"
    if format not in FORMATS:
        raise UsageError(f"no format is called {format!r}", hint="known formats: " + ", ".join(FORMATS))
    opened = open_checkpoint(source, mapped=False)
    opened.refuse_problems()
    taken = _companions(opened, format)
    _check_target(opened, target, format, taken, overwrite)

    check = ValueCheck(opened.label)
    check.problems += tied_problems(opened)
    weights = CheckedSource(opened.weights(), check)
    kind = opened.dtype if dtype is None else dtype_name(dtype)
    common = {"config": opened.config, "dtype": kind, "recorded_softcap": opened.recorded_softcap, "progress": progress}
    if format == "huggingface":
        save_huggingface(weights, target, max_shard_bytes=max_shard_bytes, before_commit=check.finish, **common)
    else:
        save_npz(weights, target, prefix=prefix, before_commit=check.finish, **common)
    folder = target if format == "huggingface" else target.parent
    for file in taken:
        if (folder / file.name).resolve() != file.resolve():
            shutil.copyfile(file, folder / file.name)
    return Converted(target, format, kind, tuple(file.name for file in taken), surplus_rows(opened), tuple(check.zeros()))


def _companions(opened: Opened, format: Format) -> list[Path]:
    folder = opened.located.folder
    names = [*COMPANIONS, *(CARD if opened.format == format == "huggingface" else ())]
    codec = find_codec(folder)
    return [folder / name for name in names if (folder / name).is_file()] + ([codec] if codec is not None else [])


def _check_target(opened: Opened, target: Path, format: Format, taken: list[Path], overwrite: bool) -> None:
    if (target.suffix == ".npz") != (format == "big_vision"):
        raise UsageError(f"{target}: {format} is {FORMATS[format]}", hint="change the name or the format")
    sources = {file.resolve() for file in opened.located.files}
    if target.resolve() in sources or (format == "huggingface" and target.resolve() == opened.located.folder.resolve()):
        raise UsageError(f"{target} is the source itself", hint="write to another place")
    folder = target if format == "huggingface" else target.parent
    present = [target] if format == "big_vision" else [*weight_files(target), *npz_files(target)] if target.is_dir() else []
    present = [file for file in present if file.exists()]
    others = [
        folder / file.name for file in taken
        if (folder / file.name).exists() and (folder / file.name).read_bytes() != file.read_bytes()
    ]  # fmt: skip
    if not overwrite and (present or others):
        what = present[0] if present else f"{others[0]}, which belongs to another model and"
        raise UsageError(f"{what} exists already", hint="choose another place, or --overwrite")
