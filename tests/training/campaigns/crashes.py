"""C13: a power cut at every point of a run. What the disk was told to keep is kept; of the rest, anything may be there, torn, or not.

A run's calls are recorded; the file system is played through them in memory, with what is on the disk apart from what is only with the
system. A crash keeps all that was synced, and of every later change of names and every later write whatever the case chooses: all, none,
names without data, torn data, or a random part in any order that the names allow. The outcome is laid out as real folders, and the run goes
on there. Stricter than any file system in use, which mostly keeps the order of names.
"""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paligemma.training.disk import Disk
from paligemma.training.manifest import step_of
from paligemma.training.run_report import Report
from paligemma.training.store import Store

from .reference import Reference, content, demand_best, whole_steps
from .trial import Plan, Watch

NAME = "C13"
TITLE = "power cuts"
SIZES = {"push": 100, "ci": 1000, "release": 20_000}
CHANGES = ("make_folder", "create", "open_lock", "write", "sync", "rename", "sync_folder", "unlink", "remove_folder")
CHOICES = ("all", "none", "names only", "torn", "any")
GO_ON = 10
"""Every so many cases the run is also trained to its end."""

Point = tuple


class RecordingDisk(Disk):
    """The real thing, and every change written to a log, with the paths below `root` and what the trainer told in between."""

    def __init__(self, log: Path, root: Path, watch: Watch):
        self._log, self._root = log.open("a"), root
        self._numbers: dict[int, int] = {}
        told, self._files = watch.tell, 0

        def tell(*note: Any) -> None:
            self._write("told", *note)
            told(*note)

        watch.tell = tell

    def _write(self, *entry: Any) -> None:
        self._log.write(json.dumps(entry) + "\n")
        self._log.flush()

    def _path(self, path: Path) -> str:
        return str(path.relative_to(self._root))

    def _opened(self, name: str, path: Path, file: io.FileIO) -> io.FileIO:
        self._files += 1
        self._numbers[id(file)] = self._files
        self._write(name, self._path(path), self._files)
        return file

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self._write("make_folder", self._path(path))

    def create(self, path: Path) -> io.FileIO:
        return self._opened("create", path, super().create(path))

    def open_lock(self, path: Path) -> io.FileIO:
        return self._opened("open_lock", path, super().open_lock(path))

    def write(self, file: io.FileIO, data: bytes | memoryview) -> None:
        super().write(file, data)
        self._write("write", self._numbers[id(file)], base64.b64encode(bytes(data)).decode())

    def sync(self, file: io.FileIO) -> None:
        super().sync(file)
        self._write("sync", self._numbers[id(file)])

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self._write("rename", self._path(old), self._path(new))

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self._write("sync_folder", self._path(path))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._write("unlink", self._path(path))

    def remove_folder(self, path: Path) -> None:
        super().remove_folder(path)
        self._write("remove_folder", self._path(path))


@dataclass(eq=False)
class File:
    """`kept`: what is on the disk. `data`: what a reader sees before the crash."""

    data: bytes = b""
    kept: bytes = b""


@dataclass(eq=False)
class Folder:
    names: dict[str, File | Folder] = field(default_factory=dict)
    kept: dict[str, File | Folder] = field(default_factory=dict)


Change = list[tuple[Folder, str, "File | Folder | None"]]
"""Of names, as one: they are on the disk together or not at all."""


class Played:
    """A file system after some of the recorded calls."""

    def __init__(self, log: list[list[Any]]):
        self.root = Folder()
        self.pending: list[Change] = []
        self.told: list[list[Any]] = []
        self._files: dict[int, File] = {}
        for name, *rest in log:
            getattr(self, f"_{name}")(*rest)

    def _at(self, path: str) -> Any:
        place: Any = self.root
        for part in Path(path).parts:
            place = place.names[part]
        return place

    def _change(self, *parts: tuple[str, Any]) -> None:
        change: Change = [(self._at(str(Path(path).parent)), Path(path).name, node) for path, node in parts]
        for folder, name, node in change:
            if node is None:
                del folder.names[name]
            else:
                folder.names[name] = node
        self.pending.append(change)

    def _told(self, *note: Any) -> None:
        self.told.append(list(note))

    def _make_folder(self, path: str) -> None:
        self._change((path, Folder()))

    def _create(self, path: str, number: int) -> None:
        self._files[number] = File()
        self._change((path, self._files[number]))

    def _open_lock(self, path: str, number: int) -> None:
        self._create(path, number)

    def _write(self, number: int, data: str) -> None:
        self._files[number].data += base64.b64decode(data)

    def _sync(self, number: int) -> None:
        self._files[number].kept = self._files[number].data

    def _rename(self, old: str, new: str) -> None:
        self._change((new, self._at(old)), (old, None))

    def _unlink(self, path: str) -> None:
        self._change((path, None))

    def _remove_folder(self, path: str) -> None:
        self._change((path, None))

    def _sync_folder(self, path: str) -> None:
        folder = self._at(path)
        for change in [change for change in self.pending if any(place is folder for place, _, _ in change)]:
            _apply(change)
            self.pending.remove(change)

    def crash(self, choice: str, rng: random.Random, place: Path) -> None:
        """Lay out in `place` what is on the disk."""
        names = {"all": lambda: True, "none": lambda: False, "any": lambda: rng.random() < 0.5}.get(choice, lambda: True)
        for change in self.pending:
            if names():
                _apply(change)
        _lay_out(self.root, place, lambda file: _data(file, choice, rng))


def _apply(change: Change) -> None:
    for folder, name, node in change:
        if node is None:
            folder.kept.pop(name, None)
        else:
            folder.kept[name] = node


def _data(file: File, choice: str, rng: random.Random) -> bytes:
    if choice == "any":
        choice = rng.choice(["all", "none", "torn"])
    if choice == "all" or file.data == file.kept:
        return file.data
    if choice in ("none", "names only"):
        return file.kept
    torn = bytearray(file.data)
    if rng.random() < 0.5:  # cut
        return bytes(torn[: rng.randrange(len(torn))])
    start = rng.randrange(len(torn))  # as long as it should be, with a part that never came
    end = min(len(torn), start + rng.choice([1, 64, 512, 4096]))
    torn[start:end] = bytes(end - start) if any(torn[start:end]) else b"\xff" * (end - start)
    return bytes(torn)


def _lay_out(folder: Folder, place: Path, data: Callable[[File], bytes]) -> None:
    for name, node in folder.kept.items():
        if isinstance(node, Folder):
            (place / name).mkdir()
            _lay_out(node, place / name, data)
        else:
            (place / name).write_bytes(data(node))


def points(reference: Reference, tier: str, rng: random.Random) -> list[Point]:
    """(recorded calls that were made, what of the unsynced is kept, seed, whether the run goes on to its end)."""
    log = record(reference)
    every = [(calls, choice) for calls in range(len(log) + 1) for choice in CHOICES if calls == 0 or log[calls - 1][0] in CHANGES]
    rounds = -(-SIZES[tier] // len(every))
    chosen = rng.sample(every * rounds, SIZES[tier]) if rounds == 1 else (every * rounds)[: SIZES[tier]]
    return [(*point, rng.randrange(1 << 30), number % GO_ON == 0) for number, point in enumerate(chosen)]


def record(reference: Reference) -> list[list[Any]]:
    """The log of a run that was cut off once and continued to its end; made once."""
    log = reference.folder / "record.jsonl"
    if not log.exists():
        with reference.trial() as run:
            reference.start(run, Plan(record=str(log), incident="kill", at_step=reference.steps // 2 + 1)).end()
            done = reference.start(run, Plan(record=str(log))).end()
            assert done.code == 0, done.stderr
    return _renumbered([json.loads(line) for line in log.read_text().splitlines()])


def _renumbered(log: list[list[Any]]) -> list[list[Any]]:
    """Numbers of files begin anew in each process."""
    result, shift, highest = [], 0, 0
    for name, *rest in log:
        place = 1 if name in ("create", "open_lock") else 0 if name in ("write", "sync") else None
        if place is not None:
            if name == "open_lock":
                shift = highest
            rest[place] += shift
            highest = max(highest, rest[place])
        result.append([name, *rest])
    return result


def check(reference: Reference, point: Point, rng: random.Random) -> None:
    calls, choice, seed, go_on = point
    played = Played(record(reference)[:calls])
    saved = max((note[1] for note in played.told if note[0] == "saved"), default=0)
    best = max((note[1] for note in played.told if note[0] == "best"), default=0)
    kept = {line[1]: line[2] for line in reference.expected() if line[0] == "checkpoint"}
    with reference.trial() as run:
        played.crash(choice, random.Random(seed), run.parent)
        if not run.exists():
            assert not saved, f"I1: step {saved} was saved, the whole run is gone"
            return
        whole = whole_steps(run)
        assert max(whole, default=0) >= saved, f"I1: step {saved} was saved, whole are {whole}"
        for step in whole:
            assert content(run, step) == kept[step], f"I2: the checkpoint of step {step} is whole and not what was saved"
        broken = {step for path in run.iterdir() if (step := step_of(path.name)) is not None} - set(whole)
        assert not broken, f"I2: the power cut left checkpoints that are not whole: {sorted(broken)}"
        demand_best(run, best, whole)
        if go_on:
            reference.finish(run)
        else:
            store = Store(run, facts={}, report=Report(run, say=lambda line: None))
            with store.lock():
                found = store.newest()
            assert (found.step if found else 0) == max(whole, default=0)
