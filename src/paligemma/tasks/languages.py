"""Languages that prompts can name."""

from __future__ import annotations

from ..errors import UsageError, did_you_mean

LANGUAGES = (
    "ar", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fil", "fr", "he", "hi", "hr", "hu", "id", "it",
    "ja", "ko", "mi", "nl", "no", "pl", "pt", "quz", "ro", "ru", "sv", "sw", "te", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip
"""Codes of the 35 languages PaliGemma was trained on, and of Quechua, which its captions are evaluated in (big_vision `coco35l.py`)."""


def check_language(code: str) -> str:
    """`code` itself; `UsageError` if no PaliGemma knows it."""
    if code in LANGUAGES:
        return code
    guess = did_you_mean(str(code).lower(), LANGUAGES, cutoff=0.4)
    known = f"the codes are {' '.join(LANGUAGES)}; for a model trained on another one write the whole prompt with run"
    raise UsageError(f"{code!r} is not the code of a language PaliGemma was trained on", hint=f"{guess} {known}" if guess else known)
