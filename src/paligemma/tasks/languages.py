"""Languages that prompts can name."""

from __future__ import annotations

import re

from ..errors import UsageError, did_you_mean
from .wording import words

LANGUAGES = (
    "ar", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fil", "fr", "he", "hi", "hr", "hu", "id", "it",
    "ja", "ko", "mi", "nl", "no", "pl", "pt", "quz", "ro", "ru", "sv", "sw", "te", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip
"""Codes of the 35 languages PaliGemma was trained on, and of Quechua, which its captions are evaluated in (big_vision `coco35l.py`)."""


LONGEST = max(map(len, LANGUAGES))


def check_language(code: str) -> str:
    """`code` in small letters; `UsageError` if no PaliGemma knows it."""
    small = words(code, "the language").lower()
    if small in LANGUAGES:
        return small
    language = re.split("[-_]", small)[0]  # de-AT is German
    guess = did_you_mean(language, LANGUAGES, cutoff=0.4) if len(language) <= LONGEST else None  # 'german' is not like any code
    known = f"the codes are {' '.join(LANGUAGES)}; for a model trained on another one write the whole prompt with run"
    raise UsageError(f"{code!r} is not the code of a language PaliGemma was trained on", hint=f"{guess} {known}" if guess else known)
