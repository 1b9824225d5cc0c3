"""Frozen linear layers with 4-bit weights (NF4), for training adapters on a base that would not fit otherwise.

    weight, row by row   |  64 values  |  64 values  | ... | 64 values, the last block filled up with zeros
    kept of a block      one scale, the largest magnitude, and 64 numbers of 4 bits: which of 16 fixed values of [-1, 1] is nearest

The 16 values are quantiles of a normal distribution, so that each is used about equally often. Scales are float32, or (`double`) 8-bit
numbers of their own: 4.5 or 4.127 bits a weight. Nothing is unpacked for longer than one product takes, in the backward pass again.
Source: QLoRA (Dettmers and others 2023), section 3 and appendix E.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError, UsageError
from .targets import linear_layers, swap

BLOCK = 64
"""Values that share a scale."""
GROUP = 256
"""Scales that share a step, where scales are quantized too."""
PIECE = {"cpu": 2**12, "elsewhere": 2**17}
"""Blocks worked on at a time: on a CPU what fits its cache (1 MB in float32), elsewhere what is worth starting a kernel for."""


@functools.cache
def nf4_values() -> tuple[float, ...]:
    """The 16 values, rising from -1 to 1: quantiles of a normal distribution in equal steps of probability, 7 below 0, 0 itself, 8 above.

    The outermost quantile would be infinite, so it is taken half a step before: 1/30 with 15 steps, 1/32 with 16; both sides use the mean.
    """
    end = 1 - (1 / 32 + 1 / 30) / 2

    def half(count: int) -> list[float]:
        return [NormalDist().inv_cdf(0.5 + (end - 0.5) * (i + 1) / count) for i in range(count)]

    below, above = half(7), half(8)
    return (*(-value / below[-1] for value in reversed(below)), 0.0, *(value / above[-1] for value in above))


def nf4_bytes(values: int, *, double: bool = True) -> int:
    """Memory of a quantized matrix with so many values."""
    blocks = -(-values // BLOCK)
    return blocks * BLOCK // 2 + (blocks + 4 * -(-blocks // GROUP) + 4 if double else 4 * blocks)


def quantize_linears(
    model: nn.Module, targets: Iterable[str] = ("language",), *, double: bool = True, device: str | torch.device | None = None
) -> int:
    """Swap the layers named by `targets` (see `linear_layers`) for `Nf4Linear`, in place and one after the other; returns how many.

    device: where a layer is quantized and then stays, by default where it is. Layers that are quantized already are left alone.
    Raises `UsageError` for layers that have an adapter or were rearranged for answering, `CheckpointError` for values that are no numbers.
    """
    layers = {name: layer for name, layer in linear_layers(model, targets).items() if not isinstance(layer, Nf4Linear)}
    for name, layer in layers.items():
        if not isinstance(layer, nn.Linear):
            raise UsageError(
                f"{name} is a {type(layer).__name__}, which cannot be quantized",
                hint="quantize a model that was just loaded, then add adapters",
            )
    for name, layer in layers.items():
        assert isinstance(layer, nn.Linear)
        try:
            swap(model, name, Nf4Linear.of(layer if device is None else layer.to(device), double=double))
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error.message}", code=error.code) from None
    return len(layers)


class Nf4Linear(nn.Module):
    """`nn.Linear` with a weight of 4 bits. Gradients reach its input and nothing else: weight and bias are buffers.

    The weight is unpacked as float32 and rounded to the type of the product: autocast's where autocast is on, else the input's.
    `to(dtype)` changes the type of the bias and of `weight`, never the packed numbers: those that are float32 are kept as bytes.
    """

    bias: Tensor | None
    codes: Tensor
    scales: Tensor
    steps: Tensor
    mean: Tensor
    _like: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        double: bool = True,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_features, self.out_features, self.two_level = in_features, out_features, double
        blocks = -(-in_features * out_features // BLOCK)

        def floats(count: int) -> Tensor:
            return torch.zeros(4 * count, dtype=torch.uint8, device=device)

        self.register_buffer("codes", torch.zeros(blocks * BLOCK // 2, dtype=torch.uint8, device=device))
        self.register_buffer("scales", torch.zeros(blocks, dtype=torch.int8, device=device) if double else floats(blocks))
        self.register_buffer("steps", floats(-(-blocks // GROUP) if double else 0))
        self.register_buffer("mean", floats(1 if double else 0))
        self.register_buffer("bias", torch.zeros(out_features, device=device, dtype=dtype) if bias else None)
        self.register_buffer("_like", torch.empty(0, device=device, dtype=dtype), persistent=False)

    @classmethod
    def of(cls, linear: nn.Linear, *, double: bool = True) -> Nf4Linear:
        """The same layer, quantized where it is. Raises `CheckpointError` where a weight is no number."""
        weight = linear.weight.detach()
        layer = cls(
            linear.in_features, linear.out_features, linear.bias is not None, double=double, device=weight.device, dtype=weight.dtype
        ).train(linear.training)
        if not weight.is_meta:
            layer._fill(weight)
            if linear.bias is not None:
                layer.bias = linear.bias.detach().clone()
        return layer

    @property
    def dtype(self) -> torch.dtype:
        """The layer's own type: at first that of the weight it was made from."""
        return self._like.dtype

    @property
    def weight(self) -> Tensor:
        """The matrix (out, in) in the layer's own type; unpacked each time it is asked for."""
        return self.dequantize(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        x = x.to(product_type(x, x.dtype))
        if x.requires_grad and torch.is_grad_enabled():
            return _Product.apply(x, self)  # pyright: ignore[reportReturnType]
        return self._product(x)

    def _product(self, x: Tensor) -> Tensor:
        return F.linear(x, self.dequantize(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    @torch.no_grad()
    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The matrix (out, in), rounded once from float32."""
        pairs, scales = _pairs(self.codes.device), self._scales()
        out = torch.empty(len(scales), BLOCK, dtype=dtype, device=self.codes.device)
        piece = _piece(self.codes.device)
        for start in range(0, len(scales), piece):
            codes = self.codes[start * BLOCK // 2 : (start + piece) * BLOCK // 2]
            out[start : start + piece] = F.embedding(codes.int(), pairs).view(-1, BLOCK).mul_(scales[start : start + piece, None])
        return out.view(-1)[: self.out_features * self.in_features].view(self.out_features, self.in_features)

    def dequantized(self) -> nn.Linear:
        """A plain layer with the weight as it was rounded, frozen, in the layer's own type."""
        with torch.device("meta"):
            linear = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        linear.weight = nn.Parameter(self.weight, requires_grad=False)
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias, requires_grad=False)
        return linear.train(self.training)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, double={self.two_level}"

    def _scales(self) -> Tensor:
        """float32, one a block."""
        if not self.two_level:
            return self.scales.view(torch.float32)
        steps = self.steps.view(torch.float32).repeat_interleave(GROUP)[: self.scales.numel()]
        return self.scales * steps + self.mean.view(torch.float32)

    @torch.no_grad()
    def _fill(self, weight: Tensor) -> None:
        flat = weight.reshape(-1)
        values = torch.tensor(nf4_values(), device=weight.device)
        borders = (values[1:] + values[:-1]) / 2
        scales = []
        step = _piece(weight.device) * BLOCK
        for start in range(0, flat.numel(), step):
            part = flat[start : start + step].float()
            part = F.pad(part, (0, -part.numel() % BLOCK)).view(-1, BLOCK)
            largest = part.abs().amax(1)
            if not bool(largest.isfinite().all()):
                raise CheckpointError("a weight is not a number", hint="the file is damaged, or training diverged", code="bad_values")
            nearest = torch.bucketize(part / largest.where(largest > 0, 1.0)[:, None], borders, out_int32=True)
            nearest = nearest.to(torch.uint8).view(-1, 2)
            self.codes[start // 2 : start // 2 + nearest.shape[0]] = nearest[:, 0] << 4 | nearest[:, 1]
            scales.append(largest)
        whole = torch.cat(scales)
        if not self.two_level:
            self.scales.copy_(whole.view(torch.uint8))
            return
        # Scales are all positive and much alike: what is left without their mean takes the 8 bits. Whole steps are finer here than the
        # paper's 8-bit floats, since nothing lies far out.
        mean = whole.mean()
        rest = F.pad(whole - mean, (0, -whole.numel() % GROUP)).view(-1, GROUP)
        steps = rest.abs().amax(1) / 127
        self.scales.copy_((rest / steps.where(steps > 0, 1.0)[:, None]).round().view(-1)[: whole.numel()])
        self.steps.copy_(steps.view(torch.uint8))
        self.mean.copy_(mean.view(1).view(torch.uint8))


class _Product(torch.autograd.Function):
    """Keeps neither the input nor the unpacked weight for the backward pass, which unpacks again."""

    @staticmethod
    def forward(ctx, x: Tensor, layer: Nf4Linear) -> Tensor:
        ctx.layer = layer
        return layer._product(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient @ ctx.layer.dequantize(gradient.dtype), None


def product_type(x: Tensor, otherwise: torch.dtype) -> torch.dtype:
    """Autocast's type where it is on for x's device, else the other one."""
    kind = x.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # it is not for the meta device
    return torch.get_autocast_dtype(kind) if on else otherwise


def _piece(device: torch.device) -> int:
    return PIECE["cpu" if device.type == "cpu" else "elsewhere"]


@functools.cache
def _pairs(device: torch.device) -> Tensor:
    """The two values that each byte stands for, (256, 2)."""
    with torch.inference_mode(False):
        values = torch.tensor(nf4_values(), dtype=torch.float32)
        return torch.cartesian_prod(values, values).to(device)
