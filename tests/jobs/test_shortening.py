"""Texts are cut where people would cut them, in any script, and never within what they see as one character."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from paligemma.jobs.shortening import MARK, several_words, shortened

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize(
    ("text", "most", "wanted"),
    [
        ("a cat", 5, "a cat"),
        ("  a\n cat ", 5, "a cat"),
        ("A dog runs. It is brown and barks.", 20, "A dog runs."),
        ("A dog runs. It is brown and large and it barks.", 30, "A dog runs. It is brown and…"),
        ("hello world foo", 12, "hello world…"),
        ("one two, three four", 9, "one two…"),
        ("don't stop now", 8, "don't…"),
        ("costs 3.5 million", 9, "costs…"),
        ("unbreakable", 6, "unbre…"),
        ("猫头鹰、绿心和鱼在桌子上。旁边有人。", 15, "猫头鹰、绿心和鱼在桌子上。"),
        ("猫头鹰、绿心和鱼在桌子上。旁边有人。", 5, "猫头鹰…"),
        (FAMILY * 3, 12, FAMILY * 2 + "…"),
        (FAMILY, 3, "…"),
        ("e\u0301" * 9, 8, "e\u0301" * 3 + "…"),
        ("\U0001f1e9\U0001f1ea" * 4, 4, "\U0001f1e9\U0001f1ea…"),
        ("กำ" * 6, 6, "กำกำ…"),
    ],
)
def test_where_it_ends(text: str, most: int, wanted: str):
    assert shortened(text, most) == (wanted, wanted != " ".join(text.split()))


@pytest.mark.parametrize(
    ("text", "several"),
    [("", False), (" ... ", False), ("left", False), ("left.", False), ("don't", False), ("an owl", True), ("3 4", True), ("猫头鹰", True)],
)
def test_one_word_or_several(text: str, several: bool):
    assert several_words(text) == several


@given(
    st.text(alphabet=st.sampled_from("ab .,!。猫ำกe\u0301\u200d\U0001f468\U0001f469\U0001f1e9\U0001f1ea\n"), max_size=40),
    st.integers(2, 30),
)
def test_it_is_short_enough_a_beginning_and_ends_between_graphemes(text: str, most: int):
    short, cut = shortened(text, most)
    whole = " ".join(text.split())
    assert len(short) <= most
    assert cut == (short != whole)
    kept = short.removesuffix(MARK) if cut else short
    assert whole.startswith(kept)
    assert len(kept) in {0, *(found.end() for found in regex.finditer(r"\X", whole))}
