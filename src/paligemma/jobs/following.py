"""A job over a source that has changed anywhere -> a job over the source as it is now: what is done stays done, wherever it stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from .items import Item
from .journal import Journal
from .parts import ERRORS, RESULTS, Ids
from .rows import rows_of
from .work import Done


def follow(journal: Journal, items: Iterable[Item], *, lasting: Iterable[str] = ()) -> None:
    """Puts what is done into the order of `items`, for `run` to do the rest. Rows of pictures that went away are dropped.

    What failed is not done any more, for it may be mended by now; errors of the codes in `lasting` stay. Nothing is written where there is
    nothing to change. Of jobs whose rows are JSON lines, all in memory meanwhile. Raises `ResourceError` as the journal does.
    """
    ids = [item.id for item in items]
    codes = {code for part in journal.parts for code in part.codes}
    if codes <= {*lasting} and all(part.ids == _digest(ids[part.start : part.stop]) for part in journal.parts):
        return
    done = {one.id: one for one in _done(journal) if all(row["error"]["code"] in lasting for row in one.errors)}
    runs: list[tuple[int, list[Done]]] = []
    for place, id in enumerate(ids):
        if id in done and not (place and ids[place - 1] in done):
            runs.append((place, []))
        if id in done:
            runs[-1][1].append(done[id])
    journal.rearrange(runs)


def _done(journal: Journal) -> list[Done]:
    """What the rows say of each item."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: {RESULTS: [], ERRORS: []})
    for kind in (RESULTS, ERRORS):
        for row in rows_of(journal.files(kind)):
            found[row["id"]][kind].append(row)
    cut = {id: sum(row["result"].get("stop") == "length" for row in rows[RESULTS]) for id, rows in found.items()}
    return [Done(id, tuple(rows[RESULTS]), tuple(rows[ERRORS]), cut=cut[id]) for id, rows in found.items()]


def _digest(ids: Iterable[str]) -> str:
    digest = Ids()
    for id in ids:
        digest.add(id)
    return str(digest)
