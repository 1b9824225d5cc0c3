"""Random quantized matrices for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from paligemma.edge.packing import SMALLEST, Bits, Floats, Packed, pack, quantize

KINDS: tuple[tuple[Bits, int | None], ...] = ((8, None), (8, 32), (4, 32), (4, 64), (4, 128))
"""Bits and groups."""


def normal(rng: np.random.Generator, *shape: int) -> Floats:
    return rng.standard_normal(shape, np.float32)


def random_matrix(rng: np.random.Generator, outputs: int, inputs: int, bits: Bits, group: int | None) -> Packed:
    return pack(*quantize(normal(rng, outputs, inputs), bits, group), bits, group)


def whole(rng: np.random.Generator, outputs: int, inputs: int, bits: Bits, group: int | None) -> tuple[NDArray[np.int8], Packed]:
    """Whole numbers from end to end of what the bits hold, with scales of one."""
    values = rng.integers(SMALLEST[bits], -SMALLEST[bits] if bits == 4 else 128, (outputs, inputs)).astype(np.int8)
    values = values.clip(SMALLEST[bits], 7 if bits == 4 else 127)
    scales: NDArray[Any] = np.ones(outputs, np.float32) if bits == 8 else np.ones((outputs, -(-inputs // (group or 1))), np.float16)
    return values, pack(values, scales, bits, group)
