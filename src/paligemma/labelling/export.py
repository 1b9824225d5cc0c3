"""A finished job's results -> a folder that an annotation tool imports, the most doubtful pictures first. Whole, or not there."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from ..errors import InputError, UsageError
from ..image import Clip
from ..jobs.items import Item
from ..printable import printable
from ..training.disk import demanded
from .formats import FORMATS, FormatName
from .labelled import Labelled
from .pictures import NOT_A_PICTURE, Names, put

DOUBTFUL = "doubtful.jsonl"
"""In each folder: a line for every picture of it, the most doubtful first."""


def one_picture_each(items: Iterable[Item]) -> Iterator[Item]:
    """The same items; those that are videos, or several pictures, fail when they are opened: a box is of one picture."""
    for item in items:
        yield dataclasses.replace(item, video=None, _open=functools.partial(_one_picture, item))


def _one_picture(item: Item) -> Image.Image:
    found = None if item.video else item.open()
    if found is None or isinstance(found, Clip):
        raise InputError(f"{item.where}: expected one picture, found {'a video' if item.video else 'several'}", code=NOT_A_PICTURE)
    return found


def ranked(results: Path, limit: int | None = None, min_score: float = 0.0) -> list[Labelled]:
    """Rows of `results.jsonl`, the most doubtful first, at most `limit`; equals in the order of the source. Names have no ending yet.

    `min_score`: what scores less is left out, before doubt is measured.
    """
    names = Names()
    with results.open(encoding="utf-8") as file:
        found = [Labelled.of(row, names.take(row["id"]), min_score) for row in map(json.loads, file)]
    return sorted(found, key=lambda one: -one.doubt)[:limit]


def check(out: Path, format: FormatName, *, masks: bool, overwrite: bool = False) -> Path:
    """The folder that `export` will make. Raises `UsageError` for masks in a format without them, where labels are there already (unless
    `overwrite`), and where anything else is: nothing is removed that was not written here."""
    if masks and not FORMATS[format].masks:
        others = ", ".join(name for name, other in FORMATS.items() if other.masks)
        raise UsageError(f"{format} has no place for masks", hint=f"with --masks: --to {others}")
    folder = out / format
    if _other(folder):
        what = f"{printable(str(folder))} is there, and holds no labels of this command"
        raise UsageError(what, hint="choose another --out", code="exists")
    if (folder / DOUBTFUL).exists() and not overwrite:
        hint = "move them, or lose them: --overwrite"
        raise UsageError(f"{printable(str(folder))} holds labels already, which may have been corrected", hint=hint, code="exists")
    return folder


def _other(folder: Path) -> bool:
    """Whether something is there that `export` did not write."""
    return folder.exists() and not (folder / DOUBTFUL).is_file() and not (folder.is_dir() and not any(folder.iterdir()))


def export(
    items: Iterable[Item], labelled: Sequence[Labelled], folder: Path, format: FormatName, *, classes: Sequence[str], model: str
) -> None:
    """`items`: of the source, at least all that `labelled` is about. What was in `folder` is replaced.

    Raises `InputError` for a picture that is not there any more, `ResourceError` where the disk refuses.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    with demanded(folder, "what was found is kept: the same command goes on with it"):
        shutil.rmtree(unfinished, ignore_errors=True)
        (unfinished / FORMATS[format].pictures).mkdir(parents=True)
        stems = {one.id: one.name for one in labelled}
        files = {item.id: put(item, unfinished / FORMATS[format].pictures, stems[item.id]) for item in items if item.id in stems}
        if missing := next((one for one in labelled if one.id not in files), None):
            raise InputError(f"{missing.where}: it is not in the source any more", code="source_changed")
        whole = [dataclasses.replace(one, name=files[one.id]) for one in labelled]
        FORMATS[format].write(unfinished, whole, classes, model)
        (unfinished / DOUBTFUL).write_text("".join(_line(one) for one in whole), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)


def _line(one: Labelled) -> str:
    things = [{"label": thing.box.label, "score": thing.box.score} for thing in one.things]
    row = {"file": one.name, "doubt": round(one.doubt, 6), "things": things, "id": one.id, "where": one.where}
    return json.dumps(row, ensure_ascii=False) + "\n"
