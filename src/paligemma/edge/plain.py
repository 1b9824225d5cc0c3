"""The kernels in numpy: what they compute, written down, and what serves where they could not be compiled.

Axes: M rows, B batch, T query, S key, N query heads, K key/value heads, H head size. Everything is float32 and row-major. The functions
are those of `native.Kernels`; there they run in C++ and check their arguments.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bfloat16 import from_bfloat16, to_bfloat16
from .packing import Floats, Packed, Rows, dequantize, embed, ids_of

__all__ = [
    "attention", "embed", "from_bfloat16", "gated", "gelu", "layer_norm", "linear", "linear_rows", "log_sum_exp", "quantize_rows",
    "rms_norm", "rotary_table", "rotate", "soft_cap", "to_bfloat16",
]  # fmt: skip

PIECE = 2**24
"""Weights, or scores of attention, held as float32 at once."""


def quantize_rows(x: Floats, group: int) -> tuple[NDArray[np.int8], Floats]:
    """x (M, inputs) -> int8 of the same shape and scales (M, groups), 127 for the largest magnitude of a row in a group of inputs.

    So an activation moves by at most half a scale, 1/254 of the largest beside it. A row with a value that is no number in a group gets a
    scale that is none, and all its products are none; magnitudes under 1e-30 count as zero.
    """
    blocks = np.pad(x, ((0, 0), (0, -x.shape[1] % group))).reshape(len(x), -(-x.shape[1] // group), group)
    finite = np.logical_and.reduce(np.isfinite(blocks), axis=2)
    extremes = np.where(finite, np.abs(blocks).max(axis=2), 0)
    some = extremes >= 1e-30
    inverses = np.divide(np.float32(127), extremes, out=np.zeros_like(extremes), where=some)
    with np.errstate(invalid="ignore"):
        values = np.where(finite[:, :, None], np.rint(blocks * inverses[:, :, None]), 0).astype(np.int8)
    scales = np.where(finite, np.where(some, extremes / np.float32(127), 0), np.nan).astype(np.float32)
    return values.reshape(len(x), blocks.shape[1] * group)[:, : x.shape[1]], scales


def linear(packed: Packed, x: Floats, bias: Floats | None = None, *, gelu: bool = False) -> Floats:
    """x (M, inputs) -> (M, outputs): x, quantized by rows and groups, times the matrix, plus bias (outputs,), through gelu if asked."""
    values, scales = quantize_rows(x, packed.group)
    rounded = dequantize(values, scales, packed.group)
    step = max(1, PIECE // packed.inputs)
    pieces = [rounded @ embed(packed, [range(i, min(i + step, packed.outputs))]).T for i in range(0, packed.outputs, step)]
    out = np.concatenate(pieces, axis=1)
    if bias is not None:
        out += bias
    return _gelu(out) if gelu else out


def gated(gate: Packed, up: Packed, x: Floats) -> Floats:
    """gelu(x gate) * (x up), the first half of Gemma's MLP: (M, inputs) -> (M, outputs)."""
    return linear(gate, x, gelu=True) * linear(up, x)


def linear_rows(packed: Packed, x: Floats, rows: Rows) -> Floats:
    """`linear`, of some outputs only: (M, inputs) -> (M, len(rows)), in their order."""
    values, scales = quantize_rows(x, packed.group)
    return dequantize(values, scales, packed.group) @ embed(packed, ids_of(packed.outputs, rows)).T


def attention(
    q: Floats,
    keys: NDArray[Any],
    values: NDArray[Any],
    lengths: NDArray[np.int64],
    *,
    scale: float,
    softcap: float | None = None,
) -> Floats:
    """q (B, T, N, H) over the first lengths[b] keys and values (B, S, K, H), float32 or the bits of bfloat16 in uint16 -> (B, T, N, H).

    K divides N; query head n reads key/value head n // (N / K). There is no mask: every query sees all of those keys.
    """
    batch, queries, heads, _ = q.shape
    out = np.empty_like(q)
    for b in range(batch):
        k, v = (from_bfloat16(part[b, : lengths[b]]) if part.dtype == np.uint16 else part[b, : lengths[b]] for part in (keys, values))
        for head in range(heads):
            own = head // (heads // keys.shape[2])
            step = max(1, PIECE // int(lengths[b]))
            for t in range(0, queries, step):
                scores = q[b, t : t + step, head] @ k[:, own].T * np.float32(scale)
                if softcap is not None:
                    scores = soft_cap(scores, softcap)
                scores = np.exp(scores - scores.max(axis=1, keepdims=True))
                out[b, t : t + step, head] = scores @ v[:, own] / scores.sum(axis=1, keepdims=True)
    return out


def rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    """x / sqrt(mean x^2 + eps) * (1 + weight) for each row of x (M, width)."""
    return x * (1 / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + np.float32(eps))) * (1 + weight)


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """(x - mean) / sqrt(variance + eps) * weight + bias for each row of x (M, width)."""
    centred = x - x.mean(axis=1, keepdims=True)
    return centred * (1 / np.sqrt(np.mean(centred * centred, axis=1, keepdims=True) + np.float32(eps))) * weight + bias


def rotary_table(positions: NDArray[Any], size: int, base: float = 10_000.0) -> tuple[Floats, Floats]:
    """positions (M,) -> cos and sin (M, size / 2) for `rotate`."""
    frequencies = base ** (-np.arange(0, size, 2) / size)
    angles = positions[:, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(x: Floats, cos: Floats, sin: Floats) -> Floats:
    """Rotary embedding in Gemma's layout, x (M, heads, H): element i of the first half turns with element i of the second."""
    half = x.shape[2] // 2
    first, second, cos, sin = x[..., :half], x[..., half:], cos[:, None], sin[:, None]
    out = np.empty(x.shape, np.float32)
    out[..., :half] = first * cos - second * sin
    out[..., half:] = second * cos + first * sin
    return out


def gelu(x: Floats) -> Floats:
    """The tanh approximation, x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))); any shape."""
    with np.errstate(over="ignore"):
        cubic = x + np.float32(0.044715) * x * x * x
    return np.float32(0.5) * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * cubic))


_gelu = gelu


def soft_cap(x: Floats, cap: float) -> Floats:
    """cap tanh(x / cap); any shape."""
    return np.float32(cap) * np.tanh(x / np.float32(cap))


def log_sum_exp(x: Floats) -> Floats:
    """ln of the sum of e^x of each row: x (M, width) -> (M,)."""
    top = x.max(axis=1)
    return top + np.log(np.exp(x - top[:, None]).sum(axis=1))
