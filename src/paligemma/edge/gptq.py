"""Rounding that looks at data: what rounding a weight does to a matrix's results is made up for by the weights that are rounded after it.

Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate post-training quantization for generative pre-trained transformers" (2023).
With inputs X and their moments H = X^T X, the columns of a matrix are rounded one after the other; the error of column i, over the i-th
diagonal element of the upper Cholesky factor U of H^-1, is taken from the columns to come in proportion to row i of U.

H is cut into blocks of inputs that are seen as independent of each other (`calibration.BLOCK`), so that wide matrices need little memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .packing import SCALES, Bits, Floats, scales_of, to_values

Doubles = NDArray[np.float64]

DAMPING = 0.01
"""Of the mean of H's diagonal, added to it: few examples leave directions that none of them has."""
STRIP = 32
"""Columns rounded one by one before the rest is told; divides every group, and blocks are multiples of groups (all but the last)."""


@dataclass(frozen=True)
class Rounding:
    """How errors are passed on, for matrices that see the same inputs. `factors`: U of each block; `importance`: H's diagonal (inputs,)."""

    factors: tuple[Doubles, ...]
    importance: Floats

    @classmethod
    def of(cls, moments: Sequence[Floats]) -> Rounding:
        return cls(tuple(_factor(block) for block in moments), np.concatenate([np.diagonal(block) for block in moments]))

    def __call__(self, matrix: Floats, bits: Bits, group: int | None = None) -> tuple[NDArray[np.int8], NDArray[Any]]:
        """As `packing.quantize`. `ValueError` for a matrix with other inputs. (Finite weights are the caller's care.)"""
        if matrix.shape[1] != len(self.importance):
            raise ValueError(f"a matrix of {matrix.shape[1]} inputs, moments of {len(self.importance)}")
        inputs = matrix.shape[1]
        size = group if bits == 4 and group else inputs
        values = np.empty(matrix.shape, np.int8)
        scales = np.empty((len(matrix), -(-inputs // size)), SCALES[bits])
        work = matrix.astype(np.float64)
        for first, factor in zip(self.starts, self.factors, strict=True):
            for start in range(first, first + len(factor), STRIP):
                if start % size == 0:  # a scale for what the group's weights have become by now
                    seen = slice(start, min(start + size, inputs))
                    scales[:, start // size] = scales_of(work[:, seen].astype(np.float32), bits, self.importance[seen])
                steps = scales[:, start // size].astype(np.float64)
                self._strip(work, values, steps, bits, factor, first, start)
        return values, scales[:, 0] if bits == 8 else scales

    @property
    def starts(self) -> list[int]:
        """The first input of each block."""
        return [0, *itertools.accumulate(len(factor) for factor in self.factors)][:-1]

    def _strip(self, work: Doubles, values: NDArray[np.int8], steps: Doubles, bits: Bits, factor: Doubles, first: int, start: int) -> None:
        """Round the columns of `work` from `start` on, and take their errors from the rest of the block that begins at `first`."""
        end = first + len(factor)
        stop = min(start + STRIP, end)
        errors = np.empty((len(work), stop - start))
        for column in range(start, stop):
            row = factor[column - first]
            values[:, column] = to_values(work[:, column], steps, bits)
            error = (work[:, column] - values[:, column] * steps) / row[column - first]
            work[:, column + 1 : stop] -= error[:, None] * row[column + 1 - first : stop - first]
            errors[:, column - start] = error
        work[:, stop:end] -= errors @ factor[start - first : stop - first, stop - first :]


def _factor(moments: Floats) -> Doubles:
    """U of one block. An input that no example had is rounded to nearest, and takes part in nothing."""
    h = moments.astype(np.float64)
    diagonal = np.einsum("ii->i", h)  # a view
    diagonal += DAMPING * diagonal.mean()
    diagonal[diagonal == 0] = 1
    return np.ascontiguousarray(np.linalg.cholesky(np.linalg.inv(h)).T, np.float64)
