"""From one format to the other, tensor by tensor: a model far larger than memory passes through. Bits are kept where the number type is.

An adapter passes through as its base with the adapter added to it (see `merging.py`).
"""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, UsageError
from .adapter_config import inspect_adapter, is_adapter
from .codec import find_codec
from .finding import base_of
from .load import tied_problems
from .locate import CALIBRATION, COMPANIONS, FORMATS, PACK_INDEX, Format, npz_files
from .merging import merged
from .opening import Opened, open_checkpoint, surplus_rows
from .outgoing import CheckedSource
from .safetensors_files import weight_files
from .values import ValueCheck
from .write import SHARD_BYTES, Progress, save_huggingface, save_npz

README = "README.md"
CARD = (README, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json")
"""Copied along from folder to folder only. Of an adapter, its own card is, and its own calibration: the base's fits other answers."""


@dataclass(frozen=True)
class Converted:
    """`dtype`: of the tensors written, or `mixed`. `copied`: files taken along. `zeros`: our names of the tensors of zeros only.

    `dropped_rows`: rows of the source's embedding table that stand for no token and were not taken along. `adapted`: layers that an adapter
    was added to.
    """

    path: Path
    format: Format
    dtype: str
    copied: tuple[str, ...]
    dropped_rows: int
    zeros: tuple[str, ...]
    adapted: int = 0


def convert(
    source: str | Path,
    target: str | Path,
    format: Format | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
    *,
    base: str | Path | None = None,
    overwrite: bool = False,
    max_shard_bytes: int | None = SHARD_BYTES,
    prefix: str = "params/",
) -> Converted:
    """Write `source` to `target` as a Hugging Face folder or a big_vision `.npz`; by default the one that `target`'s name suggests.

    An adapter's folder as `source` gives the model that it and its base are together; `base` says where that is, if not where the adapter
    says. Sums are made in float32.
    `dtype`: float32, float16 or bfloat16 for all tensors. By default each keeps its own, and no value changes; only where the layers of
    one big_vision array differ, it gets the type that holds all of them. Rows that stand for no token are left out (a folder gets those of
    `padded_table`), and so is a second copy of the embedding table. Tokenizer, mask codec and calibration beside the source are copied
    along. Warns of what `inspect` warns of. Raises `CheckpointError` for a source that `load_model` would refuse, `UsageError` for a target
    that exists (`overwrite=True` replaces it) or whose name does not fit the format, `ResourceError` for a full disk.
    """
    target = Path(target).expanduser()
    if format is None:
        format = "big_vision" if target.suffix == ".npz" else "huggingface"
    if format not in FORMATS:
        raise UsageError(f"no format is called {format!r}", hint="known formats: " + ", ".join(FORMATS))
    adapter = inspect_adapter(source) if is_adapter(source) else None
    if adapter is None and base is not None:
        raise UsageError(f"{source} is no adapter, so it has no base", hint="leave out base= (--base)")
    opened = open_checkpoint(source if adapter is None else base or _base(adapter.path), mapped=False)
    opened.refuse_problems()
    taken = _companions(opened, format, None if adapter is None else adapter.path)
    _check_target(opened, target, format, taken, overwrite)
    if adapter is not None and target.resolve() == adapter.path.resolve():
        raise UsageError(f"{target} is the source itself", hint="write to another place")
    for warning in opened.warnings:
        warnings.warn(f"{opened.label}: {warning}", stacklevel=2)

    check = ValueCheck(opened.label)
    check.problems += tied_problems(opened)
    plain, adapted = (opened.weights(), 0) if adapter is None else merged(opened, adapter, dtype)
    weights = CheckedSource(plain, check)
    config = opened.config if adapter is None else opened.config.taught_more()  # an adapter was taught something else
    common = {"config": config, "dtype": dtype, "recorded_softcap": opened.recorded_softcap, "progress": progress}
    if format == "huggingface":
        save_huggingface(weights, target, max_shard_bytes=max_shard_bytes, before_commit=check.finish, **common)
    else:
        save_npz(weights, target, prefix=prefix, before_commit=check.finish, **common)
    folder = target if format == "huggingface" else target.parent
    for file in taken:
        if (folder / file.name).resolve() != file.resolve():
            shutil.copyfile(file, folder / file.name)
    kinds = {spec.dtype for spec in open_checkpoint(target).raw.specs.values()}
    kind = kinds.pop() if len(kinds) == 1 else "mixed"
    return Converted(target, format, kind, tuple(file.name for file in taken), surplus_rows(opened), tuple(check.zeros()), adapted)


def _base(adapter: Path) -> Path:
    try:
        return base_of(adapter)
    except CheckpointError as error:
        hint = f"{error.hint}, or name the base: base= (--base)" if error.hint else "name it: base= (--base)"
        raise CheckpointError(error.message, hint=hint, code=error.code) from error


def _companions(opened: Opened, format: Format, adapter: Path | None) -> list[Path]:
    folder = opened.located.folder
    cards = CARD if opened.format == format == "huggingface" else ()
    found = {name: folder / name for name in (*COMPANIONS, *cards) if (folder / name).is_file()}
    if adapter is not None:
        own = (CALIBRATION, *((README,) if format == "huggingface" else ()))
        found = {name: path for name, path in found.items() if name not in (CALIBRATION, README)}
        found |= {name: adapter / name for name in own if (adapter / name).is_file()}
    codec = find_codec(folder)
    return [*found.values()] + ([codec] if codec is not None else [])


def _check_target(opened: Opened, target: Path, format: Format, taken: list[Path], overwrite: bool) -> None:
    if (target.suffix == ".npz") != (format == "big_vision"):
        raise UsageError(f"{target}: {format} is {FORMATS[format]}", hint="change the name or the format")
    sources = {file.resolve() for file in opened.located.files}
    if target.resolve() in sources or (format == "huggingface" and target.resolve() == opened.located.folder.resolve()):
        raise UsageError(f"{target} is the source itself", hint="write to another place")
    folder = target if format == "huggingface" else target.parent
    if (folder / PACK_INDEX).is_file():
        raise UsageError(f"{folder} is a pack, and cannot hold a checkpoint too", hint="choose another place")
    present = [target] if format == "big_vision" else [*weight_files(target), *npz_files(target)] if target.is_dir() else []
    present = [file for file in present if file.exists()]
    others = [
        folder / file.name for file in taken
        if (folder / file.name).exists() and (folder / file.name).read_bytes() != file.read_bytes()
    ]  # fmt: skip
    if not overwrite and (present or others):
        what = present[0] if present else f"{others[0]}, which belongs to another model and"
        raise UsageError(f"{what} exists already", hint="choose another place, or --overwrite")
