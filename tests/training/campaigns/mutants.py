"""Can the campaigns fail? Each guard of the store is taken out, one at a time, and the campaign that is there for it must go red."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from paligemma.errors import CheckpointError
from paligemma.training import disk, lock, manifest, saved, stopping, store, tensor_file
from paligemma.training.disk import Disk

from . import crashes
from .reference import Reference

Mutation = Callable[[], contextlib.AbstractContextManager[Any]]


def _nothing(*arguments: Any, **options: Any) -> None:
    """Instead of a guard."""


def _unsynced(what: str) -> Mutation:
    """Files, or folders, with a name like that are not brought to the disk."""
    sync, sync_folder = crashes.RecordingDisk.sync, crashes.RecordingDisk.sync_folder

    def some(self: crashes.RecordingDisk, file: io.FileIO) -> None:
        if not re.search(what, Path(str(file.name)).name):
            sync(self, file)

    def some_folders(self: crashes.RecordingDisk, path: Path) -> None:
        if not re.search(what, path.name):
            sync_folder(self, path)

    return lambda: mock.patch.multiple(crashes.RecordingDisk, sync=some, sync_folder=some_folders)


@contextlib.contextmanager
def _prune_first() -> Iterator[None]:
    """The old ones are deleted before the new one is there, as some trainers do."""
    commit = store.Store._commit

    def late(self: store.Store, step: int, *rest: Any) -> Path:
        for old in self.steps():
            disk.remove_tree(self._disk, self.run / manifest.folder_name(old))
        return commit(self, step, *rest)

    with mock.patch.object(store.Store, "_commit", late):
        yield


@contextlib.contextmanager
def _in_place() -> Iterator[None]:
    """A checkpoint is written under its own name."""

    def own_name(self: store.Store, name: str) -> Path:
        return self.run / name

    rename = Disk.rename
    with (
        mock.patch.object(store.Store, "_temporary", own_name),
        mock.patch.object(Disk, "rename", lambda self, old, new: None if old == new else rename(self, old, new)),
    ):
        yield


@contextlib.contextmanager
def _no_hash() -> Iterator[None]:
    """Sizes are compared, contents are not."""
    with mock.patch.object(manifest, "hash_file", return_value=mock.ANY):
        yield


def _no_listing() -> contextlib.AbstractContextManager[Any]:
    """What does not belong to a checkpoint is not looked for."""
    real = Disk.names

    def known(self: Disk, path: Path) -> list[str]:
        names = real(self, path)
        return (
            [name for name in names if name.endswith((".safetensors", ".json")) and "00002" not in name] if "step" in path.name else names
        )

    return mock.patch.object(Disk, "names", known)


def _no_fallback() -> contextlib.AbstractContextManager[Any]:
    """The newest one is taken as it is."""
    return mock.patch.object(saved, "verified", lambda folder, real: manifest._read(folder, real))


def _no_finite_check() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(tensor_file, "value_problem", return_value=(None, False))


def _no_lock() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(lock, "_take", return_value=True)


def _no_second_signal() -> contextlib.AbstractContextManager[Any]:
    handle = stopping.Stopping._handle

    def first_only(self: stopping.Stopping, number: int, frame: Any) -> None:
        if self.signal is None:
            handle(self, number, frame)

    return mock.patch.object(stopping.Stopping, "_handle", first_only)


def _no_handler() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(stopping.Stopping, "__enter__", lambda self: self)


def _pruned_best() -> contextlib.AbstractContextManager[Any]:
    """The mark of the best is written, but pruning does not ask for it."""
    return mock.patch.object(store.Store, "_read_mark", return_value=None)


def _no_sweep() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(store.Store, "_sweep", _nothing)


@contextlib.contextmanager
def _no_random_state() -> Iterator[None]:
    from paligemma.training import random_state

    with mock.patch.object(random_state, "restore", return_value=[]):
        yield


def _silent_failure() -> contextlib.AbstractContextManager[Any]:
    """A failed save is not counted."""
    return mock.patch.object(store, "PATIENCE", 10**9)


def _quarantine_all() -> contextlib.AbstractContextManager[Any]:
    """Damaged checkpoints are moved although none is whole."""
    real = store.Store.newest

    def moving(self: store.Store) -> saved.Saved | None:
        try:
            return real(self)
        except CheckpointError:
            for step in self.steps():
                self._move_aside(self.run / manifest.folder_name(step))
            raise

    return mock.patch.object(store.Store, "newest", moving)


MUTANTS: dict[str, tuple[Mutation, str, int]] = {
    "weights are not synced": (_unsynced("model"), "C13", 0),
    "moments are not synced": (_unsynced("optimizer"), "C13", 0),
    "the state is not synced": (_unsynced("state"), "C13", 0),
    "the manifest is not synced": (_unsynced("manifest"), "C13", 0),
    "a checkpoint's names are not synced": (_unsynced("^.tmp-step-[0-9]*-[0-9a-f]*$"), "C13", 0),
    "a checkpoint's own name is not synced": (_unsynced("^run$"), "C13", 0),
    "the mark of the best is not synced": (_unsynced("best"), "C13", 0),
    "pruned before saving": (_prune_first, "C12", 20),
    "written in place": (_in_place, "C12", 20),
    "leftovers stay": (_no_sweep, "C12", 20),
    "random states are not restored": (_no_random_state, "C12", 5),
    "failures are not counted": (_silent_failure, "C14", 60),
    "contents are not compared": (_no_hash, "C15", 0),
    "strange files are not seen": (_no_listing, "C15", 0),
    "nothing is verified on resuming": (_no_fallback, "C15", 0),
    "all broken, yet moved": (_quarantine_all, "C15", 0),
    "non-finite numbers are saved": (_no_finite_check, "C16", 0),
    "no lock": (_no_lock, "C16", 0),
    "a second signal waits": (_no_second_signal, "C16", 0),
    "signals are not caught": (_no_handler, "C16", 0),
    "the best is pruned": (_pruned_best, "C12", 20),
}
"""What is taken out -> how, the campaign that must notice, and the cases that are tried (0: all) until one does."""


def main(trainer: str, folder: Path, seed: int) -> int:
    """Print each mutant's fate; 1 if one survived."""
    reference = Reference.of(trainer, folder / "reference")
    fates = {name: _fate(name, reference.moved(folder / str(number)), seed) for number, name in enumerate(MUTANTS)}
    for name, killer in fates.items():
        print(f"{name:<38}{MUTANTS[name][1]:>5}  {'SURVIVED' if killer is None else 'killed: ' + killer}")
    return int(None in fates.values())


def _fate(name: str, reference: Reference, seed: int) -> str | None:
    """In a process of its own, so that the guard is back afterwards. The first failure it led to, or None."""
    answer = reference.folder / "fate"
    pid = os.fork()
    if pid == 0:
        try:
            with open(os.devnull, "w") as quiet:
                os.dup2(quiet.fileno(), 2)
            answer.write_text(_first_failure(name, reference, seed))
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(pid, 0)
    return answer.read_text() or None if answer.exists() else None


def _first_failure(name: str, reference: Reference, seed: int) -> str:
    from .__main__ import CAMPAIGNS

    mutation, campaign, tried = MUTANTS[name]
    with mutation():
        # The states after a power cut are many and cheap: enough of them are looked at to meet each missing sync.
        points = CAMPAIGNS[campaign].points(reference, "ci" if campaign == "C13" else "push", random.Random(seed))
        for number, point in enumerate(points[: tried or None]):
            try:
                CAMPAIGNS[campaign].check(reference, point, random.Random(number))
            except AssertionError as error:
                return f"{point}: {(str(error).splitlines() or [''])[0][:100]}"
    return ""
