"""A checkpoint that was verified, opened: its state, its facts, and its tensors when they are asked for."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PaliGemmaError
from .disk import Disk, lacking, read_file
from .manifest import DamagedError, verified
from .tensor_file import NotFiniteError, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

STATE = "state.json"
WEIGHTS = ".safetensors"
MAX_STATE = 256 << 20


@dataclass(frozen=True)
class Saved:
    """`state`, `facts`: as they were saved. `files`: the names that `read` takes."""

    step: int
    folder: Path
    state: Mapping[str, Any]
    facts: Mapping[str, str]
    files: tuple[str, ...]

    def read(self, file: str, *, mapped: bool = True) -> dict[str, Tensor]:
        """The tensors of one file. `mapped`: views of it, for copying from; else copies.

        Raises `KeyError` for an unknown name, `ResourceError` where the machine does not let it be read.
        """
        if file not in self.files:
            raise KeyError(file)
        try:
            return read_tensors(self.folder / f"{file}{WEIGHTS}", mapped=mapped)
        except OSError as error:
            raise lacking(self.folder, error) from error


def open_saved(folder: Path, disk: Disk | None = None) -> Saved:
    """Verify a checkpoint, reading all of it once, and open it. Needs no lock, so any process may.

    Raises what `manifest.verified` raises.
    """
    disk = disk or Disk()
    manifest = verified(folder, disk)
    if STATE not in manifest.files:
        raise DamagedError(f"{folder.name}: {STATE} is missing")
    text = read_file(disk, folder / STATE, MAX_STATE)
    if hashlib.sha256(text).hexdigest() != manifest.files[STATE].sha256:
        raise DamagedError(f"{folder.name}: {STATE} changed while it was read")
    files = tuple(name.removesuffix(WEIGHTS) for name in manifest.files if name.endswith(WEIGHTS))
    return Saved(manifest.step, folder, json.loads(text), manifest.facts, files)


def state_text(state: Mapping[str, Any]) -> bytes:
    """A state as JSON from which exactly it comes back.

    Raises `TypeError` naming the place of what would come back as something else (a tuple, a number as a key), `NotFiniteError` for NaN and
    infinity.
    """
    _demand_json(state, "")
    return (json.dumps(state, allow_nan=False) + "\n").encode()


def _demand_json(value: Any, where: str) -> None:
    problem: PaliGemmaError | TypeError | None = None
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{STATE}: {where or 'the state'} has the key {key!r}, expected text")
            _demand_json(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            _demand_json(item, f"{where}[{place}]")
    elif isinstance(value, float) and not math.isfinite(value):
        problem = NotFiniteError(f"{STATE}: {where} is {value}")
    elif value is not None and not isinstance(value, str | int | float):
        problem = TypeError(f"{STATE}: {where} is a {type(value).__name__}, expected what JSON has")
    if problem is not None:
        raise problem
