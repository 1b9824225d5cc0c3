"""Tables: CSV, TSV and Parquet with the columns that JSON lines have as fields (see `rows`).

In a CSV cell lists and objects are JSON: `["yes", "yeah"]` for answers, `[{"label": "cat", "box": [1, 2, 30, 40]}]` for a target of things.
An empty cell is a missing field, but for prefix and suffix. Pictures may stand in a Parquet table as bytes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError, UsageError
from ..printable import printable
from .collector import Collector
from .layout import Found, Part, annotation_parts, files_of, split_folders
from .reading import BOM, parsed_json
from .records import Flaw
from .rows import add_row, is_row

name = "table"
description = "CSV, TSV or Parquet with the columns image, prefix, suffix, or any others that JSON lines may have"
recognised = "a .csv, .tsv or .parquet file whose header has such columns, or a folder with train.csv, metadata.csv, ..."
tasks: tuple[str, ...] = ()

ENDINGS = (".csv", ".tsv")
LISTS = ("images", "answers", "captions", "classes", "choices", "box", "objects", "target")
"""Columns whose cells are taken for JSON where they look like it."""
TEXTS = ("prefix", "suffix")
"""Columns in which nothing is a text too."""
ROWS = 256
"""Rows of a Parquet table that are in memory at a time."""


def find(path: Path) -> Found | None:
    if path.is_file():
        kind = path.suffix.lower().removeprefix(".")
        fits = path.suffix.lower() == ".parquet" or (path.suffix.lower() in ENDINGS and _fits(path))
        return Found((Part((path,), path.parent),), f"{path.name} is a {kind} table of rows") if fits else None
    if files := [file for file in files_of(path, *ENDINGS) if _fits(file)]:
        return Found(annotation_parts(files, "tables", path), f"the header of {files[0].name}")
    parts = []
    for split, folder in split_folders(path).items():
        files = [file for file in files_of(folder, *ENDINGS) if _fits(file)]
        parts += [Part(part.files, folder, split) for part in annotation_parts(files, f"tables in {folder.name}/", folder)]
    return Found(tuple(parts), f"the header of {parts[0].files[0].relative_to(path)}") if parts else None


def _fits(path: Path) -> bool:
    with path.open("rb") as file:
        line = file.readline(1 << 16).removeprefix(BOM).decode("utf-8", "replace")
    try:
        header = next(csv.reader([line.rstrip("\r\n")], delimiter=_delimiter(line, path)), [])
    except csv.Error:
        return False
    return is_row(frozenset(cell.strip() for cell in header))


def _delimiter(header: str, path: Path) -> str:
    """Tab in a .tsv; in a .csv what parts the header best, because spreadsheets of many countries write ";"."""
    return "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)


def read(part: Part, to: Collector) -> None:
    """Raises `InputError` for a table that cannot be read as a whole, `UsageError` where the library for Parquet is missing."""
    if part.files[0].suffix.lower() == ".parquet":
        add_parquet(to, part)
    else:
        _add_csv(to, part)


def _add_csv(to: Collector, part: Part) -> None:
    file, place = part.files[0], to.place(part.files[0])
    text = to.bytes_of(file).removeprefix(BOM).decode("utf-8", "surrogateescape")
    first = text[: text.find("\n") + 1] or text
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(first, file), strict=True)
    try:
        header = [cell.strip() for cell in next(rows, [])]
    except csv.Error as error:
        raise InputError(f"{place}: the header cannot be read: {error}", code="bad_annotations") from error
    if len(set(header)) < len(header) or not header:
        raise InputError(f"{place}: the header must name each column once: {printable(', '.join(header))[:120]}", code="bad_annotations")
    number = 0
    while True:
        line = rows.line_num + 1
        where, number = f"{place}:{line}", number + 1
        with to.record(where, part.id(number)):
            try:
                cells = next(rows, None)
            except csv.Error as error:
                if "unexpected end" in str(error):
                    raise InputError(f"{where}: a quote is opened here and never closed", code="bad_annotations") from error
                raise Flaw("json", str(error)) from error
            if cells is None:
                return
            if not cells:
                number -= 1
                continue
            if len(cells) != len(header):
                raise Flaw("json", f"the row has {len(cells)} cells, the header {len(header)}")
            row = {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True) if cell or name in TEXTS}
            add_row(to, part, row, where=where, number=number)


def _cell(name: str, cell: str) -> Any:
    if name not in LISTS or cell.lstrip()[:1] not in ("[", "{"):
        return int(cell) if name in ("width", "height") and cell.isdecimal() else cell
    try:
        return parsed_json(cell)
    except Flaw as flaw:
        raise Flaw("json", f"{name}: {flaw.detail}") from flaw


def add_parquet(to: Collector, part: Part) -> None:
    """Rows of one table in one or several files, which are counted through."""
    number = 0
    for file in part.files:
        place = to.place(file)
        to.hashed(file)
        table, names = _parquet(file)
        for within, row in enumerate(table):
            filled = {key: value for key, value in row.items() if value is not None}
            add_row(to, part, filled, where=f"{place}: row {within}", number=number, names=names)
            number += 1


def _parquet(file: Path) -> tuple[Iterator[dict[str, Any]], list[str] | None]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise UsageError("reading Parquet needs the package pyarrow", hint="pip install 'paligemma[data]'") from error
    try:
        opened = pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{printable(str(file))}: no Parquet: {str(error)[:120]}", code="bad_annotations") from error

    def rows() -> Iterator[dict[str, Any]]:
        try:
            for batch in opened.iter_batches(batch_size=ROWS):
                yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{printable(str(file))}: broken Parquet: {str(error)[:120]}", code="bad_annotations") from error

    described = (opened.schema_arrow.metadata or {}).get(b"huggingface")
    return rows(), named_classes(json.loads(described)) if described else None


def named_classes(features: Any) -> list[str] | None:
    """The names of the first column of class numbers that Hugging Face's description of a table holds."""
    if isinstance(features, dict):
        if features.get("_type") == "ClassLabel" and isinstance(features.get("names"), list):
            return [str(one) for one in features["names"]]
        features = list(features.values())
    if isinstance(features, list):
        return next((names for one in features if (names := named_classes(one)) is not None), None)
    return None
