"""One attention for the image tower and the decoder, for training, prefill and decoding.

Axes: B batch, T query, S key, N query heads, K key/value heads, G = N / K, H head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cpu

MASKED = -2.3819763e38
"""What a hidden logit becomes: finite, so that a row which sees nothing (padding) stays finite too; as in the reference. Where it is added
to a score instead of put in its place, half of the number type's range will do."""

MAX_SCORES = 2**24
"""Scores held at once where no fused kernel serves (64 MB): longer sequences go through in slices of their queries, unless gradients
need all of them anyway."""


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, scale: float | None = None, softcap: float | None = None
) -> Tensor:
    """q (B, N, T, H), k and v (B, K, S, H) with K dividing N -> (B, N, T, H).

    mask is bool (B, 1, T, S), or (B, 1, 1, S) where all queries see the same, or None for "all visible". `scale` defaults to H ** -0.5.
    Scores and their softmax are float32. Torch's fused kernel serves wherever it can: it knows no soft-cap, and its backward pass on a
    CPU is far slower than plain products, so training there goes the plain way.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    groups = q.shape[1] // k.shape[1]
    # Query heads that share a key/value head become more queries of it, so that keys and values are never repeated in memory: decoding
    # with one key/value head is more than ten times faster this way than with the kernel's own handling of groups.
    folded = q.reshape(q.shape[0], k.shape[1], -1, q.shape[3])
    if mask is not None and mask.shape[2] > 1:
        mask = mask.repeat(1, 1, groups, 1)
    if softcap is not None or (q.device.type == "cpu" and torch.is_grad_enabled()):
        return plain_attention(folded, k, v, mask, factor, softcap).reshape(q.shape)
    bias = None if mask is None else additive_mask(mask, q.dtype)
    return F.scaled_dot_product_attention(folded, k, v, attn_mask=bias, scale=factor).reshape(q.shape)


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    fill = max(MASKED, torch.finfo(dtype).min / 2)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, fill)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    """q (B, K, G * T, H), mask (B, 1, G * T or 1, S) -> (B, K, G * T, H)."""
    keys = k.float().transpose(-1, -2)
    values = v if cpu.multiplies(v) else v.float()
    step = q.shape[2] if torch.is_grad_enabled() else max(1, MAX_SCORES // (k.shape[0] * k.shape[1] * k.shape[2]))
    slices = []
    for start in range(0, q.shape[2], step):
        rows = slice(start, start + step)
        seen = mask[:, :, rows] if mask is not None and mask.shape[2] > 1 else mask
        slices.append((_weights(q[:, :, rows], keys, seen, scale, softcap).to(values.dtype) @ values).to(v.dtype))
    return slices[0] if len(slices) == 1 else torch.cat(slices, dim=2)


def _weights(q: Tensor, keys: Tensor, mask: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    """q (B, K, G * T, H), keys (B, K, H, S) in float32 -> how much of each value is taken, float32 (B, K, G * T, S); rows sum to 1."""
    scores = (q.float() @ keys) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, MASKED)
    return scores.softmax(-1)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None, *, scale: float, softcap: float | None = None) -> Tensor:
    """What `attention` multiplies the values with: float32 (B, N, T, S). Arguments as there."""
    folded = q.reshape(q.shape[0], k.shape[1], -1, q.shape[3])
    if mask is not None and mask.shape[2] > 1:
        mask = mask.repeat(1, 1, q.shape[1] // k.shape[1], 1)
    return _weights(folded, k.float().transpose(-1, -2), mask, scale, softcap).reshape(*q.shape[:3], -1)
