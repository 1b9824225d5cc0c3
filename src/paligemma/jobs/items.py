"""A source of pictures -> items, one after the other, whose ids are the same in every run. Nothing is opened here.

photos/                 every picture and video below it: the id is the path within the folder
"photos/**/*.jpg"       a pattern; also of the tables and shards below
rows.jsonl  t.parquet   a row each: the id is that of the row, or its number; other columns are kept
shard-000.tar           WebDataset: files of one name are a sample, the id is that name

A folder without pictures stands for the tables and shards in it. A row that is broken is an item too, which fails when it is opened: so
every item keeps its place.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.records import Flaw
from ..errors import InputError
from ..image import Clip
from ..printable import printable
from ..sources import IMAGE_EXTENSIONS, base_of, below, matching, natural_order
from ..video import DEFAULT_FRAMES, check_frames
from ..video import EXTENSIONS as VIDEO_EXTENSIONS

LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet",)
TAR = (".tar",)
TABLES = frozenset({*LINES, *PARQUET, *TAR})
PICTURES = IMAGE_EXTENSIONS | VIDEO_EXTENSIONS
DEEPEST = 100
"""Objects and lists within each other, in a row."""


@dataclass(frozen=True)
class Item:
    """One picture, or clip, of a source. `id`: unique, and the same from run to run; `where`: for people, what file and which line of it;
    `kept`: the other columns of its row; `video`: its file, where it is one; `file`: where it is a picture that is a file of its own in the
    source. Can be pickled."""

    id: str
    where: str
    kept: Mapping[str, Any] = field(default_factory=dict)
    video: Path | None = None
    file: Path | None = None
    _open: Callable[[], Image.Image | Clip] = field(kw_only=True, repr=False, compare=False)

    def open(self) -> Image.Image | Clip:
        """Read it now. Raises `InputError`, which names it, where that fails."""
        return self._open()


@dataclass(frozen=True)
class Ways:
    """What rows may refer to, and how videos are seen. `root`: the folder that pictures named in a table must lie in, by default the
    table's; `allow_urls`: https addresses are fetched; `frames`: so many of a video, spread evenly over it. Raises `UsageError` for more
    than can be taken."""

    root: Path | None = None
    allow_urls: bool = False
    frames: int = DEFAULT_FRAMES

    def __post_init__(self) -> None:
        check_frames(self.frames)


def items(source: str | Path, ways: Ways | None = None, *, without: Path | None = None) -> Iterator[Item]:
    """All items in an order that stays, lazily: as much of the source is in memory as one folder's names or a few rows. `without`: a table
    that is no part of the source, wherever it lies.

    An id that was there before makes an item that fails, under its place's name. Raises `InputError` for a source that is not there or
    holds nothing, and `UsageError` where a library is missing that reads it.
    """
    ways = ways or Ways()
    base, files = files_of(source)
    if without is not None and without.exists():
        files = (file for file in files if file.suffix != without.suffix or not file.samefile(without))
    return _unique(itertools.chain.from_iterable(_items_of(file, within(file, base), ways) for file in files))


def count(source: str | Path, ways: Ways) -> int:
    """How many items there are: the source is listed once more, but for Parquet, whose tables say it at their end. Raises what `items`
    raises."""
    from . import tables

    base, files = files_of(source)
    return sum(
        tables.parquet_rows(file) if file.suffix.lower() in PARQUET else sum(1 for _ in _items_of(file, within(file, base), ways))
        for file in files
    )


def files_of(source: str | Path) -> tuple[Path, Iterator[Path]]:
    """The folder that ids are relative to, and the files a source consists of. Raises `InputError` where there are none."""
    path = Path(source)
    if path.is_dir():
        return path, _some(below(path, PICTURES)) or _some(below(path, TABLES)) or _nothing(path, "no pictures, videos or tables are in it")
    if not os.path.lexists(path) and glob.has_magic(str(source)):
        found = sorted((file for file in matching(path) if file.suffix.lower() in PICTURES | TABLES), key=natural_order)
        return base_of(path), iter(found) if found else _nothing(path, "no picture, video or table matches this pattern")
    return path.parent, iter([path]) if path.is_file() else _nothing(path, "no such file or folder")


def _some(files: Iterator[Path]) -> Iterator[Path] | None:
    first = next(files, None)
    return None if first is None else itertools.chain([first], files)


def _nothing(path: Path, why: str) -> Iterator[Path]:
    hint = f"pictures: *{' *'.join(sorted(IMAGE_EXTENSIONS))}; tables: *{' *'.join(sorted(TABLES))}"
    raise InputError(f"{printable(str(path))}: {why}", hint=hint, code="not_found")


def within(file: Path, base: Path) -> str:
    """A file's name as ids have it: below `base`, with slashes, bytes that are no text as escapes."""
    return os.fsencode(file.relative_to(base).as_posix()).decode("utf-8", "backslashreplace")


def _items_of(file: Path, name: str, ways: Ways) -> Iterator[Item]:
    from . import pictures, shards, tables

    ending = file.suffix.lower()
    if ending in TAR:
        return shards.items_of(file, name)
    if ending in LINES:
        return tables.items_of_lines(file, name, ways)
    if ending in PARQUET:
        return tables.items_of_parquet(file, name, ways)
    if ending in VIDEO_EXTENSIONS:
        opened = functools.partial(pictures.from_video, file, ways.frames)
        return iter([Item(name, printable(str(file)), video=file, _open=opened)])
    return iter([Item(name, printable(str(file)), file=file, _open=functools.partial(pictures.from_file, file))])


def _unique(found: Iterable[Item]) -> Iterator[Item]:
    """A digest of each id is remembered: a hundred bytes an item."""
    seen: set[bytes] = set()
    for place, item in enumerate(found):
        digest = hashlib.blake2b(item.id.encode(), digest_size=16).digest()
        if digest in seen:
            failing = functools.partial(fail, item.where, f"the id {item.id!r:.200} was there before", "duplicate")
            item = replace(item, id=f"{item.id} (again, item {place + 1})", video=None, file=None, _open=failing)
        seen.add(digest)
        yield item


def without_bytes(value: Any, depth: int = 0) -> Any:
    """What results keep of a row: bytes, at whatever depth, are other pictures, sounds and the like. `Flaw` for one that is too deep."""
    if depth > DEEPEST:
        raise Flaw("field", f"nested more than {DEEPEST} deep: write that column as text, or leave it out")
    if isinstance(value, Mapping):
        return {key: without_bytes(one, depth + 1) for key, one in value.items() if not isinstance(one, bytes)}
    if isinstance(value, list | tuple):
        return [without_bytes(one, depth + 1) for one in value if not isinstance(one, bytes)]
    return value


def fail(where: str, why: str, code: str) -> Any:
    """What opening does for an item that was broken before it could be opened."""
    raise InputError(f"{where}: {why}", code=code)
