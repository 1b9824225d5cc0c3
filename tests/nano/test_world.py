"""Scenes: functions of their number, what they say is what they show, and nothing of the test stream in the training stream."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from paligemma.nano.names import dictionary_words, things
from paligemma.nano.world import CHARACTERS, SIZE, Scene, Split, World, background


@pytest.fixture(scope="module")
def scenes(train_scenes, test_scenes) -> list[Scene]:
    return train_scenes + test_scenes


@pytest.fixture(scope="module")
def pictured(scenes) -> list[Scene]:
    return [scene for scene in scenes if scene.objects]


@pytest.fixture(scope="module")
def printed(scenes) -> list[Scene]:
    return [scene for scene in scenes if scene.lines]


def same(a: Scene, b: Scene) -> bool:
    return np.array_equal(a.pixels, b.pixels) and np.array_equal(a.owner, b.owner) and a.lines == b.lines


def test_a_scene_is_a_function_of_its_number(train_world, train_scenes):
    assert all(same(train_world.scene(index), train_scenes[index]) for index in (17, 3, 250)), "whatever was drawn before"
    twin = World(Split.TRAIN, bank_size=2, backgrounds=20, seed=3)
    assert same(twin.scene(17), train_scenes[17])


def test_a_test_scene_too(test_scenes):
    assert all(same(World(Split.TEST, seed=1).scene(index), test_scenes[index]) for index in (5, 0))


def test_other_seeds_splits_and_numbers_give_other_scenes(test_world):
    drawn = [test_world.scene(4), test_world.scene(5), World(Split.TEST, seed=2).scene(4), World(Split.TRAIN, seed=1).scene(4)]
    assert not any(same(a, b) for a, b in itertools.combinations(drawn, 2))


def test_every_scene_shows_something(scenes):
    for scene in scenes:
        assert scene.pixels.shape == (SIZE, SIZE, 3)
        assert scene.pixels.dtype == np.uint8
        assert not (scene.objects and scene.lines)
        assert len(scene.objects) <= 4
        assert len(scene.lines) <= 3
    empty = sum(not scene.objects and not scene.lines for scene in scenes)
    assert empty < 0.02 * len(scenes), "only where the one or two views of a thing in a tiny bank are all too large"
    assert 0.2 < np.mean([bool(scene.lines) for scene in scenes]) < 0.4
    for counts, most in (([len(s.objects) for s in scenes if s.objects], 4), ([len(s.lines) for s in scenes if s.lines], 3)):
        shares = np.bincount(counts, minlength=most + 1)[1:] / len(counts)
        assert shares.min() > 0.1, "every number of things and words occurs"
    repeated = [len({spot.thing for spot in scene.objects}) < len(scene.objects) for scene in scenes if len(scene.objects) > 1]
    assert 0.25 < np.mean(repeated) < 0.6, "several of a kind occur, and do not rule"


def test_objects_stand_from_left_to_right_and_apart(pictured):
    for scene in pictured:
        centres = [spot.centre for spot in scene.objects]
        assert centres == sorted(centres)
        for (x0, y0), (x1, y1) in itertools.combinations(centres, 2):
            assert abs(x1 - x0) >= 4, "which is further left is no matter of taste"
            assert math.hypot(x1 - x0, y1 - y0) >= 12


def test_boxes_are_tight_around_masks(pictured):
    for scene in pictured:
        for index, spot in enumerate(scene.objects):
            rows, columns = np.nonzero(scene.mask(index))
            assert (spot.x0, spot.y0, spot.x1, spot.y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_no_mask_covers_another(pictured):
    for scene in pictured:
        assert set(np.unique(scene.owner)) <= set(range(-1, len(scene.objects)))
        for index, spot in enumerate(scene.objects):
            inside = scene.owner[spot.y0 : spot.y1, spot.x0 : spot.x1]
            assert (inside[spot.sprite.mask] == index).all(), "a later sprite lies over this one"
            assert scene.mask(index).sum() == spot.sprite.mask.sum()


def test_the_pixels_of_a_mask_are_those_of_its_sprite(pictured):
    """Up to the brightness and contrast of the whole picture, which is one gain and one shift."""
    for scene in pictured[::5]:
        drawn, shown = [], []
        for spot in scene.objects:
            solid = spot.sprite.alpha == 1
            drawn.append(spot.sprite.rgb[solid])
            shown.append(scene.pixels[spot.y0 : spot.y1, spot.x0 : spot.x1][solid])
        x, y = np.concatenate(drawn).ravel().astype(float), np.concatenate(shown).ravel().astype(float)
        whole = (y > 0) & (y < 255)
        gain, shift = np.polyfit(x[whole], y[whole], 1)
        assert 0.85 < gain < 1.15
        assert abs(gain * x + shift - y)[whole].max() < 2.5


def test_a_bank_world_uses_its_bank(train_world, train_scenes):
    for scene in train_scenes[:50]:
        for spot in scene.objects:
            assert spot.view is not None
            assert spot.sprite is train_world.bank[spot.thing][spot.view]


def test_all_things_occur(train_scenes):
    assert {spot.thing for scene in train_scenes for spot in scene.objects} == set(range(len(things())))


# Printed words


def test_letters_lie_in_the_picture_from_left_to_right(printed):
    for scene in printed:
        for line in scene.lines:
            assert 2 <= len(line.text) <= 7
            assert set(line.text) <= set(CHARACTERS)
            assert len(line.centres) == len(line.text)
            assert all(0 <= x < SIZE and 0 <= y < SIZE for x, y in line.centres)
            xs = [x for x, _ in line.centres]
            assert xs == sorted(xs)


def test_lines_stand_from_top_to_bottom(printed):
    for scene in printed:
        middles = [np.mean([y for _, y in line.centres]) for line in scene.lines]
        assert middles == sorted(middles)
        assert all(b - a > 10 for a, b in itertools.pairwise(middles)), "one below the other, not over it"


@pytest.mark.parametrize("angle", [-10.0, 0.0, 7.0])
def test_the_centre_of_a_letter_is_where_its_ink_is(test_world, angle):
    for seed in range(6):
        ink, centres = test_world.fonts.word(np.random.default_rng(seed), "XOHN8O", angle, SIZE, SIZE)
        rows, columns = np.nonzero(ink > 0.5)
        nearest = np.argmin([(columns - x) ** 2 + (rows - y) ** 2 for x, y in centres], axis=0)
        for letter, (x, y) in enumerate(centres):
            assert math.hypot(columns[nearest == letter].mean() - x, rows[nearest == letter].mean() - y) < 3


def test_print_stands_out(printed):
    """Where letters are, the picture is bright and dark."""
    for scene in printed:
        grey = scene.pixels.astype(float) @ (0.299, 0.587, 0.114)
        for line in scene.lines:
            x, y = (round(float(np.mean(values))) for values in zip(*line.centres, strict=True))
            window = grey[max(0, y - 9) : y + 10, max(0, x - 16) : x + 17]
            assert np.percentile(window, 98) - np.percentile(window, 2) > 30


# Nothing of the test in training


def test_held_out_words_are_never_printed_in_training(train_world, test_world, train_scenes, test_scenes):
    assert not set(train_world.words) & set(test_world.words)
    assert {*train_world.words, *test_world.words} == set(dictionary_words())
    assert len(test_world.words) > 200
    known = set(dictionary_words())
    for world, scenes in ((train_world, train_scenes), (test_world, test_scenes)):
        # Random letters are printed as well; those of five letters do not happen to be words.
        found = {line.text for scene in scenes for line in scene.lines if len(line.text) > 4} & known
        assert found
        assert found <= set(world.words)


def test_test_backgrounds_are_no_training_backgrounds(train_world):
    """Not even turned, flipped or with colours exchanged, as training varies its own."""

    def signature(pixels: np.ndarray) -> bytes:
        orders = (pixels[..., list(order)].reshape(-1, 3).astype(np.int64) for order in itertools.permutations(range(3)))
        return min(np.sort(colours @ (65536, 256, 1)).tobytes() for colours in orders)

    bank = {signature(pixels) for pixels in train_world.backgrounds}
    assert len(bank) == 20
    turned = np.rot90(train_world.backgrounds[3], 3)[:, ::-1, [2, 0, 1]]
    assert signature(turned) in bank, "the signature sees through the variation"
    fresh = {signature(background(np.random.default_rng([1, Split.TEST.value, index]))) for index in range(20)}
    assert not bank & fresh


def test_test_sprites_are_not_in_the_bank(train_world, test_scenes):
    bank = {sprite.rgb.tobytes() for views in train_world.bank for sprite in views}
    spots = [spot for scene in test_scenes for spot in scene.objects]
    assert all(spot.view is None and spot.sprite.rgb.tobytes() not in bank for spot in spots)
    assert len({spot.sprite.rgb.tobytes() for spot in spots}) == len(spots), "warped for this scene alone"


def test_larger_pictures_have_things_and_letters_as_small_as_before_and_larger_ones():
    world, usual = World(Split.TEST, seed=1, side=2 * SIZE), World(Split.TEST, seed=1)
    scenes, others = ([drawn.scene(index) for index in range(60)] for drawn in (world, usual))
    for scene in scenes:
        assert scene.pixels.shape == (2 * SIZE, 2 * SIZE, 3)
        assert scene.owner.shape == (2 * SIZE, 2 * SIZE)
        assert scene.side == 2 * SIZE
        assert all(0 <= x < 2 * SIZE and 0 <= y < 2 * SIZE for line in scene.lines for x, y in line.centres)
        for index, spot in enumerate(scene.objects):
            rows, columns = np.nonzero(scene.mask(index))
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (spot.x0, spot.y0, spot.x1, spot.y1)
            assert spot.side == 2 * SIZE
    sides, usual_sides = ([max(o.sprite.alpha.shape) for s in drawn for o in s.objects] for drawn in (scenes, others))
    assert min(sides) < min(usual_sides) + 4
    assert max(sides) > 1.3 * max(usual_sides)
