"""What is too slow to look at for every record: pictures opened as a run opens them, timed; their sizes; boxes and masks there and back."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..data.batch import RowReader, fault_of
from ..data.pictures import picture_size
from ..data.records import Fault
from ..video import EXTENSIONS as VIDEOS
from .counts import Tally
from .items import Item
from .trips import Rounding, RoundingSum, trips


@dataclass(frozen=True)
class Sizes:
    """Of pictures, width and height in pixels: the smallest, middle and largest by area. `enlarged`: smaller than the model's on a side."""

    pictures: int
    smallest: tuple[int, int]
    middle: tuple[int, int]
    largest: tuple[int, int]
    enlarged: int
    kinds: Tally


@dataclass(frozen=True)
class Sampled:
    """`records` of `of` were looked at. `faults`: what a run would leave out on meeting it; `seconds`: middle of what a record took to read
    on one thread, pictures, text and mask tokens; `frames`: pictures a prompt -> records."""

    records: int = 0
    of: int = 0
    faults: tuple[Fault, ...] = ()
    seconds: float | None = None
    sizes: Sizes | None = None
    rounding: Rounding = field(default_factory=Rounding)
    frames: tuple[tuple[int, int], ...] = ()


def look(items: Sequence[Item], of: int, reader: RowReader, tell: Callable[[int], None] = lambda done: None) -> Sampled:
    """Reads each record as a run would. `of`: records there are in all."""
    faults: list[Fault] = []
    seconds: list[float] = []
    frames = Counter[int]()
    sizes: dict[Path, tuple[int, int]] = {}
    vision = reader.config.vision
    rounding = RoundingSum(vision.image_size, vision.patch_size)
    for place, item in enumerate(items):
        record = item.record
        try:
            start = time.perf_counter()
            row = reader(record, item.classes, item.rng())
            seconds.append(time.perf_counter() - start)
            frames[len(row.pixels)] += 1
            for path in record.pictures:
                if path.suffix.lower() not in VIDEOS and path not in sizes:
                    sizes[path] = picture_size(path)[0]
            if record.things and record.in_places and record.pictures[0] in sizes:
                size = sizes[record.pictures[0]]
                rounding.add(item.number, record, size, trips(record, size, item.classes, reader.codec))
        except ValueError as error:
            if (fault := fault_of(record, error)).code != "too_long":  # lengths are known of all records
                faults.append(fault)
        tell(place + 1)
    return Sampled(
        len(items),
        of,
        tuple(faults),
        statistics.median(seconds) if seconds else None,
        _sizes(list(sizes.values()), vision.image_size) if sizes else None,
        rounding.result(),
        tuple(sorted(frames.items())),
    )


def _sizes(sizes: Sequence[tuple[int, int]], image_size: int) -> Sizes:
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    enlarged = sum(min(size) < image_size for size in sizes)
    kinds = Counter(f"{width} x {height}" for width, height in sizes)
    return Sizes(len(ordered), ordered[0], ordered[len(ordered) // 2], ordered[-1], enlarged, Tally.of(kinds))
