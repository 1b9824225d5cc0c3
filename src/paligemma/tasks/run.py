"""Any prompt, exactly as the model was trained on it: also the bare questions of document and chart checkpoints."""

from __future__ import annotations

from ..results import Text
from .wording import words

name = "run"
result = Text
max_tokens = 512


def prompt(text: str) -> str:
    """The text itself, not even stripped. An empty prompt is one the reference allows. Raises `UsageError` for what is no text."""
    words(text, "the prompt", empty=True)
    return text


def target(text: str) -> str:
    return text


def parse(text: str) -> str:
    return text
