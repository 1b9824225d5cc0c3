"""A job over a source that has changed anywhere -> a job over the source as it is now: what is done stays done, wherever it stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..data.pictures import picture_size
from ..errors import InputError
from ..image import UNREADABLE
from .items import Item
from .journal import Journal
from .parts import ERRORS, RESULTS, Ids
from .rows import rows_of
from .work import Done


def follow(journal: Journal, items: Iterable[Item], *, lasting: Iterable[str] = ()) -> None:
    """Puts what is done into the order of `items`, for `run` to do the rest. Rows of pictures that went away are dropped.

    What failed is not done any more, for it may be mended by now; errors of the codes in `lasting` stay. Nor is a picture whose file has
    another size than its rows say. Nothing is written where there is nothing to change. Of jobs whose rows are JSON lines, all in memory
    meanwhile. Raises `ResourceError` as the journal does.
    """
    files = {item.id: item.file for item in items}
    ids, replaced = list(files), _replaced(journal, files)
    codes = {code for part in journal.parts for code in part.codes}
    if not replaced and codes <= {*lasting} and all(part.ids == _digest(ids[part.start : part.stop]) for part in journal.parts):
        return
    done = {one.id: one for one in _done(journal) if all(row["error"]["code"] in lasting for row in one.errors)}
    done = {id: one for id, one in done.items() if id not in replaced}
    runs: list[tuple[int, list[Done]]] = []
    for place, id in enumerate(ids):
        if id in done and not (place and ids[place - 1] in done):
            runs.append((place, []))
        if id in done:
            runs[-1][1].append(done[id])
    journal.rearrange(runs)


def _replaced(journal: Journal, files: Mapping[str, Path | None]) -> set[str]:
    """Ids of pictures that are others now, as far as their size tells."""
    found = ((files.get(row["id"]), row["id"], row["result"]) for row in rows_of(journal.files(RESULTS)))
    return {id for file, id, result in found if file and "width" in result and _is_another(file, (result["width"], result["height"]))}


def _is_another(file: Path, size: tuple[int, int]) -> bool:
    """What the disk does not give out for now is as it was."""
    try:
        return picture_size(file)[0] != size
    except InputError as error:
        return error.code != UNREADABLE
    except OSError:
        return False


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
