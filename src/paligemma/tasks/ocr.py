"""`ocr` -> all text in the picture, from top to bottom and left to right."""

from __future__ import annotations

from ..results import Reading

name = "ocr"
result = Reading
max_tokens = 512


def prompt() -> str:
    return "ocr"


def target(text: str) -> str:
    return text.strip()


def parse(text: str) -> str:
    return text.strip()
