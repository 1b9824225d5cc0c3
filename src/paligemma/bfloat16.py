"""bfloat16 where there is no such number type: its bits as uint16, which are the upper halves of float32. numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def to_bfloat16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded to nearest, ties to even; any shape. A NaN stays one."""
    numbers = x.view(np.uint32)
    rounded = (numbers + 0x7FFF + ((numbers >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (numbers >> 16) | 0x40, rounded).astype(np.uint16)


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The numbers that these bits stand for, all of them exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
