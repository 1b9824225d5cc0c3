"""4-bit layers: equal to the paper's formulas written out, gradients to the input only, nothing lost on the way through torch."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from paligemma.config import PRESETS
from paligemma.errors import CheckpointError, UsageError
from paligemma.model.empty import empty_model
from paligemma.model.nf4 import PIECE, Nf4Linear, nf4_bytes, nf4_values, quantize_linears
from tests.tiny import TINY_1, TINY_2, random_model, random_pixels

# QLoRA, appendix E. The authors computed it in float32.
PUBLISHED = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


def test_the_published_table():
    assert nf4_values() == pytest.approx(PUBLISHED, abs=3e-7)


def test_the_values_are_quantiles():
    """By bisection of the normal distribution's integral: the steps of probability are equal on each side of zero."""

    def quantile(probability: float) -> float:
        low, high = -10.0, 10.0
        for _ in range(200):
            middle = (low + high) / 2
            below = (1 + math.erf(middle / math.sqrt(2))) / 2 < probability
            low, high = (middle, high) if below else (low, middle)
        return low

    end = (1 - 1 / 32 + 1 - 1 / 30) / 2
    for side, steps in ((-1, 7), (1, 8)):
        raw = [quantile(0.5 + (end - 0.5) * step / steps) for step in range(steps + 1)]
        mine = sorted(abs(value) for value in nf4_values() if value * side >= 0)
        assert mine == pytest.approx([value / raw[-1] for value in raw], abs=1e-9)


def linear(inputs: int = 48, outputs: int = 80, bias: bool = True, dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return layer.to(dtype)


def reference(weight: np.ndarray, double: bool) -> np.ndarray:
    """The paper's formulas in float64, one value at a time. Both levels: nearest neighbour among what can be represented."""
    flat = weight.astype(np.float64).ravel()
    padded = np.concatenate([flat, np.zeros(-len(flat) % 64)]).reshape(-1, 64)
    scales = np.abs(padded).max(1)
    table = np.array(PUBLISHED)
    with np.errstate(invalid="ignore"):
        shares = np.where(scales[:, None] > 0, padded / scales[:, None], 0.0)
    nearest = table[np.abs(shares[..., None] - table).argmin(-1)]
    if double:
        mean = scales.mean()
        for start in range(0, len(scales), 256):
            rest = scales[start : start + 256] - mean
            step = np.abs(rest).max() / 127
            grid = np.arange(-127, 128) * step
            scales[start : start + 256] = mean + grid[np.abs(rest[:, None] - grid).argmin(-1)]
    return (nearest * scales[:, None]).ravel()[: len(flat)].reshape(weight.shape)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("shape", [(48, 80), (64, 64), (1, 1), (7, 9), (130, 257), (33, 4304 // 8)])
def test_equal_to_the_paper(shape, double):
    """Among the shapes some that fill no block, or begin a block in the middle of a row."""
    layer = linear(*shape)
    found = Nf4Linear.of(layer, double=double).dequantize(torch.float32)
    assert found.shape == layer.weight.shape
    expected = reference(layer.weight.detach().numpy(), double)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


def test_larger_than_a_piece(monkeypatch):
    layer = linear(100, 60)
    whole = Nf4Linear.of(layer).dequantize(torch.float32)
    monkeypatch.setitem(PIECE, "cpu", 3)
    pieces = Nf4Linear.of(layer)
    assert torch.equal(pieces.dequantize(torch.float32), whole)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=200))
def test_no_value_moves_further_than_half_the_widest_gap(numbers):
    layer = nn.Linear(len(numbers), 1, bias=False)
    layer.weight.data = torch.tensor([numbers])
    found = Nf4Linear.of(layer, double=False).dequantize(torch.float32)
    scales = torch.tensor([max(map(abs, numbers[i - i % 64 : i - i % 64 + 64])) for i in range(len(numbers))])
    widest = max(b - a for a, b in itertools.pairwise(PUBLISHED))
    assert ((found - layer.weight).abs()[0] <= scales * widest / 2 * 1.001).all()
    assert (found[0][torch.tensor(numbers).abs() == scales] != 0).all() or not any(numbers)


def test_zeros_stay_zeros():
    layer = linear()
    layer.weight.data[10:30] = 0
    for double in (True, False):
        found = Nf4Linear.of(layer, double=double).weight
        assert (found[11:29] == 0).all()
        assert found[40:].abs().amin(1).max() > 0


def test_quantized_twice_is_quantized_once():
    once = Nf4Linear.of(linear(), double=False).dequantized()
    twice = Nf4Linear.of(once, double=False).weight
    assert torch.allclose(once.weight, twice, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_product(dtype):
    layer = linear(dtype=dtype)
    four = Nf4Linear.of(layer)
    x = torch.randn(2, 3, 48, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = four(x)
    assert (found.dtype, found.shape) == (dtype, (2, 3, 80))
    assert torch.equal(found, nn.functional.linear(x, four.dequantize(torch.float32).to(dtype), layer.bias))
    error = (found.float() - layer(x).float()).square().mean().sqrt() / layer(x).float().std()
    assert 0.01 < error < 0.12, "what four bits cost"


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_a_frozen_layer(bias):
    four = Nf4Linear.of(linear(bias=bias))
    plain = four.dequantized()
    x, y = (torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    four(x).square().sum().backward()
    plain(y).square().sum().backward()
    assert torch.equal(x.grad, y.grad)
    assert list(four.parameters()) == []
    assert four.requires_grad_(True)(x.detach()).requires_grad is False


def test_the_backward_pass_keeps_no_unpacked_weight():
    four = Nf4Linear.of(linear(bias=False))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda tensor: tensor):
        four(torch.randn(3, 48, requires_grad=True)).sum().backward()
    assert (80, 48) not in kept
    assert kept == []


def test_autocast():
    four = Nf4Linear.of(linear())
    x = torch.randn(4, 48, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = four(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, four(x.bfloat16()))
    found.sum().backward()
    assert x.grad.dtype == torch.float32


def test_conversions_never_round_what_is_packed():
    four = Nf4Linear.of(linear())
    exact = four.dequantize(torch.float32)
    for other in (copy.deepcopy(four).bfloat16(), copy.deepcopy(four).half().float(), four.to(torch.bfloat16), four.double()):
        assert torch.equal(other.dequantize(torch.float32), exact)
    assert four.bfloat16().weight.dtype == four.bias.dtype == torch.bfloat16


@pytest.mark.parametrize("double", [True, False])
def test_state(double):
    four = Nf4Linear.of(linear(), double=double)
    other = Nf4Linear(48, 80, double=double)
    assert torch.equal(other.weight, torch.zeros(80, 48))
    other.load_state_dict(copy.deepcopy(four.state_dict()))
    assert torch.equal(other.weight, four.weight)
    assert torch.equal(other.bias, four.bias)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("shape", [(48, 80), (1, 1), (300, 700)])
def test_memory(shape, double):
    four = Nf4Linear.of(linear(*shape, bias=False), double=double)
    assert sum(buffer.numel() * buffer.element_size() for buffer in four.buffers()) == nf4_bytes(shape[0] * shape[1], double=double)


def test_bits_per_weight():
    assert nf4_bytes(1 << 24, double=False) * 8 / (1 << 24) == 4.5
    assert nf4_bytes(1 << 24) * 8 / (1 << 24) == pytest.approx(4.127, abs=1e-3), "as in the paper"


@torch.no_grad()
def test_a_model_answers_almost_as_before():
    model = random_model(TINY_2)
    pixels, ids = random_pixels(model.config, 2), torch.arange(10).view(2, 5) + 10
    before = model(model.encode_image(pixels), ids, torch.zeros_like(ids))
    dtype, device = model.dtype, model.device
    assert quantize_linears(model, ("language", "vision", "projector")) == 3 * 7 + 2 * 6 + 1
    assert (model.dtype, model.device) == (dtype, device)
    after = model(model.encode_image(pixels), ids, torch.zeros_like(ids))
    assert 0 < (after - before).square().mean() < 0.3 * before.var()
    assert quantize_linears(model) == 0


def test_only_the_language_model_by_default():
    model = random_model(TINY_1)
    quantize_linears(model)
    assert all(
        isinstance(module, Nf4Linear) == name.startswith("text.")
        for name, module in model.named_modules()
        if hasattr(module, "in_features")
    )


def test_a_model_without_numbers():
    """How large it would be: PaliGemma 3B's decoder has 1,981,808,640 weights in such layers."""
    model = empty_model(PRESETS["paligemma-3b-224"])
    quantize_linears(model)
    assert model.text.blocks[0].mlp.up(torch.empty(1, 3, 2048, device="meta")).shape == (1, 3, 16384)
    sizes = [buffer.numel() * buffer.element_size() for name, buffer in model.named_buffers() if name.startswith("text.")]
    assert sum(sizes) == pytest.approx(1_981_808_640 * 4.127 / 8, rel=1e-3)


def test_refused():
    model = random_model(TINY_1)
    model.text.blocks[1].mlp.up.weight.data[3, 4] = float("nan")
    with pytest.raises(CheckpointError, match=r"text.blocks.1.mlp.up: a weight is not a number"):
        quantize_linears(model)
    model = random_model(TINY_1)
    model.projector = type("Packed", (nn.Module,), {"in_features": 1})()
    with pytest.raises(UsageError, match="projector is a Packed"):
        quantize_linears(model, ("language", "projector"))
    assert isinstance(model.text.blocks[0].attn.q, nn.Linear), "nothing was changed"
