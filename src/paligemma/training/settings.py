"""Frozen dataclasses of settings: checked when they are made, written as commented TOML, read back, compared. Knows no recipe, no torch.

A setting's type is `bool`, `int`, `float`, `str`, a `Literal` of texts, or `tuple[str, ...]`; its field says in words what it is, and for
numbers which are allowed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..errors import UsageError, did_you_mean
from ..printable import printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance as Settings

S = TypeVar("S", bound="Settings")

MAX_COUNT = 2**53
"""Whole numbers no larger than this are the same in every language's TOML and JSON."""


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, or with `above`, `below` without the end itself."""

    least: float = 0
    most: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, number: float) -> bool:
        low = number > self.least if self.above else number >= self.least
        return low and (number < self.most if self.below else number <= self.most)

    def __str__(self) -> str:
        low = f"above {self.least:g}" if self.above else f"from {self.least:g}" if self.most < math.inf else f"of {self.least:g} or more"
        return low if self.most == math.inf else f"{low} to {'below ' if self.below else ''}{self.most:,}".replace(".0", "")


def setting(about: str, default: Any = MISSING, allowed: Range | None = None) -> Any:
    """A field. `about`: what it is, in one line."""
    return dataclasses.field(default=default, metadata={"about": about, "allowed": allowed})


def check(settings: Settings) -> None:
    """For `__post_init__`. Where that is what a field is, whole numbers become floats and lists tuples. Raises `UsageError`."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        wanted = _types(type(settings))[field.name]
        if wanted is float and type(value) is int and abs(value) <= MAX_COUNT:
            value = float(value)
        if get_origin(wanted) is tuple and isinstance(value, list):
            value = tuple(value)
        if not _fits(value, wanted, field.metadata["allowed"]):
            found = repr(value) if len(repr(value)) < 80 else repr(value)[:76] + " ..."
            hint = did_you_mean(value, get_args(wanted)) if get_origin(wanted) is Literal else None
            raise UsageError(f"{field.name}: expected {expected(type(settings), field)}, found {found}", hint=hint)
        object.__setattr__(settings, field.name, value)


def _fits(value: Any, wanted: Any, allowed: Range | None) -> bool:
    if get_origin(wanted) is tuple:
        return isinstance(value, tuple) and all(_fits(item, str, None) for item in value)
    if get_origin(wanted) is Literal:
        return value in get_args(wanted)
    if type(value) is not wanted:
        return False
    if wanted is str:
        return _is_text(value)
    return wanted is bool or (abs(value) <= MAX_COUNT and (allowed is None or value in allowed))


def expected(kind: type, field: Field[Any]) -> str:
    """What a setting may be, in words."""
    wanted, allowed = _types(kind)[field.name], field.metadata["allowed"]
    if get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(json.dumps, get_args(wanted)))
    if get_origin(wanted) is tuple:
        return "a list of texts"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[wanted]
    return f"{words} {allowed}" if allowed else words


def to_text(settings: Settings, title: str = "") -> str:
    """TOML with a line for every setting, which says what it is and what it may be."""
    fields = dataclasses.fields(settings)
    lines = [(f"{f.name} = {_toml(getattr(settings, f.name))}", f) for f in fields]
    width = min(max(len(line) for line, _ in lines), 60)
    notes = [f"{line:<{width}}  # {f.metadata['about']}{_alternatives(type(settings), f)}" for line, f in lines]
    return "\n".join([*(f"# {line}" for line in printable(title, "\n").splitlines()), *notes, ""])


def from_text(kind: type[S], text: str) -> S:
    """`to_text` read back, in any order, with defaults for what is left out. Raises `UsageError` for all that is wrong with it."""
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"this is no TOML: {error}", hint='a line reads like   epochs = 5   or   schedule = "cosine"') from None
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in found:
        if name not in fields:
            raise UsageError(f"there is no setting {name!r}", hint=did_you_mean(name, fields, "settings: " + ", ".join(fields)))
    for name, field in fields.items():
        if name not in found and field.default is MISSING:
            raise UsageError(f"the setting {name!r} is missing: {field.metadata['about']}")
    return kind(**found)


def differences(a: S, b: S) -> list[str]:
    """In what `a` is another one than `b`, in words; empty if they are equal."""
    return list(_differences(a, b))


def _differences(a: Settings, b: Settings) -> Iterator[str]:
    for field in dataclasses.fields(a):
        mine, theirs = getattr(a, field.name), getattr(b, field.name)
        if mine != theirs:
            yield f"{field.name} is {_toml(mine)}, not {_toml(theirs)}"


def _alternatives(kind: type, field: Field[Any]) -> str:
    return f" ({expected(kind, field)})" if get_origin(_types(kind)[field.name]) is Literal else ""


@functools.cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _is_text(value: str) -> bool:
    """Half of a surrogate pair can be in a Python string, and in no file."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
