"""A pack: one folder that holds a model ready to be mapped into memory. What lies where, read and checked before anything is used.

    pack.json       {"pack": 1, "quantize": ..., "calibrated": ..., "config": as in config.json,
                     "arrays": {name: {"kind", "shape", "at", "bytes", "sha256"}}}, sealed
    weights.packed  the arrays, each at a multiple of 64
    tokenizer.model or tokenizer.json, calibration.json, README.md

Kinds: `packed`, a quantized matrix as `packing.py` lays it out; `float32`; `bfloat16`, the upper halves of float32.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.hf_config import parse_config
from ..checkpoint.locate import PACK_INDEX, PACK_WEIGHTS
from ..config import PaliGemmaConfig
from ..errors import CheckpointError
from ..sealed import is_sealed, seal, unseal
from .packing import ALIGN, aligned

INDEX, WEIGHTS = PACK_INDEX, PACK_WEIGHTS
VERSION = 1
AGAIN = "pack the model again (paligemma pack)"
MAX_INDEX = 4 << 20
MOST = 2**48
"""Bytes and sizes beyond it are nonsense."""
Quantize = Literal["int8", "int4", "bf16", "float32"]
"""How the decoder's matrices are kept. The tower's have 8 bits with either of the first two; patches, norms and biases are float32."""
Kind = Literal["packed", "float32", "bfloat16"]
MOST_AXES = 4
ITEM = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Entry:
    """Where an array lies. `shape`: of the numbers, whatever they take. `sha256`: of its bytes; `verify` compares it."""

    kind: Kind
    shape: tuple[int, ...]
    at: int
    bytes: int
    sha256: str = ""


@dataclass(frozen=True)
class Index:
    """What pack.json says. `quantize`: of the decoder's matrices; `calibrated`: they were rounded by what the model sees. `sealed`: a
    checksum showed that pack.json is as it was written; older packs have none. `bytes`: of the weights."""

    quantize: str
    config: PaliGemmaConfig
    entries: Mapping[str, Entry]
    calibrated: bool = False
    sealed: bool = False

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries.values())


def is_pack(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def place(sizes: Iterable[tuple[str, Kind, tuple[int, ...], int]]) -> dict[str, Entry]:
    """(name, kind, shape, bytes) in their order -> entries, one after the other."""
    entries, at = {}, 0
    for name, kind, shape, size in sizes:
        entries[name] = Entry(kind, shape, at, size)
        at += -(-size // ALIGN) * ALIGN
    return entries


def total(entries: Mapping[str, Entry]) -> int:
    """Bytes of the file that holds them."""
    return max((entry.at + -(-entry.bytes // ALIGN) * ALIGN for entry in entries.values()), default=0)


def index_file(quantize: str, config: Mapping[str, Any], entries: Mapping[str, Entry], *, calibrated: bool) -> bytes:
    """What pack.json holds."""
    arrays = {name: asdict(entry) for name, entry in entries.items()}
    return seal({"pack": VERSION, "quantize": quantize, "calibrated": calibrated, "config": dict(config), "arrays": arrays})


def read_index(folder: Path) -> Index:
    """Raises `CheckpointError` for an index that is none, was changed, is of another version, or does not fit its file of weights."""
    path, weights = folder / INDEX, folder / WEIGHTS
    try:
        if path.stat().st_size > MAX_INDEX:
            raise _bad(path, "it is too long")
        text = path.read_bytes()
        data = json.loads(text)
        size = weights.stat().st_size if weights.is_file() else 0
    except OSError as error:
        raise _bad(folder, f"{Path(error.filename or folder).name} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise _bad(path, "it is no JSON") from None
    if not isinstance(data, dict) or not isinstance(data.get("arrays"), dict) or not isinstance(data.get("config"), dict):
        raise _bad(path, "it describes no arrays")
    if data.get("pack") != VERSION:
        raise _bad(path, f"its version is {data.get('pack')!r}, expected {VERSION}", hint=AGAIN)
    if sealed := is_sealed(data):
        _unseal(path, text)
    if not size:
        raise _bad(weights, "it is no file, or an empty one")
    if data.get("quantize") not in get_args(Quantize):
        raise _bad(path, f"its numbers are {str(data.get('quantize'))[:60]!r}, expected one of {', '.join(get_args(Quantize))}")
    entries = {name: _entry(path, name, found, size) for name, found in data["arrays"].items()}
    if size != total(entries):
        raise _bad(weights, f"it has {size:,} bytes, expected {total(entries):,}")
    calibrated = data.get("calibrated") is True
    return Index(str(data.get("quantize")), parse_config(data["config"], str(path)).config, entries, calibrated, sealed)


def _unseal(path: Path, text: bytes) -> None:
    try:
        unseal(text)
    except (ValueError, RecursionError):
        raise _bad(path, "it was changed after it was written: its checksum is wrong") from None


def _entry(path: Path, name: str, found: Any, size: int) -> Entry:
    try:
        entry = Entry(found["kind"], tuple(found["shape"]), found["at"], found["bytes"], str(found["sha256"]))
        numbers = (*entry.shape, entry.at, entry.bytes)
        plausible = all(type(number) is int and 0 <= number <= MOST for number in numbers)
        sane = plausible and len(entry.shape) <= MOST_AXES and entry.at % ALIGN == 0
    except (TypeError, KeyError):
        raise _bad(path, f"its array {name[:60]!r} has no kind, shape and place") from None
    if not sane or entry.kind not in ("packed", *ITEM):
        raise _bad(path, f"its array {name[:60]!r} is {str(found)[:200]}")
    if entry.kind in ITEM and entry.bytes != math.prod(entry.shape) * ITEM[entry.kind]:
        raise _bad(path, f"its array {name!r} of shape {entry.shape} claims {entry.bytes:,} bytes")
    if entry.at + entry.bytes > size:
        raise _bad(path.with_name(WEIGHTS), f"it has {size:,} bytes, {name!r} ends at {entry.at + entry.bytes:,}")
    return entry


def _bad(path: Path, what: str, *, hint: str | None = None) -> CheckpointError:
    return CheckpointError(f"{path}: {what}", hint=hint or AGAIN, code="bad_pack")


def digest(data: NDArray[np.uint8]) -> str:
    return hashlib.sha256(data.data).hexdigest()


def read_in(folder: Path, index: Index) -> Arrays:
    """A pack's arrays in memory: nothing that becomes of its file matters any more. Raises `CheckpointError` for a file that is cut."""
    memory = aligned(total(index.entries))
    with (folder / WEIGHTS).open("rb") as file:
        if (found := file.readinto(memory.data)) != memory.size:
            raise _bad(folder / WEIGHTS, f"it has {found:,} bytes, expected {memory.size:,}")
    return Arrays(memory, index)


class Arrays:
    """The arrays of a pack, mapped from their file. `weights`: the pack's folder, or the bytes themselves, where there is no file."""

    def __init__(self, weights: Path | NDArray[np.uint8], index: Index):
        self.index = index
        self.read: set[str] = set()
        """Names of those that somebody asked for."""
        self._data: NDArray[np.uint8] = np.memmap(weights / WEIGHTS, np.uint8, mode="r") if isinstance(weights, Path) else weights

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The bytes of an array. Raises `CheckpointError` where it is not there."""
        entry = self.entry(name)
        return np.asarray(self._data[entry.at : entry.at + entry.bytes])

    def entry(self, name: str) -> Entry:
        if name not in self.index.entries:
            raise CheckpointError(f"the pack has no {name!r}", hint=AGAIN, code="bad_pack")
        self.read.add(name)
        return self.index.entries[name]

    def verify(self) -> list[str]:
        """Names of the arrays whose bytes are not those that were written. Reads all of the file."""
        return [name for name, entry in self.index.entries.items() if digest(self.raw(name)) != entry.sha256]

    def numbers(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A float32 array of that shape. Raises `CheckpointError` where it is another."""
        entry = self.entry(name)
        if entry.kind != "float32" or entry.shape != shape:
            raise CheckpointError(f"the pack's {name!r} is {entry.kind} {entry.shape}, expected float32 {shape}", code="bad_pack")
        return self.raw(name).view(np.float32).reshape(shape)
