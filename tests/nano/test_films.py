"""Films: what is said to happen is what the frames show, and a film is a function of its split, seed and number."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from paligemma.nano.films import DIRECTIONS, EVENTS, FRAMES, NOTHING, SHORTEST_WAY, Film, _way, caption, film
from paligemma.nano.names import things
from paligemma.nano.sprites import warp
from paligemma.nano.world import SIZE, Split


@pytest.fixture(scope="module")
def films() -> list[Film]:
    return [film(Split.TEST, 1, index) for index in range(40)]


def changed(before: np.ndarray, after: np.ndarray) -> int:
    """Pixels that differ by more than the grain does."""
    smooth = [np.asarray(Image.fromarray(frame).filter(ImageFilter.BoxBlur(1)), int) for frame in (before, after)]
    return int((abs(smooth[0] - smooth[1]).max(2) > 12).sum())


def test_a_film_depends_on_split_seed_and_number_only(films):
    again = film(Split.TEST, 1, 3)
    assert again.caption == films[3].caption
    assert all((a == b).all() for a, b in zip(again.frames, films[3].frames, strict=True))
    others = [film(Split.TRAIN, 1, 3), film(Split.TEST, 2, 3), films[4]]
    assert all((other.frames[0] != films[3].frames[0]).any() for other in others)


def test_frames_are_pictures_of_the_world(films):
    assert {frame.shape for one in films for frame in one.frames} == {(SIZE, SIZE, 3)}
    assert {len(one.frames) for one in films} == {FRAMES}
    assert len({one.event for one in films}) > 4


def test_where_nothing_happens_only_the_grain_changes_and_elsewhere_more(films):
    """Each frame against the one before."""
    for one in films:
        steps = [changed(before, after) for before, after in zip(one.frames, one.frames[1:], strict=False)]
        if one.event == "nothing":
            assert one.caption == NOTHING
            assert not any(steps)
        elif one.event in DIRECTIONS:
            assert all(steps), one.caption
        else:
            assert sum(map(bool, steps)) == 1, f"{one.caption}: once, and only once"


@pytest.mark.parametrize("event", EVENTS)
def test_the_way_of_a_thing_is_what_is_said_of_it(event):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sprite = warp(things()[seed], rng)
        height, width = sprite.alpha.shape
        if max(height, width) > SIZE - SHORTEST_WAY:
            continue
        way = _way(rng, sprite, event)
        there = [spot for spot in way if spot is not None]
        assert all(0 <= x <= SIZE - width and 0 <= y <= SIZE - height for x, y in there)
        if event in DIRECTIONS:
            moved = np.diff(np.array(there), axis=0)
            along = moved @ np.array(DIRECTIONS[event])
            assert len(there) == FRAMES
            assert (along > 0).all()
            assert along.sum() >= SHORTEST_WAY - 1e-6
            assert abs(moved).sum() == pytest.approx(along.sum()), "straight on"
        else:
            first, last = way[0] is not None, way[-1] is not None
            assert (first, last) == {"appears": (False, True), "disappears": (True, False), "nothing": (True, True)}[event]
            assert len(set(there)) == 1


@pytest.mark.parametrize(
    ("name", "event", "said"),
    [
        ("cat", "left", "a cat moves to the left"),
        ("owl", "appears", "an owl appears"),
        ("scissors", "up", "scissors move up"),
        ("grapes", "disappears", "grapes disappear"),
        ("red heart", "right", "a red heart moves to the right"),
        ("cat", "nothing", "nothing happens"),
    ],
)
def test_captions(name, event, said):
    assert caption(name, event) == said
