"""Faster bfloat16 on a CPU, with no compiler on the user's machine: activations fused into matrix products, weights packed when it pays.

Fused: the MLPs' products apply the activation to what they have just computed, while it is in the cache. One rounding less, too.
Packed: `nn.Linear` hands oneDNN a row-major matrix, which its kernels for few rows read at half the speed of memory. In oneDNN's own block
order they read at nearly all of it. Rearranging a matrix costs about twenty such products (and gains nothing for many rows), so a layer
does it only after `PATIENCE` of them, one block of the decoder per token, and lets the row-major matrix go.

Measured in docs/performance.md. Results agree with the plain layers within bfloat16 rounding. Such a model answers; it cannot be trained.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import cpu, gemma, siglip, strip_linear
from .paligemma import PaliGemma
from .strip_linear import StripLinear

FEW = 64
"""Inputs of fewer rows are decoding: their time goes into reading the matrix, not into arithmetic."""
PATIENCE = 16
"""Products with few rows before the first block is packed; the next block waits for one more, and so on (see `pack`)."""
FULL = {"plain": 2, "packed": 4}
"""Inputs of fewer rows are filled up: oneDNN's kernels for a single row, or for three in a packed matrix, read memory more slowly."""


def can_pack(linear: nn.Linear) -> bool:
    """Whether this layer gains: bfloat16, on a CPU for which oneDNN has bfloat16 kernels of its own."""
    weight = linear.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and cpu.has_bfloat16()
        and not torch.ops.mkldnn._is_mkldnn_acl_supported()  # Arm's library has its own order; not measured
    )


def pack(model: PaliGemma) -> int:
    """Swap both towers' layers in place for fast ones wherever `can_pack`; return how many. Takes no time and no memory by itself, for
    layers are packed while they work; until they all are, a repeated question may get another answer within bfloat16 rounding.

    The projector and the tied embedding table stay: one is small, the other is also read row by row. On a CPU that cannot multiply
    bfloat16 all layers become `StripLinear`, the projector too; those that read pictures are never packed: it gains
    little for hundreds of rows, and packed matrices take more memory.
    """
    count = 0
    if isinstance(model.projector, nn.Linear) and strip_linear.gains(model.projector):
        model.vision.patch_embed = strip_linear.FloatConv(model.vision.patch_embed)  # pyright: ignore[reportAttributeAccessIssue]
        projector = StripLinear(model.projector, strip_linear.NEVER)
        model.projector = projector  # pyright: ignore[reportAttributeAccessIssue]
        count = 1
    for block in model.vision.blocks:
        count += _swap(block, PATIENCE, strip_linear.NEVER)
    for number, block in enumerate(model.text.blocks):  # not all at once, so that no token waits for the whole model
        count += _swap(block, PATIENCE + number, strip_linear.PATIENCE + 8 * number)
    return count


def _swap(module: nn.Module, products: int, rows: int) -> int:
    """Swap the layers in a block; they are packed after so many products with few rows, or so many rows where there is no bfloat16."""
    count = 0
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear) and (fast := _fast(child, products, rows)) is not None:
            setattr(module, name, fast)
            count += 1
        elif inside := _swap(child, products, rows):
            count += inside
            layers: Any = dict(child.named_children())
            if isinstance(child, gemma.GatedMlp):
                setattr(module, name, FastGatedMlp(**layers))
            elif isinstance(child, siglip.Mlp):
                setattr(module, name, FastMlp(**layers))
    return count


def _fast(linear: nn.Linear, products: int, rows: int) -> FastLinear | StripLinear | None:
    if can_pack(linear):
        return FastLinear(linear, products)
    if strip_linear.gains(linear):
        return StripLinear(linear, rows)
    return None


class FastLinear(nn.Module):
    """`nn.Linear` for inference. `state_dict()` holds what the plain layer's does, rearranged back on the way out where needed.

    `patience`: products with few rows before the matrix is packed; 0: now.
    """

    def __init__(self, linear: nn.Linear, patience: int = PATIENCE):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self._matrix: tuple[Tensor, bool] = (linear.weight.detach(), False)  # and whether it is packed
        self._patience = patience
        if patience == 0:
            self._pack()

    @property
    def weight(self) -> Tensor:
        """The row-major matrix (out, in); of a packed layer, a copy."""
        matrix, packed = self._matrix
        return matrix.to_dense() if packed else matrix

    @property
    def packed(self) -> bool:
        return self._matrix[1]

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        return self._product(x)

    def gelu(self, x: Tensor) -> Tensor:
        """gelu_tanh of `forward`, rounded to bfloat16 once instead of twice."""
        return self._product(x, "gelu", "tanh")

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """`forward`, times a factor (..., out), rounded once instead of twice."""
        return self._product(x, factor=factor)

    def _product(self, x: Tensor, activation: str = "none", algorithm: str = "", factor: Tensor | None = None) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("this model was made for answering and cannot be trained: load it again, or use torch.inference_mode()")
        rows = x.reshape(-1, self.in_features)
        count = rows.shape[0]
        matrix, packed = self._for(count)
        missing = FULL["packed" if packed else "plain"] - count
        if missing > 0:
            rows = F.pad(rows, (0, 0, 0, missing))
        if factor is None:
            out = torch.ops.mkldnn._linear_pointwise(rows, matrix, self.bias, activation, [], algorithm)
        else:
            factor = factor.reshape(-1, self.out_features)
            if missing > 0:
                factor = F.pad(factor, (0, 0, 0, missing))
            out = torch.ops.mkldnn._linear_pointwise.binary(rows, factor, matrix, self.bias, "mul")
        return out[:count].view(*x.shape[:-1], self.out_features)

    def _for(self, rows: int) -> tuple[Tensor, bool]:
        if not self.packed and rows < FEW:
            self._patience -= 1
            if self._patience < 0:
                self._pack()
        return self._matrix

    def _pack(self) -> None:
        self._matrix = torch.ops.mkldnn._reorder_linear_weight(self._matrix[0], FULL["packed"]), True

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight


class FastGatedMlp(nn.Module):
    """`gemma.GatedMlp` of fast layers: down(gelu_tanh(gate(x)) * up(x))."""

    def __init__(self, gate: FastLinear | StripLinear, up: FastLinear | StripLinear, down: FastLinear | StripLinear):
        super().__init__()
        self.gate, self.up, self.down = gate, up, down

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up.times(x, self.gate.gelu(x)))


class FastMlp(nn.Module):
    """`siglip.Mlp` of fast layers: down(gelu_tanh(up(x)))."""

    def __init__(self, up: FastLinear | StripLinear, down: FastLinear | StripLinear):
        super().__init__()
        self.up, self.down = up, down

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up.gelu(x))
