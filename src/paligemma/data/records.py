"""What every annotation format is turned into: a record is one thing to ask about a picture and what should be answered. No torch.

A record that cannot be used becomes a fault with a place and a reason instead: nothing is dropped silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..printable import printable
from .outlines import Outline

Corners = tuple[float, float, float, float]
"""x0, y0, x1, y1: left, top, right, bottom, in pixels of the original picture."""


@dataclass(frozen=True)
class Thing:
    """One annotated object of a picture. `outline`: which pixels it covers, as its file says it, or None."""

    label: str
    box: Corners
    outline: Outline | None = None


@dataclass(frozen=True)
class Record:
    """One prompt about one picture (or several, or a short video), and what should come back.

    `task` names a module of `paligemma.tasks`. A task that answers in words has its whole `prompt` and the `answers` that are right:
    training draws one of them, a metric knows all. A task that answers in places (detect, segment, refer) has `things`; what it is asked
    is `asked`: the names of the classes (() for "all the data set has"), or the sentence of `refer`.
    """

    id: str
    """Unique in its data set and the same each time the data set is read."""
    task: str
    pictures: tuple[Path, ...]
    where: str
    """For people: file and line, or what stands for one."""
    prompt: str = ""
    answers: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    things: tuple[Thing, ...] = ()
    ignored: tuple[Thing, ...] = ()
    """Things neither to be asked for nor wrong to be found: crowds, objects marked as difficult. For metrics that know such."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What a metric may group by: question type, language, split."""

    @property
    def in_places(self) -> bool:
        """Whether the answer is boxes or masks."""
        return self.task in ("detect", "segment", "refer")


@dataclass(frozen=True)
class Fault:
    """A record that was left out: where it stands, which picture it is about, what is wrong in a word and in a sentence."""

    where: str
    code: str
    """One of `FAULTS`."""
    detail: str
    id: str = ""
    path: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"where": self.where, "id": self.id, "path": self.path, "code": self.code, "detail": self.detail}

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.code}: {self.detail}")


class Flaw(Exception):
    """Raised where something unusable is read, and made a `Fault` by whoever knows which record it belongs to."""

    def __init__(self, code: str, detail: str):
        super().__init__(detail)
        assert code in FAULTS, code
        self.code, self.detail = code, detail


FAULTS = {
    "json": "a line or file that is no JSON (or XML, or table row)",
    "encoding": "text that is no UTF-8",
    "field": "a field that is missing or of the wrong kind",
    "duplicate": "an id that was there before",
    "category": "a category that the data set does not define",
    "box": "a box that is inside out, without area, not finite, or outside its picture",
    "outline": "a mask that is none: a polygon with too few corners, a broken run length code, a bitmap of another size",
    "label": "a name that is empty or cannot be written into a prompt",
    "answer": "no answer, or an empty one",
    "task": "a task that does not exist, or that this record cannot be of",
    "too_long": "text that does not fit into the prompt's length",
    "path": "a picture outside the data set's folder",
    "missing": "a picture that is not there or may not be read",
    "picture": "a picture that cannot be decoded, or is over a limit",
    "size": "a picture of another size than its annotation says",
}
"""Everything a record can be left out for."""


@dataclass(frozen=True)
class DataSet:
    """A data set that was read: its usable records in the order of its files, and its faults.

    `format`: a name of `formats`; `task`: of all its records, or "mixed"; `classes`: names of the things, in the data set's own order;
    `fingerprint`: sha256 over the bytes of its annotation files and the names of its pictures: another one means other data;
    `split`: which part of a divided data set this is, or ""; `notes`: what was read in a way that people should know, and how often.
    """

    path: Path
    format: str
    task: str
    records: tuple[Record, ...]
    faults: tuple[Fault, ...] = ()
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    split: str = ""
    notes: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def bad_share(self) -> float:
        """Of everything that was read, how much is a fault, 0 to 1."""
        everything = len(self.records) + len(self.faults)
        return len(self.faults) / everything if everything else 0.0


T = TypeVar("T")


def evenly(records: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` of them (None: all), evenly spread: data sets are often sorted."""
    if limit is None or limit >= len(records):
        return list(records)
    return [records[i * len(records) // limit] for i in range(limit)]


def counts(faults: Sequence[Fault]) -> dict[str, int]:
    """Faults per code, most frequent first."""
    found: dict[str, int] = {}
    for fault in faults:
        found[fault.code] = found.get(fault.code, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))
