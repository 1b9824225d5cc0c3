"""Where the parts of a data set lie: its annotation files or folders, the pictures that belong to them, the splits they are named for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..printable import printable
from ..sources import natural_order

SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
    "trainval": ("trainval",),
}
"""Name of a split -> how it may be written."""
PICTURE_FOLDERS = ("images", "image", "imgs", "JPEGImages", "pictures", "data")
"""Usual names of the folder with the pictures, beside an annotation file."""


@dataclass(frozen=True)
class Part:
    """What is read in one go. `files`: annotation files, or the folder that holds them; `split`: "" where the data set is not divided.

    `pictures`: the folder that names of pictures are relative to, or None where the reader has to look for it.
    """

    files: tuple[Path, ...]
    pictures: Path | None = None
    split: str = ""

    def id(self, own: object) -> str:
        """The id of a record that is `own` to this part, unique among all parts."""
        return f"{self.split}/{own}" if self.split else str(own)

    @property
    def about(self) -> dict[str, Any]:
        """What each of its records says about where it is from."""
        return {"split": self.split} if self.split else {}


@dataclass(frozen=True)
class Found:
    """That a path looks like a format: its parts, and why in a few words."""

    parts: tuple[Part, ...]
    why: str


def split_named(name: str) -> str:
    """The split that the name of a file or folder says, or "": `instances_train2017.json` is of "train"."""
    for word in re.split(r"[^a-z]+", name.lower()):
        for split, spellings in SPLITS.items():
            if word in spellings:
                return split
    return ""


def canonical(split: str) -> str:
    """ "val" -> "valid"; a name that is unknown stays."""
    return next((name for name, spellings in SPLITS.items() if split.lower() in spellings), split)


def split_folders(folder: Path) -> dict[str, Path]:
    """Split -> subfolder named so and nothing else, as in `train/` or `valid/`."""
    known = {spelling: split for split, spellings in SPLITS.items() for spelling in spellings}
    found = {known[path.name.lower()]: path for path in sub_folders(folder) if path.name.lower() in known}
    return {split: found[split] for split in SPLITS if split in found}


def sub_folders(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")), key=natural_order)


def files_of(folder: Path, *endings: str) -> list[Path]:
    """Files right in a folder whose name ends so, in natural order; hidden ones are left out."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = [entry.name for entry in entries if os.path.splitext(entry.name)[1].lower() in endings and entry.is_file()]
    return [folder / name for name in sorted(found, key=natural_order) if not name.startswith(".")]


def annotation_parts(files: Iterable[Path], what: str, pictures: Path | None = None) -> tuple[Part, ...]:
    """One part for each file, split by their names. Raises `UsageError` where two of them could be meant for the same split."""
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_named(file.stem), []).append(file)
    if len(by_split) > 1:
        by_split.pop("", None)  # a readme, a sample
    for split, several in by_split.items():
        if len(several) > 1:
            names = ", ".join(printable(path.name) for path in several[:6])
            raise UsageError(f"several {what} could be meant{' for ' + split if split else ''}: {names}", hint="name one of the files")
    return in_order(Part((several[0],), pictures, split) for split, several in by_split.items())


def in_order(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Train first, then valid, test, and others."""
    known = list(SPLITS)
    return tuple(sorted(parts, key=lambda part: known.index(part.split) if part.split in known else len(known)))


def picture_folder(names: Sequence[str], candidates: Iterable[Path]) -> Path:
    """The first folder that has one of the first few named pictures; the first of all if none has."""
    folders = list(dict.fromkeys(candidates))
    some = [name for name in names[:20] if name and not Path(name).is_absolute()]
    for folder in folders:
        if any(os.path.isfile(folder / name) for name in some):
            return folder
    return folders[0]


def usual_picture_folders(file: Path, split_words: Sequence[str] = ()) -> list[Path]:
    """Where the pictures of an annotation file may lie: beside it, in `images/`, in folders named like its split, and one floor higher."""
    here, above = file.parent, file.parent.parent
    names = [*PICTURE_FOLDERS, *split_words]
    nested = [f"{outer}/{word}" for outer in PICTURE_FOLDERS for word in split_words]
    return [here, *(here / name for name in [*names, *nested]), above, *(above / name for name in [*names, *nested])]
