"""What a run must come to: the reference run, which nothing disturbed, and the demands on a run after anything did (invariants I1 to I7).

    I1  once a save returned, a whole checkpoint as new as it is there at every instant
    I2  a checkpoint is whole or none: what is whole holds, to the bit, what the reference run saved at that step
    I3  every step done again, and the end, is that of the reference run: loss, examples, weights
    I4  nothing that was saved is lost; a run that goes on begins at the newest checkpoint
    I5  what was passed over is in the report
    I6  what is not finite is not saved
    I7  nothing is deleted that is not superseded; the best stays

Expected values are lines of a file that only the parent writes, and only at its end, so no trainer under test can spoil them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paligemma.sealed import unseal
from paligemma.training.disk import TEMPORARY, Disk
from paligemma.training.manifest import DamagedError, folder_name, step_of, verified
from paligemma.training.saved import STATE, WEIGHTS, open_saved
from paligemma.training.store import BEST, QUARANTINE

from .trial import ALONE, Outcome, Plan, Running

CLOCK = ("seconds",)
"""Keys of a state, at any depth, for what a clock says, which no two runs share."""


@dataclass(frozen=True)
class Reference:
    """The trainer under test, and what it does when left alone."""

    trainer: str
    folder: Path
    """For trials; the reference run is in it too."""
    seconds: float
    calls: tuple[str, ...]
    """Every call to the file system, in order."""
    saves: tuple[tuple[int, int], ...]
    """(first, last) call of each save, counted from 1, tidying and marking included."""
    steps: int
    exports: int = 0
    """Files it opens or puts in place while it writes out its models, when it is done."""
    started: list[Running] = field(default_factory=list)

    @classmethod
    def of(cls, trainer: str, folder: Path, *, once: bool = False) -> Reference:
        """Do the reference run, twice: it must come to the same end both times, or nothing can be compared with it.

        `once`: do it once, and expect nothing of checkpoints that it pruned.
        """
        run = folder / "reference" / "run"
        run.parent.mkdir(parents=True)
        expected = Expected(folder / "expected.jsonl")
        done = Running(trainer, run, Plan(trace=True)).end()
        assert done.code == 0, f"the undisturbed run ended with {done.code}\n{done.stderr}"
        for step, loss, batch in done.of("step"):
            expected.add(["step", step, loss, batch])
        for step in whole_steps(run):
            expected.add(["checkpoint", step, content(run, step)])
        expected.add(["models", models(run)])
        saves, exports = tuple(_saves(done.notes)), len(done.of("exports"))
        reference = cls(trainer, folder, done.seconds, tuple(done.calls), saves, done.last("step"), exports)
        if once:
            return reference
        with reference.trial() as again:
            second = Running(trainer, again).end()
            assert second.code == 0, second.stderr
            # Checkpoints that the first run pruned are learnt from here on: (I2) is then about all of them.
            reference.compare(again, second)
        with reference.trial() as pieces:
            for step in [note[0] for note in done.of("saved")][:-1]:
                Running(trainer, pieces, Plan(incident="kill", at_step=step + 1)).end()
                expected.add(["checkpoint", step, content(pieces, step)])
        return reference

    def moved(self, folder: Path) -> Reference:
        """The same, with trials in another folder."""
        shutil.copytree(self.folder / "reference", folder / "reference")
        shutil.copy(self.folder / "expected.jsonl", folder)
        return replace(self, folder=folder, started=[])

    @contextmanager
    def trial(self) -> Iterator[Path]:
        """A run folder that is not there yet, in a folder of its own, which goes when the block is left."""
        number = len(list(self.folder.glob("trial-*")))
        place = self.folder / f"trial-{number}"
        while place.exists():
            number += 1
            place = self.folder / f"trial-{number}"
        place.mkdir()
        try:
            yield place / "run"
        finally:
            for running in self.started:  # where a demand was not met in the middle of a trial
                if not running.ended:
                    running.signal(signal.SIGKILL)
                    running.end()
            self.started.clear()
            shutil.rmtree(place)

    def start(self, run: Path, plan: Plan = ALONE, *, fresh: bool = False) -> Running:
        self.started.append(Running(self.trainer, run, plan, fresh=fresh))
        return self.started[-1]

    def expected(self) -> list[list[Any]]:
        return Expected(self.folder / "expected.jsonl").lines()

    # The demands

    def compare(self, run: Path, *outcomes: Outcome) -> None:
        """I3: every step told, and every whole checkpoint of the run (I2)."""
        told = {line[1]: line[2:] for line in self.expected() if line[0] == "step"}
        for outcome in outcomes:
            for step, loss, batch in outcome.of("step"):
                assert [loss, batch] == told[step], f"I3: step {step} gave {loss} of {batch}, the reference {told[step]}"
        kept = {line[1]: line[2] for line in self.expected() if line[0] == "checkpoint"}
        for step in whole_steps(run):
            if step in kept:
                assert content(run, step) == kept[step], f"I2: the checkpoint of step {step} is whole and not the reference's"

    def survived(self, run: Path, *outcomes: Outcome) -> list[int]:
        """I1, I2, I4 in a run that was cut off, as it lies there: the whole checkpoints' steps."""
        whole = whole_steps(run)
        saved = max((outcome.last("saved") for outcome in outcomes), default=0)
        assert max(whole, default=0) >= saved, f"I1: step {saved} was saved, whole are {whole}"
        demand_best(run, max((outcome.last("best") for outcome in outcomes), default=0), whole)
        self.compare(run, *outcomes)
        return whole

    def finish(self, run: Path, *before: Outcome, fresh: bool = False, code: int = 0) -> Outcome:
        """Continue the run to its end and demand all invariants."""
        newest = max(whole_steps(run), default=0) if run.exists() else 0
        done = self.start(run, fresh=fresh).end()
        assert done.code == code, f"the continued run ended with {done.code}, expected {code}\n{done.stderr}"
        began = done.last("resumed")
        assert began == newest, f"I4: step {newest} was whole, the run went on from {began}"
        first = min((note[0] for note in done.of("step")), default=self.steps + 1)
        assert first == began + 1, f"I4: after step {began} came step {first}"
        self.finished(run, *before, done)
        return done

    def finished(self, run: Path, *outcomes: Outcome) -> None:
        """I3 in a run that is done, and nothing left lying about."""
        whole = self.survived(run, *outcomes)
        assert max(whole) == self.steps, f"I3: the run is done, its last checkpoint is {max(whole)}"
        wanted = next(line[1] for line in self.expected() if line[0] == "models")
        assert models(run) == wanted, f"I3: the run left the models {models(run)}, the reference {wanted}"
        left = [path.name for path in run.iterdir() if path.name.startswith(TEMPORARY)]
        assert not left, f"left lying about: {left}"

    def unharmed(self, run: Path) -> None:
        """A fault that damages nothing must not be taken for damage."""
        assert not (run / QUARANTINE).exists(), f"moved to quarantine: {[p.name for p in (run / QUARANTINE).iterdir()]}"
        whole, there = whole_steps(run), [step for path in run.iterdir() if (step := step_of(path.name)) is not None]
        assert sorted(there) == whole, f"I2: named like checkpoints are {sorted(there)}, whole are {whole}"


class Expected:
    """Lines of JSON, only ever added to, each on the disk before anything is compared with it."""

    def __init__(self, path: Path):
        self._path = path

    def add(self, line: list[Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def lines(self) -> list[list[Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()]


def whole_steps(run: Path) -> list[int]:
    """Of the checkpoints that verify, oldest first."""
    found = []
    for step in sorted(step for path in run.glob("step-*") if (step := step_of(path.name)) is not None):
        try:
            verified(run / folder_name(step), Disk())
            found.append(step)
        except DamagedError:
            continue
    return found


def demand_best(run: Path, best: int, whole: list[int]) -> None:
    """I7: `best` was marked (0: none was); it or a later one still is, and is whole."""
    if best:
        try:
            marked = unseal((run / BEST).read_bytes())["step"] if (run / BEST).exists() else 0
        except ValueError as error:
            raise AssertionError(f"I7: step {best} was marked as best, the mark is damaged: {error}") from error
        assert marked >= best, f"I7: step {best} was marked as best, the mark is {marked or 'gone'}"
        assert marked in whole, f"I7: the best, step {marked}, is not whole"


def content(run: Path, step: int) -> dict[str, Any]:
    """What a checkpoint holds: hashes of its tensors, and its state."""
    folder = run / folder_name(step)
    files = {name: one.sha256 for name, one in verified(folder, Disk()).files.items() if name.endswith(WEIGHTS)}
    return files | {STATE: _without_clock(open_saved(folder).state)}


def models(run: Path) -> dict[str, dict[str, str]]:
    """What a finished run leaves for use: the files in `last` and `best`, with hashes of all but the cards, which tell what happened."""
    return {
        folder.name: {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() if path.name != "README.md" else ""
            for path in sorted(folder.iterdir())
        }
        for folder in (run / "best", run / "last")
        if folder.exists()
    }


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clock(item) for key, item in value.items() if key not in CLOCK}
    return [_without_clock(item) for item in value] if isinstance(value, list) else value


def events(run: Path) -> list[dict[str, Any]]:
    path = run / "run_report.json"
    return json.loads(path.read_text())["events"] if path.exists() else []


def _saves(notes: list[list[Any]]) -> Iterator[tuple[int, int]]:
    """The calls between a step and the next one, where a save was among them."""
    number, first, saved = 0, 0, False
    for note in [*notes, ["step"]]:
        if note[0] == "call":
            number += 1
            first = first or number
        elif note[0] == "saved":
            saved = True
        elif note[0] in ("step", "resumed"):
            if saved:
                yield first, number
            first, saved = 0, False
