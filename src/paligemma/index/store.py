"""The table of an index, a row for each picture, in a folder or on an object store: the same code, as LanceDB opens both.

Every change is a new version of the table, whole or not at all. A reader stays with the version that it opened until it calls `refresh`, so
that one search sees one version. One process writes at a time: in a folder a lock sees to that, which the system takes from a process that
dies. An object store has none: there two writers at a time spoil nothing, but may enter a picture twice.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import CheckpointError, InputError, ResourceError, UsageError
from .entries import READ, Entry, Facts, facts_of, from_table, places, schema, to_table
from .filters import among

if TYPE_CHECKING:
    import pyarrow
    from lancedb.table import Table

NAME = "pictures"
LOCK = "writer.lock"
LARGE = 100_000
"""Rows from which on an approximate index of the vectors is worth it; below, all of them are looked at (docs/search.md has the times)."""
GROWN = 4
"""The approximate index is made anew once there are so many times the rows it was made for; until then it takes in new rows as it is."""
MANY = 512
"""Numbers in a vector of which one bit each is enough to find what is then compared exactly (RaBitQ); of fewer, eight bits are kept."""
ROWS_A_PARTITION = 4096
PROBES = 24
"""Partitions that a search looks into."""
FEW = 2000
"""Of so many rows that meet a condition every vector is compared."""
COMPARED = 80
"""Rows that are compared again by their exact vectors, at least, and twice as many as are wanted."""
KEEP = timedelta(hours=1)
"""How long an older version stays for those who still read it."""
AT_ONCE = 2000
"""Ids in one condition."""
_PASSING = r"\bos error (1|5|13|23|24|30)\b"
"""Not permitted, an error of the disk, no permission, too many open files (of the machine, of the process), a disk that is only read."""
_ONE_WRITER = "wait for it to end"


class Match(NamedTuple):
    """`row`: its number in this version of the table. `score`: the higher the better."""

    row: int
    score: float


class Index:
    """One version of an index, for reading."""

    def __init__(self, table: Table, where: str, facts: Facts):
        self.table, self.where, self.facts = table, where, facts
        self._indexed = self._indices()

    @classmethod
    def open(cls, where: str | Path) -> Index:
        """Its newest version. Raises `InputError` where there is none, `CheckpointError` where it cannot be read."""
        table = _table(str(where))
        if table is None:
            raise InputError(f"{where}: there is no index here", hint="make one: paligemma index FOLDER --out HERE", code="not_found")
        return cls(table, str(where), _facts(table, str(where)))

    def refresh(self) -> None:
        """Go on with the newest version, which may be of another encoder or folder: an index can be made anew, or move."""
        with told(self.where):
            self.table.checkout_latest()
        self.facts = _facts(self.table, self.where)
        self._indexed = self._indices()

    @property
    def version(self) -> int:
        return self.table.version

    def count(self, condition: str | None = None) -> int:
        with told(self.where, condition):
            return self.table.count_rows(condition)

    def nearest(self, vector: np.ndarray, count: int, condition: str | None = None) -> list[Match]:
        """The rows whose vectors are most similar, and their cosine similarity."""
        with told(self.where, condition):
            search: Any = self.table.search(np.asarray(vector, np.float32), vector_column_name="vector")
            search = search.distance_type("cosine")
            if "vector" in self._indexed:
                search = search.refine_factor(max(2, math.ceil(COMPARED / count))).nprobes(PROBES)
            found = self._found(search, count, condition, "_distance")
            if condition and "vector" in self._indexed and len(found) < count:
                # Those that meet it may lie in any partition. (To look into all at once costs a wide condition three times as much.)
                few = self.table.count_rows(condition) <= FEW
                search = search.bypass_vector_index() if few else search.maximum_nprobes(0)
                found = self._found(search, count, None, "_distance")  # it has the condition
            return [Match(row, 1 - far) for row, far in found]

    def matching(self, words: str, column: str, count: int, condition: str | None = None) -> list[Match]:
        """The rows in whose `column`, "text" or "words", any of the words stand, and their BM25 scores."""
        if column not in self._indexed:
            return []
        from lancedb.query import MatchQuery

        with told(self.where, condition):
            search = self.table.search(MatchQuery(words, column), query_type="fts")  # pyright: ignore[reportCallIssue]
            return [Match(row, score) for row, score in self._found(search, count, condition, "_score")]

    def listed(self, count: int, condition: str | None = None) -> list[Match]:
        """Rows as they come, for a condition alone."""
        with told(self.where, condition):
            return [Match(row, 0.0) for row, _ in self._found(self.table.search(), count, condition, None)]

    def entries(self, rows: Sequence[int]) -> list[Entry]:
        """What stands in those rows of this version."""
        if not rows:
            return []
        with told(self.where):
            taken = self.table.take_row_ids(list(rows)).select(list(READ)).with_row_id().to_arrow()
        places = {row: place for place, row in enumerate(taken.column("_rowid").to_pylist())}
        found = from_table(taken.drop_columns(["_rowid"]))
        return [found[places[row]] for row in rows]

    def entries_of(self, ids: Sequence[str]) -> dict[str, Entry]:
        """By id; those that are not there are left out."""
        found: dict[str, Entry] = {}
        with told(self.where):
            for start in range(0, len(ids), AT_ONCE):
                some = self.table.search().where(among("id", ids[start : start + AT_ONCE])).select(list(READ)).to_arrow()
                found |= {entry.id: entry for entry in from_table(some)}
        return found

    def columns(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """All rows, of those columns only."""
        with told(self.where):
            for batch in self.table.search().select(list(names)).to_batches():
                yield from batch.to_pylist()

    def _found(self, search: Any, count: int, condition: str | None, score: str | None) -> list[tuple[int, float]]:
        if condition:
            search = search.where(condition)
        table: pyarrow.Table = search.select(["id", *([score] if score else [])]).with_row_id(True).limit(count).to_arrow()
        scores = table.column(score).to_pylist() if score else [0.0] * table.num_rows
        return list(zip(table.column("_rowid").to_pylist(), scores, strict=True))

    def _indices(self) -> set[str]:
        with told(self.where):
            return {one.columns[0] for one in self.table.list_indices()}


class Writer(Index):
    """The one that may change an index: see `writing`. What a method did is there for good when it returns."""

    def add(self, entries: Sequence[Entry]) -> None:
        """Pictures whose ids are new."""
        if entries:
            with told(self.where):
                self.table.add(to_table(entries, self.table.schema))

    def replace(self, entries: Sequence[Entry]) -> None:
        """Pictures whose ids are there: the old row and the new one never stand side by side."""
        if entries:
            with told(self.where):
                merge = self.table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                merge.execute(to_table(entries, self.table.schema))

    def delete(self, ids: Sequence[str]) -> None:
        with told(self.where):
            for start in range(0, len(ids), AT_ONCE):
                self.table.delete(among("id", ids[start : start + AT_ONCE]))

    def tidy(self) -> None:
        """Join small pieces, take new rows into the indices, drop versions that nobody reads any more; with many rows, make or renew the
        approximate index of the vectors."""
        with told(self.where):
            rows = self.table.count_rows()
            if rows >= LARGE and rows >= GROWN * self._trained():
                self.index_vectors(rows)
            self.table.optimize(cleanup_older_than=KEEP)
        self._indexed = self._indices()

    def index_vectors(self, rows: int, kind: str | None = None) -> None:
        """An approximate index of the vectors, for so many rows. `kind`: a class of `lancedb.index`, by default what suits."""
        import lancedb.index

        with told(self.where):
            one_bit = self.facts.dimensions >= MANY and self.facts.dimensions % 8 == 0  # in whole bytes
            kind = kind or ("IvfRq" if one_bit else "IvfSq")
            config = getattr(lancedb.index, kind)(distance_type="cosine", num_partitions=max(1, rows // ROWS_A_PARTITION))
            self.table.create_index("vector", config=config, replace=True)
            self.table.update_field_metadata({"path": "vector", "metadata": {"rows": str(rows)}})
        self._indexed = self._indices()

    def _trained(self) -> int:
        """For how many rows the approximate index of the vectors was made."""
        return int((self.table.schema.field("vector").metadata or {}).get(b"rows", b"0"))

    def prepare(self) -> None:
        """Make the indices that an empty table can have, unless they are there."""
        from lancedb.index import FTS, BTree, LabelList

        with told(self.where):
            # Captions are sentences, in any script; what is printed in a picture may be any words. Stop words stay: with ICU those of many
            # languages are left out, and "cat", "dog" and "man" are among them.
            printed = FTS(base_tokenizer="icu", stem=False, remove_stop_words=False)
            sentences = FTS(base_tokenizer="icu", remove_stop_words=False)
            for column, config in {"words": sentences, "text": printed, "id": BTree(), "holds": LabelList()}.items():
                if column not in self._indexed:
                    self.table.create_index(column, config=config)
        self._indexed = self._indices()


@contextlib.contextmanager
def writing(where: str | Path, facts: Facts, *, overwrite: bool = False) -> Iterator[Writer]:
    """The index that is there, or a new one, to be written for the block.

    Raises `UsageError` while another process writes it, or where it is of another folder that is still there, `CheckpointError` where its
    vectors are another encoder's; `overwrite` starts anew in both cases.
    """
    place = str(where)
    with _locked(place):
        table = None if overwrite else _table(place)
        if table is None:
            with told(place):
                table = _connect(place).create_table(NAME, schema=schema(facts), mode="overwrite")
        found = _facts(table, place)
        _check_same(found, facts, place)
        if places(found) != places(facts):
            table.update_field_metadata({"path": "path", "metadata": places(facts)})
        writer = Writer(table, place, _facts(table, place))
        writer.prepare()
        yield writer


def _check_same(found: Facts, wanted: Facts, place: str) -> None:
    """A folder that is no longer there was moved: its index moves with it."""
    anew = "choose another --out, or --overwrite to start anew"
    if (found.encoder, found.dimensions) != (wanted.encoder, wanted.dimensions):
        what = f"{place}: its vectors were made by {found.encoder}, not by {wanted.encoder}"
        raise CheckpointError(what, hint=anew, code="other_encoder")
    if found.root != wanted.root and Path(found.root).exists():
        raise UsageError(f"{place}: this is the index of {found.root}, not of {wanted.root}", hint=anew, code="other_folder")


def folder_of(where: str) -> Path | None:
    """Where an index is a folder of this machine; None on an object store."""
    if where.startswith("file://"):
        from urllib.parse import unquote, urlsplit

        return Path(unquote(urlsplit(where).path))
    return None if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", where) else Path(where)


@contextlib.contextmanager
def _locked(where: str) -> Iterator[None]:
    folder = folder_of(where)
    if folder is None:
        yield
        return
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / LOCK, timeout=0).acquire()
    except Timeout:
        raise UsageError(f"{where}: another process is writing this index", hint=_ONE_WRITER, code="index_in_use") from None
    with lock:
        yield


def _connect(where: str) -> Any:
    os.environ.setdefault("LANCEDB_LOG", "error")  # read when it is imported: by default it warns that a new table is new
    try:
        import lancedb
    except ModuleNotFoundError as error:
        if error.name != "lancedb":
            raise
        raise ResourceError(
            "an index needs LanceDB, which is not installed", hint="pip install 'paligemma[index]'", code="no_lancedb"
        ) from None
    return lancedb.connect(folder_of(where) or where)


def _table(where: str) -> Table | None:
    """None where there is no index."""
    folder = folder_of(where)
    with told(where):
        if folder is not None and not _has_version(folder / f"{NAME}.lance/_versions"):
            return None
        database = _connect(where)
        return database.open_table(NAME) if NAME in database.list_tables().tables else None


def _has_version(versions: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return any(name.endswith(".manifest") for name in os.listdir(versions))
    return False


def _facts(table: Table, where: str) -> Facts:
    found = facts_of(table.schema)
    if found is None:
        what = f"{where}: the table {NAME!r} here is not an index that this version reads"
        hint = "choose another place, or build it anew with --overwrite, and with --encoder where it had another than the bundled one"
        raise CheckpointError(what, hint=hint, code="not_an_index")
    return found


@contextlib.contextmanager
def told(where: str, condition: str | None = None) -> Iterator[None]:
    """What the store says, in our words."""
    try:
        yield
    except (CheckpointError, UsageError, InputError, ResourceError):
        raise
    except (OSError, RuntimeError, ValueError) as error:
        text = str(error)
        first = text.strip().splitlines()[0][:300] if text.strip() else type(error).__name__
        if "No space left" in text or "os error 28" in text:
            raise ResourceError(f"{where}: the disk is full", code="disk_full") from error
        if condition and re.search(r"(?i)schema error|sql|parse|filter|invalid user input|field", text):
            raise UsageError(f"the condition is not understood: {first}", hint="columns: path, width, height, text, model, ...") from error
        if folder_of(where) is None:
            told_by_it = re.sub(r"[,:]? ?/\S+\.rs:\d+(:\d+)?", "", first)  # where in its source it stands
            hint = "is the address right, and are region and keys in the environment (AWS_REGION, AWS_ACCESS_KEY_ID, ...)?"
            raise ResourceError(f"{where}: the object store cannot be used ({told_by_it})", hint=hint, code="object_store") from error
        if isinstance(error, PermissionError) or re.search(_PASSING, text):
            hint = "nothing in it is broken: see to the machine, and try again"
            raise ResourceError(f"{where}: the index cannot be used now ({first})", hint=hint, code="index_unreachable") from error
        raise CheckpointError(
            f"{where}: the index cannot be used ({first})", hint="build it anew with --overwrite", code="bad_index"
        ) from error
