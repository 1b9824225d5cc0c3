"""Tensors of a training state to and from safetensors: as a stream of pieces on the way out, as views of the file on the way in.

`checkpoint` reads and writes models, whose numbers are of three types and which come from strangers. A state has more types (counters,
quantized moments), may be made while it is written, must be finite, and is only read once its hash was found right.
Format: 8 bytes little-endian length, a JSON header, the data without gaps (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.mapping import MappedFile
from ..checkpoint.safetensors_header import MAX_HEADER
from ..checkpoint.source import CHUNK_BYTES, byte_view, name_problem
from ..checkpoint.values import value_problem
from ..errors import CheckpointError, TrainingError

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


class NotFiniteError(TrainingError):
    """What would be saved holds NaN or infinity."""

    default_code = "not_finite"


@dataclass(frozen=True)
class Later:
    """A tensor made when it is its turn to be written, and dropped afterwards: one that is gathered from several processes, say.

    Turns are taken file by file, in each file in the order of `written_order`.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]


Saveable = Tensor | Later


def written_order(tensors: Mapping[str, Saveable]) -> list[str]:
    """Wider numbers first, so that every tensor starts at a multiple of its number's size; else as given."""
    return sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)


def nbytes(tensors: Mapping[str, Saveable]) -> int:
    """Of the data, without the header."""
    return sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors.values())


def pieces(tensors: Mapping[str, Saveable], file: str) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, at most `CHUNK_BYTES` in memory at a time beside the tensors. A piece is good until the next.

    Raises `NotFiniteError` naming `file` and tensor before a value that is no number is handed out; `TypeError` and `ValueError` for
    tensors that such a file cannot hold.
    """
    order = written_order(tensors)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        tensor = tensors[name]
        _check(name, tensor, file)
        begin, end = end, end + math.prod(tensor.shape) * tensor.dtype.itemsize
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in order:
        yield from _values(name, tensors[name], file)


def _check(name: str, tensor: Saveable, file: str) -> None:
    if tensor.dtype not in _NAMES:
        raise TypeError(f"{file}: {name}: numbers of type {tensor.dtype} cannot be saved")
    problem = "a tensor name that looks like a path" if "/" in name else name_problem(name)
    if problem is None and 0 in tensor.shape:
        problem = "a tensor without values"
    if problem is not None:
        raise ValueError(f"{file}: {name!a}: {problem}")


def _values(name: str, saveable: Saveable, file: str) -> Iterator[memoryview]:
    tensor = (saveable.make() if isinstance(saveable, Later) else saveable).detach()
    if tuple(tensor.shape) != tuple(saveable.shape) or tensor.dtype != saveable.dtype:
        raise ValueError(f"{file}: {name}: announced {saveable.dtype} {tuple(saveable.shape)}, got {tensor.dtype} {tuple(tensor.shape)}")
    for part in tensor.reshape(-1).split(CHUNK_BYTES // tensor.dtype.itemsize):
        if tensor.dtype.is_floating_point and (problem := value_problem(part)[0]) is not None:
            raise NotFiniteError(f"{file}: {name} holds {problem}", hint="the training has diverged: lower the learning rate")
        yield byte_view(part.cpu().contiguous())


def read_tensors(path: Path, *, mapped: bool = True) -> dict[str, Tensor]:
    """The tensors of a file whose content is known to be right.

    `mapped`: views of the file's pages, which cost memory only while they are used; writing to one never reaches the file. Else copies.
    Raises `CheckpointError` for a file that is no safetensors file, `OSError` where it cannot be read.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        if length > min(MAX_HEADER, size - 8):
            raise _bad(path, "it has no header")
        spots = _spots(path, file.read(length), size - 8 - length)
    if not spots:
        return {}
    start = 8 + length
    pages = MappedFile(path, [(start + spot.begin, spot.nbytes) for spot in spots.values()])
    flat = {name: torch.from_numpy(pages.flat(start + spot.begin, spot.nbytes, np.uint8)) for name, spot in spots.items()}
    tensors = {name: flat[name].view(spot.dtype).view(spot.shape) for name, spot in spots.items()}
    return tensors if mapped else {name: tensor.clone() for name, tensor in tensors.items()}


@dataclass(frozen=True)
class _Spot:
    """Where a tensor's values lie, counted from the end of the header."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    begin: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


def _spots(path: Path, text: bytes, data_size: int) -> dict[str, _Spot]:
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        spots = {
            name: _Spot(tuple(map(int, entry["shape"])), _DTYPES[entry["dtype"]], int(entry["data_offsets"][0]))
            for name, entry in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _bad(path, f"its header is not understood ({type(error).__name__})") from None
    for name, spot in spots.items():
        if min((spot.begin, *spot.shape), default=0) < 0 or spot.count == 0 or spot.begin + spot.nbytes > data_size:
            raise _bad(path, f"{name!a} lies outside of it")
    return spots


def _bad(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {what}", code="bad_header")
