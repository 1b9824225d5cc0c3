"""Checkpoints of a run: saved whole or not at all, verified, found again after whatever happened.

    run/  step-00000200/  step-00000400/     what `manifest.py` describes; nothing else counts
          best.json                          which of them is best: never pruned
          LATEST                             a hint for people; a newer name in it than is there shows that something was lost
          quarantine/                        what was found damaged: moved there, never deleted
          run_report.json  lock

A save writes a folder under another name, brings it to the disk, gives it its name, reads it back from the disk, and only then prunes: at
every instant the last complete checkpoint is there. It costs one pass over the tensors, hashing beside the disk's work, one write and one
read of all bytes. State is safetensors and JSON: nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.memory import GB
from ..errors import CheckpointError, ResourceError, UsageError
from ..sealed import seal, unseal
from .disk import DAMAGE, TEMPORARY, Disk, lacking, make_folders, move_into, read_file, remove_tree, replace_file, write_file
from .facts import package_version
from .lock import locked
from .manifest import MANIFEST, DamagedError, Manifest, folder_name, step_of, verified
from .run_report import Report
from .saved import STATE, WEIGHTS, Saved, open_saved, state_text
from .tensor_file import Saveable, nbytes, pieces

BEST = "best.json"
LATEST = "LATEST"
QUARANTINE = "quarantine"
ROOM = 1.2
"""Free space a save asks for before it begins, as a multiple of what it writes."""
PATIENCE = 3
"""Saves that fail in a row before the run ends."""
_STEM = re.compile(r"[a-z0-9_]+", re.ASCII)


class Store:
    """The checkpoints in folder `run`, of a run that is made of `facts` (see `facts.py`); the `keep` newest stay, at least two.

        store = Store(run, facts=facts)
        with store.lock():
            saved = store.newest()
            ...
            store.save(step, {"model": weights, "optimizer": moments}, {"data": position})

    Steps are optimizer steps that were done; a state within one (half an accumulation) has no place here. Everything but `steps` needs the
    lock.
    """

    def __init__(self, run: str | Path, *, facts: Mapping[str, str], keep: int = 2, disk: Disk | None = None, report: Report | None = None):
        if keep < 2:
            raise UsageError(f"{keep} checkpoints to keep, at least 2 are needed: one of them may be damaged")
        if strange := [name for name, fact in facts.items() if not isinstance(fact, str)]:
            raise TypeError(f"the fact {strange[0]} is no text")
        self.run = Path(run).expanduser().resolve()
        self.facts = dict(facts)
        self.keep = keep
        self._disk = disk or Disk()
        self.report = report or Report(self.run, disk=self._disk)
        self._locked = False
        self._looked = False
        self._failures = 0
        self._best: int | None = None
        """What was to be marked as best."""
        self._marked: int | None = None
        """What was marked by this process: the same, unless the mark could not be written yet."""
        self._mark_lost = False

    # Beginning

    @contextlib.contextmanager
    def lock(self) -> Iterator[Store]:
        """Own the run folder, made if need be, for the block; leftovers of what was cut off are removed.

        Raises `UsageError` (exit code 2) at once, naming the process, while another trainer owns it, or where it is no folder;
        `ResourceError` (5) where nothing can be written to it.
        """
        with contextlib.ExitStack() as stack:
            with self._explained():
                make_folders(self._disk, self.run)
                died = stack.enter_context(locked(self.run, self._disk))
                self._locked, self._looked = True, False
                stack.callback(setattr, self, "_locked", False)
                self._begin(died)
            yield self

    def need_space(self, size: int) -> None:
        """Raise `ResourceError` unless a checkpoint of `size` bytes has room: to be asked before anything is computed."""
        with self._explained():
            free = self._disk.free(self.run)
        if size * ROOM > free:
            raise ResourceError(
                f"{self.run}: a checkpoint takes {size / GB:.2f} GB, {ROOM:g} times that is asked for, {free / GB:.2f} GB are free",
                hint="free some space or choose another folder",
                code="disk_full",
            )

    def steps(self) -> list[int]:
        """Of all that is named like a checkpoint, whole or not, oldest first."""
        return sorted(step for name in self._disk.names(self.run) if (step := step_of(name)) is not None)

    # Reading

    def newest(self) -> Saved | None:
        """The newest checkpoint that is whole, None where there is none at all.

        Damaged newer ones are moved to `quarantine/` and reported. Where all are damaged nothing is moved and `CheckpointError` lists them.
        Reads all bytes of the checkpoint it returns. Raises `ResourceError` where the machine does not let it look.
        """
        self._need_lock()
        found: Saved | None = None
        damaged: list[tuple[Path, DamagedError]] = []
        with self._explained():
            for step in reversed(self.steps()):
                folder = self.run / folder_name(step)
                try:
                    found = open_saved(folder, self._disk)
                    break
                except DamagedError as error:
                    damaged.append((folder, error))
            if damaged and found is None:
                lines = "\n".join(f"  {error.message}" for _, error in damaged)
                hint = "nothing was moved or deleted; a run in another folder begins anew"
                raise CheckpointError(f"{self.run}: no checkpoint is whole:\n{lines}", hint=hint, code="all_damaged")
            for folder, error in damaged:
                self._set_aside(folder, "damaged", error.message)
            self._tell_loss(found, [folder.name for folder, _ in damaged])
        self._looked = True
        return found

    def best(self) -> Saved | None:
        """The checkpoint that was marked; None where none was, or where it is not whole any more, which is reported."""
        self._need_lock()
        with self._explained():
            try:
                step = self._best if self._best is not None else self._read_mark()
                return None if step is None else open_saved(self.run / folder_name(step), self._disk)
            except (DamagedError, ValueError) as error:
                self.report.add("best", f"the best checkpoint cannot be used: {error}")
                return None

    # Writing

    def save(
        self, step: int, files: Mapping[str, Mapping[str, Saveable]], state: Mapping[str, Any], *, required: bool = False
    ) -> Path | None:
        """Keep the state after `step` optimizer steps; returns its folder, which is then on the disk and verified.

        `files`: "model" -> tensors by name becomes `model.safetensors`; `state`: JSON. A step that is there and whole is not written again.
        What the file system refuses leaves the older checkpoints as they are, is reported, and gives None: training may go on. The third
        failure in a row raises `ResourceError`; with `required` (the last save of a run) the first does.
        Raises `NotFiniteError` naming the tensor, with nothing committed, when a value is NaN or infinite, and `UsageError` in a folder
        with checkpoints that `newest` was not asked for.
        """
        self._need_lock()
        if strange := [name for name in files if not _STEM.fullmatch(name)]:
            raise ValueError(f"{strange[0]!a} is no name of a file of tensors")
        text = state_text(state)
        try:
            self._demand_known()
            folder = self._commit(step, files, text)
        except (OSError, ResourceError, DamagedError) as error:
            self._failures += 1
            failed = lacking(self.run, error) if isinstance(error, OSError) else ResourceError(error.message, code=error.code)
            self.report.add("save_failed", f"step {step} was not saved: {failed.message}", step=step, in_a_row=self._failures)
            if required or self._failures >= PATIENCE:
                raise failed from error
            return None
        self._failures = 0
        self._tidy(step)
        return folder

    def mark_best(self, step: int) -> bool:
        """From now on the checkpoint of `step` is the one that is never pruned. Raises `CheckpointError` if it is not there.

        False where the mark could not be written, which is reported: this process keeps to it, and the next save tries again.
        """
        self._need_lock()
        with self._explained():
            if step not in self.steps():
                raise CheckpointError(f"{self.run}: step {step} was not saved and cannot be the best", code="not_saved")
        self._best = step
        try:
            self._write_mark()
        except OSError as error:
            self.report.add("best", f"step {step} could not be marked yet: {error.strerror or error}", step=step)
            return False
        return True

    # How it is done

    def _commit(self, step: int, files: Mapping[str, Mapping[str, Saveable]], state: bytes) -> Path:
        folder = self.run / folder_name(step)
        if step in self.steps():
            try:
                verified(folder, self._disk)
                return folder
            except DamagedError as error:
                self._set_aside(folder, "damaged", error.message)
        self._sweep()
        self.need_space(sum(map(nbytes, files.values())) + len(state))
        temporary = self._temporary(folder.name)
        try:
            self._disk.make_folder(temporary)
            contents = {
                f"{name}{WEIGHTS}": write_file(self._disk, temporary / f"{name}{WEIGHTS}", pieces(tensors, name))
                for name, tensors in files.items()
            }
            contents[STATE] = write_file(self._disk, temporary / STATE, [state])
            manifest = Manifest(step, self.facts, contents, package_version())
            write_file(self._disk, temporary / MANIFEST, [manifest.to_bytes()])
            self._disk.sync_folder(temporary)
            self._disk.rename(temporary, folder)
        except BaseException:
            with contextlib.suppress(OSError):
                remove_tree(self._disk, temporary)
            raise
        self._disk.sync_folder(self.run)
        try:
            verified(folder, self._disk, forget=True)
        except DamagedError as error:
            self._set_aside(folder, "damaged", f"{error.message}, just after it was written")
            raise
        return folder

    def _tidy(self, step: int) -> None:
        """What may fail after a save without harm: the next save does it again."""
        for job in (lambda: self._hint(step), self._write_mark, lambda: self._prune(step)):
            self._tidied(step, job)

    def _tidied(self, step: int, job: Callable[[], None]) -> None:
        try:
            job()
        except OSError as error:
            self.report.add("tidying", f"at step {step}: {error.strerror or error}", step=step)

    def _prune(self, step: int) -> None:
        """Remove all but the newest, the best, and `step`, which was just verified."""
        kept = {step, self._best}
        try:
            kept.add(self._read_mark())
        except ValueError as error:
            if self._best is None:
                if not self._mark_lost:
                    self.report.add("best", f"{BEST} is damaged ({error}): nothing is pruned until a checkpoint is marked again", step=step)
                self._mark_lost = True
                return
        steps = self.steps()
        kept.update(steps[-self.keep :])
        doomed = {self.run / folder_name(old): self._temporary(folder_name(old)) for old in steps if old not in kept}
        for folder, temporary in doomed.items():
            self._disk.rename(folder, temporary)
        if doomed:
            self._disk.sync_folder(self.run)  # else a power cut could leave the name and take the files
        for temporary in doomed.values():
            remove_tree(self._disk, temporary)

    def _begin(self, died: str | None) -> None:
        probe = self._temporary("probe")
        write_file(self._disk, probe, [b"?"])
        self._disk.unlink(probe)
        self.report.open(self._move_aside)
        if died is not None:
            self.report.add("lock", f"{died} trained this run and ended without letting go of it")
        self._sweep()

    def _sweep(self) -> None:
        """Remove what was not finished, or not quite removed: the lock says that nobody is at work on it."""
        for name in self._disk.names(self.run):
            if name.startswith(TEMPORARY):
                try:
                    remove_tree(self._disk, self.run / name)
                except OSError as error:
                    self.report.add("tidying", f"{name} cannot be removed: {error.strerror or error}")

    def _tell_loss(self, found: Saved | None, damaged: list[str]) -> None:
        """Report when the checkpoint that is used is not the newest there was."""
        lost = ", ".join(damaged) + (" damaged" if damaged else "")
        hinted = self._hinted()
        if not damaged and hinted is not None and (found is None or found.step < hinted):
            lost = f"{folder_name(hinted)}, which {LATEST} names, not there"
        if lost:
            self.report.add("fallback", f"{lost}: " + (f"continuing from step {found.step}" if found else "beginning anew"))
        if lost and found:
            self._tidied(found.step, lambda: self._hint(found.step))  # it was told: the next look does not tell it again

    def _hint(self, step: int) -> None:
        replace_file(self._disk, self.run / LATEST, f"{folder_name(step)}\n".encode())

    def _hinted(self) -> int | None:
        """The step in LATEST, where it holds one. Nothing is opened by that name."""
        try:
            return step_of(read_file(self._disk, self.run / LATEST, 64).decode("ascii").strip())
        except (OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and error.errno not in DAMAGE:
                raise
            return None

    def _read_mark(self) -> int | None:
        """The step in `best.json`, None where there is no such file. Raises `ValueError` for a damaged one."""
        try:
            step = unseal(read_file(self._disk, self.run / BEST, 4096)).get("step")
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            raise ValueError(error.strerror) from error
        if not isinstance(step, int):
            raise ValueError("it names no step")
        return step

    def _write_mark(self) -> None:
        if self._best != self._marked:
            replace_file(self._disk, self.run / BEST, seal({"format": 1, "step": self._best}))
            self._marked = self._best

    def _set_aside(self, path: Path, kind: str, why: str) -> None:
        target = self._move_aside(path)
        self.report.add(kind, f"{why}; moved to {target.relative_to(self.run)}", step=step_of(path.name))

    def _move_aside(self, path: Path) -> Path:
        return move_into(self._disk, path, self.run / QUARANTINE)

    def _temporary(self, name: str) -> Path:
        return self.run / f"{TEMPORARY}{name}-{uuid.uuid4().hex}"

    def _demand_known(self) -> None:
        if not self._looked and self.steps():
            raise UsageError(
                f"{self.run} holds the checkpoints of a run", hint="continue it, or choose another folder", code="run_not_empty"
            )
        self._looked = True

    def _need_lock(self) -> None:
        assert self._locked, "only within `with store.lock():`"

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise lacking(self.run, error) from error
