"""Sources and an engine for tests of jobs: small pictures, tables and shards of them, and answers that need no model."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from paligemma.errors import InputError
from paligemma.jobs.items import Item
from paligemma.jobs.job import Span
from paligemma.jobs.rows import Row
from paligemma.jobs.work import Done
from paligemma.results import Answer, Box, Detections

TASKS = ("caption", "detect:cat")


def png(width: int = 8, height: int = 6, colour: object = "green") -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(written, "png")  # pyright: ignore[reportArgumentType]
    return written.getvalue()


def album(folder: Path, count: int, broken: tuple[int, ...] = ()) -> Path:
    """Pictures 0.png, 1.png, ... as wide as 8 and their number; `broken` ones are no pictures."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(b"no picture" if number in broken else png(8 + number))
    return folder


def lines(path: Path, *rows: Any) -> Path:
    """JSON lines; bytes are taken as they are."""
    path.write_bytes(b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows))
    return path


def shard(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def answered(item: Item) -> Done:
    """What a model would say: the size of the picture, and a box around all of it. Every seventh answer was cut short."""
    try:
        found = item.open()
    except InputError as error:
        return Done(item.id, (), (Row(item.id, item.where, None, item.kept, error=error).to_dict(),))
    assert isinstance(found, Image.Image)
    cut = found.width % 7 == 0
    results = (
        Answer(f"{found.width} x {found.height}", 0.5, "caption en", "length" if cut else "eos"),
        Detections((Box("cat", 0, 0, found.width, found.height, 1 / found.width),), found.width, found.height),
    )
    rows = [Row(item.id, item.where, task, item.kept, result).to_dict() for task, result in zip(TASKS, results, strict=True)]
    return Done(item.id, tuple(rows), (), (("caption", png(found.width)),), int(cut))


def engine(spans: Iterator[Span]) -> Iterator[tuple[int, list[Done]]]:
    """In order, one span at a time."""
    for span in spans:
        yield span.start, [answered(item) for item in span.items]


def backwards(spans: Iterator[Span]) -> Iterator[tuple[int, list[Done]]]:
    """In another order, as workers that are done when they are done."""
    yield from engine(iter(list(spans)[::-1]))
