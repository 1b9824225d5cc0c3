"""Files on disk against rows of the index, by path, size and time, then by content: what is new, changed, moved or gone."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from ..errors import InputError
from ..image import UNREADABLE, check_listed
from ..sources import expand
from .describing import Known, Wanted
from .store import Index

COLUMNS = ("id", "path", "digest", "modified", "size")
What = Literal["added", "changed", "moved", "copied", "touched", "described"]
"""A new picture; another picture at a path; a picture at another path; at one more path; a file written anew as it was; a picture about
which more was asked."""


class File(NamedTuple):
    """`path`: below the root, with "/". `modified`: nanoseconds. `size`: bytes, -1 of what cannot be looked at."""

    path: str
    modified: int
    size: int


class Row(NamedTuple):
    """What the index knows of a picture. `lacks`: whether something is still to be asked about it."""

    id: str
    path: str
    digest: str
    modified: int
    size: int
    lacks: bool


@dataclass(frozen=True)
class Origin:
    """Where a file's entry comes from. `row`: the row that holds what is known of its content, if any does. `id`: of the row that it takes
    the place of, None where it is one more."""

    what: What
    row: Row | None
    id: str | None


def files(root: Path) -> list[File]:
    """The pictures below a folder. What cannot be looked at, a picture or a folder of them, is among them, and fails when it is read.

    Raises `InputError` where there are none: a disk that is not mounted is no reason to forget all pictures.
    """
    if not root.is_dir():
        raise InputError(f"{root}: {'a file, expected a folder' if root.is_file() else 'no such folder'}", code="not_found")
    found: list[File] = []
    for source in expand([str(root)]):
        if source.kind == "image" and source.path is not None and source.path != root:
            path, facts = source.path.relative_to(root).as_posix(), _stat(source.path)
            found.append(File(path, 0, -1) if facts is None else File(path, facts.st_mtime_ns, facts.st_size))
    if not found:
        check_listed(root, str(root))
        raise InputError(f"{root}: there are no pictures in this folder", code="not_found")
    return found


def _stat(path: Path) -> os.stat_result | None:
    """None where it cannot be looked at, as a whole folder cannot."""
    with contextlib.suppress(OSError):
        facts = path.stat()
        return None if stat.S_ISDIR(facts.st_mode) else facts
    return None


def rows(index: Index, wanted: Wanted) -> list[Row]:
    """All of an index."""
    more = ("model", "captions", "text", "classes") if wanted else ()
    return [_row(one, wanted) for one in index.columns((*COLUMNS, *more))]


def _row(one: Mapping[str, Any], wanted: Wanted) -> Row:
    lacks = False
    if wanted:
        languages = [caption["language"] for caption in one["captions"] or ()]
        lacks = bool(wanted.lacking(Known(one["model"], languages, one["text"] is not None, tuple(one["classes"] or ()))))
    return Row(one["id"], one["path"], one["digest"], one["modified"], one["size"], lacks)


@dataclass
class Changes:
    """`due`: files that must be looked at. `unchanged`: how many need not. `settled`: digests of pictures of which all is known.

    A path has one row. Two writers at a time, which an object store does not keep apart, may have made two: then the second one is `gone`.
    """

    due: list[File]
    unchanged: int
    settled: frozenset[str]
    _by_path: dict[str, Row]
    _by_digest: dict[str, list[Row]]
    _there: set[str]
    _unseen: set[str]
    _twice: list[str]
    _claimed: set[str] = field(default_factory=set)

    @classmethod
    def between(cls, found: Iterable[File], known: Iterable[Row]) -> Changes:
        by_path: dict[str, Row] = {}
        by_digest: dict[str, list[Row]] = defaultdict(list)
        twice: list[str] = []
        for row in known:
            if row.path in by_path:
                twice.append(row.id)
                if by_path[row.path].id == row.id:  # both go, and the picture comes anew
                    del by_path[row.path]
                continue
            by_path[row.path] = row
            by_digest[row.digest].append(row)
        found = list(found)
        due = [file for file in found if not _same(file, by_path.get(file.path))]
        settled = frozenset(digest for digest, some in by_digest.items() if not any(row.lacks for row in some))
        there, unseen = {file.path for file in found}, {file.path for file in found if file.size < 0}
        return cls(due, len(found) - len(due), settled, by_path, dict(by_digest), there, unseen, twice)

    def origin(self, path: str, digest: str) -> Origin:
        """Asked once for each file that was read. A row whose path is gone goes to the first file that holds its content."""
        own, twins = self._by_path.get(path), self._by_digest.get(digest, [])
        if own is not None and own.digest == digest:
            return Origin("described" if own.lacks else "touched", own, own.id)
        gone = next((row for row in twins if not self._is_there(row.path) and row.id not in self._claimed), None)
        if own is not None:
            return Origin("changed", gone or next(iter(twins), None), own.id)
        if gone is not None:
            self._claimed.add(gone.id)
            return Origin("moved", gone, gone.id)
        return Origin("copied", twins[0], None) if twins else Origin("added", None, None)

    def give_back(self, origin: Origin) -> None:
        """The file could not be entered after all: its row is not claimed."""
        self._claimed.discard(origin.id or "")

    def gone(self, failed: Mapping[str, InputError]) -> list[str]:
        """Ids of rows whose file is no longer there, or is no picture any more, or has another row. `failed`: what could not be read, by
        path; one that the disk does not give out for now keeps its row."""
        none = {path for path, error in failed.items() if error.code != UNREADABLE}
        lost = [row.id for path, row in self._by_path.items() if not self._is_there(path) or path in none]
        return [id for id in lost if id not in self._claimed] + self._twice

    def _is_there(self, path: str) -> bool:
        """As far as can be told: what lies in a folder that cannot be read is not gone."""
        return path in self._there or bool(self._unseen and not self._unseen.isdisjoint(map(str, PurePosixPath(path).parents)))


def _same(file: File, row: Row | None) -> bool:
    return row is not None and (row.modified, row.size) == (file.modified, file.size) and not row.lacks


def absolute(root: str | Path) -> Path:
    """As an index writes it down: links followed, so that one folder has one name."""
    return Path(os.path.realpath(root))
