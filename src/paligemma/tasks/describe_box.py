"""`caption <y0><x0><y1><x1>` -> what the box holds: location tokens in, text out."""

from __future__ import annotations

from collections.abc import Sequence

from ..results import Caption
from .detect import box_tokens

name = "describe_box"
result = Caption
max_tokens = 128


def prompt(box: Sequence[float]) -> str:
    """`box`: y0, x0, y1, x1 as shares of the picture's height and width, 0 to 1, in the order of the tokens."""
    return f"caption {box_tokens(*box)}"


def target(text: str) -> str:
    return text.strip()


def parse(text: str) -> str:
    return text.strip()
