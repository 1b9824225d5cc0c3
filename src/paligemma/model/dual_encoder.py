"""SigLIP: a picture and a text -> vectors of unit length in one space. An image tower that is pooled, a text tower, a scale and a bias.

Axes: B batch, P patches, T text tokens, D image tower's width, W text tower's width. Vectors have D numbers.
Source: big_vision `models/vit.py` (MAPHead), `models/proj/image_text/text_transformer.py`, `models/proj/image_text/two_towers.py`;
arXiv 2303.15343.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DualEncoderConfig, TextTowerConfig, VisionConfig
from . import recompute
from .siglip import Block, Mlp, SelfAttention, SigLIP


class PoolingHead(nn.Module):
    """Attention pooling: (B, P, D) -> (B, D). One learnt probe looks at all patches, an MLP follows; the probe itself is not added."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(config.width))
        self.attn = SelfAttention(config.width, config.heads)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config.width, config.mlp_dim)

    def forward(self, patches: Tensor) -> Tensor:
        x = self.attn(self.probe.expand(len(patches), 1, -1), patches)
        return (x + self.mlp(self.norm(x)))[:, 0]


class TextTower(nn.Module):
    """ids (B, T) -> (B, D). Every token sees every other, padding too, as in training; the last one, mostly padding, is the text's vector.

    T is `config.length`: a shorter row would pool another position than the one that was trained. `recompute`: see `recompute.run`.
    """

    recompute = False

    def __init__(self, config: TextTowerConfig, dimensions: int):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.pos_embed = nn.Parameter(torch.zeros(config.length, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.head = nn.Linear(config.width, dimensions)

    def forward(self, ids: Tensor) -> Tensor:
        if ids.shape[-1] != self.config.length:
            raise ValueError(f"this text tower takes {self.config.length} tokens, padded, got {ids.shape[-1]}")
        x = self.embed(ids) + self.pos_embed
        for block in self.blocks:
            x = recompute.run(block, self.recompute, x)
        return self.head(self.norm(x[:, -1]))


class DualEncoder(nn.Module):
    """Two towers. `logit_scale` is a logarithm, as in every checkpoint: probability = sigmoid(exp(logit_scale) * similarity + logit_bias).

    Both are (1,). Scale and bias of a fresh model are those that SigLIP's training begins with.
    """

    def __init__(self, config: DualEncoderConfig):
        super().__init__()
        self.config = config
        self.vision = SigLIP(config.vision)
        self.pool = PoolingHead(config.vision)
        self.text = TextTower(config.text, config.dimensions)
        self.logit_scale = nn.Parameter(torch.full((1,), 10.0).log())
        self.logit_bias = nn.Parameter(torch.full((1,), -10.0))

    def encode_pictures(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, S, S) in [-1, 1] -> (B, D), unit length, float32."""
        return F.normalize(self.pool(self.vision(pixels)).float(), dim=-1)

    def encode_texts(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, D), unit length, float32."""
        return F.normalize(self.text(ids).float(), dim=-1)

    def logits(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Vectors (B, D) and (C, D) -> (B, C): the sigmoid of each is the probability that the two belong together."""
        return pictures @ texts.T * self.logit_scale.float().exp() + self.logit_bias.float()
