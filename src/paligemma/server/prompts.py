"""What somebody writes in a chat -> a task. PaliGemma knows no conversation: the words of one turn are its prompt.

detect cat ; dog       segment the left cup       ocr       caption de       answer en what is this?       tasks, as they stand
what is this?                                                                                           asked as `answer en what is this?`
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..tasks import caption
from ..tasks.languages import LANGUAGES

_LENGTHS = {word: length for length, word in caption.LENGTHS.items()}
_CAPTION = re.compile(rf"({'|'.join(_LENGTHS)})(?: ([a-z]{{2,3}}))?\s*")
_ANSWER = re.compile(r"answer ([a-z]{2,3}) (.+)", re.DOTALL)
_PLACES = re.compile(r"(detect|segment) (.+)", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """`verb` and what it is asked, as the predictor has them."""

    verb: str
    asked: tuple[Any, ...] = ()


def recognise(text: str, *, raw: bool = False) -> Request:
    """`raw`: exactly these words, whatever they are."""
    text = text.strip()
    if raw:
        return Request("run", (text,))
    if text in ("ocr", "read"):
        return Request("ocr")
    if (found := _CAPTION.fullmatch(text)) and (found[2] is None or found[2] in LANGUAGES):
        return Request("caption", (found[2] or "en", _LENGTHS[found[1]]))
    if found := _PLACES.fullmatch(text):
        return Request(found[1], (found[2],))
    if (found := _ANSWER.fullmatch(text)) and found[1] in LANGUAGES:
        return Request("ask", (found[2], found[1]))
    if "<loc" in text:  # a box to be described, or whatever else is written with locations
        return Request("run", (text,))
    return Request("ask", (text, "en"))
