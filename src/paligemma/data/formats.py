"""The formats of annotations that can be read, each a module of this folder, and how a path is recognised as one of them.

To add one, write a module with what `Reader` lists and add it to the tuple below.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import InputError, UsageError, did_you_mean
from ..printable import printable
from . import caption_folder, coco, cvat, huggingface, jsonl, labelme, labelstudio, mask_folder, table, voc, vqa, yolo
from .collector import Collector
from .layout import Found, Part


class Reader(Protocol):
    """What the module of a format has."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str:
        """What it is, in a line."""
        ...

    @property
    def recognised(self) -> str:
        """How a path is known to be of it."""
        ...

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it can be read for, the default first; () where each row says its own."""
        ...

    def find(self, path: Path) -> Found | None:
        """Its parts at `path`, or None if this is another format. Reads beginnings only. `UsageError` where two things could be meant."""
        ...

    def read(self, part: Part, to: Collector) -> None:
        """Everything of a part: records and faults. `InputError` for what cannot be read as a whole."""
        ...


_ALL: tuple[Reader, ...] = (jsonl, coco, yolo, voc, labelme, labelstudio, cvat, vqa, mask_folder, caption_folder, table, huggingface)

FORMATS: dict[str, Reader] = {reader.name: reader for reader in _ALL}


@dataclass(frozen=True)
class Detected:
    """The format of a path, and what told."""

    format: str
    why: str
    parts: tuple[Part, ...]


def format_named(name: str) -> Reader:
    """The reader of that name; an unknown name raises `UsageError` with the closest."""
    if name in FORMATS:
        return FORMATS[name]
    raise UsageError(f"no format is called {name!r}", hint=did_you_mean(name, FORMATS, "formats: " + ", ".join(FORMATS)))


def detect_format(path: str | Path, *, format: str | None = None) -> Detected:
    """What format a file or folder has, or where the parts of the given one lie.

    Raises `InputError` if it is none, or not the given one; `UsageError` if it could be several, or a name is unknown.
    """
    path = Path(path)
    shown = printable(str(path))
    readers = _ALL if format is None else (format_named(format),)
    if not path.exists():
        raise InputError(f"{shown}: no such file or folder", code="not_found")
    try:
        found = {reader.name: seen for reader in readers if (seen := reader.find(path)) is not None}
    except OSError as error:
        raise InputError(f"{shown}: cannot be read ({error.strerror})") from error
    if len(found) > 1:
        could = "; ".join(f"{name} ({seen.why})" for name, seen in found.items())
        hint = f"say which: --format {next(iter(found))}"
        raise UsageError(f"{shown} could be of several formats: {could}", hint=hint, code="ambiguous_format")
    if not found and format is not None:
        raise InputError(f"{shown}: {_inside(path)}; expected for {format}: {FORMATS[format].recognised}", code="unknown_format")
    if not found:
        formats = "\n".join(f"  {name:15} {reader.recognised}" for name, reader in FORMATS.items())
        raise InputError(f"{shown}: no known format of annotations: {_inside(path)}", hint=f"known are\n{formats}", code="unknown_format")
    name, seen = next(iter(found.items()))
    return Detected(name, seen.why, seen.parts)


def _inside(path: Path) -> str:
    """What is there, in a few words."""
    if not path.is_dir():
        return f"a file {printable(path.suffix) or 'without ending'}, of {path.stat().st_size:,} bytes"
    names = sorted(printable(entry.name) + ("/" if entry.is_dir() else "") for entry in path.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"a folder with {', '.join(names[:8])}{more}" if names else "an empty folder"
