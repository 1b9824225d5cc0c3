"""Checkpoints onto disk: safetensors (single or sharded, with config.json) and big_vision `.npz`; a file appears only when it is whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..config import PaliGemmaConfig
from ..errors import CheckpointError, ResourceError, UsageError
from .hf_config import CONFIG, write_config, write_preprocessor
from .locate import npz_files
from .memory import need_disk
from .outgoing import ModelSource, Outgoing, laid_out, padded_table
from .safetensors_files import INDEX, SINGLE, weight_files
from .source import ITEM_SIZE, TensorSource, byte_view, dtype_name, main_dtype
from .weight_maps import bv_layout, hf_layout, our_shapes

if TYPE_CHECKING:
    import torch

    from ..model.paligemma import PaliGemma

Progress = Callable[[int, int], None]
"""Called with the bytes written so far and the bytes to write."""

SHARD_BYTES = 5_000_000_000
_SAFETENSORS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_NUMPY = {"float32": "<f4", "float16": "<f2", "bfloat16": "|V2"}


def save_huggingface(
    model: PaliGemma | TensorSource,
    folder: str | Path,
    *,
    config: PaliGemmaConfig | None = None,
    dtype: str | torch.dtype | None = None,
    max_shard_bytes: int | None = SHARD_BYTES,
    recorded_softcap: float | None = None,
    progress: Progress | None = None,
    before_commit: Callable[[], None] | None = None,
) -> Path:
    """Write a folder that this package and transformers load: config.json, preprocessor_config.json, safetensors; returns the folder.

    `model`: a model, or tensors under a model's names together with its `config`. `dtype`: by default each tensor keeps its own.
    `max_shard_bytes`: None writes one file of any size. Weights already in the folder are replaced once the new ones are complete; the
    published vocabulary is written with Hugging Face's 64 surplus rows (see `padded_table`). Tokenizer and codec are saved by their owners.
    `before_commit` is called when all tensors are written and none has taken its place yet; what it raises leaves the folder as it was.
    """
    source, config, kind = _ready(model, config, dtype)
    folder = Path(folder).expanduser()
    if folder.is_file() or folder.suffix in (".npz", ".safetensors"):
        raise UsageError(f"{folder}: expected a folder to write to")
    entries = padded_table(laid_out(source, hf_layout(config), kind))
    description = write_config(config, dtype=_main_dtype(entries), recorded_softcap=recorded_softcap)
    folder.mkdir(parents=True, exist_ok=True)
    if archives := npz_files(folder):
        raise UsageError(f"{folder} holds {archives[0].name}; two formats in one folder cannot be told apart", hint="choose another folder")

    shards = _sharded(entries, max_shard_bytes)
    total = sum(entry.spec.nbytes for entry in entries)
    need_disk(total, folder)
    names = [SINGLE] if len(shards) == 1 else [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    report = _Report(progress, total)
    index = [folder / INDEX] if len(shards) > 1 else []  # first of all: without it shards are no checkpoint
    with replacing_together(*index, *(folder / name for name in names)) as files:
        for file, shard in zip(files[len(index) :], shards, strict=True):
            write_safetensors(file, shard, report)
        if index:
            where = {entry.name: name for name, shard in zip(names, shards, strict=True) for entry in shard}
            files[0].write(_json({"metadata": {"total_size": total}, "weight_map": where}))
        if before_commit is not None:
            before_commit()
    if not index:
        (folder / INDEX).unlink(missing_ok=True)
    for old in weight_files(folder):
        if old.name not in names:
            old.unlink()
    write_json(folder / "preprocessor_config.json", write_preprocessor(config))
    write_json(folder / CONFIG, description)
    return folder


def save_npz(
    model: PaliGemma | TensorSource,
    path: str | Path,
    *,
    config: PaliGemmaConfig | None = None,
    dtype: str | torch.dtype | None = None,
    prefix: str = "params/",
    recorded_softcap: float | None = None,
    progress: Progress | None = None,
    before_commit: Callable[[], None] | None = None,
) -> Path:
    """Write a big_vision `.npz` with stacked layers; returns its path.

    float32, float16, or bfloat16 as `|V2`, as the published files are; by default each array has the number type of what it is made of,
    or one that holds all where the layers in it differ. The archive's comment holds the configuration, which big_vision
    does not look at and which keeps what no shape shows (resize, query scale, name).
    """
    source, config, kind = _ready(model, config, dtype)
    path = Path(path).expanduser()
    if path.suffix != ".npz" or path.is_dir():
        raise UsageError(f"{path}: expected the name of an .npz file to write")
    entries = laid_out(source, bv_layout(config, prefix=prefix), kind)
    comment = json.dumps(write_config(config, dtype=_main_dtype(entries), recorded_softcap=recorded_softcap)).encode()
    total = sum(entry.spec.nbytes for entry in entries)
    path.parent.mkdir(parents=True, exist_ok=True)
    need_disk(total, path.parent)
    with replacing(path) as file:
        _write_npz(file, entries, comment, _Report(progress, total))
        if before_commit is not None:
            before_commit()
    return path


def write_container(path: Path, entries: Iterable[Outgoing]) -> None:
    """Named tensors into one `.npz` or `.safetensors` file, by the suffix."""
    with replacing(path) as file:
        if path.suffix == ".npz":
            _write_npz(file, list(entries), b"", _Report())
        else:
            write_safetensors(file, list(entries))


class _Report:
    """Counts what was written and passes it on."""

    def __init__(self, progress: Progress | None = None, total: int = 0):
        self._progress, self._done, self._total = progress, 0, total

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


def _ready(
    model: PaliGemma | TensorSource, config: PaliGemmaConfig | None, dtype: str | torch.dtype | None
) -> tuple[TensorSource, PaliGemmaConfig, str | None]:
    from ..model.paligemma import PaliGemma

    if isinstance(model, PaliGemma):
        _plain(model)
        source, config = ModelSource(model), config or model.config
    else:
        source = model
    if config is None:
        raise UsageError("tensors without a configuration cannot be saved", hint="pass config=")
    expected, found = our_shapes(config), {name: spec.shape for name, spec in source.specs.items()}
    if found != expected:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise CheckpointError(f"the tensors are not those of the configuration: {', '.join(wrong[:5])}", code="tensors_differ")
    return source, config, None if dtype is None else dtype_name(dtype)


def _plain(model: PaliGemma) -> None:
    """Raise `UsageError` for a model that a checkpoint would not be the whole of."""
    from ..model.lora import adapter_names
    from ..model.nf4 import Nf4Linear

    if names := adapter_names(model):
        raise UsageError(
            f"the model carries the adapter {names[0]!r}, which a checkpoint of it would lose",
            hint="add it to the weights with model.lora.merge, or save it alone with save_adapter",
            code="unmerged_adapter",
        )
    if any(isinstance(module, Nf4Linear) for module in model.modules()):
        raise UsageError(
            "the model has 4-bit layers, for which checkpoints have no form",
            hint="save its adapter alone with save_adapter, or merge it with dequantize=True",
            code="quantized_base",
        )


def _main_dtype(entries: list[Outgoing]) -> str:
    return main_dtype({entry.name: entry.spec for entry in entries})


def _sharded(entries: list[Outgoing], limit: int | None) -> list[list[Outgoing]]:
    """In order, a new shard where the limit would be passed. A tensor larger than the limit has a shard of its own."""
    shards: list[list[Outgoing]] = [[]]
    size = 0
    for entry in entries:
        if limit is not None and shards[-1] and size + entry.spec.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.spec.nbytes
    return shards


def write_safetensors(file: IO[bytes], entries: list[Outgoing], report: _Report | None = None) -> None:
    """Named tensors into a file that is open."""
    report = report or _Report()
    # Wider numbers first, so that every tensor starts at a multiple of its number's size.
    entries = sorted(entries, key=lambda entry: -ITEM_SIZE[entry.spec.dtype])
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for entry in entries:
        spec = entry.spec
        header[entry.name] = {"dtype": _SAFETENSORS[spec.dtype], "shape": list(spec.shape), "data_offsets": [at, at + spec.nbytes]}
        at += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for entry in entries:
        _write_values(file, entry, report)


def _write_npz(file: IO[bytes], entries: list[Outgoing], comment: bytes, report: _Report) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for entry in entries:
            # A fixed date, as in ZipInfo's default: equal tensors make equal files.
            with archive.open(zipfile.ZipInfo(entry.name + ".npy"), "w", force_zip64=True) as member:
                shape = repr(tuple(entry.spec.shape))
                text = f"{{'descr': '{_NUMPY[entry.spec.dtype]}', 'fortran_order': False, 'shape': {shape}, }}"
                text += " " * (-(11 + len(text)) % 64) + "\n"
                member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())
                _write_values(member, entry, report)
        archive.comment = comment


def _write_values(file: IO[bytes], entry: Outgoing, report: _Report) -> None:
    written = 0
    for part in entry.values():
        data = byte_view(part.contiguous())
        file.write(data)
        written += len(data)
        report.add(len(data))
    if written != entry.spec.nbytes:
        raise AssertionError(f"{entry.name}: wrote {written} bytes, announced {entry.spec.nbytes}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` only after it was written to the end; nothing is left behind when that fails."""
    with replacing_together(path) as (file,):
        yield file


@contextlib.contextmanager
def replacing_together(first: Path, *others: Path) -> Iterator[Sequence[IO[bytes]]]:
    """Files that take their places only after all of them were written to the end.

    The first is the one without which the others count for nothing: where there are several it goes away before any other is replaced and
    comes back last, so that old and new ones are never taken for a whole.
    """
    paths = (first, *others)
    temporaries = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    try:
        with contextlib.ExitStack() as stack:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            files = [stack.enter_context(temporary.open("wb")) for temporary in temporaries]
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        if others:
            first.unlink(missing_ok=True)
        for temporary, path in reversed(list(zip(temporaries, paths, strict=True))):
            os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceError(f"{first}: the disk is full", code="disk_full") from error
        raise
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """A JSON file that is there whole or not at all."""
    with replacing(path) as file:
        file.write(_json(value))


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
