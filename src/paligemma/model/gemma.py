"""Gemma 1 and Gemma 2 decoder, told apart by configuration only: embeddings in, hidden states out; logits on request.

One attention serves training, prefill and decoding. Which token sees which is decided by the caller's mask (see `paligemma.py`).
Axes: B batch, T query, S key, N query heads, K key/value heads, H head size, D width, V vocabulary.
Source: big_vision `models/ppp/gemma.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import TextConfig
from . import recompute
from .attention import attention
from .kv_cache import KVCache


class RMSNorm(nn.Module):
    """x / rms(x) * (1 + weight), computed in float32; the stored weight is the offset from one."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), 1.0 + self.weight.float(), self.eps).to(x.dtype)


def rotary_table(positions: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """positions (B, T) -> cos and sin (B, 1, T, H/2), float32."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angle = positions[:, None, :, None].float() / base**exponent
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in Gemma's layout: element i of the first half pairs with element i of the second half. x (B, n, T, H)."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        width, size = config.width, config.head_dim
        self.q = nn.Linear(width, config.heads * size, bias=False)
        self.k = nn.Linear(width, config.kv_heads * size, bias=False)
        self.v = nn.Linear(width, config.kv_heads * size, bias=False)
        self.o = nn.Linear(config.heads * size, width, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int, keep: int) -> Tensor:
        """All of x (B, T, D) gives keys and values, the last `keep` tokens ask: -> (B, keep, D)."""
        c = self.config
        q, k = self.queries_and_keys(x, rope, keep)
        v = self.v(x).unflatten(-1, (c.kv_heads, c.head_dim)).transpose(1, 2)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        mask = None if mask is None else mask[:, :, -keep:]
        return self.o(attention(q, k, v, mask, scale=c.scale, softcap=c.attn_softcap).transpose(1, 2).flatten(2))

    def queries_and_keys(self, x: Tensor, rope: tuple[Tensor, Tensor], keep: int) -> tuple[Tensor, Tensor]:
        """x (B, T, D) -> queries of the last `keep` tokens (B, N, keep, H) and keys of all (B, K, T, H), both rotated."""
        c = self.config
        cos, sin = rope
        q = self.q(x[:, -keep:]).unflatten(-1, (c.heads, c.head_dim)).transpose(1, 2)
        k = self.k(x).unflatten(-1, (c.kv_heads, c.head_dim)).transpose(1, 2)
        return rotate(q, cos[:, :, -keep:], sin[:, :, -keep:]), rotate(k, cos, sin)


class GatedMlp(nn.Module):
    """GeGLU: down(gelu_tanh(gate(x)) * up(x))."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.gate(x), approximate="tanh") * self.up(x))


class Block(nn.Module):
    """Pre-norm block; Gemma 2 also normalises what each half adds.

    `drop`, in training only and off unless its `p` is set, drops numbers of what each half adds, as the reference's block does.
    """

    def __init__(self, config: TextConfig):
        super().__init__()

        def norm() -> nn.Module:
            return RMSNorm(config.width, config.norm_eps)

        self.pre_attn_norm = norm()
        self.attn = Attention(config)
        self.post_attn_norm = norm() if config.post_norms else nn.Identity()
        self.pre_mlp_norm = norm()
        self.mlp = GatedMlp(config.width, config.mlp_dim)
        self.post_mlp_norm = norm() if config.post_norms else nn.Identity()
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int, keep: int) -> Tensor:
        x = x[:, -keep:] + self.drop(self.post_attn_norm(self.attn(self.pre_attn_norm(x), rope, mask, cache, layer, keep)))
        return x + self.drop(self.post_mlp_norm(self.mlp(self.pre_mlp_norm(x))))


class Table(nn.Embedding):
    """The embedding table, tied: it is read row by row, and multiplied with states."""

    def product(self, hidden: Tensor, rows: slice | Tensor | None = None) -> Tensor:
        """hidden (..., D) -> (..., V), or of some rows only."""
        return F.linear(hidden, self.weight if rows is None else self.weight[rows])


class Gemma(nn.Module):
    """Embeddings (B, T, D) -> hidden states after the final norm (B, T, D). `recompute`: see `recompute.run`."""

    recompute = False

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        self.embed = Table(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width, config.norm_eps)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> (B, T, D), times sqrt(D) rounded to the table's dtype, as in the reference."""
        x = self.embed(ids)
        return x * torch.tensor(self.config.width**0.5, dtype=x.dtype, device=x.device)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None, cache: KVCache | None = None, keep: int | None = None) -> Tensor:
        """x (B, T, D), positions (B, T), mask bool (B, 1, T or 1, S) or None -> final states of the last `keep` tokens (default all).

        The last layer computes its queries and MLP for those tokens only: the others' results would feed nothing.
        """
        length = x.shape[1]
        keep = length if keep is None else keep
        rope = rotary_table(positions, self.config.head_dim, self.config.rope_base)
        for layer, block in enumerate(self.blocks):
            x = recompute.run(block, self.recompute, x, rope, mask, cache, layer, keep if layer == len(self.blocks) - 1 else length)
        return self.norm(x)

    def logits(self, hidden: Tensor, rows: slice | Tensor | None = None) -> Tensor:
        """hidden (..., D) -> (..., V) from the tied embedding table; `rows` computes only those tokens' logits."""
        out = self.embed.product(hidden, rows)
        cap = self.config.final_softcap
        return out if cap is None else cap * torch.tanh(out / cap)
