"""Layers by group, by name and by pattern."""

from __future__ import annotations

import pytest
from torch import nn

from paligemma.errors import UsageError
from paligemma.model.targets import GROUPS, linear_layers, swap
from tests.tiny import TINY, TINY_1, random_model

DECODER = ["attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down"]
TOWER = ["attn.q", "attn.k", "attn.v", "attn.out", "mlp.up", "mlp.down"]
text = [f"text.blocks.{block}.{layer}" for block in range(3) for layer in DECODER]
vision = [f"vision.blocks.{block}.{layer}" for block in range(2) for layer in TOWER]

CHOICES = {
    "the decoder": (("language",), text),
    "its attention": (("language-attention",), [name for name in text if ".attn." in name]),
    "the image tower": (("vision",), vision),
    "its attention only": (("vision-attention",), [name for name in vision if ".attn." in name]),
    "the projector": (("projector",), ["projector"]),
    "all": (("*",), [*vision, "projector", *text]),
    "groups, in the model's order and each layer once": (("language", "projector", "text.blocks.*.attn.q"), ["projector", *text]),
    "one kind": (("text.blocks.*.attn.q",), [f"text.blocks.{block}.attn.q" for block in range(3)]),
    "one layer": (("text.blocks.1.mlp.up",), ["text.blocks.1.mlp.up"]),
}


@pytest.mark.parametrize(("targets", "expected"), CHOICES.values(), ids=CHOICES)
def test_choices(targets, expected):
    assert list(linear_layers(random_model(TINY_1), targets)) == expected


@pytest.mark.parametrize("name", TINY)
def test_every_linear_layer_of_a_model_is_in_one_group(name):
    model = random_model(TINY[name])
    groups = linear_layers(model, ("language", "vision", "projector"))
    assert list(groups.values()) == [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert all(linear_layers(model, (group,)) for group in GROUPS)


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("langauge", "did you mean 'language'?"),
        ("text.blocks.*.attn.qq", "did you mean 'text.blocks.*.attn.q'?"),
        ("q_proj", "targets are language, "),
        ("text.embed", "targets are language, "),
        ("text.blocks.7.attn.q", "did you mean"),
    ],
)
def test_a_target_that_matches_nothing(target, hint):
    with pytest.raises(UsageError, match="no linear layer") as error:
        linear_layers(random_model(TINY_1), ("language", target))
    assert repr(target) in error.value.message
    assert error.value.hint.startswith(hint)


def test_swap():
    model = random_model(TINY_1)
    for name in ("projector", "text.blocks.2.mlp.down"):
        layer = nn.Linear(2, 2)
        swap(model, name, layer)
        assert model.get_submodule(name) is layer
