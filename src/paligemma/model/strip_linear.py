"""bfloat16 weights on a CPU that cannot multiply them: a strip of the matrix at a time becomes float32, in a buffer that fits the cache.

Memory stays that of bfloat16, the products are float32's. A few rows go to torch's own kernel, which reads bfloat16 as it comes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import cpu

STRIP = 2**20
"""Numbers of a strip: 4 MB."""
MANY = 4
"""From so many rows on, strips are faster than torch's kernel for one row, row by row."""


def gains(linear: nn.Linear) -> bool:
    """Whether this layer's matrix is bfloat16 on a CPU without bfloat16 products."""
    return linear.weight.device.type == "cpu" and linear.weight.dtype == torch.bfloat16 and not cpu.has_bfloat16()


class StripLinear(nn.Module):
    """`nn.Linear` for inference: bfloat16 in and out, float32 in between. `state_dict()` holds what the plain layer's does."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", linear.weight.detach())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self.weight: Tensor
        self.bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        return self._product(x).to(x.dtype)

    def gelu(self, x: Tensor) -> Tensor:
        """gelu_tanh of `forward`, rounded to bfloat16 once instead of twice."""
        return F.gelu(self._product(x), approximate="tanh").to(x.dtype)

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """`forward`, times a factor (..., out), rounded once instead of twice."""
        return self._product(x).mul_(factor).to(x.dtype)

    def _product(self, x: Tensor) -> Tensor:
        """float32, (..., out)."""
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("this model was made for answering and cannot be trained: load it again, or use torch.inference_mode()")
        rows = x.reshape(-1, self.in_features)
        out = F.linear(rows, self.weight, self.bias).float() if len(rows) < MANY else self._by_strips(rows)
        return out.view(*x.shape[:-1], self.out_features)

    def _by_strips(self, rows: Tensor) -> Tensor:
        rows = rows.float()
        out = rows.new_empty(len(rows), self.out_features)
        height = max(1, STRIP // self.in_features)
        strip = rows.new_empty(min(height, self.out_features), self.in_features)
        for start in range(0, self.out_features, height):
            part = self.weight[start : start + height]
            torch.mm(rows, strip[: len(part)].copy_(part).mT, out=out[:, start : start + height])
        return out if self.bias is None else out.add_(self.bias)


class FloatConv(nn.Module):
    """The image tower's patches: `nn.Conv2d` with bfloat16 weights, computed in float32."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.stride = conv.stride
        self.register_buffer("weight", conv.weight.detach())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self.weight: Tensor
        self.bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return F.conv2d(x.float(), self.weight.float(), bias, self.stride).to(x.dtype)  # pyright: ignore[reportArgumentType]
