"""Fast layers give what the plain ones give, within bfloat16 rounding, packed or not, and hand back the weights they were given."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from paligemma.model.fast_linear import FEW, PATIENCE, FastGatedMlp, FastLinear, FastMlp, can_pack, pack
from paligemma.model.gemma import GatedMlp
from paligemma.model.siglip import Mlp
from tests.model.rounding import answer_logits, bf16, error, random_input
from tests.tiny import TINY, TINY_1, random_model, random_pixels

pytestmark = pytest.mark.skipif(not can_pack(nn.Linear(4, 4, dtype=torch.bfloat16)), reason="this CPU has no bfloat16 kernels")

NEVER, AT_ONCE = 1_000_000, 0


@torch.inference_mode()
@pytest.mark.parametrize("patience", [NEVER, AT_ONCE])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 1), (1, 4), (2, 5), (33, 1), (2, FEW)])
def test_a_fast_layer_is_as_exact_as_the_plain_one(shape, bias, patience):
    linear = bf16(nn.Linear(48, 80, bias=bias))
    x = random_input(*shape, 48)
    exact = copy.deepcopy(linear).double()(x.double())
    layer = FastLinear(linear, patience)
    found = layer(x)
    assert layer.packed == (patience == AT_ONCE)
    assert found.shape == (*shape, 80)
    assert found.dtype == torch.bfloat16
    assert error(found, exact) < 2**-8


@torch.inference_mode()
@pytest.mark.parametrize("patience", [NEVER, AT_ONCE])
@pytest.mark.parametrize(("plain", "fast"), [(GatedMlp(48, 80), FastGatedMlp), (Mlp(48, 80), FastMlp)], ids=["gated", "plain"])
@pytest.mark.parametrize("rows", [1, 3, 7])
def test_a_fast_mlp_is_as_exact_as_the_plain_one(plain, fast, rows, patience):
    plain = bf16(plain)
    x = random_input(2, rows, 48)
    exact = copy.deepcopy(plain).double()(x.double())
    layers = {name: FastLinear(linear, patience) for name, linear in copy.deepcopy(plain).named_children()}
    assert error(fast(**layers)(x), exact) < 1.1 * error(plain(x), exact)


@torch.inference_mode()
@pytest.mark.parametrize("patience", [NEVER, AT_ONCE])
def test_an_input_with_gaps_in_memory_is_read_right(patience):
    layer = FastLinear(bf16(nn.Linear(48, 80)), patience)
    x = random_input(2, 9, 48)[:, -3:]
    assert not x.is_contiguous()
    assert torch.equal(layer(x), layer(x.contiguous()))


@torch.inference_mode()
def test_few_rows_give_the_same_alone_and_together():
    layer = FastLinear(bf16(nn.Linear(48, 80)), AT_ONCE)
    x = random_input(4, 48)
    together = layer(x)
    assert all(torch.equal(layer(x[row : row + 1])[0], together[row]) for row in range(4))


@torch.inference_mode()
def test_a_layer_is_packed_once_it_has_decoded_for_a_while_and_lets_the_plain_matrix_go():
    linear = bf16(nn.Linear(48, 80))
    plain = StorageWeakRef(linear.weight.untyped_storage())
    layer = FastLinear(linear, 2)
    del linear
    for _ in range(10):
        layer(random_input(FEW, 48))
    layer(random_input(1, 48))
    layer(random_input(1, 48))
    assert not layer.packed, "many rows gain nothing, and two are not more than two"
    assert not plain.expired()
    layer(random_input(1, 48))
    assert layer.packed
    assert plain.expired()


@torch.inference_mode()
def test_blocks_are_packed_one_token_after_the_other():
    model = random_model(TINY_1).to(torch.bfloat16)
    pack(model)
    cache = model.new_cache(1, PATIENCE + 2 * len(model.text.blocks))
    for token in range(PATIENCE + len(model.text.blocks)):
        model.extend(torch.tensor([7]), cache)
        packed = [block.mlp.down.packed for block in model.text.blocks]
        assert packed.count(True) == max(0, token + 1 - PATIENCE)
    assert not any(layer.packed for layer in model.vision.modules() if isinstance(layer, FastLinear))


@torch.inference_mode()
@pytest.mark.parametrize("tokens", [2, PATIENCE + 4])
@pytest.mark.parametrize("name", TINY)
def test_a_fast_model_answers_as_the_plain_one(name, tokens):
    config = TINY[name]
    model = random_model(config).to(torch.bfloat16)
    exact, fast = copy.deepcopy(model).double(), copy.deepcopy(model)
    linears = sum(isinstance(module, nn.Linear) for module in model.modules())
    assert pack(fast) == linears - 1  # all but the projector
    assert not any(isinstance(module, GatedMlp | Mlp) for module in fast.modules())

    pixels = random_pixels(config, 2)
    reference = answer_logits(exact, pixels, tokens)
    assert error(answer_logits(fast, pixels, tokens), reference) < 1.2 * error(answer_logits(model, pixels, tokens), reference)


@torch.inference_mode()
@pytest.mark.parametrize("patience", [NEVER, AT_ONCE])
def test_the_state_dict_is_the_plain_layers(patience):
    linear = bf16(nn.Linear(48, 80))
    before = {name: tensor.clone() for name, tensor in linear.state_dict().items()}
    layer = FastLinear(linear, patience)
    layer(random_input(1, 48))
    after = layer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_other_number_types_are_left_alone():
    model = random_model(TINY_1)
    assert pack(model) == 0
    assert not any(isinstance(module, FastLinear) for module in model.modules())


def test_training_is_refused():
    layer = FastLinear(bf16(nn.Linear(8, 8)))
    with pytest.raises(RuntimeError, match="cannot be trained"):
        layer(torch.zeros(1, 8, dtype=torch.bfloat16, requires_grad=True))
