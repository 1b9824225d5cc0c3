"""Settings as text: round trips, and one sentence for everything that can be wrong with one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.errors import UsageError
from paligemma.training import settings
from paligemma.training.settings import MAX_COUNT, Range, differences, from_text, setting, to_text


@dataclass(frozen=True)
class Oven:
    heat: float = setting("degrees", allowed=Range(0, 250))
    minutes: int = setting("how long", 10, Range(1))
    share: float = setting("how full", 0.5, Range(0, 1, below=True))
    fan: bool = setting("whether it blows", False)
    mode: Literal["bake", "grill"] = setting("how", "bake")
    dish: str = setting("what", "")
    racks: tuple[str, ...] = setting("where", ("middle",))

    def __post_init__(self) -> None:
        settings.check(self)


def test_the_text_says_what_everything_is():
    assert to_text(Oven(180, dish='a "pie"'), "Sunday") == (
        "# Sunday\n"
        'heat = 180.0        # degrees\n'
        "minutes = 10        # how long\n"
        "share = 0.5         # how full\n"
        "fan = false         # whether it blows\n"
        'mode = "bake"       # how (one of "bake", "grill")\n'
        'dish = "a \\"pie\\""  # what\n'
        'racks = ["middle"]  # where\n'
    )  # fmt: skip


ovens = st.builds(
    Oven,
    heat=st.floats(0, 250),
    minutes=st.integers(1, MAX_COUNT),
    share=st.floats(0, 1, exclude_max=True),
    fan=st.booleans(),
    mode=st.sampled_from(["bake", "grill"]),
    dish=st.text(),
    racks=st.lists(st.text()).map(tuple),
)


@given(ovens)
def test_text_comes_back_as_the_same_settings(oven):
    again = from_text(Oven, to_text(oven, oven.dish))
    assert again == oven
    assert [type(value) for value in vars(again).values()] == [float, int, float, bool, str, str, tuple]


@given(ovens, ovens)
def test_differences_are_those_of_values(one, two):
    found = differences(one, two)
    assert bool(found) == (one != two)
    assert len(found) == sum(getattr(one, name) != getattr(two, name) for name in vars(one))


def test_differences_in_words():
    assert differences(Oven(180), Oven(180)) == []
    assert differences(Oven(180, fan=True), Oven(200, racks=("top",))) == [
        "heat is 180.0, not 200.0",
        "fan is true, not false",
        'racks is ["middle"], not ["top"]',
    ]


def test_order_and_defaults_are_free():
    assert from_text(Oven, 'mode = "grill"\nheat = 100\n') == Oven(100.0, mode="grill")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("heat = 251", "heat: expected a number from 0 to 250, found 251.0"),
        ("heat = -1", "heat: expected a number from 0 to 250, found -1.0"),
        ("heat = nan", "heat: expected a number from 0 to 250, found nan"),
        ("heat = inf", "heat: expected a number from 0 to 250, found inf"),
        ("heat = true", "heat: expected a number from 0 to 250, found True"),
        ('heat = "180"', "heat: expected a number from 0 to 250, found '180'"),
        ("heat = [1]", r"heat: expected a number from 0 to 250, found \[1\]"),
        ("heat = 9\nminutes = 0", "minutes: expected a whole number of 1 or more, found 0"),
        ("heat = 9\nminutes = 1.0", "minutes: expected a whole number of 1 or more, found 1.0"),
        (f"heat = 9\nminutes = {2**60}", "minutes: expected a whole number of 1 or more, found 115"),
        ("heat = 9\nshare = 1", "share: expected a number from 0 to below 1, found 1.0"),
        ("heat = 9\nfan = 1", "fan: expected true or false, found 1"),
        ('heat = 9\nmode = "gril"', 'mode: expected one of "bake", "grill", found .gril.'),
        ("heat = 9\nmode = []", r'mode: expected one of "bake", "grill", found \[\]'),
        ("heat = 9\ndish = 3", "dish: expected a text, found 3"),
        ("heat = 9\nracks = 'top'", "racks: expected a list of texts, found 'top'"),
        ("heat = 9\nracks = [3]", r"racks: expected a list of texts, found \(3,\)"),
        ("heat = 9\ndish = 1979-05-27", "dish: expected a text, found datetime"),
        ("fan = true", "the setting 'heat' is missing: degrees"),
        ("heat = 9\nminute = 3", "there is no setting 'minute'"),
        ("heat = 9\nheat = 8", "this is no TOML"),
        ("heat is 9", "this is no TOML"),
        ("x = " + "[" * 9999, "this is no TOML"),
        ("heat = 9\ndish = \"\\ud800\"", "this is no TOML"),
        ("[heat]\na = 1", "heat: expected a number from 0 to 250, found {'a': 1}"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text, words):
    with pytest.raises(UsageError, match=words) as raised:
        from_text(Oven, text)
    assert len(raised.value.message) < 200
    assert "\n" not in raised.value.message


def test_a_misspelt_name_or_choice_gets_a_suggestion():
    for text, meant in (("heat = 9\nminute = 3", "minutes"), ('heat = 9\nmode = "gril"', "grill")):
        with pytest.raises(UsageError) as raised:
            from_text(Oven, text)
        assert raised.value.hint == f"did you mean {meant!r}?"


def test_python_values_are_checked_too():
    assert Oven(9, racks=["top"]).racks == ("top",)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="heat"):
        Oven(math.nan)
    with pytest.raises(UsageError, match="dish: expected a text"):
        Oven(9, dish="\ud800")
    with pytest.raises(UsageError, match="heat"):
        Oven(10**400)


@pytest.mark.parametrize(
    ("allowed", "words"),
    [
        (Range(0), "of 0 or more"),
        (Range(0, above=True), "above 0"),
        (Range(0, 1e3, above=True), "above 0 to 1,000"),
        (Range(1, 2**20), "from 1 to 1,048,576"),
    ],
)
def test_ranges_in_words(allowed, words):
    assert str(allowed) == words
