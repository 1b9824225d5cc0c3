"""`answer {lang} {question}` -> an answer in that language. Document and chart checkpoints take the bare question: `lang=None`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import UsageError
from ..results import Answer
from .languages import check_language
from .wording import words

name = "answer"
result = Answer
max_tokens = 128


def prompt(question: str, lang: str | None = "en", choices: str | Sequence[str] = ()) -> str:
    """`lang`: of the answer; None for checkpoints trained on the question alone (DocVQA, ChartQA).

    `choices`: what to choose from (AI2D, A-OKVQA), a list or one string with ";" in between. The two blanks before the question are
    then the reference's. Raises `UsageError` for an empty question, an empty choice or an unknown language.
    """
    question = words(question, "the question")
    start = "" if lang is None else f"answer {check_language(lang)} "
    if not choices:
        return start + question
    if not isinstance(choices, Iterable):
        raise UsageError(f"the answers to choose from must be text or a list of texts, found {type(choices).__name__}")
    if start:
        start += " "
    each = choices.split(";") if isinstance(choices, str) else choices
    options = [words(option, "one of the answers to choose from") for option in each]
    return f"{start}{question} choose from: " + " \t ".join(options)


def target(text: str) -> str:
    return text.strip()


def parse(text: str) -> str:
    return text.strip()
