"""Alt texts in one table, .csv, .jsonl or .parquet. What is there, a person's words and columns above all, is written again as it was."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError, UsageError
from ..printable import printable
from ..training.disk import Disk, demanded, replace_file
from .alt_texts import KEPT, Added, AltText
from .items import Item

Key = tuple[str, ...]
OWN = ("lang", "alt", "score", "doubtful", "cut")
"""Columns of a table, behind those that say which picture: `id`, or `page` and `src`."""
MENDED = "mend it or move it away, and the same command goes on; or choose another --out"


class AltTable:
    """One table. Rows that are there keep their place, their words and their other columns; new ones come at the end.

    What is there is read when it is made, and again before it is written: a person may have been at it meanwhile.

    `uses`: a picture's id -> where pages have it, `{"page": ..., "src": ...}` each: then there is a row for each such place, else for each
    picture. `overwrite`: rows that are there are written anew.
    Raises `UsageError` for an ending that is none, `InputError` (code "bad_table") for a file that is no such table.
    """

    def __init__(self, path: Path, *, uses: Mapping[str, Sequence[Mapping[str, str]]] | None = None, overwrite: bool = False):
        if path.suffix not in _FORMS:
            raise UsageError(f"--out {printable(str(path))}: the table is one of {', '.join(_FORMS)}", hint="for example --out alt.csv")
        self._path, self._uses, self._overwrite = path, uses, overwrite
        self._names = ("id",) if uses is None else ("page", "src")
        self._form, self._rows = self._there()

    def lacks(self, item: Item, langs: Sequence[str]) -> bool:
        keys = (self._key({**place, "lang": lang}) for place in self._places(item.id) for lang in langs)
        return self._overwrite or any(key not in self._rows for key in keys)

    def add(self, texts: Iterable[AltText]) -> Added:
        self._form, self._rows = self._there()
        taken = []
        for one in texts:
            own = {"lang": one.lang, "alt": one.text, "score": round(one.score, 4), "doubtful": one.doubtful, "cut": one.cut}
            rows = {self._key(row): row for place in self._places(one.id) for row in [{**place, **own}]}
            new = {key: self._rows.get(key, {}) | row for key, row in rows.items() if self._overwrite or key not in self._rows}
            self._rows |= new
            taken += [one] if new else []
        if taken:
            with demanded(self._path, KEPT):
                replace_file(Disk(), self._path, self._form.written(list(self._rows.values())))
        return Added(taken, [])

    def _places(self, id: str) -> Sequence[Mapping[str, str]]:
        """The columns that say which picture, of each of its rows."""
        return [{"id": id}] if self._uses is None else self._uses.get(id, ())

    def _key(self, row: Mapping[str, Any]) -> Key:
        return (*(row[name] for name in self._names), row["lang"])

    def _there(self) -> tuple[_Form, dict[Key, dict[str, Any]]]:
        form = _FORMS[self._path.suffix]([*self._names, *OWN])
        if not self._path.exists():
            return form, {}
        file, keys = printable(str(self._path)), (*self._names, "lang")
        try:
            rows = form.read(self._path)
        except (ValueError, OSError, csv.Error) as error:
            raise InputError(f"{file}: cannot be read as a table ({error})", hint=MENDED, code="bad_table") from error
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict) or None in row or "alt" not in row or not all(isinstance(row.get(name), str) for name in keys):
                what = f"{file} holds another table: expected in row {number} the columns alt and, as text, {', '.join(keys)}"
                raise InputError(what, hint=MENDED, code="bad_table")
        for key, count in Counter(map(self._key, rows)).most_common(1):
            if count > 1:  # neither may be lost, and only a person knows which one counts
                what = f"{file} has {count} rows of {printable(', '.join(key))}, expected one"
                raise InputError(what, hint="remove the others", code="bad_table")
        return form, {self._key(row): row for row in rows}


class _Form(Protocol):
    """A way to write a table, made with the names of our columns. Others that were read are written again, behind them."""

    def __init__(self, columns: Sequence[str]): ...

    def read(self, path: Path) -> list[dict[str, Any]]:
        """The rows of a file. Raises `ValueError`, `OSError` and `csv.Error`."""
        ...

    def written(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """A whole file: the rows that were read, in their order, and then new ones."""
        ...


class _Csv:
    def __init__(self, columns: Sequence[str]):
        self._columns = dict.fromkeys(columns)

    def read(self, path: Path) -> list[dict[str, Any]]:
        with path.open(encoding="utf-8-sig", newline="") as file:  # what spreadsheets save begins with a mark
            table = csv.DictReader(file)
            rows, names = list(table), table.fieldnames or []
        for name, count in Counter(names).items():
            if count > 1:
                raise ValueError(f"{count} columns are named {printable(name)!r}")
        self._columns |= dict.fromkeys(names)
        return rows

    def written(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        written = io.StringIO()
        table = csv.DictWriter(written, self._columns)
        table.writeheader()
        table.writerows({name: str(value).lower() if isinstance(value, bool) else value for name, value in row.items()} for row in rows)
        return written.getvalue().encode("utf-8", "backslashreplace")


class _Lines:
    def __init__(self, columns: Sequence[str]):
        pass

    def read(self, path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]

    def written(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")


class _Parquet:
    """Other columns are never looked into: they can be of any type."""

    def __init__(self, columns: Sequence[str]):
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            raise UsageError("Parquet needs the package pyarrow", hint="pip install 'paligemma[data]', or --out alt.csv") from error
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        kinds = {"score": pyarrow.float64(), "doubtful": pyarrow.bool_(), "cut": pyarrow.bool_()}
        self._schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in columns])
        self._others = pyarrow.table({})

    def read(self, path: Path) -> list[dict[str, Any]]:
        try:
            with self._parquet.ParquetFile(path) as file:
                table = file.read()
            own = [name for name in table.column_names if name in self._schema.names]
            rows = table.select(own).to_pylist()
            self._own(rows)  # what could not be written again is no table of ours
        except self._arrow.ArrowException as error:
            raise ValueError(str(error)) from error
        self._others = table.drop_columns(own)
        return rows

    def written(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        table, written = self._own(rows), io.BytesIO()
        for field, column in zip(self._others.schema, self._others.columns, strict=True):
            nothing = self._arrow.nulls(len(rows) - len(column), field.type)
            table = table.append_column(field.with_nullable(True), self._arrow.chunked_array([*column.chunks, nothing], field.type))
        self._parquet.write_table(table, written)
        return written.getvalue()

    def _own(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        return self._arrow.Table.from_pylist(list(rows), self._schema)


_FORMS: dict[str, type[_Form]] = {".csv": _Csv, ".jsonl": _Lines, ".parquet": _Parquet}
"""Ending -> how such a table is read and written."""
