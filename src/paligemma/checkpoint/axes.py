"""Rearrangements of axes as text that runs both ways: `"N W H -> NH W"` turns (8, 2048, 256) into (2048, 2048), and back.

A letter is an axis that has a size, `1` an axis of size one that only the left side has, letters without a space between them are joined
into one axis. The shapes of both sides follow from the sizes of the letters, and sizes can be read off a shape: one line of a table says
how to convert, what to expect, and what a file's shapes mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from .source import Array

if TYPE_CHECKING:
    from torch import Tensor

X = TypeVar("X", "Tensor", Array)


@dataclass(frozen=True)
class Axes:
    """`left`: theirs, `right`: ours; one string of letters per axis."""

    left: tuple[str, ...]
    right: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Axes:
        left, right = text.split("->")
        return cls(tuple(left.split()), tuple(right.split()))

    @property
    def identity(self) -> bool:
        """Both sides list the same values in the same order, so that any stretch of one is a stretch of the other."""
        return "".join(self.left).replace("1", "") == "".join(self.right)

    def left_shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        return _shape(self.left, sizes)

    def right_shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        return _shape(self.right, sizes)

    def solve(self, shape: tuple[int, ...]) -> dict[str, int]:
        """The sizes of the letters on the left side for a tensor of that shape; empty where the number of axes differs."""
        if len(shape) != len(self.left):
            return {}
        return {letter: size for letter, size in zip(self.left, shape, strict=True) if letter != "1"}

    def forward(self, x: X) -> X:
        """A left-shaped tensor or array, right-shaped; a view where that is possible."""
        sizes = self.solve(tuple(x.shape))
        return _permuted(x, self._order()).reshape(self.right_shape(sizes))

    def backward(self, x: X, sizes: Mapping[str, int]) -> X:
        """The reverse of `forward`."""
        order = self._order()
        wide = x.reshape([1 if self.left[axis] == "1" else sizes[self.left[axis]] for axis in order])
        return _permuted(wide, [order.index(axis) for axis in range(len(order))])

    def _order(self) -> list[int]:
        """The left axes in the order of the right side, those of size one first."""
        ones = [axis for axis, letter in enumerate(self.left) if letter == "1"]
        return ones + [self.left.index(letter) for group in self.right for letter in group]


def _permuted(x: X, order: list[int]) -> X:
    """Tensors and arrays have different names for it."""
    return cast(Any, x).transpose(order) if isinstance(x, np.ndarray) else cast(Any, x).permute(order)


def _shape(side: tuple[str, ...], sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(math.prod(sizes[letter] for letter in group if letter != "1") for group in side)
