"""Recipes: found by name, of the dimensions they promise."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from paligemma.errors import UsageError
from paligemma.model.paligemma import PaliGemma
from paligemma.nano.recipes import RECIPES, recipe
from paligemma.nano.world import BACKGROUNDS, SIZE


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_model(name):
    found = recipe(name)
    assert found.name == name
    config = found.config()
    assert config.vision.image_size == (224 if name.endswith("-224") else SIZE)
    assert config.text.vocab_size == found.vocab_size
    with torch.device("meta"):
        model = PaliGemma(config)
    assert sum(p.numel() for p in model.parameters()) == config.num_parameters


def test_the_bundled_model_is_small():
    found = recipe("nano-112")
    assert found.config().num_parameters < 5e6
    assert found.backgrounds == BACKGROUNDS
    assert (found.seed, found.bank_size, found.vocab_size) == (0, 160, 2560), "the bundled weights were trained with these"


def test_an_unknown_recipe_names_the_closest():
    with pytest.raises(UsageError, match="nano-121") as raised:
        recipe("nano-121")
    assert "nano-112" in str(raised.value.hint)
    with pytest.raises(UsageError) as raised:
        recipe("zzz")
    assert "debug" in str(raised.value.hint)


def test_recipes_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe("debug").phases = ()  # pyright: ignore[reportAttributeAccessIssue]


def test_the_mix_goes_on_where_pretraining_ends():
    pretrained, mix = recipe("nano-pt-112"), recipe("nano-112")
    assert pretrained.phases == mix.phases[: len(pretrained.phases)]
    assert dataclasses.replace(pretrained, name=mix.name, phases=mix.phases) == mix
    assert not any(phase.mix.side or phase.mix.place for phase in pretrained.phases)


def test_the_second_stage_changes_nothing_but_the_size_of_the_pictures():
    small, large = recipe("nano-pt-112").config(), recipe("nano-pt-224").config()
    assert dataclasses.replace(large, vision=small.vision, name=small.name) == small
    assert dataclasses.replace(large.vision, image_size=SIZE) == small.vision
