"""Weights of 8 or 4 bits that become numbers of the activations' type inside the product: for devices whose memory is slower than their
arithmetic. Activations are not rounded.

    int8   a float32 scale an output            codes (out, in) int8             weight = code * scale
    int4   a float16 scale a group of 128       codes (out, groups, 64) uint8    weight = (code - 8) * scale

A byte of int4 holds input j of its group in the low half and input 64 + j in the high one. So a product is two, one with each half of the
inputs, and no weight is ever put together from two bytes: all of it is arithmetic on the codes as they lie, which a compiler fuses into the
product. Without a compiler the numbers are written out first: right, and slow. The decoder's matrices and the tied table are quantized, the
table once for both of its uses; the image tower stays as it is, for its time goes into arithmetic.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .paligemma import PaliGemma
from .targets import linear_layers, swap

Kind = Literal["int8", "int4"]
GROUP = 128
"""Inputs that share a scale at 4 bits; the last group is filled up with zeros."""
HALF = GROUP // 2
PIECE = 2**24
"""Weights worked on at a time, in float32."""


class Matrix(nn.Module):
    """(out, in) in few bits, made of a weight of any float type, which is that of what is read from it."""

    codes: Tensor
    scales: Tensor
    _like: Tensor

    def __init__(self, weight: Tensor, kind: Kind):
        super().__init__()
        self.kind, (self.out_features, self.in_features) = kind, weight.shape
        step = max(1, PIECE // self.in_features)
        code = _to_int8 if kind == "int8" else _to_int4
        codes, scales = zip(*(code(weight[at : at + step].detach().float()) for at in range(0, len(weight), step)), strict=True)
        self.register_buffer("codes", torch.cat(codes))
        self.register_buffer("scales", torch.cat(scales))
        self.register_buffer("_like", weight.detach().new_empty(0), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The matrix as it was rounded; unpacked each time it is asked for."""
        return self.read(slice(None))

    def read(self, rows: slice | Tensor) -> Tensor:
        """Rows of the matrix, (n, in); or (..., in) of ids of any shape."""
        codes, scales, dtype = self.codes[rows], self.scales[rows], self._like.dtype
        if self.kind == "int8":
            return (codes * scales[..., None]).to(dtype)
        whole = torch.cat([_numbers(codes & 15, scales, dtype), _numbers(codes >> 4, scales, dtype)], -1)
        return whole.flatten(-2)[..., : self.in_features]

    def product(self, x: Tensor, rows: slice | Tensor | None = None) -> Tensor:
        """x (..., in) -> (..., out), or some outputs only."""
        codes, scales = (self.codes, self.scales) if rows is None else (self.codes[rows], self.scales[rows])
        if self.kind == "int8":
            return (F.linear(x, codes.to(x.dtype)) * scales).to(x.dtype)
        low, high = F.pad(x, (0, -self.in_features % GROUP)).unflatten(-1, (-1, 2, HALF)).unbind(-2)
        product = F.linear(low.flatten(-2), _numbers(codes & 15, scales, x.dtype).flatten(-2))
        return product + F.linear(high.flatten(-2), _numbers(codes >> 4, scales, x.dtype).flatten(-2))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.kind}"


class WeightOnlyLinear(Matrix):
    """`nn.Linear` without a bias."""

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x)


class WeightOnlyTable(Matrix):
    """`gemma.Table`."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.read(ids)


def quantize(model: PaliGemma, kind: Kind) -> int:
    """Swap the decoder's layers and its table in place, one after the other; returns how many.

    Raises `UsageError` for another kind, and for layers that are not plain: that have an adapter, or are quantized or rearranged already.
    """
    if kind not in get_args(Kind):
        raise UsageError(f"weights become {' or '.join(get_args(Kind))}, not {kind!r}")
    layers = linear_layers(model, ("language",))
    for name, layer in layers.items():
        if not isinstance(layer, nn.Linear):
            raise UsageError(
                f"{name} is a {type(layer).__name__}, which cannot be quantized", hint="quantize a model that was just loaded"
            )  # fmt: skip
    for name, layer in layers.items():
        swap(model, name, WeightOnlyLinear(layer.weight, kind))  # pyright: ignore[reportArgumentType]
    swap(model, "text.embed", WeightOnlyTable(model.text.embed.weight, kind))
    return len(layers) + 1


def _numbers(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Half bytes (..., groups, 64) and a scale a group -> weights."""
    return (codes.to(dtype) - 8) * scales.to(dtype)[..., None]


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight.abs().amax(1) / 127
    return (weight / _divisor(scales)).round().to(torch.int8), scales


def _to_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The number of largest magnitude becomes -8 whatever its sign, for a scale may be negative: all 16 codes are of use."""
    groups = F.pad(weight, (0, -weight.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)).squeeze(-1)
    scales = (largest / -8).half()
    codes = (groups / _divisor(scales.float())).round().clamp(-8, 7).add(8).to(torch.uint8)
    return codes[..., :HALF] | codes[..., HALF:] << 4, scales


def _divisor(scales: Tensor) -> Tensor:
    """Weights that are all zero stay zero."""
    return torch.where(scales == 0, 1.0, scales)[..., None]
