"""Adapters: a base that stays as it is, who is trained, switching, merging. That they do what peft does is in `parity/test_peft.py`."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from paligemma.config import PRESETS
from paligemma.errors import CheckpointError, UsageError
from paligemma.model.empty import empty_model
from paligemma.model.fast_linear import can_pack, pack
from paligemma.model.lora import (
    LoraAdapter,
    LoraConfig,
    active_adapter,
    adapter_layers,
    adapter_names,
    adapter_parameters,
    add_adapter,
    attach,
    merge,
    remove,
    set_adapter,
)
from paligemma.model.nf4 import Nf4Linear, quantize_linears
from tests.model.adapted import adapted, logits
from tests.model.rounding import bf16
from tests.tiny import TINY, TINY_1, TINY_2, random_model

PEERS = {
    "the language model": (("language",), "paligemma-3b-224", 8, 9_805_824),
    "with the image tower's queries, keys and values, as the usual list of targets does unasked": (
        ("language", "vision.blocks.*.attn.[qkv]"),
        "paligemma-3b-224",
        8,
        11_298_816,
    ),
    "the same of PaliGemma 2": (("language", "vision.blocks.*.attn.[qkv]"), "paligemma2-3b-224", 8, 11_876_352),
}


@pytest.mark.parametrize(("targets", "preset", "rank", "expected"), PEERS.values(), ids=PEERS)
def test_how_many_parameters(targets, preset, rank, expected):
    """Counted without a number in memory."""
    model = empty_model(PRESETS[preset])
    add_adapter(model, LoraConfig(rank=rank, targets=targets))
    assert sum(parameter.numel() for parameter in adapter_parameters(model)) == expected
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == expected


@pytest.mark.parametrize("name", TINY)
def test_a_new_adapter_changes_nothing_and_alone_is_trained(name):
    model = random_model(TINY[name])
    before = logits(model)
    add_adapter(model, LoraConfig(rank=4))
    assert active_adapter(model) == "default"
    assert all(layer.startswith("text.blocks.") for layer in adapter_layers(model))
    found = logits(model)
    assert torch.equal(found, before)
    found.square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (".adapters." in parameter_name), parameter_name
    assert all(adapter.b.grad.abs().max() > 0 and adapter.a.grad.abs().max() == 0 for adapter in adapter_layers(model).values())


def test_both_matrices_learn_and_the_base_does_not():
    model = random_model(TINY_1)
    add_adapter(model, LoraConfig(rank=4))
    base = {name: tensor.clone() for name, tensor in model.state_dict().items() if ".adapters." not in name}
    first = {name: tensor.clone() for name, tensor in model.state_dict().items() if ".adapters." in name}
    optimizer = torch.optim.SGD(adapter_parameters(model), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        logits(model).square().mean().backward()
        optimizer.step()
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in base.items())
    assert not any(torch.equal(state[name], tensor) for name, tensor in first.items())


def test_first_values():
    """As peft's: A uniform within 1 / sqrt(in), B zero. The seed decides, whatever the global one is."""
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(models))
        model = random_model(TINY_1)
        add_adapter(model, LoraConfig(rank=16), generator=torch.Generator().manual_seed(seed))
        models.append(adapter_layers(model))
    for where, adapter in models[0].items():
        assert torch.equal(adapter.a, models[1][where].a)
        assert not torch.equal(adapter.a, models[2][where].a)
        bound = adapter.a.shape[1] ** -0.5
        assert 0.95 * bound < adapter.a.abs().max() <= bound
        assert adapter.a.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert not adapter.b.any()


@pytest.mark.parametrize("quantized", [False, True])
def test_activation_checkpointing_changes_no_gradient(quantized):
    """In training mode with dropout: the pass that is repeated draws the same mask."""
    model = random_model(TINY_2)
    if quantized:
        quantize_linears(model)
    model = adapted(lora=LoraConfig(rank=4, dropout=0.3), model=model).train()
    gradients = []
    for repeated in (False, True):
        for block in model.text.blocks:
            block.forward = type(block).forward.__get__(block)
            if repeated:
                plain = block.forward
                block.forward = lambda *args, plain=plain: checkpoint(plain, *args, use_reentrant=False)
        model.zero_grad()
        torch.manual_seed(5)
        logits(model).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in adapter_parameters(model)])
    assert all(map(torch.equal, *gradients))


def kept_bytes(model, step) -> int:
    """Of the tensors that autograd keeps in a step, each storage once, without the weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other one gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_a_narrow_base_keeps_its_inputs_narrow(monkeypatch):
    """A bfloat16 base under float32 adapters, without autocast: no float32 copies of what the layers read, and the same to the last bit."""
    model = adapted(model=random_model(TINY_2).bfloat16(), lora=LoraConfig(rank=2))
    found = {}
    for way in ("narrow", "plain"):
        if way == "plain":
            monkeypatch.setattr("paligemma.model.lora._Narrow.apply", lambda rows, a: nn.functional.linear(rows.to(a.dtype), a))
        model.zero_grad()
        result = []
        kept = kept_bytes(model, lambda result=result: result.append(logits(model)))
        result[0].float().square().mean().backward()
        found[way] = kept, result[0], [parameter.grad.clone() for parameter in adapter_parameters(model)]
    assert torch.equal(found["narrow"][1], found["plain"][1])
    assert all(map(torch.equal, found["narrow"][2], found["plain"][2]))
    text, rows = TINY_2.text, 2 * (4 + 7)
    inputs = (3 * text.width + text.heads * text.head_dim + 2 * text.width + text.mlp_dim) * rows * text.depth
    assert found["plain"][0] - found["narrow"][0] >= 4 * inputs - 2 * inputs, "float32 copies of q, k, v, o, gate, up, down"


def test_dropout_only_while_training():
    model = adapted(lora=LoraConfig(dropout=0.5))
    assert torch.equal(logits(model), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))
    add_adapter(model, LoraConfig(dropout=0.5), "late")
    assert all(adapter.training and adapter.dropout.training for adapter in adapter_layers(model, "late").values())


def test_on_a_quantized_base():
    """The same as on the plain layers with the weights as they were rounded, gradients too."""
    four, plain = random_model(TINY_1), random_model(TINY_1)
    quantize_linears(four)
    for name, module in list(four.named_modules()):
        if isinstance(module, Nf4Linear):
            plain.get_submodule(name).weight.data = module.weight
    outputs, gradients = [], []
    for model in (four, plain):
        outputs.append(logits(adapted(model=model)))
        outputs[-1].square().mean().backward()
        gradients.append([parameter.grad for parameter in adapter_parameters(model)])
    torch.testing.assert_close(*outputs)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_several_adapters_on_one_base():
    model = random_model(TINY_1)
    alone = {None: logits(model)}
    choices = {"one": LoraConfig(rank=4), "two": LoraConfig(rank=2, targets=("language-attention", "projector")), "three": LoraConfig()}
    for seed, (name, lora) in enumerate(choices.items()):
        alone[name] = logits(adapted(lora=lora, name=name, seed=seed))
        adapted(lora=lora, name=name, seed=seed, model=model)
    assert adapter_names(model) == sorted(choices)
    assert active_adapter(model) == "three"
    for name in ("two", None, "one", "three", "two", "one", None):
        set_adapter(model, name)
        assert active_adapter(model) == name
        assert torch.equal(logits(model), alone[name])
    remove(model, "one")
    set_adapter(model, "two")
    assert torch.equal(logits(model), alone["two"])
    remove(model, "two")
    assert active_adapter(model) is None
    assert isinstance(model.projector, nn.Linear)
    remove(model, "three")
    assert torch.equal(logits(model), alone[None])
    assert list(model.state_dict()) == list(random_model(TINY_1).state_dict())


def test_switching_changes_who_gets_gradients_but_not_who_is_trained():
    model = random_model(TINY_1)
    for name in ("one", "two"):
        adapted(name=name, model=model)
    set_adapter(model, "one")
    logits(model).sum().backward()
    assert all(parameter.grad is not None for parameter in adapter_parameters(model, "one"))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in adapter_parameters(model, "two"))


@torch.no_grad()
@pytest.mark.parametrize("lora", [LoraConfig(rank=4), LoraConfig(rank=4, rslora=True, targets=("language", "vision", "projector"))])
@pytest.mark.parametrize("name", TINY)
def test_merged_equals_unmerged(name, lora):
    model = adapted(TINY[name], lora)
    expected = logits(model)
    merge(model)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == list(random_model(TINY[name]).state_dict())
    assert not adapter_names(model)


def test_what_a_merged_model_was_taught_is_no_longer_known():
    model = adapted(dataclasses.replace(TINY_1, taught=("detect",), frames=1))
    assert model.config.taught == ("detect",), "the base alone is as it was"
    merge(model)
    assert (model.config.taught, model.config.frames) == ((), 0)


@torch.no_grad()
def test_a_merge_is_rounded_once():
    model = bf16(adapted())
    exact = {
        where: model.get_submodule(where).weight.double() + adapter.config.scale * (adapter.b.double() @ adapter.a.double())
        for where, adapter in adapter_layers(model).items()
    }
    merge(model)
    for where, weight in exact.items():
        found = model.get_submodule(where).weight
        assert found.dtype == torch.bfloat16
        assert (found != weight.to(torch.bfloat16)).float().mean() < 1e-3, "float32 may round the other way where it is a tie"


@torch.no_grad()
def test_merging_into_four_bits_only_when_asked():
    model = random_model(TINY_1)
    quantize_linears(model)
    adapted(model=model)
    expected = logits(model)
    with pytest.raises(UsageError, match=r"text.blocks.0.attn.q has 4-bit weights") as error:
        merge(model)
    assert "dequantize=True" in error.value.hint
    assert torch.equal(logits(model), expected)
    merge(model, dequantize=True)
    assert isinstance(model.text.blocks[0].attn.q, nn.Linear)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not can_pack(nn.Linear(4, 4, dtype=torch.bfloat16)), reason="this CPU has no bfloat16 kernels")
@torch.inference_mode()
def test_adapters_on_a_model_that_is_packed_for_answering():
    """Put on before or after packing, and switched off."""
    lora = LoraConfig(targets=("language", "vision"))
    plain, before, after = (bf16(random_model(TINY_1)) for _ in range(3))
    adapted(model=plain, lora=lora)
    adapted(model=before, lora=lora)
    assert pack(before) == pack(after) == 3 * 7 + 2 * 6
    base = logits(after)
    adapted(model=after, lora=lora)
    for model in (plain, before, after):
        assert (logits(model) - logits(plain)).float().square().mean() < 1e-3 * logits(plain).float().var()
        set_adapter(model, None)
        assert (logits(model) - base).float().square().mean() < 1e-3 * base.float().var()
        set_adapter(model, "default")
    with pytest.raises(UsageError, match=r"rearranged for answering \(FastLinear\)"):
        merge(after)


BAD_CONFIGS = {
    "no rank": ({"rank": 0}, "rank"),
    "half a rank": ({"rank": 1.5}, "rank"),
    "a rank that is true": ({"rank": True}, "rank"),
    "a huge rank": ({"rank": 10**6}, "rank"),
    "no alpha": ({"alpha": 0}, "alpha"),
    "a negative alpha": ({"alpha": -1.0}, "alpha"),
    "an alpha that is no number": ({"alpha": float("nan")}, "alpha"),
    "an endless alpha": ({"alpha": float("inf")}, "alpha"),
    "an alpha of many digits": ({"alpha": 10**400}, "alpha"),
    "a word for alpha": ({"alpha": "16"}, "alpha"),
    "dropout of everything": ({"dropout": 1.0}, "dropout"),
    "negative dropout": ({"dropout": -0.1}, "dropout"),
    "no targets": ({"targets": ()}, "targets"),
}


@pytest.mark.parametrize(("fields", "word"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_configurations_that_make_no_adapter(fields, word):
    with pytest.raises(UsageError, match=word):
        LoraConfig(**fields)


def test_a_single_target_may_be_plain_text():
    assert LoraConfig(targets="vision").targets == ("vision",)
    assert LoraConfig(targets=["vision", "projector"]).targets == ("vision", "projector")
    assert hash(LoraConfig(targets=["vision"])) == hash(LoraConfig(targets="vision"))


@pytest.mark.parametrize("name", ["", "a.b", "keys", "a b", "x" * 65, "../x", "a\n", None, 3])
def test_names_that_cannot_be(name):
    model = random_model(TINY_1)
    with pytest.raises(UsageError, match="cannot be the name of an adapter"):
        add_adapter(model, LoraConfig(), name)
    assert not adapter_names(model)


def test_mistakes_change_nothing():
    model = adapted(name="birds")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for wrong, words in (
        (lambda: add_adapter(model, LoraConfig(), "birds"), "already has an adapter 'birds'"),
        (lambda: add_adapter(model, LoraConfig(targets=("q_proj",)), "other"), "no linear layer of the model is called 'q_proj'"),
        (lambda: set_adapter(model, "bird"), "there is no adapter 'bird'"),
        (lambda: merge(model, "bird"), "there is no adapter 'bird'"),
        (lambda: remove(model, "bird"), "there is no adapter 'bird'"),
        (lambda: adapter_parameters(model), "there is no adapter 'default'"),
    ):
        with pytest.raises(UsageError, match=words):
            wrong()
    with pytest.raises(UsageError) as error:
        set_adapter(model, "bird")
    assert error.value.hint == "did you mean 'birds'?"
    assert active_adapter(model) == "birds"
    adapted(name="dogs", model=model)
    with pytest.raises(UsageError, match="would change the base under the adapter 'birds'"):
        merge(model, "dogs")
    remove(model, "dogs")
    set_adapter(model, "birds")
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_values_that_would_spoil_the_weights_are_not_merged(value):
    model = adapted(model=random_model(TINY_1).half())
    adapter_layers(model)["text.blocks.2.mlp.down"].b.data[0, 0] = value
    before = model.text.blocks[0].attn.q.weight.clone()
    with pytest.raises(CheckpointError, match=r"text.blocks.2.mlp.down is not finite or too large"):
        merge(model)
    assert torch.equal(model.text.blocks[0].attn.q.weight, before)
    assert adapter_names(model) == ["default"]


def test_attach_takes_finished_adapters():
    model = random_model(TINY_1)
    config = LoraConfig(rank=1, alpha=1)
    attach(model, "ready", {"projector": LoraAdapter(config, torch.ones(1, 24), torch.ones(32, 1), trainable=False)})
    x = torch.randn(3, 24)
    torch.testing.assert_close(model.projector(x), model.projector.base(x) + x.sum(1, keepdim=True))
    assert not any(parameter.requires_grad for parameter in model.parameters())
