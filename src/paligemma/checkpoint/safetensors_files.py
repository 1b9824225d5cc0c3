"""Safetensors weights of a folder, one file or several with an index, as one `ArraySource`.

Two ways to read. Mapped: arrays are views of the file, nothing is copied, and memory is filled by the pages that are used; a file that
shrinks while in use then kills the process (SIGBUS), as with every mapped file. Copied: each read fills memory of its own, leaves no
mapping behind and reports a short file as an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import CheckpointError
from .mapping import MappedFile
from .recognise import beginning, refuse_by_name, why_not_weights
from .safetensors_header import read_header
from .source import ARRAY_TYPES, Array, ArraySource, TensorSpec, refuse

MAX_INDEX = 16 << 20
MAX_SHARDS = 256
SMALL = 64 << 10
"""Tensors of fewer bytes are copied always: a norm that is a view would keep the matrices around it resident."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class SafetensorsFiles(ArraySource):
    """`files` and the tensors in all of them. Opening reads the headers only."""

    def __init__(self, files: list[Path], *, mapped: bool = True):
        self.files = tuple(files)
        self.mapped = mapped
        self._headers = {path: read_header(path) for path in files}
        self._home: dict[str, Path] = {}
        problems = []
        for path, header in self._headers.items():
            for name in header.specs:
                if name in self._home:
                    problems.append(f"{name} is in {self._home[name].name} and in {path.name}")
                self._home[name] = path
        refuse(files[0].parent, problems, code="index_mismatch")
        self.specs: Mapping[str, TensorSpec] = {name: self._headers[path].specs[name] for name, path in self._home.items()}
        self._mapped: dict[Path, MappedFile] = {}

    def array(self, name: str, start: int = 0, count: int | None = None) -> Array:
        path = self._home[name]
        spec = self._headers[path].specs[name]
        size = spec.nbytes // spec.numel
        place = self._headers[path].offsets[name] + start * size
        length = spec.numel if count is None else count
        read = self._view if self.mapped and spec.nbytes >= SMALL else read_into_array
        flat = read(path, place, length, spec.dtype)
        return flat.reshape(spec.shape) if count is None else flat

    def _view(self, path: Path, offset: int, count: int, dtype: str) -> Array:
        if path not in self._mapped:
            header = self._headers[path]
            spans = [(header.offsets[name], spec.nbytes) for name, spec in header.specs.items() if spec.nbytes >= SMALL]
            self._mapped[path] = MappedFile(path, spans)
        try:
            return self._mapped[path].flat(offset, count, ARRAY_TYPES[dtype])
        except ValueError:
            raise _short(path) from None


def read_into_array(path: Path, offset: int, count: int, dtype: str) -> Array:
    """`count` values from a byte offset of a file on, as a flat array with memory of its own."""
    out = np.empty(count, ARRAY_TYPES[dtype])
    view = out.view(np.uint8).data
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        done = 0
        while done < len(view) and (got := file.readinto(view[done:])):
            done += got
    if done < len(view):
        raise _short(path)
    return out


def _short(path: Path) -> CheckpointError:
    return CheckpointError(f"{path.name} ended early", hint="the file changed while it was read", code="file_changed")


def find_safetensors(folder: Path) -> list[Path]:
    """The weight files of a folder: those its index lists, or `model.safetensors`, or the only other one that is no codec or adapter.

    Raises `CheckpointError` where index and folder disagree.
    """
    indexes = sorted(path for path in folder.glob("*.safetensors.index.json"))
    if len(indexes) > 1:
        raise CheckpointError(f"{folder}: {len(indexes)} indexes: " + ", ".join(path.name for path in indexes), code="ambiguous")
    if indexes:
        return _from_index(indexes[0])
    found = weight_files(folder)
    if len(found) > 1 and not (folder / SINGLE).exists():
        raise CheckpointError(
            f"{folder}: {len(found)} safetensors files ({', '.join(path.name for path in found[:4])}, ...) and no {INDEX}",
            hint="fetch the index too, or name one file",
            code="index_mismatch",
        )
    if len(found) > 1:
        extra = ", ".join(path.name for path in found if path.name != SINGLE)
        raise CheckpointError(f"{folder}: beside {SINGLE} lies {extra}", hint="name the file to load", code="ambiguous")
    return found


def weight_files(folder: Path) -> list[Path]:
    """All safetensors files of a folder that could hold a model's weights."""
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith(("mask_codec", "adapter_")))


def _from_index(index: Path) -> list[Path]:
    size = index.stat().st_size
    if (error := why_not_weights(index, beginning(index))) is not None:
        raise error
    if size > MAX_INDEX:
        raise CheckpointError(f"{index.name}: {size:,} bytes, the limit is {MAX_INDEX:,}", code="index_mismatch")
    try:
        table = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{index.name}: not JSON ({type(error).__name__})", code="index_mismatch") from None
    where = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(where, dict) or not where or not all(isinstance(file, str) for file in where.values()):
        raise CheckpointError(f"{index.name}: no table weight_map of tensor and file names", code="index_mismatch")
    shards = sorted(set(where.values()))
    problems = [f"{shard!a} is not the name of a safetensors file in this folder" for shard in shards if not _plain(shard)]
    if len(shards) > MAX_SHARDS:
        problems.append(f"{len(shards)} shards, the limit is {MAX_SHARDS}")
    refuse(index.name, problems, code="index_mismatch")

    folder = index.parent
    present = {path.name for path in weight_files(folder)}
    problems = [f"{shard} is listed but missing" for shard in shards if shard not in present]
    problems += [f"{name} lies in the folder but is not listed" for name in sorted(present - set(shards))]
    refuse(index.name, problems, hint="fetch the model again", code="index_mismatch")

    total = 0
    for shard in shards:
        refuse_by_name(folder / shard)
        specs = read_header(folder / shard).specs
        total += sum(spec.nbytes for spec in specs.values())
        listed = {name for name, file in where.items() if file == shard}
        problems += [f"{name} is listed in {shard} but not there" for name in sorted(listed - specs.keys())]
        problems += [
            f"{name} is in {shard}, listed " + (f"in {where[name]}" if name in where else "nowhere")
            for name in sorted(specs.keys() - listed)
        ]
    metadata = table.get("metadata")
    claimed = metadata.get("total_size") if isinstance(metadata, dict) else None
    if claimed is not None and claimed != total:
        problems.append(f"total_size is {claimed!a}, the shards hold {total:,} bytes of tensors")
    refuse(index.name, problems, summary="index and shards disagree", hint="fetch the model again", code="index_mismatch")
    return [folder / shard for shard in shards]


def _plain(name: str) -> bool:
    return (
        name.endswith(".safetensors")
        and name.isprintable()
        and not any(part in name for part in ("/", "\\", "..", ":"))
        and len(name) < 256
    )
