"""Lengths are those of the training examples, and what happens at the limit is what `training_example` does."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma.config import MASK_CODES
from paligemma.data.lessons import MOST_CLASSES, lesson
from paligemma.data.records import Thing
from paligemma.errors import InputError
from paligemma.inspection.lengths import BARS, LISTED, histogram, read_texts
from paligemma.sequence import training_example

from ..tiny import tiny_tokenizer
from .making import found, items, told

WORDS = st.text("cat dog?0", max_size=24)


@settings(max_examples=80, deadline=None)
@given(prompt=WORDS, answer=WORDS, limit=st.integers(4, 40))
def test_the_fate_of_a_text_is_that_of_its_training_example(prompt: str, answer: str, limit: int):
    lengths = read_texts(items(told(1, prompt, answer)), tiny_tokenizer(), limit).lengths
    try:
        example = training_example(tiny_tokenizer(), prompt, answer, limit)
    except InputError:
        assert (lengths.cut, lengths.no_room) == (0, 1)
        return
    assert (lengths.cut, lengths.no_room) == (int(example.truncated), 0)
    assert min(lengths.longest, limit) == len(example.ids)
    assert [over.fate for over in lengths.over] == ["cut"] * example.truncated


def test_of_several_answers_the_longest_counts():
    long = len(training_example(tiny_tokenizer(), "p", "a cat and two dogs", 99).ids)
    lengths = read_texts(items(told(1, "p", "cat", "a cat and two dogs", "dog")), tiny_tokenizer(), 99).lengths
    assert (lengths.median, lengths.p95, lengths.longest, lengths.longest_where) == (long, long, long, "line 1")


class Never:
    def mask(self, width, height):
        raise AssertionError("an outline was drawn")


def test_masks_count_their_tokens_without_being_drawn():
    things = tuple(Thing("cat", (i, 0, i + 8.0, 9), Never()) for i in range(3))
    record = found(1, *things, task="segment", asked=("cat", "dog"))
    text = lesson(
        found(1, *(Thing("cat", thing.box, Full()) for thing in things), task="segment", asked=("cat", "dog")),
        (20, 20),
        codes=lambda mask: tuple(range(MASK_CODES)),
    )
    expected = len(training_example(tiny_tokenizer(), text.prefix, text.suffix, 999).ids)
    texts = read_texts(items(record), tiny_tokenizer(), 999)
    assert texts.lengths.longest == expected > 3 * (4 + MASK_CODES)
    assert texts.prompts.most == (("segment cat ; dog", 1),)


class Full:
    def mask(self, width, height):
        return np.ones((height, width), bool)


def test_a_prompt_whose_names_are_drawn_is_counted_as_one():
    many = tuple(f"c{i}" for i in range(MOST_CLASSES + 4))
    texts = read_texts(items(found(1), found(2), classes=many), tiny_tokenizer(), 999)
    assert texts.prompts.distinct == 1
    assert str(len(many)) in texts.prompts.most[0][0]


def test_what_cannot_be_asked_is_told_and_the_rest_counted():
    lengths = read_texts(items(*[found(1)] * (LISTED + 3), told(2, "p", "cat")), tiny_tokenizer(), 99).lengths
    assert lengths.unwritten == LISTED + 3
    assert [where for where, _ in lengths.reasons] == ["line 1"] * LISTED
    assert lengths.longest_where == "line 2"


def test_of_drawn_names_the_longest_count():
    """What a run draws is never longer, whatever it draws, and can be as long."""
    short, long = [f"c{i}" for i in range(MOST_CLASSES)], [f"cat dog cat {i}" for i in range(4)]
    record, classes = found(1, Thing("c3", (0, 0, 9, 9))), (*short, *long)
    most = read_texts(items(record, classes=classes), tiny_tokenizer(), 999).lengths.longest

    def drawn(seed: int) -> int:
        text = lesson(record, (20, 20), classes=classes, rng=np.random.default_rng(seed))
        return len(training_example(tiny_tokenizer(), text.prefix, text.suffix, 999).ids)

    lengths = [drawn(seed) for seed in range(200)]
    assert max(lengths) == most > min(lengths)


def test_nothing_has_no_lengths():
    assert read_texts([], tiny_tokenizer(), 99).lengths.longest == 0


@pytest.mark.parametrize("values", [[1], [5, 5, 5], list(range(7, 200)), [1, 100_000], [3, 3, 900]])
def test_bars_hold_every_value_once(values: list[int]):
    bars = histogram(np.array(values))
    assert len(bars) <= BARS
    assert sum(count for *_, count in bars) == len(values)
    assert bars[0][0] == min(values)
    assert all(count == sum(low <= value <= high for value in values) for low, high, count in bars)
    assert all(b[0] == a[1] + 1 for a, b in itertools.pairwise(bars))
