"""The things of the small world, and what they are called in five languages.

Names come from the `emoji` package (Unicode CLDR short names); this file only picks the things and mends grammar around them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UsageError

LANGUAGES = ("en", "de", "es", "fr", "zh")

PLAIN = "🐈🐕🐎🐖🐘🐇🐻🦊🐼🐧🦉🦆🐢🐟🐙🦀🦋🐌🌵🌻🍄🍌🍇🍓🍕🍔🥕🚲✈🚀🎸☂🏠🔑✂🔔"
COLOURED = {
    "heart": {"red": "❤", "yellow": "💛", "green": "💚", "blue": "💙", "purple": "💜"},
    "circle": {"red": "🔴", "yellow": "🟡", "green": "🟢", "blue": "🔵", "purple": "🟣"},
    "book": {"green": "📗", "blue": "📘", "orange": "📙"},
}
_PLURALS = {
    "fish": "fish",
    "grapes": "grapes",
    "scissors": "scissors",
    "butterfly": "butterflies",
    "fox": "foxes",
    "strawberry": "strawberries",
}
_AND = {"en": " and ", "de": " und ", "es": " y ", "fr": " et ", "zh": "和"}
_NOTHING = {"en": "nothing", "de": "nichts", "es": "nada", "fr": "rien", "zh": "什么都没有"}


@dataclass(frozen=True)
class Thing:
    """One class of the world. `noun` is what questions ask for ("heart"), `names["en"]` the full name ("red heart")."""

    index: int
    character: str
    noun: str
    colour: str | None
    names: dict[str, str]

    @property
    def label(self) -> str:
        return self.names["en"]


@functools.cache
def things() -> tuple[Thing, ...]:
    """All classes, in a fixed order."""
    entries = [(character, None, None) for character in PLAIN]
    entries += [(character, noun, colour) for noun, colours in COLOURED.items() for colour, character in colours.items()]
    return tuple(
        Thing(index, character, noun or _name(character, "en"), colour, {lang: _name(character, lang) for lang in LANGUAGES})
        for index, (character, noun, colour) in enumerate(entries)
    )


@functools.cache
def dictionary_words() -> tuple[str, ...]:
    """Words of 3 to 7 letters found in the English names of all emoji, upper case: what the world prints."""
    words = {
        word.upper()
        for data in _emoji_data("en").values()
        for word in data["en"].strip(":").replace("-", "_").split("_")
        if word.isascii() and word.isalpha() and 3 <= len(word) <= 7
    }
    return tuple(sorted(words))


def plural(noun: str) -> str:
    """English plural of a noun of this world."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    return noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")


def with_article(name: str) -> str:
    """An English name as part of a sentence: "a cat", "an owl"; things that come in pairs or bunches go without."""
    if name in ("grapes", "scissors"):
        return name
    return ("an " if name[0] in "aeiou" else "a ") + name


def enumerate_names(names: list[str], lang: str) -> str:
    """["cat", "owl", "red heart"] -> "a cat, an owl and a red heart", in the way of each language."""
    if not names:
        return _NOTHING[lang]
    if lang == "en":
        names = [with_article(name) for name in names]
    comma = "、" if lang == "zh" else ", "
    return _AND[lang].join(filter(None, [comma.join(names[:-1]), names[-1]]))


def _name(character: str, lang: str) -> str:
    data = _emoji_data(lang)
    name = (data.get(character) or data[character + "\ufe0f"])[lang].strip(":").replace("_", " ")
    if lang != "de":
        return name
    *adjectives, noun = name.split(" ")  # CLDR's German nouns lose their capital in the package
    return " ".join([*adjectives, noun[0].upper() + noun[1:]])


@functools.cache
def _emoji_data(lang: str) -> Mapping[str, Mapping[str, str]]:
    """Character -> its names, with those in `lang` among them."""
    try:
        import emoji
    except ImportError as error:
        raise UsageError("naming the things of the small world needs the package emoji", hint="pip install 'paligemma[world]'") from error
    if lang != "en":
        emoji.config.load_language(lang)
    return emoji.EMOJI_DATA
