"""The run: steps, the log, looks at held-out data, checkpoints, and what to do when something goes wrong. No mathematics, no prompts.

A run is a function of its facts: killed anywhere and started again, it ends with the same weights, bit for bit (see `store.py` for what may
happen to its files, and `batch.py` for its data).
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.batch import Batches
from ..errors import TrainingError
from . import random_state
from .disk import Disk, demanded, replace_file
from .distributed import ALONE, Processes
from .optimizer import Optimizer
from .sharding import fill
from .step import Objective, Outcome, train_step
from .stopping import Stopping, exit_code
from .store import Saved, Store

IN_A_ROW = 3
"""Updates left out one after the other before the run goes back to its last checkpoint."""
WINDOW, IN_WINDOW = 1000, 10
"""The same for this many among the last so many steps."""
GRACE = 5.0
"""Seconds in which several processes take a second signal for the first: it may reach them both directly and through torchrun."""
LOG = "log.jsonl"
JUDGE = "loss"
"""The held-out measure that says which checkpoint is best: the lowest."""

Measures = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """How long, how large, how often. `batch` rows an update, `micro` of them at a time; 0 for never."""

    steps: int
    batch: int
    micro: int
    clip: float = 1.0
    save_every: int = 200
    evaluate_every: int = 200
    log_every: int = 10


@dataclass
class Position:
    """Where a run is. `step`: updates done or left out; `skipped`: places of the data that were passed over after going back."""

    step: int = 0
    skipped: int = 0
    left_out: list[int] = field(default_factory=list)
    """Steps whose update was not finite, of the last `WINDOW`."""
    went_back: int = 0
    best: float | None = None
    best_step: int | None = None
    seconds: float = 0.0

    def place(self, batch: int) -> int:
        """Of the data, where the next batch begins."""
        return self.step * batch + self.skipped


@dataclass(frozen=True)
class Ending:
    """`exit_code`: 0, or 130 or 143 where a signal ended the run early, with everything saved."""

    position: Position
    exit_code: int
    measures: Measures


class Loop:
    """One run in the folder of its store, whose lock the caller holds. `run` does what is left of it.

    `evaluate`: measures of held-out data, or none; the checkpoint with the lowest `JUDGE` is the best. `tell`: each log entry. Of several
    `processes` all run this loop, with the same decisions; `between` is called by all of them after a step.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        batches: Batches,
        store: Store,
        plan: Plan,
        *,
        device: torch.device,
        precision: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
        evaluate: Callable[[], Measures] | None = None,
        tell: Callable[[dict[str, Any]], None] = lambda entry: None,
        processes: Processes = ALONE,
        between: Callable[[], None] = lambda: None,
    ):
        self.processes, self.between = processes, between
        self.objective, self.optimizer, self.batches, self.store, self.plan = objective, optimizer, batches, store, plan
        self.device, self.precision, self.evaluate = device, precision, evaluate
        self.tell = tell
        self.position = Position()
        self.measures: Measures = {}
        self._began = time.monotonic()

    # A run

    def run(self, saved: Saved | None, *, allow_inexact: bool = False) -> Ending:
        """Go on from a checkpoint, or from the start. Raises `TrainingError` where the loss is no number again and again."""
        if saved is not None:
            self._restore(saved, allow_inexact)
        self._keep_log()
        self._began = time.monotonic() - self.position.seconds
        processes = self.processes
        with Stopping(quiet=not processes.first, grace=0.0 if processes.alone else GRACE) as stopping:
            while self.position.step < self.plan.steps:
                again = self._stretch(stopping)
                if asked := self._asked_to_stop(stopping):
                    self._save(required=True)
                    name = signal.Signals(asked).name
                    self.store.report.add("stopped", f"{name}: saved and ended", step=self.position.step)
                    return Ending(self.position, exit_code(asked), self.measures)
                if again:
                    self._go_back()
        return Ending(self.position, 0, self.measures)

    def _stretch(self, stopping: Stopping) -> bool:
        """Steps until the end, a signal, or trouble; True for trouble."""
        plan, position, processes = self.plan, self.position, self.processes
        left = plan.steps - position.step
        share = processes.share(plan.batch)
        start = position.place(plan.batch)
        with contextlib.closing(self.batches.stream(start, share, left, offset=share * processes.rank, stride=plan.batch)) as coming:
            for batch in coming:
                processes.draw_apart(self.batches.seed, position.step)
                outcome = train_step(
                    self.objective, self.optimizer, batch, step=position.step, micro=plan.micro, clip=plan.clip, device=self.device,
                    precision=self.precision, processes=processes,
                )  # fmt: skip
                position.step += 1
                position.seconds = time.monotonic() - self._began
                self.between()
                if not outcome.applied and self._left_out(outcome, batch.records):
                    return True
                self._after(outcome, batch.truncated)
                if self._asked_to_stop(stopping):
                    break
        return False

    def _asked_to_stop(self, stopping: Stopping) -> int:
        """The number of the signal that any of the processes got, 0 for none."""
        return int(self.processes.highest(stopping.signal or 0))

    def _after(self, outcome: Outcome, truncated: int) -> None:
        plan, step = self.plan, self.position.step
        last = step == plan.steps
        if last or step % plan.log_every == 0:
            cut = int(self.processes.total([truncated])[0])
            self._note({"loss": outcome.loss, "norm": outcome.norm, "right": outcome.right, "truncated": cut, **self._pace()})
        judged = self.evaluate is not None and (last or (plan.evaluate_every > 0 and step % plan.evaluate_every == 0))
        if judged:
            assert self.evaluate is not None
            found = self.evaluate()
            self._note({f"held_out_{name}": value for name, value in found.items()})
            self.measures = {name: value for name, value in found.items() if math.isfinite(value)}
            if lost := [name for name in found if name not in self.measures]:
                what = f"held-out {', '.join(lost)} at step {step} is no number, so this checkpoint cannot be the best"
                self.store.report.add("measures", what, step=step)
        before = self.position.best, self.position.best_step
        better = judged and self._is_better()
        if last or better or (plan.save_every > 0 and step % plan.save_every == 0):
            saved = self._save(required=last)
            if better and saved:
                self.store.mark_best(step)
            elif better:  # what is nowhere cannot be the best, nor keep a later one from it
                self.position.best, self.position.best_step = before

    def _is_better(self) -> bool:
        """Note it, so that the checkpoint which is saved next knows that it is the best."""
        value, position = self.measures.get(JUDGE), self.position
        if value is None or (position.best is not None and value >= position.best):
            return False
        position.best, position.best_step = value, position.step
        return True

    # Trouble

    def _left_out(self, outcome: Outcome, records: tuple[str, ...]) -> bool:
        """Note an update that was not made; True where there are too many of them."""
        position = self.position
        what = f"loss {outcome.loss}, norm of the gradient {outcome.norm}"
        seen = [record for part in self.processes.gather(records) for record in part]
        self.store.report.add("skipped_step", f"update {position.step} was left out: {what}", step=position.step, records=seen)
        position.left_out = [step for step in position.left_out if step > position.step - WINDOW] + [position.step]
        row = position.left_out[-IN_A_ROW:]
        return row == list(range(position.step - IN_A_ROW + 1, position.step + 1)) or len(position.left_out) > IN_WINDOW

    def _go_back(self) -> None:
        """To the last checkpoint, and past the data that led here, once."""
        position = self.position
        failed, next_place = position.step, position.place(self.plan.batch)
        hint = "lower the learning rate, or look at the records that run_report.json names; the last checkpoint is from before"
        if position.went_back:
            raise TrainingError(f"the loss is not finite again, at step {failed}, after the run went back once", hint=hint)
        saved = self.store.newest()
        if saved is None:
            raise TrainingError(f"the loss is not finite at step {failed}, before the first checkpoint", hint=hint)
        self._restore(saved, allow_inexact=False)
        self.position.skipped = next_place - self.position.step * self.plan.batch
        self.position.went_back = 1
        self.position.left_out = []
        self.store.report.add("rollback", f"from step {failed} back to step {saved.step}; its data are passed over", step=failed)
        self._keep_log()

    # State

    def _save(self, *, required: bool = False) -> Path | None:
        position = self.position
        files = {"model": trained_tensors(self.objective), "optimizer": self.optimizer.state_tensors()}
        state = {
            "position": vars(position) | {"left_out": list(position.left_out)},
            "quarantine": list(self.batches.quarantine),
            "random": random_state.capture(),
            "measures": self.measures,
        }
        return self.store.save(position.step, files, state, required=required)

    def _restore(self, saved: Saved, allow_inexact: bool) -> None:
        load_trained(self.objective, saved.read("model"))
        self.optimizer.load_state_tensors(saved.read("optimizer"))
        self.position = Position(**saved.state["position"])
        self.measures = dict(saved.state["measures"])
        self.batches.quarantine = dict.fromkeys(saved.state["quarantine"])
        random_state.restore(saved.state["random"], allow_inexact=allow_inexact)

    # The log

    def _pace(self) -> dict[str, float]:
        done = self.position.step
        seconds = self.position.seconds
        return {"seconds": round(seconds, 2), "examples_per_second": round(done * self.plan.batch / max(seconds, 1e-9), 3)}

    def _note(self, values: Mapping[str, float]) -> None:
        if not self.processes.first:
            return
        rates = self.optimizer.rates(self.position.step - 1)
        entry = {"step": self.position.step, "rate": max(rates.values(), default=0.0), **values}
        path = self.store.run / LOG
        with self.store.report.spared(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=True) + "\n")
        self.tell(entry)

    def _keep_log(self) -> None:
        """Only the entries up to here: later ones are made again."""
        if not self.processes.first:
            return
        path = self.store.run / LOG
        kept = [entry for entry in read_log(path) if entry["step"] <= self.position.step]
        with demanded(path):
            replace_file(Disk(), path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())


def read_log(path: Path) -> list[dict[str, Any]]:
    """Entries of a run's log. A last line that was cut off, and anything that is no entry, is left out."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                entries.append(entry)
    return entries


def trained_tensors(objective: Objective) -> dict[str, Tensor]:
    """What is trained, by its name in the model, shared out or whole. Not copies."""
    return {name: p.detach() for name, p in objective.model.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_trained(objective: Objective, tensors: Mapping[str, Tensor]) -> None:
    """The reverse, from whole tensors. Raises `TrainingError` where the names are not those of what is trained."""
    own = trained_tensors(objective)
    if different := sorted(own.keys() ^ tensors.keys()):
        raise TrainingError(f"the checkpoint holds other parameters than are trained now: {different[0]}", code="other_parameters")
    for name, tensor in own.items():
        fill(tensor, tensors[name])
