"""Captions that a job made -> alt texts where a web site wants them: a file beside each picture, or one table.

    photo.jpg.de.txt       beside photo.jpg: the whole name, for photo.png may lie there too; always the language, for another may follow
    alt.csv  .jsonl  .parquet

What is there already is kept, also where a person wrote it: that is how it is known what is still to be done.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError, UsageError
from ..printable import printable
from ..training.disk import Disk, demanded, replace_file
from ..video import EXTENSIONS as VIDEO_EXTENSIONS
from .html_pictures import USES
from .items import TABLES, Item, files_of, within
from .shortening import several_words, shortened


@dataclass(frozen=True)
class AltText:
    """`id`: of the picture; `score`: of the caption, calibrated where the model is; `cut`: to the length that was asked for.

    `doubtful`: a person should look at it. `uses`: where pages have the picture, `{"page": ..., "src": ...}` each.
    """

    id: str
    lang: str
    text: str
    score: float
    doubtful: bool
    cut: bool
    uses: tuple[Mapping[str, str], ...] = ()


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
        words, places = _PLACES.subn(" ", caption["text"])
        text, cut = shortened(words, rules.most)
        doubtful = caption["score"] < rules.doubt or caption["stop"] == "length" or places > 0 or not several_words(text)
        uses = tuple(row["kept"].get(USES, ()))
        yield AltText(row["id"], language(row["task"]), text, caption["score"], doubtful, cut, uses)


_PLACES = re.compile(r"<(?:loc|seg)\d+>")


def language(task: str) -> str:
    """Of `caption:de:short`."""
    return task.split(":")[1]


class Place(Protocol):
    """Where alt texts go."""

    def lacks(self, item: Item, langs: Sequence[str]) -> bool:
        """Whether it has no text of a picture in one of the languages."""
        ...

    def add(self, texts: Iterable[AltText]) -> list[AltText]:
        """Those that it took. On the disk when this returns. Raises `ResourceError` where the disk refuses."""
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
        return picture is not None and (self._overwrite or not all(beside(picture, lang).exists() for lang in langs))

    def add(self, texts: Iterable[AltText]) -> list[AltText]:
        taken = []
        for one in texts:
            if (picture := self._pictures.get(one.id)) is None:
                continue
            path = beside(picture, one.lang)
            if self._overwrite or not path.exists():
                with demanded(path):
                    replace_file(self._disk, path, f"{one.text}\n".encode())
                taken.append(one)
        return taken


def beside(picture: Path, lang: str) -> Path:
    """The file of its text."""
    return picture.with_name(f"{picture.name}.{lang}.txt")


Key = tuple[str, ...]
OWN = ("lang", "alt", "score", "doubtful", "cut")
"""Columns of a table, behind those that say which picture: `id`, or `page` and `src`."""


class AltTable:
    """One table. Rows that are there keep their place, their words and their other columns; new ones come at the end.

    `by_use`: a row for each place in a page, else for each picture. `overwrite`: rows that are there are written anew.
    Raises `UsageError` for an ending that is none, `InputError` for a file that is no such table.
    """

    def __init__(self, path: Path, *, by_use: bool = False, overwrite: bool = False):
        if path.suffix not in _FORMS:
            raise UsageError(f"--out {printable(str(path))}: the table is one of {', '.join(_FORMS)}", hint="for example --out alt.csv")
        self._path, self._overwrite = path, overwrite
        self._read, self._write = _FORMS[path.suffix]
        self._names = ("page", "src") if by_use else ("id",)
        self._rows: dict[Key, dict[str, Any]] = {self._key(row): row for row in self._there()}
        self._old = set(self._rows)

    def lacks(self, item: Item, langs: Sequence[str]) -> bool:
        places = item.kept.get(USES) or [{"id": item.id}]
        return self._overwrite or not all((*(one[name] for name in self._names), lang) in self._old for one in places for lang in langs)

    def add(self, texts: Iterable[AltText]) -> list[AltText]:
        kept: set[Key] = set() if self._overwrite else set(self._old)
        taken = []
        for one in texts:
            own = {"lang": one.lang, "alt": one.text, "score": round(one.score, 4), "doubtful": one.doubtful, "cut": one.cut}
            new = {key: row for use in one.uses or [{"id": one.id}] if (key := self._key(row := {**use, **own})) not in kept}
            for key, row in new.items():
                self._rows[key] = self._rows.get(key, {}) | row
            self._old |= new.keys()
            taken += [one] if new else []
        with demanded(self._path):
            replace_file(Disk(), self._path, self._write([*self._names, *OWN], list(self._rows.values())))
        return taken

    def _key(self, row: Mapping[str, Any]) -> Key:
        return (*(row[name] for name in self._names), row["lang"])

    def _there(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        wanted = {*self._names, "lang", "alt"}
        try:
            rows = self._read(self._path)
        except (ValueError, OSError, csv.Error) as error:
            raise InputError(f"{printable(str(self._path))}: cannot be read as a table ({error})", code="bad_table") from error
        if any(not isinstance(row, dict) or None in row or not wanted <= row.keys() for row in rows):
            what = f"{printable(str(self._path))} holds another table: expected the columns {', '.join(sorted(wanted))}"
            raise InputError(what, hint="choose another --out", code="bad_table")
        return rows


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # what spreadsheets save begins with a mark
        return list(csv.DictReader(file))


def _write_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    written = io.StringIO()
    others = dict.fromkeys(name for row in rows for name in row if name not in columns)
    table = csv.DictWriter(written, [*columns, *others])
    table.writeheader()
    table.writerows({name: str(value).lower() if isinstance(value, bool) else value for name, value in row.items()} for row in rows)
    return written.getvalue().encode("utf-8", "backslashreplace")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]


def _write_lines(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    return _parquet().read_table(path).to_pylist()


def _write_parquet(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    parquet, written = _parquet(), io.BytesIO()
    import pyarrow

    kinds = {"score": pyarrow.float64(), "doubtful": pyarrow.bool_(), "cut": pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in columns])
    parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema), written)
    return written.getvalue()


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise UsageError("Parquet needs the package pyarrow", hint="pip install 'paligemma[data]', or --out alt.csv") from error
    return pyarrow.parquet


_FORMS = {".csv": (_read_csv, _write_csv), ".jsonl": (_read_lines, _write_lines), ".parquet": (_read_parquet, _write_parquet)}
"""Ending -> how such a table is read and written."""
