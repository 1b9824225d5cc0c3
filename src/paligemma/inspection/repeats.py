"""What stands there twice: the same picture under two names, the same question again, and the same question with another answer.

Questions are compared among all records. Pictures are the same if their files are, byte for byte; only files of one length can be, so
only those are read.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.records import Record
from ..tasks.detect import tidy
from .items import Item

LISTED = 50
OPEN = ("caption", "cap", "describe", "question")
"""First words of prompts that have many right answers: a picture may have several captions."""


@dataclass(frozen=True)
class SameFiles:
    """Groups of files that are the same. `candidates`: files of a length that another has too; `read`: how many of them were compared."""

    groups: tuple[tuple[Path, ...], ...] = ()
    candidates: int = 0
    read: int = 0

    @property
    def surplus(self) -> int:
        return sum(len(group) - 1 for group in self.groups)


@dataclass(frozen=True)
class Contradiction:
    """One question about one picture with answers that have nothing in common. `answers`: (where, answer)."""

    picture: str
    question: str
    answers: tuple[tuple[str, str], ...]
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Repeats:
    """`repeated`: records that ask and answer what another one does; `leaked`: pictures to learn from that are held out too."""

    files: SameFiles
    repeated: int
    repeated_where: tuple[str, ...]
    contradictions: int
    contradicting: tuple[Contradiction, ...]
    leaked: tuple[Path, ...]


def find_repeats(
    items: Sequence[Item], held_out: Iterable[Path], limit: int, tell: Callable[[int, int], None] = lambda done, total: None
) -> Repeats:
    """`held_out`: pictures that are not learnt from. `limit`: files that are read at most, `tell` hears how many of how many are."""
    own = dict.fromkeys(path for item in items for path in item.record.pictures)
    apart = dict.fromkeys(held_out)
    files = same_files([*own, *(path for path in apart if path not in own)], limit, tell)
    first = {path: group[0] for group in files.groups for path in group}
    asked: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        record = item.record
        pictures = tuple(first.get(path, path) for path in record.pictures)
        names = record.asked or (item.classes if record.in_places else ())  # one source may ask for what another does not know
        asked[pictures, record.task, record.prompt, names].append(item)
    repeated, contradicting = [], []
    for group in asked.values():
        if len(group) > 1:
            again, different = _compare(group)
            repeated += again
            if len(different) > 1:
                contradicting.append(_contradiction(different))
    apart_too = {first.get(path, path) for path in apart}
    leaked = tuple(path for path in own if first.get(path, path) in apart_too)
    within = tuple(kept for group in files.groups if len(kept := tuple(path for path in group if path in own)) > 1)
    return Repeats(
        SameFiles(within, files.candidates, files.read),
        len(repeated), tuple(item.record.where for item in repeated[:LISTED]),
        len(contradicting), tuple(contradicting[:LISTED]),
        leaked,
    )  # fmt: skip


def same_files(paths: Sequence[Path], limit: int, tell: Callable[[int, int], None] = lambda done, total: None) -> SameFiles:
    """Which of these files hold the same bytes. Of more candidates than `limit`, whole groups of one length, evenly spread, are read."""
    by_length: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            by_length[path.stat().st_size].append(path)
        except OSError:
            continue  # one that is gone is told of where pictures are opened
    groups = [group for group in by_length.values() if len(group) > 1]
    candidates = sum(map(len, groups))
    if candidates > limit:
        groups = groups[:: -(-candidates // max(limit, 1))]
    by_content: dict[str, list[Path]] = defaultdict(list)
    read = 0
    for group in groups:
        for path in group[: max(limit - read, 0)]:
            try:
                with path.open("rb") as file:
                    by_content[hashlib.file_digest(file, "sha256").hexdigest()].append(path)
            except OSError:
                continue
            read += 1
            tell(read, min(candidates, limit))
    return SameFiles(tuple(tuple(group) for group in by_content.values() if len(group) > 1), candidates, read)


def _compare(group: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Records of one question -> those that say what an earlier one says; those that contradict each other."""
    again, different = [], []
    taken: dict[frozenset[Hashable], Item] = {}
    for item in group:
        said = _said(item.record)
        if said in taken:
            again.append(item)
            continue
        if not _is_open(item.record) and all(_contradicts(said, other) for other in taken):
            different.append(item)
        taken[said] = item
    return again, different


def _said(record: Record) -> frozenset[Hashable]:
    if record.in_places:
        return frozenset((tidy(thing.label), thing.box) for thing in record.things)
    return frozenset(tidy(answer).casefold() for answer in record.answers)


def _contradicts(one: frozenset[Hashable], other: frozenset[Hashable]) -> bool:
    """Of answers in words one in common is enough to agree; things that one record has and another lacks are a contradiction."""
    places = any(isinstance(part, tuple) for part in (*one, *other))
    return one != other if places else not one & other


def _is_open(record: Record) -> bool:
    return record.task in ("caption", "question") or record.prompt.split(" ", 1)[0].strip().casefold() in OPEN


def _contradiction(group: Sequence[Item]) -> Contradiction:
    record = group[0].record
    question = record.prompt or f"{record.task} {' ; '.join(record.asked) or '(all classes)'}"
    answers = tuple((item.record.where, answer_in_words(item.record)) for item in group[:4])
    return Contradiction(record.pictures[0].name, question, answers, tuple(item.number for item in group))


def answer_in_words(record: Record) -> str:
    """For people: the answers, or how many things of which class."""
    if not record.in_places:
        return " | ".join(dict.fromkeys(record.answers))
    found: Mapping[str, int] = {}
    for thing in record.things:
        found = {**found, tidy(thing.label): found.get(tidy(thing.label), 0) + 1}
    return ", ".join(f"{number} {label or 'thing'}" for label, number in found.items()) or "nothing"
