"""The mask codec's decoder on arrays: 16 codes -> a soft mask of 64 x 64. As `model/mask_codec.py` in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..config import MASK_CODES, NUM_SEG
from ..errors import CheckpointError
from .pack_file import AGAIN, Arrays
from .packing import Floats

PREFIX = "codec."
CODEBOOK = f"{PREFIX}_vq_vae._embedding"
RESIDUALS, UPS, LAST = (2, 3), (4, 6, 8, 10), 12
"""Numbers of the decoder's layers, as in the published file: 0 is the first."""


def _layers(width: int, depth: int) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """(name, shape of its weights, axis of its outputs)."""
    yield "decoder.0", (width, depth, 1, 1), 0
    for number in RESIDUALS:
        for layer, size in ((0, 3), (2, 3), (4, 1)):
            yield f"decoder.{number}.net.{layer}", (width, width, size, size), 0
    widths = (width, width, width // 2, width // 4, width // 8)
    for number, before, after in zip(UPS, widths, widths[1:], strict=False):
        yield f"decoder.{number}", (before, after, 4, 4), 1
    yield f"decoder.{LAST}", (1, width // 8, 1, 1), 0


class MaskDecoder:
    """Raises `CheckpointError` for arrays that are no codec's."""

    def __init__(self, arrays: Arrays):
        entries = arrays.index.entries
        first = entries.get(f"{PREFIX}decoder.0.weight")
        if CODEBOOK not in entries or first is None or len(first.shape) != 4 or first.shape[0] % 8:
            raise CheckpointError("the pack has no usable mask decoder", hint=AGAIN, code="bad_pack")
        width, depth = first.shape[:2]
        self.codebook = arrays.numbers(CODEBOOK, (NUM_SEG, depth))
        self.weights = {
            name: (arrays.numbers(f"{PREFIX}{name}.weight", shape), arrays.numbers(f"{PREFIX}{name}.bias", (shape[axis],)))
            for name, shape, axis in _layers(width, depth)
        }

    def shapes(self, codes: Sequence[Sequence[int]]) -> Floats:
        """16 codes each -> soft masks (N, 64, 64), about -1 (background) to 1 (object); the boundary is at 0."""
        side = round(MASK_CODES**0.5)
        x = self.codebook[np.asarray(codes)].reshape(-1, side, side, self.codebook.shape[1])
        x = np.maximum(self._convolved(x, "decoder.0"), 0)
        for number in RESIDUALS:
            inner = np.maximum(self._convolved(x, f"decoder.{number}.net.0"), 0)
            inner = np.maximum(self._convolved(inner, f"decoder.{number}.net.2"), 0)
            x = x + self._convolved(inner, f"decoder.{number}.net.4")
        for number in UPS:
            x = np.maximum(self._doubled(x, f"decoder.{number}"), 0)
        return np.ascontiguousarray(self._convolved(x, f"decoder.{LAST}")[..., 0])

    def _convolved(self, x: Floats, name: str) -> Floats:
        """x (N, y, x, in) -> (N, y, x, out), the same size: 1 x 1 or 3 x 3 with a border of zeros."""
        weight, bias = self.weights[name]  # (out, in, k, k)
        size = weight.shape[2]
        padded = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
        out: NDArray[np.float32] = np.zeros((*x.shape[:3], len(weight)), np.float32)
        for dy in range(size):
            for dx in range(size):
                out += padded[:, dy : dy + x.shape[1], dx : dx + x.shape[2]] @ weight[:, :, dy, dx].T
        return out + bias

    def _doubled(self, x: Floats, name: str) -> Floats:
        """x (N, y, x, in) -> (N, 2 y, 2 x, out): a transposed convolution of 4 x 4, stride 2, from whose border 1 is cut off."""
        weight, bias = self.weights[name]  # (in, out, 4, 4)
        height, width = x.shape[1:3]
        out = np.zeros((len(x), 2 * height + 2, 2 * width + 2, weight.shape[1]), np.float32)
        for dy in range(4):
            for dx in range(4):
                out[:, dy : dy + 2 * height : 2, dx : dx + 2 * width : 2] += x @ weight[:, :, dy, dx]
        return out[:, 1:-1, 1:-1] + bias
