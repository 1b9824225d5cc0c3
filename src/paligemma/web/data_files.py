"""Where a graph's matrices lie: files beside it, each small enough for a browser to hold, written a piece at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

MOST = 512 << 20
"""Bytes of a file. A browser asks for a file's memory in one piece, of at most 2 GB; smaller ones are also sooner repeated."""
ALIGN = 64


@dataclass
class Place:
    """A run of bytes in one of the files."""

    file: str
    at: int
    bytes: int


class DataFiles:
    """Writes `NAME-0.data`, `NAME-1.data`, ... into a folder. Used as a context, which closes them; `digests` are known afterwards."""

    def __init__(self, folder: Path, name: str):
        self._folder, self._name = folder, name
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None
        self._hash: Any = None
        self._size = 0
        self.digests: dict[str, str] = {}

    def __enter__(self) -> DataFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
        self._stack.close()

    def write(self, pieces: Iterable[NDArray[Any]], size: int) -> Place:
        """All pieces, which are `size` bytes together, one after the other in one file."""
        if self._file is None or self._size + size > MOST:
            self._begin()
        assert self._file is not None
        self._put(bytes(-self._size % ALIGN))
        at = self._size
        for piece in pieces:
            self._put(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)
        assert self._size - at == size, f"{self._size - at} bytes were written, {size} announced"
        return Place(self._current, at, size)

    @property
    def _current(self) -> str:
        return f"{self._name}-{len(self.digests)}.data"

    def _begin(self) -> None:
        self._finish()
        self._file = self._stack.enter_context((self._folder / self._current).open("wb"))
        self._hash, self._size = hashlib.sha256(), 0

    def _finish(self) -> None:
        if self._file is not None:
            self._file.flush()
            self.digests[self._current] = self._hash.hexdigest()
            self._file = None

    def _put(self, data: Any) -> None:
        assert self._file is not None
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)


def tensor_at(name: str, kind: int, shape: Iterable[int], place: Place) -> TensorProto:
    """An initializer of ONNX whose numbers lie in a file."""
    tensor = TensorProto(name=name, data_type=kind, dims=list(shape), data_location=TensorProto.EXTERNAL)
    for key, value in (("location", place.file), ("offset", place.at), ("length", place.bytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
