"""SigLIP image tower: pixels in [-1, 1] -> one vector per patch. No pooling, no class token, no projection.

Its layers are those of SigLIP's text tower and pooling head too (`dual_encoder.py`).
Axes: B batch, P patches, D width, N heads, H head size. Source: big_vision `models/vit.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import TextTowerConfig, VisionConfig
from . import recompute
from .attention import attention


class SelfAttention(nn.Module):
    """Every patch sees every patch; all four projections have a bias. `seen`: what is looked at, by default `x` itself."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        seen = x if seen is None else seen
        projected = (self.q(x), self.k(seen), self.v(seen))
        q, k, v = (heads.unflatten(-1, (self.heads, -1)).transpose(1, 2) for heads in projected)
        return self.out(attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config: VisionConfig | TextTowerConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = SelfAttention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config.width, config.mlp_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SigLIP(nn.Module):
    """pixels (B, 3, image_size, image_size) in [-1, 1] -> (B, P, width), patches row by row from the top left.

    `recompute`: see `recompute.run`.
    """

    recompute = False

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        self.patch_embed = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(config.num_tokens, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        size = self.config.image_size
        if pixels.shape[-3:] != (3, size, size):
            raise ValueError(f"this image tower takes pictures of shape (3, {size}, {size}), got {tuple(pixels.shape[-3:])}")
        x = self.patch_embed(pixels).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = recompute.run(block, self.recompute, x)
        return self.norm(x)
