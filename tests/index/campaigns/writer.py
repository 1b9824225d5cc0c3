"""The writer that is killed: adds, replaces and deletes groups of pictures and tidies up, in an order that its seed gives, and says so.

A group is written whole: its rows have the number of the change that wrote them (`modified`) and how many they are (`size`). So whoever
sees some of its rows, or rows of two changes, sees no version.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from paligemma.index.entries import Entry, Facts
from paligemma.index.store import Writer, writing

FACTS = Facts("campaign", 16, "", "/pictures")
ROWS = 12
"""Of a group, at most."""


class Change(NamedTuple):
    """`what`: "add", "replace", "delete", "tidy" or "index". `number`: from 1, one more each time."""

    what: str
    group: int
    number: int
    rows: int


def changes(seed: int, start: int, present: dict[int, int]) -> Iterator[Change]:
    """Without end. `present`: group -> rows, of those that are there."""
    rng, present, number = random.Random(seed), dict(present), start
    while True:
        number += 1
        what = rng.choices(["add", "replace", "delete", "tidy", "index"], [8, 3, 2, 3, 1])[0]
        if what in ("tidy", "index"):
            yield Change(what, 0, number, 0)
        elif what == "add" or not present:
            present[number] = rng.randint(1, ROWS)
            yield Change("add", number, number, present[number])
        else:
            group = rng.choice(sorted(present))
            yield Change(what, group, number, present[group])
            if what == "delete":
                del present[group]


def entries(change: Change) -> list[Entry]:
    """The rows of a group after a change."""
    rng = np.random.default_rng((change.group, change.number))
    vectors = rng.standard_normal((change.rows, FACTS.dimensions), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        Entry(f"{change.group}-{row}", f"{change.group}/{row}.png", f"{change.number}", change.number, change.rows, 1, 1, vector)
        for row, vector in enumerate(vectors)
    ]


def make(writer: Writer, change: Change) -> None:
    match change.what:
        case "add":
            writer.add(entries(change))
        case "replace":
            writer.replace(entries(change))
        case "delete":
            writer.delete([f"{change.group}-{row}" for row in range(change.rows)])
        case "tidy":
            writer.tidy()
        case "index":
            if (rows := writer.count()) >= 256:  # what its training asks for
                writer.index_vectors(rows)


def run(where: str, seed: int, start: int, present: dict[int, int], pipe: Any) -> None:
    """A process: says each change before it makes it and after."""
    with writing(where, FACTS) as writer:
        for change in changes(seed, start, present):
            pipe.send(("begun", change))
            make(writer, change)
            pipe.send(("done", change))
