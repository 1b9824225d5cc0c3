"""`question {lang} {answer}` -> a question that the picture answers so. The answer is in English, the question in `lang`."""

from __future__ import annotations

from ..results import Question
from .languages import check_language
from .wording import words

name = "question"
result = Question
max_tokens = 128


def prompt(answer: str, lang: str = "en") -> str:
    """Raises `UsageError` for an empty answer or an unknown language."""
    return f"question {check_language(lang)} {words(answer, 'the answer to find a question for')}"


def target(text: str) -> str:
    return text.strip()


def parse(text: str) -> str:
    return text.strip()
