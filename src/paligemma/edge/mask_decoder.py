"""The mask codec's decoder on arrays: 16 codes -> a soft mask of 64 x 64. As `model/mask_codec.py` in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import codec_layout
from ..config import MASK_CODES
from ..errors import CheckpointError
from .pack_file import AGAIN, Arrays
from .packing import Floats

X = TypeVar("X")

PREFIX = "codec."
"""Of its arrays' names in a pack."""
CODEBOOK, FIRST = PREFIX + codec_layout.CODEBOOK, PREFIX + codec_layout.FIRST
RESIDUALS, UPS, LAST = (2, 3), (4, 6, 8, 10), 12
"""Numbers of the decoder's layers, as in the published file: 0 is the first."""


def decoder_part(codec: Mapping[str, X]) -> dict[str, X]:
    """Of what a codec has by its arrays' names, that of its decoder, by the names in a pack."""
    return {PREFIX + name: one for name, one in codec.items() if name.startswith("decoder.")} | {CODEBOOK: codec[codec_layout.CODEBOOK]}


class MaskDecoder:
    """Raises `CheckpointError` for arrays that are no codec's."""

    def __init__(self, arrays: Arrays):
        entries = arrays.index.entries
        first = entries.get(FIRST)
        if CODEBOOK not in entries or first is None or len(first.shape) != 4 or first.shape[0] % 8:
            raise CheckpointError("the pack has no usable mask decoder", hint=AGAIN, code="bad_pack")
        shapes = decoder_part(codec_layout.codec_shapes(*first.shape[:2]))
        found = {name: arrays.numbers(name, shape) for name, shape in shapes.items()}
        self.codebook = found.pop(CODEBOOK)
        layers = dict.fromkeys(name.rpartition(".")[0] for name in found)
        self.weights = {layer.removeprefix(PREFIX): (found[f"{layer}.weight"], found[f"{layer}.bias"]) for layer in layers}

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
