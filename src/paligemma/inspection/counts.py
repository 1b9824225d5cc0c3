"""What there is, how often: tasks, classes, prompts, answers, pictures. Plain statistics of records, without opening anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..tasks.detect import tidy
from .items import Item

RARE = 10
"""A class with fewer things than this is called rare."""
SHOWN = 20


@dataclass(frozen=True)
class Tally:
    """`total` things of `distinct` kinds; `most`: the most frequent ones with their number."""

    total: int = 0
    distinct: int = 0
    most: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, counted: Counter[str]) -> Tally:
        return cls(counted.total(), len(counted), tuple(counted.most_common(SHOWN)))


@dataclass(frozen=True)
class ClassCount:
    """How many things of a class there are, on how many records."""

    name: str
    things: int
    records: int

    @property
    def seldom(self) -> str:
        """A word for a class that there is too little of, or ""."""
        return "" if self.things >= RARE else "rare" if self.things else "never"


@dataclass(frozen=True)
class Counts:
    """`pictures`: different files; `classes`: most frequent first, those that never occur last; `empty`: records that ask for things where
    there are none; `answers`: of tasks that answer in words, each record's different ones."""

    records: int
    pictures: int
    tasks: Mapping[str, int]
    classes: tuple[ClassCount, ...]
    things: int
    empty: int
    answers: Tally

    @property
    def rare(self) -> tuple[ClassCount, ...]:
        return tuple(one for one in self.classes if one.seldom == "rare")

    @property
    def unused(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.classes if not one.things)


def count(items: Sequence[Item]) -> Counts:
    tasks, things, seen, answers = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    declared: dict[str, None] = {}
    empty, known = 0, None
    for item in items:
        record = item.record
        tasks[record.task] += 1
        if item.classes is not known:
            known = item.classes
            declared |= dict.fromkeys(map(tidy, known))
        labels = [tidy(thing.label) for thing in record.things]
        things.update(labels)
        seen.update(set(labels))
        empty += record.in_places and not labels
        if not record.in_places:
            answers.update(set(record.answers))
    names = [name for name, _ in things.most_common()] + [name for name in declared if name not in things]
    # A sentence of `refer` or an answer is no class: where nothing has a class there are none.
    classes = tuple(ClassCount(name, things[name], seen[name]) for name in names if name)
    return Counts(
        len(items),
        len({path for item in items for path in item.record.pictures}),
        dict(tasks.most_common()),
        classes if things else (),
        things.total(),
        empty,
        Tally.of(answers),
    )
