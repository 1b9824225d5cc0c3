"""Arrays as views of a file's pages, mapped window by window, so that pages go when the arrays in their window do.

One mapping of a whole file would keep every page that was ever read for as long as any array lives: a model whose matrices are
rearranged in memory (`model/fast_linear.py`) would be resident twice. Large arrays have a window each, small neighbours share one.
A tensor made of an array keeps it, and so its window.
Every window costs a file handle, so there are at most some 130.
"""

from __future__ import annotations

import mmap
import weakref
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

WINDOW = 64 << 20
MAX_WINDOWS = 64
"""Of full size; the rest are cut short by a large array that follows."""


class MappedFile:
    """`spans`: (first byte, bytes) of every array. A file that shrinks while mapped kills the process that touches what is gone."""

    def __init__(self, path: Path, spans: Iterable[tuple[int, int]]):
        self.path = path
        ordered = sorted(spans)
        least = max(WINDOW, sum(size for _, size in ordered) // MAX_WINDOWS) // 2
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, size in ordered:
            if not self._starts or max(size, self._ends[-1] - self._starts[-1]) >= least:
                self._starts.append(start)
                self._ends.append(start)
            self._ends[-1] = start + size
        self._open: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()

    def flat(self, start: int, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """`count` values from byte `start` on, which must be the start of a span or inside one. Writing to it never reaches the file.

        Raises `ValueError` when the file has become too short.
        """
        number = bisect_right(self._starts, start) - 1
        window = self._open.get(number)
        if window is None:
            first = _page(self._starts[number])
            with self.path.open("rb") as file:
                window = mmap.mmap(file.fileno(), self._ends[number] - first, access=mmap.ACCESS_COPY, offset=first)
            self._open[number] = window
        return np.frombuffer(window, dtype, count, start - _page(self._starts[number]))


def _page(place: int) -> int:
    """Where the page begins: windows can begin nowhere else."""
    return place - place % mmap.ALLOCATIONGRANULARITY
