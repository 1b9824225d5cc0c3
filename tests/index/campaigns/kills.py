"""C18: kill -9 while an index is written, replaced, deleted from, joined and indexed, with one writer and four readers.

What the parent was told is done is there; what was under way is there whole or not at all; no reader sees anything but a version; the next
writer goes on at once; and every search of the survivor finds what a search of an index made of the same rows anew finds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from paligemma.index.store import Index, writing
from tests.server.campaigns.frame import Trials

from . import reader, writer
from .writer import FACTS, Change

NAME = "C18"
TITLE = "index: kill -9, 4 readers"
SIZES = {"push": 10, "ci": 100, "release": 1000}
READERS = 4
KILLS = 3
"""Of each case, so that there are three times as many kills: every writer goes on with what the one before left."""
LONGEST = 20
"""Changes before a kill, at most."""
QUERIES, TOP = 8, 10
PATIENCE = 60.0


@dataclass
class Stage:
    folder: Path
    readers: list[Connection]
    context: Any


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Four readers that are running already; writers are forked from a process that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lancedb", "tests.index.campaigns.writer", "tests.index.campaigns.reader"])
    processes, pipes = [], []
    for _ in range(READERS):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=reader.run, args=(theirs,), daemon=True))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Stage(Path(folder), pipes, context)
        finally:
            for process in processes:
                process.kill()
                process.join()


def points(tier: str, rng: random.Random) -> Sequence[tuple[tuple[int, float], ...]]:
    """(changes that may end, seconds into the next one) of each kill."""
    return [tuple((rng.randint(0, LONGEST), rng.expovariate(100)) for _ in range(KILLS)) for _ in range(SIZES[tier])]


def check(stage: Stage, point: tuple[tuple[int, float], ...], rng: random.Random) -> Trials:
    where = str(stage.folder / f"{rng.getrandbits(48):x}")
    for pipe in stage.readers:
        pipe.send(where)
    known: dict[int, tuple[int, int]] = {}
    number = 0
    try:
        for changes, delay in point:
            done, begun = _killed(stage, where, rng.getrandbits(32), number, known, changes, delay)
            number = max([number, *(change.number for change in [*done, *begun])])
            known = survived(where, expected(known, done), begun)
    finally:
        for pipe in stage.readers:
            pipe.send("")
        looks = [_answer(pipe) for pipe in stage.readers]
    wrong = [what for _, what in looks if what]
    assert not wrong, f"a reader: {wrong[0]}"
    with writing(where, FACTS) as left:  # the lock of a dead writer is no lock
        left.tidy()
    same_as_anew(where, f"{where}-anew", rng)
    return Trials(len(point), {"looks of readers in the last case": sum(count for count, _ in looks)})


def _killed(
    stage: Stage, where: str, seed: int, number: int, known: dict[int, tuple[int, int]], changes: int, delay: float
) -> tuple[list[Change], list[Change]]:
    """What a writer said it had done, and what it was at."""
    ours, theirs = stage.context.Pipe()
    present = {group: rows for group, (_, rows) in known.items()}
    process = stage.context.Process(target=writer.run, args=(where, seed, number, present, theirs), daemon=True)
    process.start()
    theirs.close()
    done: list[Change] = []
    begun: list[Change] = []

    def take(what: str, change: Change) -> None:
        begun.append(change)
        if what == "done":
            done.append(change)
            begun.clear()

    end = time.monotonic() + PATIENCE
    while len(done) < changes and time.monotonic() < end:
        if ours.poll(1):
            take(*ours.recv())
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with contextlib.suppress(EOFError):
        while ours.poll(0):
            take(*ours.recv())
    assert len(done) >= changes, f"the writer made {len(done)} of {changes} changes in {PATIENCE:.0f} s"
    return done, begun


def _answer(pipe: Connection) -> tuple[int, str]:
    assert pipe.poll(PATIENCE), "a reader hangs"
    return pipe.recv()


def expected(known: dict[int, tuple[int, int]], done: Sequence[Change]) -> dict[int, tuple[int, int]]:
    """Group -> (change, rows) after those changes."""
    after = dict(known)
    for change in done:
        if change.what in ("add", "replace"):
            after[change.group] = (change.number, change.rows)
        elif change.what == "delete":
            del after[change.group]
    return after


def survived(where: str, told: dict[int, tuple[int, int]], begun: Sequence[Change]) -> dict[int, tuple[int, int]]:
    """What is there: what was told, with the change that was under way or without it."""
    if not told and not Path(where, "pictures.lance", "_versions").is_dir():
        return {}
    found = reader.whole(list(Index.open(where).columns(("id", "path", "modified", "size"))))
    allowed = [told, *([expected(told, begun)] if begun else [])]
    missing = sorted(group for group, what in told.items() if found.get(group) != what)[:3]
    assert found in allowed, f"acknowledged: {len(told)} groups, there: {len(found)}; {missing} are not as they were; under way: {begun}"
    return found


def same_as_anew(where: str, anew: str, rng: random.Random) -> None:
    """Searches of the survivor and of a fresh index of its rows find the same."""
    index = Index.open(where)
    ids = [row["id"] for row in index.columns(("id",))]
    rows = list(index.entries_of(ids).values())
    assert len(rows) == len(ids)
    with writing(anew, FACTS) as fresh:
        fresh.add(rows)
        random_vectors = np.random.default_rng(rng.getrandbits(32)).standard_normal((QUERIES, FACTS.dimensions), np.float32)
        for vector in random_vectors:
            sets = [{entry.id for entry in one.entries([m.row for m in one.nearest(vector, TOP)])} for one in (index, fresh)]
            assert len(sets[0]) == min(TOP, len(rows)), f"{len(sets[0])} of {min(TOP, len(rows))} found"
            assert len(sets[0] & sets[1]) >= 0.95 * len(sets[1]), (
                f"recall {len(sets[0] & sets[1])} of {len(sets[1])} against an index made anew"
            )
