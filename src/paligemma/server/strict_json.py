"""JSON from strangers: bounded before it is parsed, and without what Python's parser lets pass.

The bounds are found by a walk from string to string, which costs little whatever the strings hold: pictures are strings of megabytes.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from .refusals import Refused
from .settings import Limits

_OUTSIDE = 1 << 20
"""Bytes that are not in strings, and escapes within strings: 10,000 numbers are less, and so are the slashes of a picture's base64."""
_QUOTES = 1 << 16
"""Escaped quotes within strings: as many as a prompt has bytes."""
_MAX_DIGITS = 20
_KEY = 64
"""Bytes of a key that is told."""
_BACKSLASH = ord("\\")

_STRUCTURE = re.compile(rb'[\[\]{},"]')
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def parse(data: bytes, limits: Limits) -> Any:
    """The value. `Refused` (400) for what is no JSON, or JSON that programs understand differently: NaN, a key twice."""
    _measure(data, limits)
    try:
        text = data.decode()
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer)
        if b"\\" in data and (b"\\ud" in data or b"\\uD" in data):
            _check_text(value)
        return value
    except UnicodeDecodeError as error:
        _refuse(f"the body is not UTF-8, at byte {error.start:,}")
    except json.JSONDecodeError as error:
        _refuse(f"the body is not JSON, at character {error.pos:,}: {error.msg}")


def _refuse(message: str, code: str = "invalid_json", param: str | None = None) -> NoReturn:
    raise Refused(400, message, code, param)


def _measure(data: bytes, limits: Limits) -> None:
    """Depth, values and bytes outside strings. The parser sees the same strings up to the first mistake, where it stops.

    What is too much within a list or an object of the outermost object is told with its key: the last string that stands there.
    """
    escapes = data.count(b"\\")
    if escapes > _OUTSIDE or (escapes and data.count(b'\\"') > _QUOTES):
        _refuse("the body has too many escapes", "json_too_large")
    depth, values, strings, outside, start, key = 0, 1, 0, 0, 0, b""
    while outside <= _OUTSIDE and (found := _STRUCTURE.search(data, start, start + _OUTSIDE)):
        outside += found.end() - start
        start = found.end()
        match found[0]:
            case b'"':
                strings += 1
                begin, start = start, _string_end(data, start)
                if depth == 1:
                    key = data[begin : min(start - 1, begin + _KEY + 1)]
            case b"[" | b"{":
                depth += 1
                values += 1
            case b",":
                values += 1
            case _:
                depth -= 1
        if depth < 0:  # the parser would say so too, but a million brackets take a second to count
            _refuse("the body is not JSON: a bracket is closed that was not opened")
        if depth > limits.json_depth:
            _refuse(f"the body is nested more than {limits.json_depth} deep", "json_too_deep")
        if max(values, strings // 2) > limits.json_nodes:  # a value may be a string and have a key
            name = key.decode() if depth > 1 and re.fullmatch(rb"\w{1,%d}" % _KEY, key) else None
            _refuse(f"{name or 'the body'} has more than {limits.json_nodes:,} values", "json_too_large", name)
    if outside + len(data) - start > _OUTSIDE:
        _refuse("the body is too large outside of its strings", "json_too_large")


def _string_end(data: bytes, start: int) -> int:
    """Of the string that begins at `start`: behind the first quote that has an even number of backslashes before it."""
    while (quote := data.find(b'"', start)) >= 0:
        if data[quote - 1] != _BACKSLASH:
            return quote + 1
        before = data[start:quote]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
            return quote + 1
        start = quote + 1
    _refuse("the body is not JSON: a string does not end")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise Refused(400, f"the key {twice!r} is there twice", "invalid_json", twice)
    return value


def _constant(text: str) -> NoReturn:
    _refuse(f"{text} is no number in JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse("a number is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        _refuse("a number has too many digits")
    return int(text)


def _check_text(value: Any) -> None:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str(text):
                if _SURROGATE.search(text):
                    _refuse("a text holds half of a surrogate pair")
            case list(items):
                waiting += items
            case dict(pairs):
                waiting += [*pairs, *pairs.values()]
