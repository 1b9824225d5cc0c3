"""Strategies: exactly what learns, counted; and that a step moves it and nothing else."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from paligemma.config import preset
from paligemma.errors import UsageError
from paligemma.model.empty import empty_model
from paligemma.model.lora import LoraConfig, add_adapter
from paligemma.training.objective import fused_loss, loss_weights
from paligemma.training.optim import make_optimizer
from paligemma.training.recipes import Recipe, Strategy, recipe
from paligemma.training.strategies import LEARNS, choose, prepare
from tests.tiny import TINY_1, TINY_2, random_model, random_pixels

BASE = dataclasses.replace(recipe("debug"), lora_rank=2, warmup=0.0)


def mine(strategy: Strategy) -> Recipe:
    return dataclasses.replace(BASE, strategy=strategy)


@pytest.mark.parametrize(
    ("strategy", "learns", "frozen"),
    [
        ("full", ["vision.pos_embed", "projector.bias", "text.embed.weight", "text.blocks.0.mlp.up.weight", "text.norm.weight"], []),
        ("freeze-vision", ["text.embed.weight", "text.norm.weight"], ["vision.pos_embed", "vision.norm.bias", "projector.weight"]),
        (
            "attention-only",
            ["text.blocks.0.attn.q.weight", "text.blocks.2.attn.o.weight"],
            ["text.blocks.0.pre_attn_norm.weight", "text.blocks.0.mlp.up.weight", "text.embed.weight", "vision.blocks.0.attn.q.weight"],
        ),
        (
            "lora",
            ["text.blocks.0.attn.q.adapters.default.a", "text.blocks.2.mlp.down.adapters.default.b"],
            ["text.blocks.0.attn.q.base.weight", "vision.blocks.0.attn.q.weight", "text.embed.weight"],
        ),
    ],
)
def test_what_learns(strategy, learns, frozen):
    model = random_model(TINY_1)
    trainable = prepare(model, mine(strategy))
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names == set(trainable.parameters)
    assert {name for name, _ in model.named_parameters()} - names == set(trainable.frozen)
    assert set(learns) <= names
    assert set(frozen) <= set(trainable.frozen)
    if strategy == "attention-only":
        assert len(names) == 4 * TINY_1.text.depth
    if strategy == "freeze-vision":
        assert all(name.startswith(("vision.", "projector.")) for name in trainable.frozen)


@pytest.mark.parametrize("strategy", LEARNS)
@pytest.mark.parametrize("config", [TINY_1, TINY_2], ids=lambda config: config.name)
def test_a_step_moves_what_learns_and_nothing_else(strategy, config):
    model = random_model(config).train()
    trainable = prepare(model, mine(strategy))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = make_optimizer(mine(strategy), trainable.parameters, 3)
    ids = torch.arange(2, 10).view(2, 4)
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    for step in range(2):  # an adapter's first matrix has a gradient of zero in the first step
        hidden = model.hidden_states(model.encode_image(random_pixels(config, 2)), ids, mask)
        fused_loss(hidden[:, :-1], model.text.embed.weight, ids[:, 1:], loss_weights(mask)[:, 1:]).total.backward()
        optimizer.step(step)
        optimizer.clear_gradients()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == set(trainable.parameters)


def test_dropout_is_the_recipes():
    model = random_model(TINY_1)
    prepare(model, dataclasses.replace(BASE, dropout=0.3))
    assert [block.drop.p for block in model.text.blocks] == [0.3] * TINY_1.text.depth  # pyright: ignore[reportAttributeAccessIssue]


def test_an_adapter_is_the_seeds():
    states = []
    for seed in (0, 0, 1):
        model = random_model(TINY_1)
        trainable = prepare(model, dataclasses.replace(mine("lora"), seed=seed))
        states.append(trainable.parameters["text.blocks.0.attn.q.adapters.default.a"].detach())
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_only_one_of_several_adapters_learns():
    model = random_model(TINY_1)
    add_adapter(model, LoraConfig(rank=2), "other")
    trainable = prepare(model, mine("lora"))
    assert all(".adapters.default." in name for name in trainable.parameters)
    assert any(".adapters.other." in name for name in trainable.frozen)


def test_without_an_adapter_there_is_nothing_to_learn():
    with pytest.raises(UsageError, match="has no adapter 'default'"):
        choose(random_model(TINY_1), "lora")


def test_the_summary_of_the_published_model():
    model = empty_model(preset("paligemma-3b-224"))
    assert str(choose(model, "freeze-vision")).splitlines() == [
        "                    learns       frozen",
        "image tower              0  412,442,352",
        "projector                0    2,361,344",
        "decoder      1,981,882,368            0",
        "embeddings     526,647,296            0",
        "final norm           2,048            0",
        "all          2,508,531,712  414,803,696",
        "86 % of the numbers learn (freeze-vision)",
    ]


def test_all_and_very_little_are_said_in_words_that_people_read():
    assert str(choose(random_model(TINY_1), "full")).endswith("100 % of the numbers learn (full)")
    adapter = prepare(empty_model(preset("paligemma-3b-224")), recipe("lora"))
    assert str(adapter).endswith("0.33 % of the numbers learn (lora)")


def test_adapters_of_the_published_model_are_those_of_the_language_model():
    """9,805,824 numbers at rank 8; the usual list of names adapts the image tower too and makes it 11,298,816."""
    counts = prepare(empty_model(preset("paligemma-3b-224")), recipe("lora")).counts
    assert counts["adapters"] == (9_805_824, 0)
    assert prepare(empty_model(preset("paligemma-3b-224")), recipe("maestro")).counts["adapters"] == (11_298_816, 0)


def test_layers_of_four_bits_are_counted_as_what_they_stand_for():
    plain, packed = (prepare(random_model(TINY_1), mine(strategy)).counts for strategy in ("lora", "qlora"))
    assert packed == plain
