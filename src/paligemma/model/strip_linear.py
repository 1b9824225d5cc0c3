"""bfloat16 weights on a CPU that cannot multiply them (AVX2): products in float32, memory as before.

    many rows   a strip of the matrix at a time becomes float32, in a buffer that fits the cache, and is multiplied there
    few rows    torch's kernel for a single row, row by row: it reads bfloat16 as it comes
    later on    the matrix is packed once for FBGEMM's kernels, which read half precision and are faster for any number of rows

Packing a matrix takes as long as some hundred products with one row, so a layer does it only after `PATIENCE` rows, and lets the original
go. It keeps 11 bits where bfloat16 has 8: nothing is lost but the last bits of numbers below 1e-5. Measured in docs/performance.md.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import cpu

STRIP = 2**20
"""Numbers of a strip: 4 MB."""
MANY = 4
"""From so many rows on, strips are faster than row by row."""
PATIENCE = 256
"""Rows multiplied before a matrix is packed, those of one input counted up to `COUNTED`: packing gains more for few rows than for many."""
COUNTED = 48
PIECE = 2**23
"""Numbers of a matrix that are packed at a time: FBGEMM wants them in float32 first, which is 32 MB more for a moment."""
NEVER = 2**62
"""More rows than any layer will see."""
LARGEST = 65504.0
"""Of half precision. A matrix with larger numbers stays as it is."""


def gains(linear: nn.Linear) -> bool:
    """Whether this layer's matrix is bfloat16 on a CPU without bfloat16 products."""
    return linear.weight.device.type == "cpu" and linear.weight.dtype == torch.bfloat16 and not cpu.has_bfloat16()


class StripLinear(nn.Module):
    """`nn.Linear` for inference: bfloat16 in and out, float32 in between. `state_dict()` holds what the plain layer's does.

    `patience`: rows before the matrix is packed; 0: now.
    """

    def __init__(self, linear: nn.Linear, patience: int = PATIENCE):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self.bias: Tensor | None
        self._matrix: Tensor | None = linear.weight.detach()
        self._packed: list[Any] = []
        self._patience = patience
        if patience == 0:
            self._pack(self._matrix)

    @property
    def weight(self) -> Tensor:
        """The row-major matrix (out, in), bfloat16; of a packed layer, a copy."""
        if self._matrix is not None:
            return self._matrix
        return torch.cat([torch.ops.quantized.linear_unpack_fp16(piece)[0].to(torch.bfloat16) for piece in self._packed])

    @property
    def packed(self) -> bool:
        return bool(self._packed)

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
        if self._matrix is not None:
            self._patience -= min(len(rows), COUNTED)
            if self._patience < 0:
                self._pack(self._matrix)
        if self._matrix is None:
            whole = rows.float()
            parts = [torch.ops.quantized.linear_dynamic_fp16(whole, piece) for piece in self._packed]
            out = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        elif len(rows) < MANY:
            out = F.linear(rows, self._matrix, self.bias).float()
        else:
            out = self._by_strips(rows.float(), self._matrix)
        return out.view(*x.shape[:-1], self.out_features)

    def _by_strips(self, rows: Tensor, matrix: Tensor) -> Tensor:
        out = rows.new_empty(len(rows), self.out_features)
        height = max(1, STRIP // self.in_features)
        strip = rows.new_empty(min(height, self.out_features), self.in_features)
        for start in range(0, self.out_features, height):
            part = matrix[start : start + height]
            torch.mm(rows, strip[: len(part)].copy_(part).mT, out=out[:, start : start + height])
        return out if self.bias is None else out.add_(self.bias)

    def _pack(self, matrix: Tensor) -> None:
        if not _can_pack() or max(abs(float(end)) for end in matrix.aminmax()) > LARGEST:
            self._patience = NEVER
            return
        height = max(1, PIECE // self.in_features)
        # One buffer for all pieces: as many that come and go would leave holes between the packed ones.
        buffer = matrix.new_empty(max(PIECE, self.in_features), dtype=torch.float32)
        for start in range(0, self.out_features, height):
            part = matrix[start : start + height]
            whole = buffer[: part.numel()].view(part.shape).copy_(part)
            bias = None if self.bias is None else self.bias[start : start + height].float()
            self._packed.append(torch.ops.quantized.linear_prepack_fp16(whole, bias))
        self._matrix = None

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight


def _can_pack() -> bool:
    """Whether this torch was built with FBGEMM (x86 builds are)."""
    return "fbgemm" in torch.backends.quantized.supported_engines and hasattr(torch.ops.quantized, "linear_prepack_fp16")


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
