"""What a checkpoint's folder must hold, file by file with its hash, and whether it does. A folder that differs in a bit is no checkpoint.

Of `step-00000200/`, say: `model.safetensors`, `optimizer.safetensors`, `state.json`, and `manifest.json`, which lists them.
"""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..sealed import seal, unseal
from .disk import DAMAGE, Content, Disk, hash_file, read_file

FORMAT = 1
"""Of checkpoints. A newer one is refused by name; older ones are read for as long as `tests/training/golden` holds one."""
MANIFEST = "manifest.json"
MAX_MANIFEST = 16 << 20
_STEP = re.compile(r"step-(\d{8,15})", re.ASCII)
_FILE = re.compile(r"[a-z0-9_]+\.(safetensors|json)", re.ASCII)


class DamagedError(CheckpointError):
    """A folder is named like a checkpoint and is none."""

    default_code = "damaged_checkpoint"


@dataclass(frozen=True)
class Manifest:
    """`facts`: what the run was made of (see `facts.py`). `files`: all files but the manifest itself."""

    step: int
    facts: Mapping[str, str]
    files: Mapping[str, Content]
    written_by: str

    def to_bytes(self) -> bytes:
        files = {name: {"size": content.size, "sha256": content.sha256} for name, content in sorted(self.files.items())}
        return seal({"format": FORMAT, "step": self.step, "written_by": self.written_by, "facts": dict(self.facts), "files": files})


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step in a checkpoint's name, None for other names."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match and folder_name(int(match[1])) == name else None


def verified(folder: Path, disk: Disk, *, forget: bool = False) -> Manifest:
    """The manifest of a checkpoint whose every byte was read and found right; `forget`: read from the disk, not from the memory's copy.

    Raises `DamagedError` naming the file; `CheckpointError` for a checkpoint of a newer release; `OSError` where it cannot be told, since
    the machine lacks something. A read error is no such case: what cannot be read after a second try is damaged.
    """
    for last in (False, True):
        try:
            return _verified(folder, disk, forget)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            if last or error.errno != errno.EIO:
                name = Path(error.filename).name if error.filename else folder.name
                raise DamagedError(f"{folder.name}: {name}: {(error.strerror or str(error)).lower()}") from error
    raise AssertionError("the loop ends by itself")


def _verified(folder: Path, disk: Disk, forget: bool) -> Manifest:
    if not stat.S_ISDIR(disk.look(folder).st_mode):
        raise DamagedError(f"{folder.name} is no folder")
    names = set(disk.names(folder))
    if MANIFEST not in names:
        raise DamagedError(f"{folder.name}: {MANIFEST} is missing")
    manifest = _read(folder, disk)
    for name in sorted(names - manifest.files.keys() - {MANIFEST}):
        raise DamagedError(f"{folder.name}: {name!a} does not belong to it")
    for name, content in manifest.files.items():
        if name not in names:
            raise DamagedError(f"{folder.name}: {name} is missing")
        facts = disk.look(folder / name)
        if not stat.S_ISREG(facts.st_mode):
            raise DamagedError(f"{folder.name}: {name} is no plain file")
        if facts.st_size != content.size:
            raise DamagedError(f"{folder.name}: {name} has {facts.st_size:,} bytes, {content.size:,} were written")
        if hash_file(disk, folder / name, content.size, forget=forget) != content:
            raise DamagedError(f"{folder.name}: {name} is not what was written (its SHA-256 differs)")
    return manifest


def _read(folder: Path, disk: Disk) -> Manifest:
    try:
        value = unseal(read_file(disk, folder / MANIFEST, MAX_MANIFEST))
        if isinstance(value.get("format"), int) and value["format"] > FORMAT:
            raise CheckpointError(
                f"{folder}: written in format {value['format']} by {value.get('written_by')}, this release reads up to {FORMAT}",
                hint="use that release or a newer one",
                code="newer_format",
            )
        manifest = _parsed(value)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{folder.name}: {MANIFEST}: {error}") from error
    if folder_name(manifest.step) != folder.name:
        raise DamagedError(f"{folder.name}: {MANIFEST} is that of step {manifest.step}")
    return manifest


def _parsed(value: dict[str, Any]) -> Manifest:
    """Raises `ValueError` for what no release wrote."""
    try:
        files = {name: Content(int(entry["size"]), str(entry["sha256"])) for name, entry in value["files"].items()}
        facts = {str(key): str(fact) for key, fact in value["facts"].items()}
        manifest = Manifest(int(value["step"]), facts, files, str(value["written_by"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it lacks what a manifest holds ({error})") from error
    if strange := [name for name in files if not _FILE.fullmatch(name)]:
        raise ValueError(f"it names a file {strange[0]!a}")
    return manifest
