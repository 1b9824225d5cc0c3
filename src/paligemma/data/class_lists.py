"""Lists that say which value of a mask is which class: text, CSV and JSON in the ways that tools write them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..printable import printable
from . import checks
from .reading import BOM, decoded, parsed_json
from .records import Flaw

Value = int | tuple[int, int, int]
"""Number of a class, or its red, green, blue."""
FILES = (
    "classes.txt", "class_names.txt", "labels.txt", "label_colors.txt", "_classes.csv", "classes.csv", "class_dict.csv", "labels.json",
    "classes.json", "palette.json", "id2label.json",
)  # fmt: skip
BACKGROUND = frozenset({"background", "bg", "void", "unlabeled", "unlabelled", "ignore", "none"})


def is_background(label: str) -> bool:
    return label.strip("_ ").lower() in BACKGROUND


def class_list(data: bytes, file: Path) -> dict[Value, str]:
    """Value -> name, in the file's order, the background too. Raises `InputError` for a list that is none.

    classes.txt      one name a line, from value 0 on (so the background comes first), or "red green blue name"
    *.csv            value and class, or name, r, g, b; with a header
    *.json           {"1": "cat"}, {"cat": 1}, {"cat": [255, 0, 0]}, ["background", "cat"], [{"name": "cat", "id": 1 or "color": ...}]
    """
    try:
        text = decoded(data.removeprefix(BOM))
        found = {".json": _json, ".csv": _csv}.get(file.suffix.lower(), _text)(text)
        listed: dict[Value, str] = {}
        for value, name in found:
            if value in listed:
                raise Flaw("category", f"{value} is both {listed[value]} and {name}")
            listed[value] = name if is_background(name) else checks.label(name)
    except (Flaw, ValueError, TypeError, KeyError, IndexError, csv.Error) as error:
        raise InputError(f"{printable(str(file))}: no list of classes: {error}", code="bad_annotations") from error
    if not listed or len({isinstance(value, int) for value in listed}) > 1:
        raise InputError(f"{printable(str(file))}: expected names with numbers, or names with colours, of one kind", code="bad_annotations")
    return listed


def _text(text: str) -> Iterator[tuple[Value, str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0].strip("_").lower() == "ignore":  # LabelMe's own list begins with what is no class
        lines = lines[1:]
    for number, line in enumerate(lines):
        coloured = re.fullmatch(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(.+)", line)
        yield (_colour(coloured.groups()[:3]), coloured[4]) if coloured else (number, line)


def _csv(text: str) -> Iterator[tuple[Value, str]]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
    header = [cell.lower() for cell in rows[0]]
    name = next((i for i, cell in enumerate(header) if cell in ("class", "name", "label", "class_name")), None)
    if name is None:
        raise Flaw("field", f"expected a column with the class; found {', '.join(header)[:80]}")
    if {"r", "g", "b"} <= set(header):
        for row in rows[1:]:
            yield _colour([row[header.index(channel)] for channel in "rgb"]), row[name]
        return
    value = next((i for i, cell in enumerate(header) if cell in ("pixel value", "value", "id", "index")), None)
    if value is None:
        raise Flaw("field", f"expected a column with the pixel value, or r, g, b; found {', '.join(header)[:80]}")
    for row in rows[1:]:
        yield int(row[value]), row[name]


def _json(text: str) -> Iterator[tuple[Value, str]]:
    found = parsed_json(text)
    if isinstance(found, list):
        for number, one in enumerate(found):
            if isinstance(one, Mapping):
                value = next((one[key] for key in ("color", "colour", "id", "value", "trainId") if key in one), None)
                yield _value(value), str(one.get("name") or one["label"])
            else:
                yield number, str(one)
        return
    if not isinstance(found, Mapping):
        raise Flaw("field", f"expected names, found {type(found).__name__}")
    for key, value in found.items():
        yield (int(key), value) if isinstance(value, str) and not value.startswith("#") else (_value(value), key)


def _value(value: Any) -> Value:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    return _colour(value)


def _colour(channels: Any) -> tuple[int, int, int]:
    red, green, blue = (int(channel) for channel in channels)
    if not all(0 <= channel <= 255 for channel in (red, green, blue)):
        raise Flaw("field", f"{red}, {green}, {blue} is no colour")
    return red, green, blue
