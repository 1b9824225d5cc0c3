"""The folder of a job's results: what was ordered, what is done, at the end the tables. Whatever ends the process, it goes on from there.

    job.json          the order: another one is refused here, once anything is done
    lock              one process at a time
    journal.jsonl     a line for each part that is done: which places of the source, a digest of their ids, how many rows
    parts/            rows and errors of each part, until the job is finished
    results.jsonl     (or .parquet) at the end, in the order of the source; errors.jsonl beside it

A part is done when its line is in the journal: first its files, each whole under its name, then the line, each on the disk before the next.
A line that is torn was never written, and files without one are made anew. Where a part's rows are is not written down but looked for: in
parts/, there perhaps still under the name that they had before the journal was replaced, or, of a job that was finished before its source
grew, in the tables. So at each moment either the old files or the new ones count.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ResourceError, UsageError
from ..printable import printable
from ..training.disk import TEMPORARY, Disk, demanded, lacking, make_folders, remove_tree, replace_file, write_file
from ..training.lock import locked
from .parts import ERRORS, KINDS, RESULTS, File, Ids, Part
from .rows import Form, Lines
from .work import Done

ORDER, JOURNAL, PARTS = "job.json", "journal.jsonl", "parts"
OWN = (JOURNAL, PARTS, f"{RESULTS}.jsonl", f"{RESULTS}.parquet", f"{ERRORS}.jsonl")
"""Everything of ours but the lock and the order."""
GOES_ON = "what is done is kept: the same command goes on with it"
"""Where the disk refuses."""
_demanded = functools.partial(demanded, hint=GOES_ON)


@contextlib.contextmanager
def opened(
    folder: Path, order: Mapping[str, Any], form: Form, *, draw: Path | None = None, overwrite: bool = False, disk: Disk | None = None
) -> Iterator[Journal]:
    """The folder, held for the block, made if need be. `order`: all that results depend on, as JSON values under names for people.

    Raises `UsageError` where another process holds the folder (code "in_use"), where it holds results of another order (code "other_job";
    `overwrite`: they are removed), and for a place that cannot be; `ResourceError` where the disk refuses.
    """
    disk = disk or Disk()
    with _demanded(folder):
        make_folders(disk, folder)
        if draw is not None:
            make_folders(disk, draw)
    with _held(folder, disk):
        with _demanded(folder):
            _agree(folder, order, overwrite, disk)
            make_folders(disk, folder / PARTS)
            journal = Journal(folder, form, draw, disk)
        yield journal


@contextlib.contextmanager
def _held(folder: Path, disk: Disk) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, disk))
        except UsageError as error:
            raise UsageError(
                f"{printable(str(folder))}: another process is writing results there", hint=error.hint, code="in_use"
            ) from error
        except OSError as error:
            raise lacking(folder, error, GOES_ON) from error
        yield


def _agree(folder: Path, order: Mapping[str, Any], overwrite: bool, disk: Disk) -> None:
    path = folder / ORDER
    wanted = json.dumps(order, ensure_ascii=True, indent=1, default=str)
    try:
        found = json.loads(path.read_bytes())
        there: dict[str, Any] | None = found if isinstance(found, dict) else {}
    except FileNotFoundError:
        there = None
    except ValueError:
        there = {}
    if there == json.loads(wanted):
        return
    others = [name for name in disk.names(folder) if name in OWN]
    ours = there is None or there.keys() == order.keys()
    if (there is not None or others) and not (ours and _nothing_done(folder, others, disk)):
        names = [name for name in order if there and there.get(name) != json.loads(wanted)[name]]
        what = f"not the same {' and '.join(names)}" if names else "nothing says which"
        if not overwrite:
            raise UsageError(
                f"{printable(str(folder))} holds results of another job: {what}",
                hint="choose another --out, or lose them: --overwrite",
                code="other_job",
            )
        for name in others:
            remove_tree(disk, folder / name)
        disk.sync_folder(folder)
    replace_file(disk, path, wanted.encode() + b"\n")


def _nothing_done(folder: Path, own: Sequence[str], disk: Disk) -> bool:
    """Whether the job that is there ended before its first part, mostly because something was wrong with its order."""
    if not {*own} <= {JOURNAL, PARTS}:
        return False
    if JOURNAL in own:
        return disk.look(folder / JOURNAL).st_size == 0
    return PARTS not in own or not disk.names(folder / PARTS)


class Journal:
    """What is done, and how more is added to it. `opened` makes one."""

    def __init__(self, folder: Path, form: Form, draw: Path | None, disk: Disk):
        self.folder = folder
        self._draw, self._disk = draw, disk
        self._forms: dict[str, Form] = {RESULTS: form, ERRORS: Lines()}
        self._parts: dict[int, Part] = {}
        self._read()

    @property
    def parts(self) -> list[Part]:
        """In the order of the source. Between them may be gaps."""
        return [self._parts[start] for start in sorted(self._parts)]

    def part_at(self, place: int) -> Part | None:
        """The part that begins there."""
        return self._parts.get(place)

    def files(self, kind: str) -> list[Path]:
        """The rows of a kind that are done so far, in the order of the source. Raises `ResourceError` as `finish` does."""
        return [self._checked(part, kind) for part in self.parts]

    def table(self, kind: str) -> Path:
        """Where the finished rows of a kind are."""
        return self.folder / f"{kind}{self._forms[kind].ending}"

    # Opening

    def _read(self) -> None:
        """Keeps what is there, and removes what is unfinished or of no part."""
        with self._file() as file:
            data = file.readall() or b""
        for line in data.splitlines(keepends=True):
            with contextlib.suppress(ValueError, TypeError, KeyError):  # a power cut may tear a line, or leave a block of it empty
                part = Part.from_line(line)
                if line.endswith(b"\n") and all(self._place(part, kind) for kind in KINDS):
                    self._parts[part.start] = part
        kept = b"".join(part.to_line() for part in self.parts)
        if kept != data:
            replace_file(self._disk, self.folder / JOURNAL, kept)
        self._settle()
        self._sweep()

    def _sweep(self) -> None:
        known = {place for part in self._parts.values() for kind in KINDS if (place := self._place(part, kind))}
        for folder in (self.folder / PARTS, self.folder):
            for name in self._disk.names(folder):
                if folder / name not in known and (folder.name == PARTS or name.startswith(TEMPORARY)):
                    self._disk.unlink(folder / name)

    def _settle(self) -> None:
        """Rows that came with a new journal get their names."""
        moved = [(part.start, kind) for part in self.parts for kind in KINDS if self._place(part, kind) == self._next(part.start, kind)]
        for start, kind in moved:
            self._disk.rename(self._next(start, kind), self._path(start, kind))
        if moved:
            self._disk.sync_folder(self.folder / PARTS)

    def _path(self, start: int, kind: str) -> Path:
        return self.folder / PARTS / f"{start:012d}.{kind}{self._forms[kind].ending}"

    def _next(self, start: int, kind: str) -> Path:
        """The name that rows have until the journal says that they count."""
        return self.folder / PARTS / f"{start:012d}.{kind}.next{self._forms[kind].ending}"

    def _place(self, part: Part, kind: str) -> Path | None:
        """Where the rows of a part are."""
        wanted: File = getattr(part, kind)
        there = []
        for path in (*([self.table(kind)] if part.start == 0 else []), self._path(part.start, kind), self._next(part.start, kind)):
            with contextlib.suppress(FileNotFoundError):
                if self._disk.look(path).st_size == wanted.size:
                    there.append(path)
        if len(there) > 1:  # killed between two steps of `finish` or `rearrange`, or before what is left over was removed
            there = [path for path in there if _sha256(path) == wanted.sha256]
        return there[0] if there else None

    # Doing more

    def add(self, start: int, done: Sequence[Done]) -> Part:
        """Items that are done, from a place of the source on. They are on the disk when this returns, their drawings too."""
        with _demanded(self.folder):
            self._unfinish()
            self._draw_all(done)
            part = self._written(start, done, self._path)
            self._disk.sync_folder(self.folder / PARTS)
            with self._file() as file:
                file.seek(0, 2)
                self._disk.write(file, part.to_line())
                self._disk.sync(file)
        self._parts[start] = part
        return part

    def rearrange(self, runs: Iterable[tuple[int, Sequence[Done]]]) -> None:
        """What is done is from now on what these say, a place in the source and items from there on each; at once, or not at all."""
        with _demanded(self.folder):
            self._unfinish()
            parts = [self._written(start, done, self._next) for start, done in runs]
            self._disk.sync_folder(self.folder / PARTS)
            replace_file(self._disk, self.folder / JOURNAL, b"".join(part.to_line() for part in parts))
            self._parts = {part.start: part for part in parts}
            self._settle()
            self._sweep()

    def _written(self, start: int, done: Sequence[Done], named: Callable[[int, str], Path]) -> Part:
        """The files of a part, under these names."""
        rows = {RESULTS: [row for one in done for row in one.rows], ERRORS: [row for one in done for row in one.errors]}
        files = {kind: self._write(named(start, kind), self._forms[kind].written(rows[kind])) for kind in KINDS}
        ids = Ids()
        for one in done:
            ids.add(one.id)
        counts = {"rows": len(rows[RESULTS]), "failed": sum(not one.rows for one in done), "cut": sum(one.cut for one in done)}
        codes = Counter(str(row["error"]["code"]) for row in rows[ERRORS])
        return Part(start, start + len(done), str(ids), files[RESULTS], files[ERRORS], **counts, codes=dict(codes))

    def forget(self) -> None:
        """Nothing is done any more, and another order may come: for whoever has taken the rows elsewhere."""
        with _demanded(self.folder):
            self._unfinish()
            replace_file(self._disk, self.folder / JOURNAL, b"")
            self._parts.clear()
            self._sweep()
            for name in (PARTS, JOURNAL, ORDER):
                remove_tree(self._disk, self.folder / name)
            self._disk.sync_folder(self.folder)

    def _draw_all(self, done: Sequence[Done]) -> None:
        drawings = [(drawing_name(one.id, task), data) for one in done for task, data in one.drawings]
        if self._draw is not None and drawings:
            for name, data in drawings:
                self._write(self._draw / name, data)
            self._disk.sync_folder(self._draw)

    def _write(self, path: Path, data: bytes) -> File:
        temporary = self._temporary(path)
        content = write_file(self._disk, temporary, [data])
        self._disk.rename(temporary, path)
        return File(content.size, content.sha256)

    def _temporary(self, path: Path) -> Path:
        """A name for what is to be put there, free."""
        temporary = path.with_name(TEMPORARY + path.name)
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(temporary)
        return temporary

    def _unfinish(self) -> None:
        """The tables of a finished job become its first part again: while a job is not finished there are none."""
        if (part := self.part_at(0)) is None:
            return
        for kind in KINDS:
            if self._place(part, kind) == self.table(kind):
                self._disk.rename(self.table(kind), self._path(0, kind))
                self._disk.sync_folder(self.folder / PARTS)
                self._disk.sync_folder(self.folder)

    # The end

    def finish(self, ids: Ids) -> Part:
        """All parts become the tables, and one part. `ids`: of the whole source, of which everything is done.

        Raises `ResourceError` (code "part_damaged") where a part is not what was written.
        """
        parts = self.parts
        ends = [0, *(part.stop for part in parts)]
        assert [part.start for part in parts] == ends[:-1], "something is not done yet"
        if len(parts) == 1 and all(self._place(parts[0], kind) == self.table(kind) for kind in KINDS):
            return parts[0]
        with _demanded(self.folder):
            self._unfinish()
            files = {kind: self._join(kind, parts) for kind in KINDS}
            self._disk.sync_folder(self.folder)
            counts = {name: sum(getattr(part, name) for part in parts) for name in ("rows", "failed", "cut")}
            codes: Counter[str] = Counter()
            for part in parts:
                codes.update(part.codes)
            whole = Part(0, ends[-1], str(ids), files[RESULTS], files[ERRORS], **counts, codes=dict(codes))
            replace_file(self._disk, self.folder / JOURNAL, whole.to_line())
            self._parts = {0: whole}
            self._sweep()
        return whole

    def _join(self, kind: str, parts: Sequence[Part]) -> File:
        temporary = self._temporary(self.table(kind))
        digest, size = hashlib.sha256(), 0
        file = self._disk.create(temporary)

        def write(data: bytes) -> None:
            nonlocal size
            self._disk.write(file, data)
            digest.update(data)
            size += len(data)

        try:
            self._forms[kind].join((self._checked(part, kind) for part in parts), write)
            self._disk.sync(file)
        finally:
            self._disk.close(file)
        self._disk.rename(temporary, self.table(kind))
        return File(size, digest.hexdigest())

    def _checked(self, part: Part, kind: str) -> Path:
        path = self._place(part, kind)
        if path is not None:
            if _sha256(path) == getattr(part, kind).sha256:
                return path
            self._disk.unlink(path)
        raise ResourceError(
            f"{printable(str(path or self._path(part.start, kind)))} is not what was written to it: it was changed, or the disk is broken",
            hint="it was removed: the same command does that part again",
            code="part_damaged",
        )

    def _file(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.closing(self._disk.open_lock(self.folder / JOURNAL))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def drawing_name(id: str, task: str) -> str:
    """Of the file of an item's result: readable, and no two alike."""
    digest = hashlib.sha256(f"{id}\0{task}".encode()).hexdigest()[:10]
    readable = re.sub(r"[^\w.-]+", "_", f"{Path(id).stem}-{task}").strip("._-").encode()[:100].decode(errors="ignore")
    return f"{readable}-{digest}.png"
