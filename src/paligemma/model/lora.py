"""LoRA: what a frozen linear layer computes, plus a small product that is trained. Several named adapters on one base, one of them at work.

    y = base(x) + scale * dropout(x) Aᵀ Bᵀ      A (rank, in) random, B (out, rank) zero at first;  scale = alpha / rank
                                                (rslora: alpha / sqrt(rank))
Number types: the base's product in the base's own, whatever that is (4 bits: see `nf4`). The adapter's two products and the sum in
autocast's type where autocast is on, else in the adapter's, float32 by default whatever the base is; then the sum is rounded to the type
of the base's product. So it is in peft, whose file format `checkpoint.adapters` reads and writes.
Source: LoRA (Hu and others 2021), section 4.1; rank-stabilised scale: Kalajdzievski 2023; peft `tuners/lora/layer.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import CheckpointError, UsageError, did_you_mean
from .nf4 import Nf4Linear, product_type
from .paligemma import PaliGemma
from .targets import linear_layers, swap

MAX_RANK = 4096
MAX_ALPHA = 1e12


@dataclass(frozen=True)
class LoraConfig:
    """What an adapter is. By default it adapts the language model only: see `targets.GROUPS` for the groups of layers there are.

    targets: groups, names of layers such as `projector`, or patterns such as `text.blocks.*.attn.q`; a single one may be a plain string.
    dropout: of the adapter's input, while training. base: the model it is for, a folder or a Hugging Face id; only carried along.
    Raises `UsageError` for values that make no adapter.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("language",)
    rslora: bool = False
    base: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "targets", (self.targets,) if isinstance(self.targets, str) else tuple(self.targets))
        if type(self.rank) is not int or not 1 <= self.rank <= MAX_RANK:
            raise UsageError(f"the rank of an adapter is {self.rank!r}, expected a whole number from 1 to {MAX_RANK}")
        if not _number(self.alpha) or not 0 < self.alpha <= MAX_ALPHA:
            raise UsageError(f"the alpha of an adapter is {self.alpha!r}, expected a number above 0")
        if not _number(self.dropout) or not 0 <= self.dropout < 1:
            raise UsageError(f"the dropout of an adapter is {self.dropout!r}, expected a number from 0 to below 1")
        if not self.targets:
            raise UsageError("an adapter without targets adapts nothing", hint='the usual ones are targets=("language",)')

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class LoraAdapter(nn.Module):
    """What one adapter has for one layer: `a` (rank, in), `b` (out, rank)."""

    def __init__(self, config: LoraConfig, a: Tensor, b: Tensor, *, trainable: bool = True):
        super().__init__()
        self.config = config
        self.a = nn.Parameter(a, requires_grad=trainable)
        self.b = nn.Parameter(b, requires_grad=trainable)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, rows: Tensor, out: Tensor) -> Tensor:
        """rows (R, in), out (R, out) fresh from the base, which may be overwritten -> the sum, in out's type."""
        kind = product_type(rows, self.a.dtype)
        dropped = self.training and self.dropout.p > 0
        if rows.dtype.itemsize < kind.itemsize and not dropped:
            inner = cast(Tensor, _Narrow.apply(rows, self.a.to(kind)))
        else:
            inner = F.linear(self.dropout(rows.to(kind)), self.a.to(kind))
        inner = inner * self.config.scale
        return out.to(kind).addmm_(inner, self.b.to(kind).t()).to(out.dtype)

    @torch.no_grad()
    def delta(self) -> Tensor:
        """What it adds to the weight, (out, in), float32."""
        return self.config.scale * (self.b.float() @ self.a.float())

    def extra_repr(self) -> str:
        return f"rank={self.config.rank}, scale={self.config.scale:g}"


class _Narrow(torch.autograd.Function):
    """rows Aᵀ in A's wider type, to the last bit, but the rows are kept for the backward pass as they came: queries, keys and values get
    the same ones, which then lie in memory once in bfloat16 rather than three times in float32."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, a: Tensor) -> Tensor:
        ctx.save_for_backward(rows, a)
        return F.linear(rows.to(a.dtype), a)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, a = ctx.saved_tensors
        for_rows, for_a = ctx.needs_input_grad
        return (
            (gradient @ a).to(rows.dtype) if for_rows else None,
            gradient.t() @ rows.to(a.dtype) if for_a else None,
        )


class LoraLinear(nn.Module):
    """A frozen base layer and its adapters; `active` names the one at work, None: the base alone.

    `gelu` and `times` are there for the MLPs of a model that is packed for answering (see `fast_linear`).
    """

    def __init__(self, base: nn.Module):
        super().__init__()
        self.in_features = cast(int, base.in_features)
        self.out_features = cast(int, base.out_features)
        self.base = base
        self.adapters = nn.ModuleDict()
        self.active: str | None = None
        self.training = base.training

    @property
    def weight(self) -> Tensor:
        """The base's."""
        return cast(Tensor, self.base.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        if self.active is None:
            return self.base(x)
        rows = x.reshape(-1, self.in_features)
        out = self.adapters[self.active](rows, self.base(rows))
        return out.view(*x.shape[:-1], self.out_features)

    def gelu(self, x: Tensor) -> Tensor:
        """gelu_tanh of `forward`."""
        return F.gelu(self(x), approximate="tanh")

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """`forward`, times a factor (..., out)."""
        return self(x) * factor

    def extra_repr(self) -> str:
        return f"active={self.active!r}"


def add_adapter(
    model: PaliGemma,
    config: LoraConfig,
    name: str = "default",
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """A new adapter, to be trained and at work; everything else in the model is frozen, except what other adapters train.

    It changes no answer until it has learnt something. generator: on the CPU, for its first values; they are the same on every device.
    Raises `UsageError` for a name that is taken and for targets that no layer goes by.
    """
    adapters = {}
    for layer_name, layer in linear_layers(model, config.targets).items():
        inputs, outputs = cast(int, layer.in_features), cast(int, layer.out_features)
        a = torch.empty(config.rank, inputs, dtype=dtype, device=model.device)
        if not a.is_meta:
            bound = inputs**-0.5  # as nn.Linear's own first values
            a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
        adapters[layer_name] = LoraAdapter(config, a, torch.zeros(outputs, config.rank, dtype=dtype, device=model.device))
    attach(model, name, adapters)


def attach(model: PaliGemma, name: str, adapters: Mapping[str, LoraAdapter]) -> None:
    """Put finished adapters, by the name of their layer, on a model under one name, at work. Everything that is no adapter is frozen."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) or hasattr(nn.ModuleDict(), name):
        raise UsageError(f"{name!r} cannot be the name of an adapter", hint="use letters, digits, - and _, such as 'default'")
    if name in adapter_names(model):
        raise UsageError(f"the model already has an adapter {name!r}", hint="choose another name, or remove that one first")
    layers = linear_layers(model)
    for parameter_name, parameter in model.named_parameters():
        if ".adapters." not in parameter_name:
            parameter.requires_grad_(False)
    for layer_name, adapter in adapters.items():
        layer = layers[layer_name]
        if not isinstance(layer, LoraLinear):
            layer = LoraLinear(layer)
            swap(model, layer_name, layer)
        layer.adapters[name] = adapter.train(layer.training)
    set_adapter(model, name)


def adapter_names(model: nn.Module) -> list[str]:
    """The adapters on a model, by the alphabet."""
    return sorted({name for layer in _lora_layers(model).values() for name in layer.adapters})


def active_adapter(model: nn.Module) -> str | None:
    """The adapter at work."""
    return next((layer.active for layer in _lora_layers(model).values() if layer.active is not None), None)


def set_adapter(model: nn.Module, name: str | None) -> None:
    """Let that adapter work, or with None the base alone. What is trained does not change, but only the adapter at work gets gradients."""
    if name is not None:
        adapter_layers(model, name)
    for layer in _lora_layers(model).values():
        layer.active = name if name is not None and name in layer.adapters else None


def adapter_layers(model: nn.Module, name: str = "default") -> dict[str, LoraAdapter]:
    """An adapter's parts, by the name of their layer. Raises `UsageError` for an adapter that is not there."""
    found = {where: layer.adapters[name] for where, layer in _lora_layers(model).items() if name in layer.adapters}
    if not found:
        known = adapter_names(model)
        there = "the model has " + (", ".join(map(repr, known)) if known else "none")
        raise UsageError(f"there is no adapter {name!r}", hint=did_you_mean(name, known, there), code="no_adapter")
    return cast(dict[str, LoraAdapter], found)


def adapter_parameters(model: nn.Module, name: str = "default") -> list[nn.Parameter]:
    """What an optimizer gets: A and B of each adapted layer."""
    return [parameter for adapter in adapter_layers(model, name).values() for parameter in (adapter.a, adapter.b)]


def merge(model: PaliGemma, name: str = "default", *, dequantize: bool = False) -> None:
    """Add an adapter to the weights it was made for, in float32, rounded to their type; plain layers are left. What the configuration says
    the model was taught goes: it is no longer all.

    dequantize: a 4-bit layer becomes a plain one of the type it was quantized from; else it is refused, since it could not hold the sum.
    Raises `UsageError`, with nothing changed, where that is so, where other adapters need the base as it is, and where the model was
    rearranged for answering; `CheckpointError` where the adapter holds what is no number or does not fit.
    """
    adapters, layers = adapter_layers(model, name), _lora_layers(model)
    if others := [other for other in adapter_names(model) if other != name]:
        raise UsageError(f"merging {name!r} would change the base under the adapter {others[0]!r}", hint="remove the other adapters first")
    for where, adapter in adapters.items():
        _check_merge(where, layers[where].base, adapter, dequantize)
    for where, adapter in adapters.items():
        base = layers[where].base
        base = base.dequantized() if isinstance(base, Nf4Linear) else cast(nn.Linear, base)
        with torch.no_grad():
            weight = base.weight.float().add(adapter.delta()).to(base.weight.dtype)
        base.weight = nn.Parameter(weight, requires_grad=base.weight.requires_grad)
        swap(model, where, base)
    model.config = model.config.taught_more()


def remove(model: PaliGemma, name: str = "default") -> None:
    """Take an adapter off; layers without any become what they were before. If it was at work, the base is at work then."""
    for where in adapter_layers(model, name):
        layer = model.get_submodule(where)
        assert isinstance(layer, LoraLinear)
        del layer.adapters[name]
        if layer.active == name:
            layer.active = None
        if not layer.adapters:
            swap(model, where, layer.base)


def _lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def _check_merge(where: str, base: nn.Module, adapter: LoraAdapter, dequantize: bool) -> None:
    if isinstance(base, Nf4Linear):
        if not dequantize:
            raise UsageError(
                f"{where} has 4-bit weights, into which an adapter cannot be merged",
                hint="merge into the model as it was before it was quantized, or pass dequantize=True",
                code="quantized_base",
            )
    elif not isinstance(base, nn.Linear):
        raise UsageError(f"{where} was rearranged for answering ({type(base).__name__})", hint="merge into a model that was just loaded")
    if adapter.a.is_meta:
        return
    kind = base.dtype if isinstance(base, Nf4Linear) else base.weight.dtype
    a, b = (float(part.detach().abs().max()) for part in (adapter.a, adapter.b))
    largest = adapter.config.scale * adapter.config.rank * a * b
    if not largest < torch.finfo(kind).max / 2:
        raise CheckpointError(
            f"the adapter's part for {where} is not finite or too large to be added to the weights",
            hint="training diverged: use an earlier checkpoint",
            code="bad_values",
        )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
