"""A path -> a `DataSet`: the format is recognised, everything read and checked once, headers of pictures too, before anything is trained.

Nothing is dropped silently: what cannot be used is a fault, and too many of them, or no usable record at all, stop here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import InputError, UsageError, did_you_mean
from ..image import Limits
from ..printable import printable
from ..tasks import task_named
from .collector import Collector
from .formats import FORMATS, Detected, detect_format
from .layout import Part, canonical
from .pictures import Pictures
from .quarantine import summary
from .records import DataSet, counts

MAX_BAD_SHARE = 0.01


class BadData(InputError):
    """A data set of which too much cannot be used. `data` holds what was read, its faults among it."""

    default_code = "bad_data"

    def __init__(self, message: str, data: DataSet, *, hint: str | None = None, code: str | None = None):
        super().__init__(message, hint=hint, code=code)
        self.data = data


def splits(path: str | Path, *, format: str | None = None) -> tuple[str, ...]:
    """Names of the splits that a data set is divided into, train first; () if it is not divided."""
    return tuple(part.split for part in detect_format(path, format=format).parts if part.split)


def open_data(
    path: str | Path,
    *,
    format: str | None = None,
    task: str | None = None,
    split: str | None = None,
    pictures: str | Path | None = None,
    scratch: str | Path | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    strict_pictures: bool = False,
    connected: bool = False,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
) -> DataSet:
    """Reads annotated pictures in any of `formats.FORMATS`.

    `format`: its name, where it is not to be recognised. `task`: what the records are for, if not what the format is for by default
    (things: detect; captions: caption; questions: answer; rows: what each says). `split`: train, valid or test of a divided data set, or
    "all" of them; a divided data set is not read without it. `pictures`: the folder that names of pictures are relative to, if not the
    usual one; no picture is taken from outside. `scratch`: where pictures that come inside tables are unpacked to. `strict_pictures`:
    decode every picture, instead of its header only. `connected`: each connected part of a class mask is a thing of its own. `progress`
    is told after each record how many have been read.

    Raises `UsageError` for names that are unknown or missing, `InputError` for a file that cannot be read as a whole, and `BadData`, an
    `InputError` too, if no record is usable or faults are more than `max_bad_share` (0 to 1) of everything.
    """
    path = Path(path)
    if not 0 <= max_bad_share <= 1:
        raise UsageError(f"the share of faults that is allowed must be 0 to 1, got {max_bad_share:g}")
    detected = detect_format(path, format=format)
    reader = FORMATS[detected.format]
    if task is not None and not reader.tasks:
        task_named(task)
    elif task is not None and task not in reader.tasks:
        raise UsageError(
            f"{detected.format} can be read for {', '.join(reader.tasks)}; {task!r} is none of them",
            hint=did_you_mean(task, reader.tasks) or "JSON lines can be read for every task",
        )
    if pictures is not None and not Path(pictures).is_dir():
        raise InputError(f"{printable(str(pictures))}: no such folder of pictures", code="not_found")
    chosen = _chosen(detected, split, path)
    folder = path if path.is_dir() else path.parent
    to = Collector(
        folder,
        Pictures(folder, limits=limits, strict=strict_pictures, scratch=None if scratch is None else Path(scratch)),
        task=task,
        connected=connected,
        progress=progress,
    )
    for part in chosen:
        if pictures is not None:
            to.pictures.allow(Path(pictures))
            part = Part(part.files, Path(pictures), part.split)
        reader.read(part, to)
    to.notes["pictures are turned by their EXIF data; places are those of the upright picture"] += to.pictures.sideways
    tasks = {record.task for record in to.records}
    data = DataSet(
        path,
        detected.format,
        tasks.pop() if len(tasks) == 1 else "mixed",
        tuple(to.records),
        tuple(to.faults),
        tuple(to.classes),
        to.fingerprint,
        split=chosen[0].split if len(chosen) == 1 else "all",
        notes={what: count for what, count in to.notes.items() if count},
    )
    check(data, max_bad_share)
    return data


def check(data: DataSet, max_bad_share: float = MAX_BAD_SHARE) -> None:
    """Raises `BadData` if nothing, or too little, of a data set can be used."""
    shown = printable(str(data.path))
    if not data.records:
        what = f"none of {len(data.faults):,} records can be used" if data.faults else "there is no record in it"
        raise BadData(f"{shown}: {what}\n{summary(data)}", data, hint=_hint(data), code="no_records")
    if data.bad_share > max_bad_share:
        bad, everything = len(data.faults), len(data.faults) + len(data.records)
        raise BadData(
            f"{shown}: {bad:,} of {everything:,} records cannot be used ({data.bad_share:.1%}), at most {max_bad_share:.1%} may be"
            f"\n{summary(data)}",
            data,
            hint=_hint(data) or "mend them, or allow more with --max-bad-fraction",
            code="too_many_faults",
        )


def _hint(data: DataSet) -> str | None:
    """What usually helps where nearly everything has the same fault."""
    code = next(iter(counts(data.faults)), "")
    if code in ("missing", "path") and data.bad_share > 0.5:
        return "name the folder that the pictures lie in with --pictures; names in the annotations are relative to it"
    return None


def _chosen(detected: Detected, split: str | None, path: Path) -> tuple[Part, ...]:
    parts, shown = detected.parts, printable(str(path))
    names = [part.split for part in parts if part.split]
    if split is None:
        if len(parts) > 1:
            raise UsageError(
                f"{shown} is divided into {', '.join(names)}", hint=f"say which: --split {names[0]}, or --split all", code="split_missing"
            )
        return parts
    if split == "all":
        return tuple(part for part in parts if part.split != "trainval" or "train" not in names)
    found = tuple(part for part in parts if part.split and part.split in (canonical(split), split))
    if not found:
        there = f"its parts are {', '.join(names)}" if names else "it is not divided"
        raise UsageError(f"{shown} has no part {split!r}: {there}", hint=did_you_mean(split, names), code="split_unknown")
    return found
