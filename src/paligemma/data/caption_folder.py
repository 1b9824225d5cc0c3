"""A folder of pictures with their captions beside them: `cat.jpg` and `cat.txt` (or `cat.caption`), also in subfolders.

A file is one caption, however many lines it has. Folders with a `metadata.jsonl` or `metadata.csv` are `jsonl` and `table`.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..sources import IMAGE_EXTENSIONS, below
from ..tasks import caption
from . import checks
from .class_lists import FILES
from .collector import Collector
from .layout import Found, Part, files_of, split_folders, sub_folders
from .reading import BOM, decoded
from .records import Flaw, Record
from .yolo import is_label

name = "caption-folder"
description = "pictures with a text file of the same name beside each: its caption"
recognised = "a folder (or train/, valid/, test/) with cat.jpg and cat.txt"
tasks: tuple[str, ...] = ("caption", "run", "ocr")

TEXTS = (".txt", ".caption")
OTHERS = {
    "readme",
    "license",
    "licence",
    "notice",
    "classes",
    "labels",
    "train",
    "valid",
    "val",
    "test",
    *(Path(file).stem for file in FILES),
}
"""Text files that are no captions."""


def find(path: Path) -> Found | None:
    if path.is_file():
        return None
    parts = [Part((folder,), folder, split) for split, folder in split_folders(path).items() if _has_pair(folder)]
    if parts:
        return Found(tuple(parts), f"pictures in {parts[0].files[0].name}/ have text files beside them")
    if any(_has_pair(folder) for folder in (path, *sub_folders(path)[:50])):
        return Found((Part((path,), path),), "pictures have text files beside them")
    return None


def _has_pair(folder: Path) -> bool:
    """Whether a picture among the first has a text beside it that is no line of numbers, as YOLO's."""
    for file in files_of(folder, *IMAGE_EXTENSIONS)[:20]:
        for text in _texts(file):
            with text.open("rb") as opened:
                return not is_label(opened.readline(4096))
    return False


def _texts(picture: Path) -> list[Path]:
    return [text for text in (picture.with_suffix(ending) for ending in TEXTS) if text.is_file()]


def read(part: Part, to: Collector) -> None:
    """A picture without a caption, and a caption without a picture, are faults."""
    folder, used, task = part.files[0], set(), to.task or "caption"

    def unlisted(error: OSError) -> None:
        place = Path(error.filename)
        to.fault(to.place(place), "missing", f"this folder cannot be read ({error.strerror})", os.path.relpath(place, to.root))

    asked = {"caption": caption.prompt(), "ocr": "ocr", "run": "caption en"}[task]
    for file in below(folder, IMAGE_EXTENSIONS, unlisted=unlisted):
        id, texts = os.path.relpath(file, to.root), _texts(file)
        used.update(texts)
        with to.record(to.place(file), id, to.place(file)):
            if not texts:
                raise Flaw("answer", f"there is no {file.stem}.txt beside it")
            picture = to.picture(file.name, file.parent)
            to.pictures.check(picture)
            text = checks.answer(decoded(to.bytes_of(texts[0]).removeprefix(BOM)), "the caption")
            to.add(Record(id, task, (picture,), to.place(texts[0]), asked, (caption.target(text),), about=part.about))
    for file in below(folder, TEXTS, unlisted=lambda error: None):  # told already
        if file not in used and file.stem.lower() not in OTHERS:
            to.fault(to.place(file), "missing", "there is no picture for this caption", os.path.relpath(file, to.root))
