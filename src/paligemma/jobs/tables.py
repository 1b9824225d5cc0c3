"""Rows of JSON lines and of Parquet -> items. A row names its picture or holds it; all its other columns are kept with the results."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ..data.reading import BOM, decoded, parsed_json
from ..data.records import Flaw
from ..data.rows import PICTURE
from ..errors import InputError, UsageError
from ..printable import printable
from .items import Item, Ways, fail, without_bytes
from .pictures import from_bytes, from_name, from_several

MOST_BYTES = 8 << 20
"""Of a line."""
ROWS = 16
"""Of a Parquet table that are in memory at a time: each may hold a picture."""


def items_of_lines(file: Path, name: str, ways: Ways) -> Iterator[Item]:
    """An item for each line that holds something. Raises `InputError` where the file cannot be opened."""
    place = printable(str(file))
    try:
        opened = file.open("rb")
    except OSError as error:
        raise InputError(f"{place}: cannot be read ({error.strerror})", code="not_found") from error
    with opened:
        for number, line in _lines(opened):
            where = f"{place}:{number}"
            try:
                if line is None:
                    raise Flaw("too_long", f"the line has more than {MOST_BYTES:,} bytes")
                row = parsed_json(decoded(line))
                yield _item(row, f"{name}:{number}", where, file.parent, ways)
            except Flaw as flaw:
                yield _broken(f"{name}:{number}", where, flaw)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, the line without its end); None for one that is too long, of which nothing is held."""
    number = 0
    while line := file.readline(MOST_BYTES + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(BOM)
        if len(line) > MOST_BYTES and not line.endswith(b"\n"):
            while (more := file.readline(1 << 20)) and not more.endswith(b"\n"):
                pass
            yield number, None
        elif line.strip():
            yield number, line.rstrip(b"\r\n")


def items_of_parquet(file: Path, name: str, ways: Ways) -> Iterator[Item]:
    """An item a row. Raises `InputError` for a file that is no Parquet, `UsageError` where pyarrow is missing."""
    place = printable(str(file))
    number = 0
    with _parquet(file) as opened:
        for batch in opened.iter_batches(batch_size=ROWS):
            for row in batch.to_pylist():
                where, id = f"{place}: row {number}", f"{name}:{number}"
                try:
                    yield _item({key: value for key, value in row.items() if value is not None}, id, where, file.parent, ways)
                except Flaw as flaw:
                    yield _broken(id, where, flaw)
                number += 1


def parquet_rows(file: Path) -> int:
    """How many there are, by its footer. Raises what `items_of_parquet` raises."""
    with _parquet(file) as opened:
        return opened.metadata.num_rows


@contextlib.contextmanager
def _parquet(file: Path) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise UsageError("reading Parquet needs the package pyarrow", hint="pip install 'paligemma[data]'") from error
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            yield opened
    except (pyarrow.ArrowException, OSError) as error:
        what = f"{printable(str(file))}: no Parquet that can be read: {str(error)[:120]}"
        raise InputError(what, hint="the file may be cut short: copy it again", code="bad_table") from error


def _item(row: Any, place: str, where: str, folder: Path, ways: Ways) -> Item:
    """`place`: the id of a row that brings none."""
    if not isinstance(row, Mapping):
        raise Flaw("field", f"a row must be an object of fields, found {type(row).__name__}")
    plain = without_bytes(row)
    id = place if row.get("id") is None else row["id"]
    if isinstance(id, float) and id.is_integer():  # of a column that had gaps, say
        id = int(id)
    if isinstance(id, bool) or not isinstance(id, int | str) or id == "":
        raise Flaw("field", f"the id must be text or a whole number, found {id!r:.60}")
    column = next((key for key in PICTURE if row.get(key) is not None), None)
    if column is None:
        raise Flaw("field", f"no picture is named: none of the columns {', '.join(PICTURE)}")
    kept = {str(key): value for key, value in plain.items() if key not in ("id", column)}
    return Item(_text(str(id)), where, kept, _open=_opening(row[column], where, folder, ways))


def _opening(value: Any, where: str, folder: Path, ways: Ways) -> Any:
    if isinstance(value, list) and value:
        return functools.partial(from_several, [_opening_one(one, where, folder, ways) for one in value])
    return _opening_one(value, where, folder, ways)


def _opening_one(value: Any, where: str, folder: Path, ways: Ways) -> Any:
    if isinstance(value, Mapping):  # as Hugging Face's tables have it
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        return functools.partial(from_bytes, value, where)
    if not isinstance(value, str) or not value:
        raise Flaw("field", f"a picture is a name, bytes, or a list of them, found {value!r:.60}")
    return functools.partial(from_name, value, folder, ways.root or folder, where, ways.allow_urls, ways.frames)


def _broken(id: str, where: str, flaw: Flaw) -> Item:
    return Item(id, where, _open=functools.partial(fail, where, flaw.detail, flaw.code))


def _text(id: str) -> str:
    """JSON can spell half a character, which no file can hold."""
    return id.encode("utf-8", "backslashreplace").decode()
