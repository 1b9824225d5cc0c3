"""Files of annotations -> text, JSON, XML: strictly, with line numbers. A whole file that cannot be read raises; a line becomes a flaw.

Text is UTF-8. A byte order mark at the very start is skipped (Windows writes it); anywhere else it is a flaw, as are other encodings.
JSON may hold NaN, which some libraries write: the number's own check refuses it, and says where.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..printable import printable
from .records import Flaw

BOM = b"\xef\xbb\xbf"
GLANCE = 1 << 18
"""Bytes at the start of a JSON file that say what it is."""


def read_bytes(path: Path) -> bytes:
    """The whole file; `InputError` if it cannot be opened, or is text of two bytes a character."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{printable(str(path))}: cannot be read ({error.strerror})", code="not_found") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{printable(str(path))}: expected UTF-8, found UTF-16", hint="save it as UTF-8", code="bad_encoding")
    return data


def decoded(data: bytes) -> str:
    """UTF-8 without a byte order mark; `Flaw` for anything else."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Flaw("encoding", f"byte {error.start + 1} ({data[error.start]:#04x}) is no UTF-8") from error
    if text.startswith("\ufeff"):
        raise Flaw("encoding", "a byte order mark, allowed at the start of a file only")
    return text


def numbered_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number from 1, bytes) of each line that holds something; a byte order mark at the start of the file is left out."""
    for number, line in enumerate(data.removeprefix(BOM).split(b"\n"), 1):
        if line.strip():
            yield number, line.rstrip(b"\r")


def parsed_json(text: str) -> Any:
    """`Flaw` with the place where it stops being JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise Flaw("json", f"{error.msg} at {place}") from error
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise Flaw("json", "nested too deeply" if isinstance(error, RecursionError) else str(error)) from error


def json_of(data: bytes, path: Path) -> Any:
    """The value of a file that is all or nothing; `InputError` if it is no JSON."""
    try:
        return parsed_json(decoded(data.removeprefix(BOM)))
    except Flaw as flaw:
        raise InputError(
            f"{printable(str(path))}: no JSON: {flaw.detail}", hint="the file may be cut short: copy it again", code=f"bad_{flaw.code}"
        ) from flaw


def xml_of(data: bytes) -> ElementTree.Element:
    """The root element. `Flaw` for broken XML, and for a document type: annotations need none, and entities grow without bounds in it."""
    text = decoded(data.removeprefix(BOM))
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise Flaw("json", "the XML declares a document type or entities, which annotations have no use for")
    if "\0" in text:  # the parser would take it for UTF-16, in which nothing was searched for
        raise Flaw("json", "broken XML: it holds zeros")
    try:
        return ElementTree.fromstring(text.encode(), ElementTree.XMLParser(encoding="utf-8"))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise Flaw("json", f"broken XML: {error}") from error


@dataclass(frozen=True)
class Glance:
    """What the start of a JSON file holds: `keys` of the outermost object; `inner`: those of the objects in it, one or two floors down."""

    is_list: bool
    keys: frozenset[str]
    inner: frozenset[str]


_TOKENS = re.compile(r'"((?:[^"\\]|\\.)*)"|([{}\[\],:])')


def glance(path: Path) -> Glance | None:
    """Looks at the first quarter megabyte; None if that does not look like JSON."""
    with path.open("rb") as file:
        start = file.read(GLANCE).removeprefix(BOM).lstrip()
    if start[:1] not in (b"{", b"["):
        return None
    keys: dict[int, set[str]] = {1: set(), 2: set(), 3: set()}
    nesting: list[str] = []
    before = ""
    for match in _TOKENS.finditer(start.decode("utf-8", "replace")):
        word, sign = match.groups()
        if sign is None:
            if nesting and nesting[-1] == "{" and before in "{," and len(nesting) in keys:
                keys[len(nesting)].add(word)
            before = "string"
            continue
        if sign in "{[":
            nesting.append(sign)
        elif sign in "}]" and nesting:
            nesting.pop()
        before = sign
    is_list = start[:1] == b"["
    return Glance(is_list, frozenset() if is_list else frozenset(keys[1]), frozenset(keys[2] | keys[3]))
