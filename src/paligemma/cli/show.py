"""Results for people and for programs: readable text, JSON lines, drawn files. Knows results, not how they were made."""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PaliGemmaError, UsageError
from ..printable import printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..results import Result

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def as_text(result: Result, name: str | None = None) -> str:
    """A result as people read it; `name` says of which input, where there are several."""
    text = str(result)
    if name is None:
        return text
    return f"{printable(name)}:\n{textwrap.indent(text, '  ')}" if "\n" in text else f"{printable(name)}: {text}"


def counted(count: int, noun: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def as_json(value: dict[str, Any]) -> str:
    """One line of JSON, readable in any script. What could end the line early, steer a terminal or is no text becomes an escape."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def error_dict(error: PaliGemmaError) -> dict[str, Any]:
    """An error as JSON values."""
    return {"code": error.code, "message": error.message, "hint": error.hint}


class Drawings:
    """Where drawn results go: one file for one input, a folder with a new name for each of several. Never over one of the `inputs`."""

    def __init__(self, out: Path, several: bool, inputs: Collection[Path] = ()):
        self._file = out if out.suffix and not out.is_dir() else None
        if blocked := next((path for path in (out, *out.parents) if path.exists() and not path.is_dir() and path != self._file), None):
            raise UsageError(f"--out {out}: {blocked} is a file, not a folder", hint="choose another place")
        self._folder = out
        self._inputs = {path.resolve() for path in inputs}
        self._used: set[str] = set()
        self.saved: list[Path] = []
        if self._file and out.resolve() in self._inputs:
            raise UsageError(f"--out {out} would overwrite the input picture", hint="give another name or a folder: --out drawn")
        if self._file and several:
            raise UsageError(f"--out {out} names one picture, but there are several inputs", hint="give a folder: --out drawn")
        if self._file and out.suffix.lower() not in PICTURE_ENDINGS:
            raise UsageError(
                f"--out {out}: no picture format of ours ends in {out.suffix}", hint=f"use {', '.join(PICTURE_ENDINGS)} or a folder"
            )

    def save(self, result: Result, name: str, picture: Image | None = None) -> Path:
        """Draw the result of the input called `name` on its picture (by default the one the result holds); returns the file written."""
        path = self._file or self._folder / self._new_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        result.draw(picture).save(path)
        self.saved.append(path)
        return path

    def _new_name(self, name: str) -> str:
        stem = re.sub(r"[^\w.-]+", "_", Path(name).stem).strip("._") or "picture"
        candidates = (f"{stem}-{number}.png" if number > 1 else f"{stem}.png" for number in itertools.count(1))
        chosen = next(name for name in candidates if name not in self._used and (self._folder / name).resolve() not in self._inputs)
        self._used.add(chosen)
        return chosen
