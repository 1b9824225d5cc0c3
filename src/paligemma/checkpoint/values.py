"""Are the numbers of a checkpoint usable? NaN and infinity are refused, matrices of zeros are reported, and a clean file is remembered.

A checked file is known again by path, size, time and inode, so the whole file is read for this only once. The memory is a folder of empty
files below the user's cache folder; `PALIGEMMA_CACHE` moves it.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError
from .source import CHUNK_BYTES, Array, refuse

if TYPE_CHECKING:
    from torch import Tensor


def value_problem(values: Tensor | Array) -> tuple[str | None, bool]:
    """(what is wrong, whether all values are zero). Values are only counted once something is wrong."""
    flat = values.reshape(-1)
    low, high = _ends(flat)
    if not (math.isfinite(low) and math.isfinite(high)):
        nan = infinite = 0
        for start in range(0, len(flat), CHUNK_BYTES // 4):
            part: Any = flat[start : start + CHUNK_BYTES // 4]
            nan += int((part != part).sum())
            infinite += int((abs(part) == math.inf).sum())
        counts = [f"{nan:,} NaN"] * bool(nan) + [f"{infinite:,} infinite"] * bool(infinite)
        return f"{' and '.join(counts)} of {len(flat):,} values", False
    return None, low == 0 and high == 0


def _ends(flat: Tensor | Array) -> tuple[float, float]:
    """The smallest and the largest value, NaN where there is one. Of a tensor in one pass over memory."""
    low, high = (flat.min(), flat.max()) if isinstance(flat, np.ndarray) else flat.aminmax()
    return float(low), float(high)


class ValueCheck:
    """Collects what is wrong with the tensors that pass through; `finish` raises for all of them together."""

    def __init__(self, where: str):
        self.where = where
        self.problems: list[str] = []
        self.zero_parts: dict[str, bool] = {}

    def look(self, name: str, values: Tensor | Array) -> None:
        """May be called with a tensor piece by piece."""
        problem, zeros = value_problem(values)
        if problem is not None:
            self.problems.append(f"{name}: {problem}")
        self.zero_parts[name] = zeros and self.zero_parts.get(name, True)

    def zeros(self) -> list[str]:
        """Names of the tensors without any value but zero."""
        return [name for name, zero in self.zero_parts.items() if zero]

    def finish(self) -> None:
        hint = "the file is damaged, or training diverged"
        refuse(self.where, self.problems, summary="values that are not numbers", hint=hint, code="bad_values")


def cache_folder() -> Path:
    """Where this package may keep small files of its own: the user's cache folder, or `PALIGEMMA_CACHE`."""
    if (own := os.environ.get("PALIGEMMA_CACHE")) is not None:
        return Path(own)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", str(Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "paligemma"


def known_good(files: Iterable[Path]) -> bool:
    """Whether exactly these files, unchanged since, were once found good."""
    return _mark(files).exists()


def remember_good(files: Iterable[Path]) -> None:
    """A cache folder that cannot be written to only means that the check is done again next time."""
    mark = _mark(files)
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        return


def _mark(files: Iterable[Path]) -> Path:
    facts = [(str(path.resolve()), s.st_size, s.st_mtime_ns, s.st_ino) for path in sorted(files) for s in (path.stat(),)]
    return cache_folder() / "checked" / hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


MANIFEST_HINT = "make one in the checkpoint's folder: sha256sum * > SHA256SUMS"


def verify_sha256(folder: str | Path, manifest: str | Path) -> list[Path]:
    """Compare files with a list in `sha256sum`'s format (names relative to `folder`); returns the files that were compared.

    Raises `CheckpointError` naming every file that is missing or differs: the only check that finds a flipped bit which left a number a
    number.
    """
    folder, manifest = Path(folder), Path(manifest)
    try:
        text = manifest.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise CheckpointError(f"{manifest}: cannot be read ({reason})", hint=MANIFEST_HINT, code="bad_manifest") from None
    problems: list[str] = []
    compared: list[Path] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        expected, _, name = line.partition(" ")
        name = name.lstrip(" *")
        if len(expected) != 64 or not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise CheckpointError(
                f"{manifest.name}, line {number}: expected a SHA-256 and a file name", hint=MANIFEST_HINT, code="bad_manifest"
            )
        path = folder / name
        compared.append(path)
        if not path.is_file():
            problems.append(f"{name} is missing")
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected.lower():
            problems.append(f"{name}: SHA-256 {found[:12]}..., expected {expected[:12].lower()}...")
    if not compared:
        raise CheckpointError(f"{manifest.name} lists no file", hint=MANIFEST_HINT, code="bad_manifest")
    refuse(folder, problems, summary="files differ from the manifest", hint="fetch them again", code="sha256_differs")
    return compared
