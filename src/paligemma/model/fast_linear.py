"""Faster bfloat16 matrix products on a CPU, without a compiler: weights kept in the block order that oneDNN's kernels read.

`nn.Linear` hands oneDNN a row-major matrix, which is rearranged in every call. `pack` rearranges once and lets go of the row-major copy:
decoding, which does little but read weights, then takes 0.6 of the time, and prefill 0.9 (docs/performance.md). Results agree within
bfloat16 rounding. A packed model only answers: `unpack` brings the plain layers back for training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .gemma import GatedMlp

MIN_ROWS = 4
"""Fewer rows than this are filled up: oneDNN's kernels for one to three rows read memory more slowly than the one for four."""


def can_pack(weight: Tensor) -> bool:
    """Whether `pack` helps a matrix: bfloat16, on a CPU that has instructions for it."""
    return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and torch.backends.mkldnn.is_available() and _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


class PackedLinear(nn.Module):
    """`nn.Linear` for inference. `state_dict()` is that of the layer it replaces, unpacked on the way out."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), MIN_ROWS)

    @property
    def weight(self) -> Tensor:
        """A row-major copy (out, in)."""
        return self._packed.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        return self._product(x, "none")

    def gelu(self, x: Tensor) -> Tensor:
        """gelu_tanh(forward(x)), rounded once instead of twice."""
        return self._product(x, "gelu")

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """forward(x) * factor, rounded once instead of twice."""
        filled, rows = _fill(x)
        if filled is x:
            return torch.ops.mkldnn._linear_pointwise(x, factor, self._packed, self.bias, "mul")
        return self._product(filled, "none")[:rows].view_as(factor) * factor

    def _product(self, x: Tensor, after: str) -> Tensor:
        _refuse_gradients(x)
        filled, rows = _fill(x)
        out = torch.ops.mkldnn._linear_pointwise(filled, self._packed, self.bias, after, [], "tanh" if after == "gelu" else "")
        return out if filled is x else out[:rows].view(*x.shape[:-1], self.out_features)
