"""Reading errors: jiwer's own rates, and what must hold of them."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.evaluation.answers import edit_distance
from paligemma.evaluation.readings import compare, word_f1

texts = st.text("ab \n", max_size=12)


def test_rates_are_jiwers():
    truths, guesses = ["the red bus", "STOP", "a b c"], ["the rd bus", "STOP SIGN", ""]
    read = [compare(guess, truth) for guess, truth in zip(guesses, truths, strict=True)]
    assert sum(r.character_edits for r in read) / sum(r.characters for r in read) == pytest.approx(jiwer.cer(truths, guesses))
    assert sum(r.word_edits for r in read) / sum(r.words for r in read) == pytest.approx(jiwer.wer(truths, guesses))


@given(texts, texts)
def test_edits_are_counted(guess, truth):
    read = compare(guess, truth)
    a, b = " ".join(guess.split()), " ".join(truth.split())
    assert read.character_edits == edit_distance(a, b)
    assert read.word_edits == edit_distance(a.split(), b.split())
    assert read.exact == (a == b)
    assert 0 <= word_f1(read.common, read.guessed, read.words) <= 1
    assert compare(truth, truth).character_error_rate == 0
    assert compare(" ".join(reversed(truth.split())), truth).common == read.words, "the order of words does not count"


def test_words_wherever_they_stand():
    read = compare("bus  red\nbus", "the red bus")
    assert (read.common, read.guessed, read.words) == (2, 3, 3)
    assert word_f1(2, 3, 3) == pytest.approx(2 / 3)
    assert word_f1(0, 0, 0) == 1
