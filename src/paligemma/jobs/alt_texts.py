"""Captions that a job made -> alt texts where a web site wants them: a file beside each picture, or one table.

    photo.jpg.de.txt       beside photo.jpg: the whole name, for photo.png may lie there too; always the language, for another may follow
    alt.csv  .jsonl  .parquet   (alt_tables)

What is there already is kept, also where a person wrote it: that is how it is known what is still to be done.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import UsageError
from ..printable import printable
from ..tasks.caption import without_places
from ..training.disk import Disk, lacking, replace_file
from ..video import EXTENSIONS as VIDEO_EXTENSIONS
from .items import TABLES, Item, files_of, within
from .rows import Row
from .shortening import several_words, shortened

KEPT = "what was answered is kept: the same command goes on with it"
"""Where the disk refuses."""
SHORTER = "give the picture a shorter name, or write one table: --out alt.csv"
_OF_ONE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
"""Errors that say something about one place, and nothing about others."""


@dataclass(frozen=True)
class AltText:
    """`id`: of the picture; `score`: of the caption, calibrated where the model is; `cut`: to the length that was asked for.

    `doubtful`: a person should look at it.
    """

    id: str
    lang: str
    text: str
    score: float
    doubtful: bool
    cut: bool


@dataclass(frozen=True)
class Rules:
    """`most`: characters of a text; `doubt`: the score below which it is doubtful."""

    most: int = 125
    doubt: float = 0.5


def alt_texts(rows: Iterable[Mapping[str, Any]], rules: Rules) -> Iterator[AltText]:
    """Of the rows of a job that asked for captions. Places in one are taken out.

    One that held places, has no end, or is no more than a word is doubtful whatever its score: it is no answer to what was asked.
    """
    for row in rows:
        caption = row["result"]
        words, places = without_places(caption["text"])
        text, cut = shortened(words, rules.most)
        doubtful = caption["score"] < rules.doubt or caption["stop"] == "length" or places > 0 or not several_words(text)
        yield AltText(row["id"], language(row["task"]), text, caption["score"], doubtful, cut)


def language(task: str) -> str:
    """Of `caption:de:short`."""
    return task.split(":")[1]


@dataclass(frozen=True)
class Added:
    """`taken`: texts that are where they belong now; `refused`: those for which the disk had no place, as rows of errors."""

    taken: list[AltText]
    refused: list[dict[str, Any]]


class Place(Protocol):
    """Where alt texts go."""

    def lacks(self, item: Item, langs: Sequence[str]) -> bool:
        """Whether it has no text of a picture in one of the languages."""
        ...

    def add(self, texts: Iterable[AltText]) -> Added:
        """What it took is on the disk when this returns. Raises `ResourceError` where the disk takes nothing more."""
        ...


def picture_files(source: str | Path) -> tuple[Path, dict[str, Path]]:
    """The folder of a source, and its pictures, which lie there as files: id -> file. Videos are left out.

    Raises `InputError` where there are none, `UsageError` for tables and shards, whose pictures are no files.
    """
    base, files = files_of(source)
    found = list(files)
    if any(file.suffix.lower() in TABLES for file in found):
        what = f"{printable(str(source))}: beside the pictures of a table or shard no text can lie"
        raise UsageError(what, hint="write one table: --out alt.csv")
    return base, {within(file, base): file for file in found if file.suffix.lower() not in VIDEO_EXTENSIONS}


class SideFiles:
    """A text file beside each of `pictures`: id -> its file. `overwrite`: also what is there."""

    def __init__(self, pictures: Mapping[str, Path], *, overwrite: bool = False):
        self._pictures, self._overwrite, self._disk = pictures, overwrite, Disk()

    def lacks(self, item: Item, langs: Sequence[str]) -> bool:
        picture = self._pictures.get(item.id)
        return picture is not None and (self._overwrite or not all(os.path.exists(beside(picture, lang)) for lang in langs))

    def add(self, texts: Iterable[AltText]) -> Added:
        added = Added([], [])
        for one in texts:
            if (picture := self._pictures.get(one.id)) is None:
                continue
            path = beside(picture, one.lang)
            if not self._overwrite and os.path.exists(path):
                continue
            try:
                replace_file(self._disk, path, f"{one.text}\n".encode())
                added.taken.append(one)
            except OSError as error:
                if error.errno not in _OF_ONE:
                    raise lacking(path, error, KEPT) from error
                refused = lacking(path, error, SHORTER if error.errno == errno.ENAMETOOLONG else KEPT)
                added.refused.append(Row(one.id, printable(str(path)), None, {}, error=refused).to_dict())
        return added


def beside(picture: Path, lang: str) -> Path:
    """The file of its text."""
    return picture.with_name(f"{picture.name}.{lang}.txt")
