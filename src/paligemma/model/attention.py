"""One attention for the image tower and the decoder, for training, prefill and decoding. Axes: B batch, T query, S key, H head size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MASKED = -2.3819763e38
"""What a hidden logit becomes: finite, so that a row which sees nothing (padding) stays finite too; as in the reference."""


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, scale: float | None = None, softcap: float | None = None
) -> Tensor:
    """q (B, N, T, H), k and v (B, K, S, H) with K dividing N, mask bool (B, 1, T, S) or None for "all visible" -> (B, N, T, H).

    `scale` defaults to H ** -0.5. Scores and their softmax are float32. Torch's fused kernel serves wherever it can: it knows no
    soft-cap, and its backward pass on a CPU is far slower than plain products, so training there goes the plain way.
    """
    batch, heads, length, size = q.shape
    groups = heads // k.shape[1]
    scale = size**-0.5 if scale is None else scale
    plain = softcap is not None or (q.device.type == "cpu" and torch.is_grad_enabled())
    if not plain and k.shape[1] == 1 and mask is None:
        # One key/value head for all: the query heads become more queries, and nothing is repeated in memory.
        return F.scaled_dot_product_attention(q.reshape(batch, 1, heads * length, size), k, v, scale=scale).view(q.shape)
    if not plain:
        fill = None if mask is None else torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, MASKED)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=fill, scale=scale, enable_gqa=groups > 1)
    q = q.reshape(batch, k.shape[1], groups * length, size)
    scores = (q @ k.transpose(-1, -2)).float() * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.unflatten(2, (groups, length)).masked_fill(~mask[:, :, None], MASKED).flatten(2, 3)
    return (scores.softmax(-1).to(v.dtype) @ v).view(batch, heads, length, size)
