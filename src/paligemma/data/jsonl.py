"""JSON lines: one row (see `rows`) a line, or a JSON list of rows. Pictures are named relative to the file.

Found in a folder: `train.jsonl`, `_annotations.valid.jsonl` (PaliGemma exports of Roboflow), `train/annotations.jsonl` (maestro),
`train/metadata.jsonl` (Hugging Face's image folders), or a single file of any name.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import InputError
from .collector import Collector
from .layout import Found, Part, annotation_parts, files_of, split_folders
from .reading import BOM, decoded, glance, json_of, numbered_lines, parsed_json
from .records import Flaw
from .rows import add_row, is_row

name = "jsonl"
description = "JSON lines of image, prefix, suffix; or image, task, target; or image with a question, or a caption"
recognised = "a .jsonl file, a JSON list of such rows, or a folder with train.jsonl, valid.jsonl, train/metadata.jsonl, ..."
tasks: tuple[str, ...] = ()
ENDINGS = (".jsonl", ".ndjson")


def find(path: Path) -> Found | None:
    if path.is_file():
        why = f"{path.name} is " + ("JSON lines" if _is_lines(path) else "a list of rows")
        return Found((Part((path,), path.parent),), why) if _is(path) else None
    if files := _files(path):
        return Found(annotation_parts(files, "files of JSON lines", path), f"it holds {files[0].name}")
    parts = []
    for split, folder in split_folders(path).items():
        several = annotation_parts(_files(folder), f"files of JSON lines in {folder.name}/", folder)
        parts += [Part(part.files, folder, split) for part in several]
    return Found(tuple(parts), f"it holds {parts[0].files[0].relative_to(path)}") if parts else None


def _files(folder: Path) -> list[Path]:
    """Files of JSON lines that hold a row; logs and the like lie in folders too."""
    return [file for file in files_of(folder, *ENDINGS) if _has_row(file)]


def _has_row(file: Path) -> bool:
    with file.open("rb") as opened:
        lines = [opened.readline(1 << 16) for _ in range(20)]
    for line in lines:
        with suppress(Flaw):
            row = parsed_json(decoded(line.removeprefix(BOM)))
            if isinstance(row, Mapping) and is_row(frozenset(row)):
                return True
    return False


def _is_lines(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS


def _is(path: Path) -> bool:
    if _is_lines(path):
        return True
    seen = glance(path) if path.suffix.lower() == ".json" else None
    others = frozenset({"question", "annotations", "predictions"})  # of `vqa` and `labelstudio`
    return seen is not None and seen.is_list and not others & seen.inner and is_row(seen.inner)


def read(part: Part, to: Collector) -> None:
    """A line that is no JSON, or no row, is a fault with its number; a file without any line raises `InputError`."""
    file = part.files[0]
    place, data = to.place(file), to.bytes_of(file)
    if not _is_lines(file):
        rows = json_of(data, file)
        for number, row in enumerate(rows if isinstance(rows, list) else [], 1):
            add_row(to, part, row, where=f"{place}: row {number}", number=number)
        return
    number = 0
    for number, line in numbered_lines(data):
        where = f"{place}:{number}"
        with to.record(where, part.id(number)):
            add_row(to, part, parsed_json(decoded(line)), where=where, number=number)
    if not number:
        raise InputError(f"{place}: there is no line in it", code="no_records")
