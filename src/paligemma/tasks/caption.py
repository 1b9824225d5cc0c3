"""`cap {lang}`, `caption {lang}`, `describe {lang}` -> what the picture shows, in a line, a sentence or several."""

from __future__ import annotations

import re

from ..errors import UsageError, did_you_mean
from ..results import Caption
from .languages import check_language

name = "caption"
result = Caption
max_tokens = 128

LENGTHS = {"short": "cap", "normal": "caption", "long": "describe"}
"""Length -> the word the prompt starts with: like the text beside a picture on the web, one sentence, a description."""


def prompt(lang: str = "en", length: str = "normal") -> str:
    """Raises `UsageError` for an unknown language or length."""
    if length not in LENGTHS:
        raise UsageError(f"a caption can be {', '.join(LENGTHS)}; {length!r} is none of them", hint=did_you_mean(length, LENGTHS))
    return f"{LENGTHS[length]} {check_language(lang)}"


def target(text: str) -> str:
    return text.strip()


def parse(text: str) -> str:
    return text.strip()


_PLACES = re.compile(r"<(?:loc|seg)\d+>")


def without_places(text: str) -> tuple[str, int]:
    """A caption without locations and mask codes, which are no words, and how many there were."""
    words, places = _PLACES.subn(" ", text)
    return " ".join(words.split()), places
