"""A job in this process: items that are not done yet -> batches -> rows -> parts on the disk, until all is done or it is told to stop.

An engine takes spans of items and gives what came of them, in any order; `here` is the one of this process, `ray_engine` another.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import UsageError
from .items import Item
from .journal import Journal
from .parts import Ids, Part
from .work import Done, Opened, Order, answer, open_item

if TYPE_CHECKING:
    from ..predictor import Predictor

ITEMS, SECONDS = 256, 30.0
"""A part is written when so many items are done, or so long after the last: no more is lost, whatever happens."""
READERS = 2
"""Threads that open the next batch while the model answers the last."""


@dataclass(frozen=True)
class Span:
    """Neighbours in a source, from a place on."""

    start: int
    items: tuple[Item, ...]


Engine = Callable[[Iterator[Span]], Iterator[tuple[int, list[Done]]]]
"""Spans -> the place where each begins, and what came of its items in their order."""


@dataclass
class Counts:
    """How far a job is. `items`: done, with those of earlier runs; `here`: in this run; `failed`: of which nothing came; `seconds`: of this
    run, up to its last answer."""

    items: int = 0
    here: int = 0
    rows: int = 0
    failed: int = 0
    cut: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    finished: bool = False

    @property
    def rate(self) -> float:
        """Items a second, of this run."""
        return self.here / self.seconds if self.seconds else 0.0

    def add(self, one: Done) -> None:
        """An item of this run."""
        self.items += 1
        self.here += 1
        self.rows += len(one.rows)
        self.failed += not one.rows
        self.cut += one.cut
        self.codes.update(str(row["error"]["code"]) for row in one.errors)

    def add_part(self, part: Part) -> None:
        """Of an earlier run."""
        self.items += part.stop - part.start
        self.rows += part.rows
        self.failed += part.failed
        self.cut += part.cut
        self.codes.update(part.codes)


def run(
    items: Iterable[Item],
    journal: Journal,
    engine: Engine,
    *,
    span: int,
    alone: Callable[[Item], bool] = lambda item: False,
    stopped: Callable[[], bool] = lambda: False,
    tell: Callable[[Counts], None] = lambda counts: None,
) -> Counts:
    """Do what is not done yet. `span`: items that an engine is given at a time; `alone`: those that it is given by themselves; `stopped`:
    asked after each: what is done is then kept, and the rest left; `tell`: called with the counts after each.

    Raises `UsageError` (code "source_changed") where the source is not the one that parts were done of, and what engine and journal raise.
    """
    counts = Counts()
    for part in journal.parts:
        counts.add_part(part)
    ids = Ids()
    begun = written = time.monotonic()
    start, pending = 0, []

    def keep() -> None:
        nonlocal written
        if pending:
            journal.add(start, pending)
            pending.clear()
            written = time.monotonic()

    results = engine(missing(items, journal, span, ids, alone))
    try:
        for place, done in results:
            if place != start + len(pending):
                keep()
            if not pending:
                start = place
            pending += done
            for one in done:
                counts.add(one)
            counts.seconds = time.monotonic() - begun
            if len(pending) >= ITEMS or time.monotonic() - written >= SECONDS or stopped():
                keep()
            tell(counts)
            if stopped():
                return counts
    finally:
        close = getattr(results, "close", None)
        if close is not None:
            close()
    keep()
    journal.finish(ids)
    counts.finished = True
    return counts


def missing(
    items: Iterable[Item], journal: Journal, size: int, ids: Ids, alone: Callable[[Item], bool] = lambda item: False
) -> Iterator[Span]:
    """Spans of at most `size` items that no part holds, of one item where it is to be `alone`; `ids` is fed those of all.

    Raises `UsageError` where parts are of other items.
    """
    place, span, inside, seen = 0, [], None, Ids()
    for item in items:
        ids.add(item.id)
        if inside is None and (found := journal.part_at(place)) is not None and found.stop > place:
            inside, seen = found, Ids()
        if inside is not None:
            seen.add(item.id)
            if place + 1 == inside.stop:
                _same(inside, seen)
                inside = None
        else:
            by_itself = alone(item)
            if by_itself and span:
                yield Span(place - len(span), tuple(span))
                span = []
            span.append(item)
            if by_itself or len(span) == size or journal.part_at(place + 1) is not None:
                yield Span(place + 1 - len(span), tuple(span))
                span = []
        place += 1
    if span:
        yield Span(place - len(span), tuple(span))
    if inside is not None or any(part.start >= place for part in journal.parts if part.stop):
        raise _changed(f"it has {place:,} items, {journal.parts[-1].stop:,} were done")


def _same(part: Part, seen: Ids) -> None:
    if part.ids != str(seen):
        raise _changed(f"among items {part.start + 1:,} to {part.stop:,} there are others")


def _changed(how: str) -> UsageError:
    return UsageError(
        f"the source is not what it was when the job began: {how}",
        hint="what comes at its end may be new, nothing before: choose another --out, or remove the folder of this job's results",
        code="source_changed",
    )


def here(load: Callable[[], Predictor], order: Order) -> Engine:
    """In this process, span by span. The model is loaded when there is something to ask; the next span is opened meanwhile."""

    def engine(spans: Iterator[Span]) -> Iterator[tuple[int, list[Done]]]:
        first = next(spans, None)
        if first is None:
            return
        predictor = load()
        with ThreadPoolExecutor(READERS, thread_name_prefix="opening") as pool:

            def opening(span: Span) -> Sequence[Future[Opened]]:
                return [pool.submit(open_item, item, predictor.config, order) for item in span.items]

            span, waiting = first, opening(first)
            while span is not None:
                following = next(spans, None)
                ahead = opening(following) if following is not None else []
                yield span.start, answer(predictor, order, [one.result() for one in waiting])
                span, waiting = following, ahead

    return engine
