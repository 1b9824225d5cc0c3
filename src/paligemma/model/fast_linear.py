"""Faster bfloat16 on a CPU, with no compiler on the user's machine: weights kept in the block order that oneDNN's kernels read.

`nn.Linear` hands oneDNN a row-major matrix, which it rearranges in every call. A packed layer rearranges it in the first call, when that
has to happen anyway, and lets the row-major matrix go; and the MLPs' products apply the activation to what they have just computed.
Decoding does little but read weights, so it gains most (docs/performance.md). Results agree with the plain layers within bfloat16
rounding. A packed model only answers; it cannot be trained.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import gemma, siglip
from .paligemma import PaliGemma

MIN_ROWS = 4
"""Inputs of fewer rows are filled up: oneDNN's kernels for one to three rows read memory more slowly than the one for four."""


def can_pack(linear: nn.Linear) -> bool:
    """Whether packing serves this layer: bfloat16, on a CPU for which oneDNN has bfloat16 kernels of its own."""
    weight = linear.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and not torch.ops.mkldnn._is_mkldnn_acl_supported()  # Arm's library has its own order; not measured
    )


def pack(model: PaliGemma) -> int:
    """Swap both towers' layers in place for packed ones wherever `can_pack`; return how many.

    Costs nothing until a layer is used; then its matrix is held twice for a moment. A mapped matrix is read from its file only once.
    The projector and the tied embedding table stay: one is small, the other is also read row by row.
    """
    count = _pack_inside(model.vision) + _pack_inside(model.text)
    if count:
        _own_the_rest(model)
    return count


def _own_the_rest(model: PaliGemma) -> None:
    """Copy what stays plain, but for the table: views of a mapped file would keep the matrices around them resident."""
    for parameter in (model.vision.patch_embed.weight, model.vision.pos_embed, model.projector.weight):
        parameter.data = parameter.data.clone()


def _pack_inside(module: nn.Module) -> int:
    count = 0
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear) and can_pack(child):
            setattr(module, name, PackedLinear(child))
            count += 1
        elif inside := _pack_inside(child):
            count += inside
            layers: Any = dict(child.named_children())
            if isinstance(child, gemma.GatedMlp):
                setattr(module, name, PackedGatedMlp(**layers))
            elif isinstance(child, siglip.Mlp):
                setattr(module, name, PackedMlp(**layers))
    return count


class PackedLinear(nn.Module):
    """`nn.Linear` for inference. `state_dict()` holds what the plain layer's does, rearranged back on the way out."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self._plain: Tensor | None = linear.weight.detach()
        self._packed: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The row-major matrix (out, in); once the layer has been used, a copy."""
        plain = self._plain
        return self._matrix().to_dense() if plain is None else plain

    def _matrix(self) -> Tensor:
        plain, packed = self._plain, self._packed  # in this order: another thread may just be packing
        if packed is None:
            assert plain is not None
            packed = self._packed = torch.ops.mkldnn._reorder_linear_weight(plain, MIN_ROWS)
            self._plain = None
        return packed

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
            raise RuntimeError("a packed model cannot be trained: load it without packing, or use torch.inference_mode()")
        rows = x.reshape(-1, self.in_features)
        missing = max(0, MIN_ROWS - rows.shape[0])
        rows = F.pad(rows, (0, 0, 0, missing)) if missing else rows
        if factor is None:
            out = torch.ops.mkldnn._linear_pointwise(rows, self._matrix(), self.bias, activation, [], algorithm)
        else:
            factor = factor.reshape(-1, self.out_features)
            factor = F.pad(factor, (0, 0, 0, missing)) if missing else factor
            out = torch.ops.mkldnn._linear_pointwise.binary(rows, factor, self._matrix(), self.bias, "mul")
        out = out[: out.shape[0] - missing] if missing else out
        return out.view(*x.shape[:-1], self.out_features)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight


class PackedGatedMlp(nn.Module):
    """`gemma.GatedMlp` of packed layers: down(gelu_tanh(gate(x)) * up(x))."""

    def __init__(self, gate: PackedLinear, up: PackedLinear, down: PackedLinear):
        super().__init__()
        self.gate, self.up, self.down = gate, up, down

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up.times(x, self.gate.gelu(x)))


class PackedMlp(nn.Module):
    """`siglip.Mlp` of packed layers: down(gelu_tanh(up(x)))."""

    def __init__(self, up: PackedLinear, down: PackedLinear):
        super().__init__()
        self.up, self.down = up, down

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up.gelu(x))
