"""The benchmarks' rules: tables of answers, equality with other implementations, and what must hold of any of them."""

import re
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.evaluation import answers
from paligemma.evaluation.answers import (
    agreement,
    anls,
    any_match,
    choice,
    edit_distance,
    exact,
    mean_of_groups,
    number_word,
    relaxed_match,
    vqa_accuracy,
    vqa_normal,
    yes_or_no,
)

texts = st.text("ab 1.,'%", max_size=8)
known = st.lists(texts, min_size=1, max_size=10)


@pytest.mark.parametrize(
    ("answer", "people", "exactly", "agreed", "anybody"),
    [
        ("cat", ["cat"], 1, 1, 1),
        (" cat\n", ["cat "], 1, 1, 1),
        ("Cat", ["cat"], 0, 0, 0),
        ("cat", ["dog", "cat", "cat"], 1, 2 / 3, 1),
        ("dog", ["dog", "cat", "cat"], 0, 1 / 3, 1),
        ("dog", ["dog", "cat"], 1, 1 / 3, 1),
        ("cat", ["cat"] * 5, 1, 1, 1),
        ("cow", ["dog", "cat"], 0, 0, 0),
        ("", [""], 1, 1, 1),
        ("x", [], 0, 0, 0),
    ],
)
def test_equality(answer, people, exactly, agreed, anybody):
    assert exact(answer, people) == exactly
    assert agreement(answer, people) == pytest.approx(agreed)
    assert any_match(answer, people) == anybody


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Dog.", "dog"),
        ("a dog and an owl", "dog and owl"),
        ("two", "2"),
        ("None", "0"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("y'alld've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("its", "its"),
        ("well", "well"),
        ("shed", "shed"),
        ("3.5", "3.5"),
        ("3. 5.", "3 5"),
        ("t-shirt", "t shirt"),
        ("t- shirt", "t shirt"),
        ("and/or", "and or"),
        ("yes,no", "yes no"),
        ("1,000", "1000"),
        ("1,000 t-shirt", "1000 tshirt"),
        ("it's: ok", "it's: ok"),
        ("new  york\n", "new york"),
        ("", ""),
    ],
)
def test_normal_form_of_vqa(text, normal):
    assert vqa_normal(text) == normal


def leave_one_out(answer: str, people: list[str]) -> float:
    """VQA's formula as it is written, for texts that are normal already."""
    return mean(min(1, sum(answer == other for other in people[:i] + people[i + 1 :]) / 3) for i in range(len(people)))


@given(st.sampled_from("abc"), st.lists(st.sampled_from("abc"), min_size=2, max_size=10))
def test_vqa_leaves_each_person_out_once(answer, people):
    people = [f"x{person}" for person in people]  # "a" would be an article
    assert vqa_accuracy(f"x{answer}", people) == pytest.approx(leave_one_out(f"x{answer}", people))


@pytest.mark.parametrize(
    ("answer", "people", "accuracy"),
    [
        ("yes", ["yes"] * 10, 1.0),
        ("Yes", ["yes"] * 10, 0.0),  # unanimous: nothing is normalised
        ("Yes", ["yes"] * 9 + ["no"], 1.0),
        ("two dogs", ["2 dogs"] * 3 + ["dogs"] * 7, 0.9),
        ("2", ["two"] * 2 + ["2"] + ["3"] * 7, 0.9),
        ("the cat", ["cat"] * 1 + ["dog"] * 9, 0.3),
        ("cow", ["cat"] * 5 + ["dog"] * 5, 0.0),
    ],
)
def test_vqa(answer, people, accuracy):
    assert vqa_accuracy(answer, people) == pytest.approx(accuracy)


@given(texts, known, st.randoms())
def test_shares_whatever_the_order_of_people(answer, people, rng):
    for rule in (exact, agreement, any_match, anls, vqa_accuracy):
        assert 0 <= rule(answer, people) <= 1
    for rule in (agreement, any_match, anls, vqa_accuracy):
        assert rule(answer, people) == pytest.approx(rule(answer, rng.sample(people, len(people))))
    assert any_match(people[0], people) == 1 == anls(people[0], people)


@given(st.text("abc", min_size=1, max_size=8), st.lists(st.text("abc", min_size=1, max_size=8), min_size=1, max_size=3))
def test_anls_is_another_implementations(answer, people):
    from anls import anls_score

    assert anls(answer, people) == pytest.approx(anls_score(prediction=answer, gold_labels=people, threshold=0.5), abs=1e-6)


def test_anls_is_nothing_from_the_threshold_on():
    assert anls("abcd", ["abxd"]) == 0.75
    assert anls("ab", ["ax"]) == 0  # half of the characters differ
    assert anls("", ["a"]) == 0
    assert anls("", [""]) == 1


@given(st.text("ab", max_size=7), st.text("ab", max_size=7))
def test_edit_distance_is_another_implementations(a, b):
    from rapidfuzz.distance import Levenshtein

    assert edit_distance(a, b) == Levenshtein.distance(a, b)


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("10.5", "10", 1),
        ("9.5", "10", 1),
        ("10.6", "10", 0),
        ("-10.4", "-10", 1),
        ("10", "-10", 0),
        ("5%", "0.05", 1),
        ("5", "5%", 0),
        ("5 %", "5%", 1),
        ("0.01", "0", 0),
        ("0", "0", 1),
        ("0.0", "0", 0),
        ("2010", "2000", 1),
        ("red", "red", 1),
        ("Red", "red", 0),
        ("", "5", 0),
        ("1e1", "10", 1),
        ("1,000", "1000", 0),
    ],
)
def test_relaxed_accuracy_of_charts(answer, truth, right):
    assert relaxed_match(answer, truth) == right


def test_number_words():
    assert [number_word(text) for text in ("Two", " twenty ", "none", "0", "many", "twenty-one")] == [
        "2",
        "20",
        "0",
        "0",
        "many",
        "twenty-one",
    ]


def test_yes_or_no():
    assert [yes_or_no(text) for text in ("Yes", " no ", "yes.", "", "maybe")] == ["yes", "no", None, None, None]


def test_choices():
    told = ["The answer is B.", "the answer is c. because", "the answer is b", "I think the answer is b.", "b", "the answer is bb."]
    assert [choice(text) for text in told] == ["b", "c", None, None, None, None]


def test_means_of_groups():
    assert mean_of_groups([1, 0, 1, 1], ["b", "a", "b", "a"]) == {"b": 1.0, "a": 0.5}


def test_apostrophes_go_where_they_belong():
    for short, word in answers._VQA_WORDS.items():
        if not word.isdigit() and word != "somebodyd":
            assert short.replace("'", "") == word.replace("'", "")
            assert word.count("'") == short.count("'") + 1
    assert all(re.fullmatch(r"[a-z']+", short) for short in answers._VQA_WORDS)
