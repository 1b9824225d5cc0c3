"""A text that is too long -> one that is short enough, which ends where a sentence or a word does, and always between two graphemes."""

from __future__ import annotations

import itertools

import regex

MARK = "…"
"""Ends a text that was cut within a sentence."""
LEAST = 0.5
"""A sentence that ends before this share of the allowed length leaves out too much: then the text is cut at a word."""

_SENTENCE = regex.compile(r"[.!?][\"'”’»)\]]*(?=\s)|[。！？][」』”’]*")
_WORD = regex.compile(r"(?w)\b")  # as Unicode divides words: also where no spaces stand between them
_GRAPHEME = regex.compile(r"\X")


def several_words(text: str) -> bool:
    """Whether it has two words at least, in any script."""
    ends = [*(found.start() for found in _WORD.finditer(text)), len(text)]
    return sum(any(map(str.isalnum, text[start:end])) for start, end in itertools.pairwise(ends)) > 1


def shortened(text: str, most: int) -> tuple[str, bool]:
    """At most `most` characters (code points) in one line, and whether something was cut off."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text, False
    graphemes = {0, *(found.end() for found in _GRAPHEME.finditer(text, endpos=most + 1))}
    sentences = [end for found in _SENTENCE.finditer(text, endpos=most + 1) if (end := found.end()) <= most and end in graphemes]
    if sentences and sentences[-1] >= LEAST * most:
        return text[: sentences[-1]], True
    room = most - len(MARK)
    words = [found.start() for found in _WORD.finditer(text) if found.start() <= room and found.start() in graphemes]
    end = next((end for end in reversed(words) if text[:end].strip()), 0) or max(end for end in graphemes if end <= room)
    return text[:end].rstrip(" ,;:-–—、，；：") + MARK, True
