"""SigLIP image tower and projector on arrays: pixels -> image tokens. Source: big_vision `models/vit.py`; `model/siglip.py` in PyTorch.

Axes: B pictures, P patches, W the tower's width, D the decoder's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..config import PaliGemmaConfig
from .layers import Kernels, Plain, Quantized, matrix
from .pack_file import Arrays
from .packing import Floats

PICTURES = 4
"""That go through at a time: more make no product faster, and take memory."""


class Tower:
    def __init__(self, arrays: Arrays, config: PaliGemmaConfig, kernels: Kernels):
        v = config.vision
        self.config, self.kernels = v, kernels
        patch = 3 * v.patch_size**2

        def layer(name: str, outputs: int, inputs: int) -> tuple[Quantized | Plain, Floats]:
            return matrix(arrays, f"{name}.weight", (outputs, inputs), kernels), arrays.numbers(f"{name}.bias", (outputs,))

        def norm(name: str) -> tuple[Floats, Floats]:
            return arrays.numbers(f"{name}.weight", (v.width,)), arrays.numbers(f"{name}.bias", (v.width,))

        self.patches = layer("vision.patch_embed", v.width, patch)
        self.positions = arrays.numbers("vision.pos_embed", (v.num_tokens, v.width))
        self.blocks: list[dict[str, Any]] = [
            {
                "norm1": norm(f"vision.blocks.{i}.norm1"),
                "qkv": layer(f"vision.blocks.{i}.attn.qkv", 3 * v.width, v.width),
                "out": layer(f"vision.blocks.{i}.attn.out", v.width, v.width),
                "norm2": norm(f"vision.blocks.{i}.norm2"),
                "up": layer(f"vision.blocks.{i}.mlp.up", v.mlp_dim, v.width),
                "down": layer(f"vision.blocks.{i}.mlp.down", v.width, v.mlp_dim),
            }
            for i in range(v.depth)
        ]
        self.norm = norm("vision.norm")
        self.projector = layer("projector", config.text.width, v.width)

    def __call__(self, pixels: Floats) -> Floats:
        """pixels (B, 3, S, S) in [-1, 1] -> (B, P, D)."""
        size = self.config.image_size
        if pixels.shape[1:] != (3, size, size):
            raise ValueError(f"this image tower takes pictures of shape (3, {size}, {size}), got {pixels.shape[1:]}")
        return np.concatenate([self._some(pixels[at : at + PICTURES]) for at in range(0, len(pixels), PICTURES)])

    def _some(self, pixels: Floats) -> Floats:
        v, kernels, batch = self.config, self.kernels, len(pixels)
        side, grid = v.patch_size, v.grid
        whole = pixels[:, :, : grid * side, : grid * side]  # what is left over at the edges is not looked at
        cut = whole.reshape(batch, 3, grid, side, grid, side).transpose(0, 2, 4, 1, 3, 5)
        weights, bias = self.patches
        x = weights.linear(np.ascontiguousarray(cut.reshape(batch * grid * grid, -1)), bias)
        x += np.tile(self.positions, (batch, 1))
        lengths = np.full(batch, v.num_tokens, np.int64)
        for block in self.blocks:
            weights, bias = block["qkv"]
            qkv = weights.linear(kernels.layer_norm(x, *block["norm1"], v.norm_eps), bias)
            parts = qkv.reshape(batch, v.num_tokens, 3, v.heads, -1)
            q, k, own = (np.ascontiguousarray(parts[:, :, i]) for i in range(3))
            seen = kernels.attention(q, k, own, lengths, scale=q.shape[-1] ** -0.5)
            weights, bias = block["out"]
            x += weights.linear(seen.reshape(len(x), -1), bias)
            weights, bias = block["up"]
            hidden = weights.linear(kernels.layer_norm(x, *block["norm2"], v.norm_eps), bias, gelu=True)
            weights, bias = block["down"]
            x += weights.linear(hidden, bias)
        weights, bias = self.projector
        return weights.linear(kernels.layer_norm(x, *self.norm, v.norm_eps), bias).reshape(batch, v.num_tokens, -1)
