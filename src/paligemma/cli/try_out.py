"""The command that asks a model about a picture it was trained for, as a shell reads it: what a finished run prints."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..data.lessons import asked_classes
from ..data.records import DataSet, Record
from ..tasks import caption
from ..tasks.detect import SEPARATOR


def try_out(model: Path, data: DataSet, more: Iterable[str] = ()) -> str:
    """With the first picture of the data whose prompt can be typed; `more`: options besides. Without one, PICTURE stands for it.

    Captions are asked for by `caption`, places by the task's own command, everything else by `run`, with the prompt as it was taught.
    """
    words = next(_typed(data), ["run", "PICTURE", "PROMPT"])
    return shlex.join(["paligemma", *words, *more, "--model", _path(model)])


def _typed(data: DataSet) -> Iterator[list[str]]:
    for record in data.records:
        pictures = [_path(path) for path in record.pictures]
        words = _words(record, data)
        if pictures and all(text.isprintable() for text in (*pictures, *words)) and not any(word.startswith("-") for word in words):
            yield [words[0], *pictures, *words[1:], *(["--together"] if len(pictures) > 1 else [])]


def _words(record: Record, data: DataSet) -> list[str]:
    """The command, and what is asked."""
    if record.task == "refer":
        return ["refer", record.asked[0]]
    if record.in_places:
        return [record.task, SEPARATOR.join(asked_classes(record, data.classes, None))]
    return ["caption"] if record.prompt == caption.prompt() else ["run", record.prompt]


def _path(path: Path) -> str:
    """A name that begins with a hyphen would be read as an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)
