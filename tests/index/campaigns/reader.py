"""A reader: opens the index again and again while it is written, and sees one version each time, or says what it saw instead."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np

from paligemma.errors import InputError
from paligemma.index.store import Index

from .writer import FACTS

PAUSE = 0.01
"""Seconds between two looks, which would otherwise leave the writer no time."""


def run(pipe: Any) -> None:
    """A process that reads the index it is told of until it is told "", then says (looks, what was wrong) and waits for the next."""
    rng = np.random.default_rng(0)
    while True:
        where, looks, wrong, newest = pipe.recv(), 0, "", 0
        index: Index | None = None
        while not pipe.poll():
            try:
                if index is None:
                    index = Index.open(where)
                elif looks % 5:
                    index.refresh()
                else:
                    index = Index.open(where)
                newest = _newer(index.version, newest)
                look(index, rng.standard_normal(FACTS.dimensions, np.float32))
                looks += 1
                time.sleep(PAUSE)
            except InputError:  # not made yet
                time.sleep(PAUSE)
            except Exception as error:
                wrong = wrong or f"{type(error).__name__}: {error}"
        pipe.recv()
        pipe.send((looks, wrong))


def look(index: Index, vector: np.ndarray) -> None:
    """Everything that is looked at must be of one version, whatever was written meanwhile."""
    found = index.nearest(vector, 5)
    rows = list(index.columns(("id", "path", "modified", "size")))
    assert len(rows) == index.count(), f"{len(rows)} rows, counted {index.count()}"
    whole(rows)
    present = {row["id"] for row in rows}
    shown = index.entries([match.row for match in found])
    assert {entry.id for entry in shown} <= present, "a result is not of the version that was searched"
    for match, entry in zip(found, shown, strict=True):
        exact = float(entry.vector @ vector / np.linalg.norm(vector))
        assert abs(match.score - exact) < 1e-3, f"{entry.id}: similarity {match.score}, its vector has {exact}"


def whole(rows: list[dict[str, Any]]) -> dict[int, tuple[int, int]]:
    """Group -> (the change that wrote it, its rows). Every group is all there, of one change, no row twice."""
    groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[int(row["id"].partition("-")[0])].append(row)
    for group, some in groups.items():
        numbers, sizes = {row["modified"] for row in some}, {row["size"] for row in some}
        what = f"group {group}: {len(some)} rows of changes {numbers}, sizes {sizes}"
        assert (len(numbers), sizes) == (1, {len(some)}), what
        assert len({row["id"] for row in some}) == len(some), f"group {group} has a row twice"
    return {group: (some[0]["modified"], len(some)) for group, some in groups.items()}


def _newer(version: int, newest: int) -> int:
    assert version >= newest, f"version {version} after {newest}"
    return version
