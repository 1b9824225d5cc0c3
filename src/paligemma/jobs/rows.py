"""What a job gives: a row for each picture and task, and a row for each that failed; as lines of JSON or as a Parquet table.

    {"id": "a.jpg", "where": "photos/a.jpg", "task": "detect:cat", "kept": {}, "result": {"type": "detections", "boxes": [...], ...}}
    {"id": "b.jpg", "where": "photos/b.jpg", "task": null, "kept": {}, "error": {"code": "image_damaged", "message": "...", "hint": null}}

In a table `result` is spread over columns of one type each, whatever was asked, so that tables of all jobs have one form.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ..errors import PaliGemmaError, UsageError
from ..results import Result

FormName = Literal["jsonl", "parquet"]


@dataclass(frozen=True)
class Row:
    """`id`, `where`, `kept`: of the item; `task`: as it was asked, None where a picture could not even be opened; then what came of it.

    Of a video that is followed: `seconds` into it, of a scene `until` so many, of boxes `tracks`: the number of each, or None.
    """

    id: str
    where: str
    task: str | None
    kept: Mapping[str, Any]
    result: Result | None = None
    error: PaliGemmaError | None = None
    seconds: float | None = None
    until: float | None = None
    tracks: tuple[int | None, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in a line of JSON."""
        plain: dict[str, Any] = {"id": self.id, "where": self.where, "task": self.task, "kept": _plain(self.kept)}
        plain |= {name: value for name in ("seconds", "until") if (value := getattr(self, name)) is not None}
        if self.error is not None:
            return plain | {"error": {"code": self.error.code, "message": self.error.message, "hint": self.error.hint}}
        assert self.result is not None, "a row has a result or an error"
        return plain | {"result": self.result.to_dict()} | ({} if self.tracks is None else {"tracks": list(self.tracks)})


def _plain(value: Any) -> Any:
    """What JSON can say: numbers that are none are null, times and the like are text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


Write = Callable[[bytes], None]


class Form(Protocol):
    """A way to write rows; what is joined reads as if it had been written at once."""

    ending: str

    def written(self, rows: Sequence[dict[str, Any]]) -> bytes:
        """A whole file."""
        ...

    def join(self, files: Iterable[Path], write: Write) -> None:
        """Files one after the other, as one. Needs little memory."""
        ...


class Lines:
    """JSON, a row a line. Half characters, which names of files can hold, are escaped."""

    ending = ".jsonl"

    def written(self, rows: Sequence[dict[str, Any]]) -> bytes:
        lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        return lines.encode("utf-8", "backslashreplace")

    def join(self, files: Iterable[Path], write: Write) -> None:
        for file in files:
            with file.open("rb") as opened:
                while piece := opened.read(1 << 20):
                    write(piece)


def rows_of(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Of files of JSON lines, as `Lines` writes them."""
    for file in files:
        with file.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


class Table:
    """Parquet. Masks are COCO's compressed run lengths; the kept columns, which can be of any kind, one text of JSON.

    Raises `UsageError` where pyarrow is missing.
    """

    ending = ".parquet"

    def __init__(self) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            raise UsageError("Parquet needs the package pyarrow", hint="pip install 'paligemma[data]', or --format jsonl") from error
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        text, real, whole = pyarrow.string(), pyarrow.float64(), pyarrow.int32()
        corners = [(edge, real) for edge in ("x0", "y0", "x1", "y1")]
        rle = pyarrow.struct([("size", pyarrow.list_(whole)), ("counts", text)])
        thing = [("label", text), *corners, ("score", real), ("mask_score", real), ("rle", rle), ("track", pyarrow.int64())]
        columns = [
            ("id", text),
            ("where", text),
            ("task", text),
            ("seconds", real),
            ("until", real),
            ("type", text),
            ("text", text),
            ("score", real),
        ]
        columns += [
            ("prompt", text),
            ("stop", text),
            ("width", whole),
            ("height", whole),
            ("objects", pyarrow.list_(pyarrow.struct(thing))),
        ]
        self.schema = pyarrow.schema([*columns, ("leftover", text), ("invalid", whole), ("kept", text)])

    def written(self, rows: Sequence[dict[str, Any]]) -> bytes:
        made = io.BytesIO()
        self._parquet.write_table(self._arrow.Table.from_pylist([_columns(row) for row in rows], self.schema), made)
        return made.getvalue()

    def join(self, files: Iterable[Path], write: Write) -> None:
        with self._parquet.ParquetWriter(_Sink(write), self.schema) as writer:
            for file in files:
                with self._parquet.ParquetFile(file) as opened:
                    for number in range(opened.num_row_groups):
                        writer.write_table(opened.read_row_group(number))


class _Sink(io.RawIOBase):
    """What pyarrow writes to."""

    def __init__(self, write: Write):
        self._write, self._at = write, 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._write(bytes(data))
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at


def _columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `Row.to_dict` as the table has it."""
    result = row["result"]
    tracks = row.get("tracks") or [None] * len(result.get("boxes", ()))
    objects = [{**box, "track": track} for box, track in zip(result.get("boxes", ()), tracks, strict=True)] if "boxes" in result else None
    if "masks" in result:
        objects = [{**one["box"], "label": one["label"], "mask_score": one["score"], "rle": one["rle"]} for one in result["masks"]]
    plain = {name: value for name, value in result.items() if name not in ("boxes", "masks")}
    kept = json.dumps(row["kept"], ensure_ascii=False, allow_nan=False)
    own = {"id": row["id"], "where": row["where"], "task": row["task"], "seconds": row.get("seconds"), "until": row.get("until")}
    return {name: _text(value) for name, value in (plain | own | {"objects": objects, "kept": kept}).items()}


def _text(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


FORMS: dict[FormName, Callable[[], Form]] = {"jsonl": Lines, "parquet": Table}
