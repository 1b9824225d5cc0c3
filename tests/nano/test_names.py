"""The words of the world: unique where they must be, grammatical where they are put together."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest

from paligemma.errors import UsageError
from paligemma.nano import names
from paligemma.nano.names import LANGUAGES, dictionary_words, enumerate_names, plural, things, with_article
from paligemma.tasks import detect
from paligemma.tasks.languages import check_language


def test_there_are_49_things_in_a_fixed_order():
    assert len(things()) == 49
    assert [thing.index for thing in things()] == list(range(49))
    assert [thing.label for thing in things()][:3] == ["cat", "dog", "horse"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_thing_has_its_own_name(lang):
    check_language(lang)
    found = [thing.names[lang] for thing in things()]
    assert all(name.strip() == name and name for name in found)
    assert len(set(found)) == len(found)
    assert len({name.casefold() for name in found}) == len(found), "answers are compared whatever the case of their letters"


def test_names_are_in_the_language_they_claim():
    for thing in things():
        assert all("CJK" in unicodedata.name(letter) for letter in thing.names["zh"]), thing
        assert thing.names["de"].split()[-1][0].isupper(), f"German nouns have a capital: {thing}"
        assert thing.label.isascii(), thing
    assert [things()[0].names[lang] for lang in LANGUAGES] == ["cat", "Katze", "gato", "chat", "猫"]
    assert things()[36].names["de"] == "rotes Herz"


def test_labels_can_be_asked_for():
    assert all(detect.class_names([thing.label]) == (thing.label,) for thing in things())


def test_a_coloured_thing_is_its_colour_and_its_noun():
    coloured = [thing for thing in things() if thing.colour]
    assert len(coloured) == 13
    assert all(thing.label == f"{thing.colour} {thing.noun}" for thing in coloured)
    assert all(thing.noun == thing.label for thing in things() if not thing.colour)


@pytest.mark.parametrize(
    "pair",
    [
        "cat cats",
        "fox foxes",
        "fish fish",
        "grapes grapes",
        "scissors scissors",
        "butterfly butterflies",
        "strawberry strawberries",
        "octopus octopuses",
        "cactus cactuses",
        "key keys",
        "circle circles",
    ],
)
def test_plurals(pair):
    one, several = pair.split()
    assert plural(one) == several


def test_no_plural_looks_wrong():
    found = {thing.noun: plural(thing.noun) for thing in things()}
    assert len(set(found.values())) == len(found), "a question means one noun"
    for noun, several in found.items():
        assert several.endswith("s") or noun == "fish"
        assert not re.search("[^aeiou]ys$|xs$|chs$|[^s]sss*s$", several), several


@pytest.mark.parametrize("phrase", ["a cat", "an owl", "an elephant", "an orange book", "a yellow heart", "grapes", "scissors"])
def test_articles(phrase):
    assert with_article(phrase.removeprefix("a ").removeprefix("an ")) == phrase


@pytest.mark.parametrize(
    ("lang", "found", "text"),
    [
        ("en", [], "nothing"),
        ("en", ["cat"], "a cat"),
        ("en", ["cat", "owl"], "a cat and an owl"),
        ("en", ["cat", "cat", "scissors"], "a cat, a cat and scissors"),
        ("de", [], "nichts"),
        ("de", ["Katze", "rotes Herz"], "Katze und rotes Herz"),
        ("es", ["gato", "oso", "pez"], "gato, oso y pez"),
        ("fr", ["chat", "ours", "lapin", "clé"], "chat, ours, lapin et clé"),
        ("zh", ["猫"], "猫"),
        ("zh", ["猫", "狗", "马"], "猫、狗和马"),
        ("zh", [], "什么都没有"),
    ],
)
def test_enumerations(lang, found, text):
    assert enumerate_names(found, lang) == text


def test_printed_words_are_short_upper_case_and_many():
    words = dictionary_words()
    assert len(words) > 1000
    assert list(words) == sorted(set(words))
    assert all(re.fullmatch("[A-Z]{3,7}", word) for word in words)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "emoji", None)
    with pytest.raises(UsageError, match="package emoji") as raised:
        names._emoji_data.__wrapped__("de")
    assert "paligemma[world]" in str(raised.value.hint)
