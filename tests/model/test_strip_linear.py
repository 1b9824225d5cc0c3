"""Strips give what the plain layer gives, within bfloat16 rounding, on any CPU; a whole model made of them answers as the plain one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from paligemma.model import cpu, strip_linear
from paligemma.model.fast_linear import FastGatedMlp, FastMlp, pack
from paligemma.model.gemma import GatedMlp
from paligemma.model.siglip import Mlp
from paligemma.model.strip_linear import COUNTED, MANY, FloatConv, StripLinear
from tests.model.rounding import answer_logits, bf16, error, random_input
from tests.tiny import TINY, TINY_1, random_model, random_pixels


@pytest.fixture(autouse=True)
def an_older_cpu(monkeypatch):
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: False)


NEVER, AT_ONCE = 1_000_000, 0


@torch.inference_mode()
@pytest.mark.parametrize("patience", [NEVER, AT_ONCE])
@pytest.mark.parametrize("strip", [48, 7 * 48, 10_000], ids=["a row at a time", "not a divisor", "all at once"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, MANY - 1), (MANY, 1), (2, 9)])
def test_a_layer_of_strips_is_as_exact_as_the_plain_one(monkeypatch, shape, bias, strip, patience):
    monkeypatch.setattr(strip_linear, "STRIP", strip)
    linear = bf16(nn.Linear(48, 80, bias=bias))
    x = random_input(*shape, 48)
    layer = StripLinear(linear, patience)
    found = layer(x)
    assert layer.packed == (patience == AT_ONCE)
    assert found.shape == (*shape, 80)
    assert found.dtype == torch.bfloat16
    assert error(found, copy.deepcopy(linear).double()(x.double())) < 2**-8


@torch.inference_mode()
@pytest.mark.parametrize(("plain", "fast"), [(GatedMlp(48, 80), FastGatedMlp), (Mlp(48, 80), FastMlp)], ids=["gated", "plain"])
@pytest.mark.parametrize("patience", [NEVER, AT_ONCE])
@pytest.mark.parametrize("rows", [1, 7])
def test_an_mlp_of_strips_is_as_exact_as_the_plain_one(plain, fast, rows, patience):
    plain = bf16(plain)
    x = random_input(2, rows, 48)
    exact = copy.deepcopy(plain).double()(x.double())
    found = fast(**{name: StripLinear(linear, patience) for name, linear in plain.named_children()})(x)
    assert found.dtype == torch.bfloat16
    assert error(found, exact) < 1.1 * error(plain(x), exact)


@torch.inference_mode()
def test_patches_are_as_exact_as_the_plain_ones():
    conv = bf16(nn.Conv2d(3, 20, 4, stride=4))
    x = random_input(2, 3, 12, 12)
    found = FloatConv(conv)(x)
    assert found.dtype == torch.bfloat16
    assert error(found, copy.deepcopy(conv).double()(x.double())) < 2**-8


@torch.inference_mode()
@pytest.mark.parametrize("patience", [NEVER, 10])
@pytest.mark.parametrize("name", TINY)
def test_a_model_of_strips_answers_as_the_plain_one(monkeypatch, name, patience):
    monkeypatch.setattr(strip_linear, "PATIENCE", patience)
    config = TINY[name]
    model = random_model(config).to(torch.bfloat16)
    exact, fast = copy.deepcopy(model).double(), copy.deepcopy(model)
    assert pack(fast) == sum(isinstance(module, nn.Linear) for module in model.modules())
    assert isinstance(fast.vision.patch_embed, FloatConv)
    assert (fast.dtype, fast.device) == (model.dtype, model.device)
    assert fast.state_dict().keys() == model.state_dict().keys()
    pixels = random_pixels(config, 2)
    reference = answer_logits(exact, pixels, 4)
    assert error(answer_logits(fast, pixels, 4), reference) < 1.2 * error(answer_logits(model, pixels, 4), reference)
    assert not any(layer.packed for layer in fast.vision.modules() if isinstance(layer, StripLinear)), "it gains little there"
    assert any(layer.packed for layer in fast.text.modules() if isinstance(layer, StripLinear)) == (patience != NEVER)


@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_packed_after_so_many_rows_and_lets_the_plain_matrix_go(bias):
    linear = bf16(nn.Linear(48, 80, bias=bias))
    before = {name: tensor.clone() for name, tensor in linear.state_dict().items()}
    plain = StorageWeakRef(linear.weight.untyped_storage())
    layer = StripLinear(linear, 5 + COUNTED)
    del linear
    layer(random_input(1000, 48))
    for _ in range(5):
        layer(random_input(1, 48))
    assert not layer.packed
    assert not plain.expired()
    layer(random_input(1, 48))
    assert layer.packed
    assert plain.expired()
    after = layer.state_dict()
    assert after.keys() == before.keys()
    assert all((after[name].float() - before[name].float()).abs().max() <= 2**-25 for name in before), (
        "half of the smallest half-precision number"
    )


@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
def test_a_matrix_packed_in_pieces_is_the_one_packed_whole(monkeypatch, bias):
    linear = bf16(nn.Linear(48, 80, bias=bias))
    x = random_input(3, 48)
    whole = StripLinear(copy.deepcopy(linear), AT_ONCE)
    expected = whole(x)
    monkeypatch.setattr(strip_linear, "PIECE", 48 * 32)
    pieces = StripLinear(linear, AT_ONCE)
    assert torch.equal(pieces(x), expected)
    assert torch.equal(pieces.weight, whole.weight)
    assert pieces.weight.shape == (80, 48)


@torch.inference_mode()
def test_a_matrix_beyond_half_precision_is_not_packed():
    linear = bf16(nn.Linear(48, 80))
    linear.weight[3, 4] = 1e5
    layer = StripLinear(linear, AT_ONCE)
    x = random_input(2, 48)
    assert error(layer(x), copy.deepcopy(linear).double()(x.double())) < 2**-8
    assert not layer.packed


def test_other_number_types_are_left_alone():
    model = random_model(TINY_1)
    assert pack(model) == 0
    assert not any(isinstance(module, StripLinear | FloatConv) for module in model.modules())


def test_training_is_refused():
    layer = StripLinear(bf16(nn.Linear(8, 8)))
    with pytest.raises(RuntimeError, match="cannot be trained"):
        layer(torch.zeros(1, 8, dtype=torch.bfloat16, requires_grad=True))
