"""The mask codec (VQ-VAE): a 64x64 mask <-> 16 codes out of 128. Tensors only.

Module names equal the array names of the published `vae-oid.npz`, so that file loads as a state dict.
Source: big_vision `pp/proj/paligemma/segmentation.py` (encoder), `evaluators/proj/paligemma/transfers/segmentation.py` (decoder);
Ning et al., "All in Tokens", arXiv 2301.02229.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..config import MASK_CODES, NUM_SEG

CODE_GRID = math.isqrt(MASK_CODES)
"""The codes of a mask are a square, row by row."""


class ResBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class Codebook(nn.Module):
    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("_embedding", torch.zeros(size, dim))
        self._embedding: Tensor


class MaskCodec(nn.Module):
    """`width` is the channels of the narrowest-grid layers (128 as published), `codebook_dim` 512."""

    def __init__(self, width: int = 128, codebook_dim: int = 512, codebook_size: int = NUM_SEG):
        super().__init__()
        half, quarter, eighth = width // 2, width // 4, width // 8

        def down(i: int, o: int) -> list[nn.Module]:
            return [nn.Conv2d(i, o, 4, stride=2, padding=1), nn.ReLU()]

        def up(i: int, o: int) -> list[nn.Module]:
            return [nn.ConvTranspose2d(i, o, 4, stride=2, padding=1), nn.ReLU()]

        self.encoder = nn.Sequential(
            *down(1, eighth), *down(eighth, quarter), *down(quarter, half), *down(half, width),
            ResBlock(width), ResBlock(width), nn.Conv2d(width, codebook_dim, 1),
        )  # fmt: skip
        self._vq_vae = Codebook(codebook_size, codebook_dim)
        self.decoder = nn.Sequential(
            nn.Conv2d(codebook_dim, width, 1), nn.ReLU(), ResBlock(width), ResBlock(width),
            *up(width, width), *up(width, half), *up(half, quarter), *up(quarter, eighth), nn.Conv2d(eighth, 1, 1),
        )  # fmt: skip

    @property
    def codebook(self) -> Tensor:
        """(size, dim)."""
        return self._vq_vae._embedding

    def features(self, masks: Tensor) -> Tensor:
        """masks (B, 64, 64) in [0, 1] -> (B, 16, dim), before the nearest code is taken."""
        return self.encoder(2.0 * masks[:, None] - 1.0).flatten(2).transpose(1, 2)

    def nearest(self, features: Tensor) -> Tensor:
        """(B, 16, dim) -> code indices (B, 16), nearest by squared distance."""
        distance = self.codebook.square().sum(1) - 2.0 * features @ self.codebook.T
        return distance.argmin(-1)

    def encode(self, masks: Tensor) -> Tensor:
        """masks (B, 64, 64) in [0, 1] -> codes (B, 16), row by row."""
        return self.nearest(self.features(masks))

    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, 16) -> soft masks (B, 64, 64), about -1 (background) to 1 (object); the boundary is at 0."""
        return self.decode_features(self.codebook[codes])

    def decode_features(self, features: Tensor) -> Tensor:
        """As `decode`, from code vectors (B, 16, dim)."""
        grid = features.transpose(1, 2).unflatten(2, (CODE_GRID, CODE_GRID))
        return self.decoder(grid)[:, 0]

    @torch.inference_mode()
    def shapes(self, codes: Sequence[Sequence[int]]) -> np.ndarray:
        """As `decode`, from numbers to an array (N, 64, 64) of float32."""
        return self.decode(torch.tensor(codes, device=self.codebook.device)).float().cpu().numpy()
