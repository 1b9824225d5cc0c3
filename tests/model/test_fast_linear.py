"""Packed layers give what the plain ones give, within bfloat16 rounding, and hand back the weights they were given."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from paligemma.model.fast_linear import PackedGatedMlp, PackedLinear, PackedMlp, can_pack, pack
from paligemma.model.gemma import GatedMlp
from paligemma.model.siglip import Mlp
from tests.tiny import TINY, TINY_1, random_model, random_pixels

needs_bf16 = pytest.mark.skipif(not can_pack(nn.Linear(4, 4, dtype=torch.bfloat16)), reason="this CPU has no bfloat16 kernels")


def _bf16(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
    return module.to(torch.bfloat16).eval()


def _error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return ((found.double() - exact).norm() / exact.norm()).item()


@needs_bf16
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 1), (1, 4), (2, 5), (33, 1)])
def test_a_packed_layer_is_as_exact_as_the_plain_one(shape, bias):
    linear = _bf16(nn.Linear(48, 80, bias=bias))
    x = torch.randn(*shape, 48, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    with torch.inference_mode():
        exact = copy.deepcopy(linear).double()(x.double())
        found = PackedLinear(linear)(x)
    assert found.shape == (*shape, 80)
    assert found.dtype == torch.bfloat16
    assert _error(found, exact) < 2**-8


@needs_bf16
@pytest.mark.parametrize(("plain", "packed"), [(GatedMlp(48, 80), PackedGatedMlp), (Mlp(48, 80), PackedMlp)], ids=["gated", "plain"])
@pytest.mark.parametrize("rows", [1, 3, 7])
def test_a_packed_mlp_rounds_less_than_the_plain_one(plain, packed, rows):
    plain = _bf16(plain)
    x = torch.randn(2, rows, 48, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    exact_layer = copy.deepcopy(plain).double()
    layers = {name: PackedLinear(linear) for name, linear in copy.deepcopy(plain).named_children()}
    with torch.inference_mode():
        exact = exact_layer(x.double())
        assert _error(packed(**layers)(x), exact) < 1.1 * _error(plain(x), exact)


@needs_bf16
def test_an_input_with_gaps_in_memory_is_read_right():
    linear = _bf16(nn.Linear(48, 80))
    x = torch.randn(2, 9, 48, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)[:, -3:]
    assert not x.is_contiguous()
    with torch.inference_mode():
        assert torch.equal(PackedLinear(linear)(x), PackedLinear(linear)(x.contiguous()))


@needs_bf16
def test_few_rows_give_the_same_alone_and_together():
    layer = PackedLinear(_bf16(nn.Linear(48, 80)))
    x = torch.randn(4, 48, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    with torch.inference_mode():
        together = layer(x)
        assert all(torch.equal(layer(x[row : row + 1])[0], together[row]) for row in range(4))


@needs_bf16
@pytest.mark.parametrize("name", TINY)
def test_a_packed_model_answers_as_the_plain_one(name):
    config = TINY[name]
    model = random_model(config).to(torch.bfloat16)
    exact = copy.deepcopy(model).double()
    packed = copy.deepcopy(model)
    linears = sum(isinstance(module, nn.Linear) for module in model.modules())
    assert pack(packed) == linears - 1  # all but the projector
    assert not any(isinstance(module, GatedMlp | Mlp) for module in packed.modules())

    pixels = random_pixels(config, 2)
    ids = torch.randint(config.text.vocab_size, (2, 6), generator=torch.Generator().manual_seed(0))

    def logits(m, dtype):
        with torch.inference_mode():
            cache = m.new_cache(2, 12)
            prefilled = m.prefill(m.encode_image(pixels.to(dtype)), ids, None, cache)
            return torch.stack([m.logits(prefilled), m.logits(m.extend(ids[:, 0], cache))])

    reference = logits(exact, torch.float64)
    assert _error(logits(packed, torch.bfloat16), reference) < 1.2 * _error(logits(model, torch.bfloat16), reference)


@needs_bf16
@pytest.mark.parametrize("used", [False, True])
def test_the_state_dict_survives_packing(used):
    model = random_model(TINY_1).to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pack(model)
    if used:
        with torch.inference_mode():
            model.encode_image(random_pixels(TINY_1, 1))
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@needs_bf16
def test_the_plain_matrix_is_let_go_when_it_is_packed():
    linear = _bf16(nn.Linear(48, 80))
    plain = StorageWeakRef(linear.weight.untyped_storage())
    layer = PackedLinear(linear)
    del linear
    assert not plain.expired()
    with torch.inference_mode():
        layer(torch.zeros(1, 48, dtype=torch.bfloat16))
    assert plain.expired()


def test_other_number_types_are_left_alone():
    model = random_model(TINY_1)
    assert pack(model) == 0
    assert not any(isinstance(module, PackedLinear) for module in model.modules())


@needs_bf16
def test_training_a_packed_layer_is_refused():
    layer = PackedLinear(_bf16(nn.Linear(8, 8)))
    with pytest.raises(RuntimeError, match="cannot be trained"):
        layer(torch.zeros(1, 8, dtype=torch.bfloat16, requires_grad=True))
