"""Conditions on rows, in the store's SQL: what objects a picture holds, and how many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..tasks.wording import words
from .entries import at_least

_COUNT = re.compile(r"\s*(>=|<=|!=|==?|>|<)?\s*([0-9]{1,6})\s*", re.ASCII)


@dataclass(frozen=True)
class Has:
    """So many objects of a label. `count`: a number, or a comparison with one: "2", ">2", "<=3", "!=0". Raises `UsageError`."""

    label: str
    count: str = ">0"

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", words(self.label, "what a picture must have"))
        if not _COUNT.fullmatch(self.count):
            raise UsageError(f"{self.count!r} is not a count", hint='a number, or one behind >, >=, <, <=, = or !=: ">2"')

    @property
    def sql(self) -> str:
        """A picture in which this label was not looked for meets no condition: how many it has is not known. (To ask besides whether a
        column is null would make the store look at every row: seconds for a million.)"""
        sign, digits = _COUNT.fullmatch(self.count).groups()  # pyright: ignore[reportOptionalMemberAccess]
        here, more, known = (self._at_least(number) for number in (int(digits), int(digits) + 1, 0))
        fewer = f"({known} AND NOT {here})"
        forms = {">": more, ">=": here, "<": fewer, "<=": f"({known} AND NOT {more})", "!=": f"({fewer} OR {more})"}
        return forms.get(sign, f"({here} AND NOT {more})")

    def _at_least(self, number: int) -> str:
        return f"array_has(holds, {quoted(at_least(self.label, number))})"


def condition(has: Sequence[Has], where: str | None = None) -> str | None:
    """All of them together, and `where`, which is the store's SQL already; None for no condition."""
    parts = [*(one.sql for one in has), *([f"({where})"] if where else [])]
    return " AND ".join(parts) or None


def among(column: str, values: Sequence[str]) -> str:
    """`column IN (...)`"""
    return f"{column} IN ({', '.join(map(quoted, values))})"


def quoted(text: str) -> str:
    """As a string of SQL, whatever it holds."""
    return "'" + text.replace("'", "''") + "'"
