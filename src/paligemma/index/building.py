"""A folder of pictures -> its index: files are read and decoded by threads ahead of the model, encoded in batches, written in groups.

    threads   read -> digest -> decode -> squeeze     only what the index does not hold under that digest
    here      encode a batch -> ask a PaliGemma       -> entries
              write a group of entries                -> one version of the index, there for good

Killed at any time and run again, it goes on with what was not written yet. Nothing is forgotten before the end.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..errors import InputError
from ..image import UNREADABLE, Limits, open_image, opened
from ..predictor.pictures import Prepared, prepare
from ..printable import printable
from .changes import Changes, File, Origin, files, rows
from .describing import NOTHING, Wanted, describe
from .encoder import Encoder, squeezed
from .entries import Entry
from .store import Writer

if TYPE_CHECKING:
    from ..config import PaliGemmaConfig
    from ..predictor import Predictor

THREADS = 4
BATCH = 32
GROUP = 512
"""Pictures written together, at most."""
SECONDS = 10.0
"""The longest that a finished picture waits to be written."""
UPKEEP = 64
"""Groups after which the pieces are joined, so that readers do not slow down meanwhile."""


@dataclass
class Report:
    """`counts`: by `changes.What`, and "removed" and "unchanged". `failed`: what could not be read, by path."""

    counts: Counter[str] = field(default_factory=Counter)
    failed: dict[str, InputError] = field(default_factory=dict)


@dataclass(frozen=True)
class _Read:
    """A file that was read. `picture`: for the encoder; `prepared`: for the predictor; None where nobody needs them."""

    file: File
    digest: str
    width: int = 0
    height: int = 0
    picture: Image.Image | None = None
    prepared: Prepared | None = None


@dataclass(frozen=True)
class Builder:
    """`tell`: called with the number of pictures that were written or failed, as they are."""

    writer: Writer
    root: Path
    encoder: Encoder
    wanted: Wanted = NOTHING
    predictor: Predictor | None = None
    batch: int = BATCH
    threads: int = THREADS
    tell: Callable[[int], None] = lambda count: None
    begin: Callable[[int], None] = lambda total: None

    def run(self) -> Report:
        """Raises `InputError` where the folder holds no pictures."""
        report = Report()
        changes = Changes.between(files(self.root), rows(self.writer, self.wanted))
        report.counts["unchanged"] = changes.unchanged
        self.begin(len(changes.due))
        group: list[tuple[Origin, Entry]] = []
        groups, began = 0, time.monotonic()
        for batch in self._batches(changes, report):
            group += self._entries(batch, changes, report)
            if len(group) >= GROUP or time.monotonic() - began > SECONDS:
                self._write(group, report)
                group, groups, began = [], groups + 1, time.monotonic()
                if groups % UPKEEP == 0:
                    self.writer.tidy()
        self._write(group, report)
        gone = changes.gone(report.failed)
        self.writer.delete(gone)
        report.counts["removed"] = len(gone)
        if changes.due or gone:
            self.writer.tidy()
        return report

    def _batches(self, changes: Changes, report: Report) -> Iterator[list[_Read]]:
        """Files that could be read, in order, as many at a time as the model takes."""
        batch: list[_Read] = []
        for file, read in self._ahead(changes):
            if isinstance(read, InputError):
                self._failed(file, read, report)
                continue
            batch.append(read)
            if len(batch) == self.batch:
                yield batch
                batch = []
        if batch:
            yield batch

    def _ahead(self, changes: Changes) -> Iterator[tuple[File, _Read | InputError]]:
        waiting: deque[tuple[File, Future[_Read | InputError]]] = deque()
        todo = iter(changes.due)
        with ThreadPoolExecutor(self.threads, "paligemma-index") as pool:
            try:
                while True:
                    while len(waiting) < 2 * self.batch + self.threads and (file := next(todo, None)) is not None:
                        waiting.append((file, pool.submit(self._read, file, changes.settled)))
                    if not waiting:
                        return
                    file, future = waiting.popleft()
                    yield file, future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _read(self, file: File, settled: frozenset[str]) -> _Read | InputError:
        path, limits = self.root / file.path, Limits()
        name = printable(file.path)
        try:
            file.path.encode()
            with opened(path, limits, name) as stream:
                data = stream.read()
            digest = blake2b(data, digest_size=16).hexdigest()
            if digest in settled:
                return _Read(file, digest)
            image = open_image(data, limits, name=name)
        except InputError as error:
            return error
        except UnicodeEncodeError:
            return InputError(f"{name}: its name holds bytes that are no text", hint="rename it")
        except OSError as error:
            return InputError(f"{name}: cannot be read ({error.strerror})", code=UNREADABLE)
        config: PaliGemmaConfig | None = self.predictor.config if self.predictor is not None and self.wanted else None
        prepared = None if config is None else dataclasses.replace(prepare(config, image), picture=None)
        return _Read(file, digest, image.width, image.height, squeezed(self.encoder, image), prepared)

    def _failed(self, file: File, error: InputError, report: Report) -> None:
        report.failed[file.path] = error
        self.tell(1)

    def _entries(self, batch: Sequence[_Read], changes: Changes, report: Report) -> list[tuple[Origin, Entry]]:
        origins = [changes.origin(one.file.path, one.digest) for one in batch]
        known = self.writer.entries_of([origin.row.id for origin in origins if origin.row is not None])
        found: list[tuple[_Read, Origin, Entry | None]] = []
        for one, origin in zip(batch, origins, strict=True):
            base, read = _alike(known, one, origin), one
            if base is None and one.picture is None:  # the row that was to be copied holds another picture by now
                read = self._read(one.file, frozenset())
            if isinstance(read, InputError):
                self._failed(one.file, read, report)
                changes.give_back(origin)
            else:
                found.append((read, origin, base))
        new = [read.picture for read, _, base in found if base is None and read.picture is not None]
        vectors = iter(self.encoder.pictures(new) if new else ())
        entries = [self._entry(*each, vectors) for each in found]
        if self.predictor is not None and self.wanted:
            places = [place for place, (read, _, _) in enumerate(found) if read.prepared is not None]
            asked = [entries[place] for place in places]
            seen = [prepared for read, _, _ in found if (prepared := read.prepared) is not None]
            for place, entry in zip(places, describe(self.predictor, asked, seen, self.wanted), strict=True):
                entries[place] = entry
        return [(origin, entry) for (_, origin, _), entry in zip(found, entries, strict=True)]

    def _entry(self, read: _Read, origin: Origin, base: Entry | None, vectors: Iterator[np.ndarray]) -> Entry:
        file = read.file
        where = {"id": origin.id or uuid.uuid4().hex, "path": file.path, "modified": file.modified, "size": file.size}
        if base is not None:
            return dataclasses.replace(base, **where)
        return Entry(**where, digest=read.digest, width=read.width, height=read.height, vector=next(vectors))

    def _write(self, group: Sequence[tuple[Origin, Entry]], report: Report) -> None:
        self.writer.add([entry for origin, entry in group if origin.id is None])
        self.writer.replace([entry for origin, entry in group if origin.id is not None])
        report.counts.update(origin.what for origin, _ in group)
        self.tell(len(group))


def _alike(known: Mapping[str, Entry], one: _Read, origin: Origin) -> Entry | None:
    """What the index holds of the same content, if it still does."""
    base = None if origin.row is None else known.get(origin.row.id)
    return base if base is not None and base.digest == one.digest else None
