"""A run that goes through the phases of a recipe, step by step: rates, finite losses, a log, and a state from which it goes on.

What is trained, and on what, its subclasses say: `train.Trainer`, `search_train.SearchTrainer`.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, PaliGemmaError

SAVE_EVERY = 200
"""Steps between saved states."""
LOG_EVERY = 20
LOG = "log.jsonl"
MAX_GRADIENT = 1.0


class Paced(Protocol):
    """A stretch of a run as `schedule` sees it: see `Phase`."""

    @property
    def steps(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def decay_from(self) -> float: ...


def schedule(step: int, phase: Paced, warmup: int) -> float:
    """Factor on the learning rates at a step of a phase: warm-up, constant, cosine to zero."""
    if step < warmup:
        return phase.rate * (step + 1) / warmup
    progress = step / phase.steps
    if progress < phase.decay_from:
        return phase.rate
    return phase.rate * (0.5 + 0.5 * math.cos(math.pi * (progress - phase.decay_from) / (1 - phase.decay_from)))


PHASE = TypeVar("PHASE", bound=Paced)
PHASE_OUT = TypeVar("PHASE_OUT", bound=Paced, covariant=True)
BATCH = TypeVar("BATCH")


class Phased(Protocol[PHASE_OUT]):
    """A recipe as `PhasedRun` sees it."""

    @property
    def phases(self) -> Sequence[PHASE_OUT]: ...
    @property
    def warmup(self) -> int: ...
    @property
    def muon_lr(self) -> float: ...
    @property
    def adam_lr(self) -> float: ...


class PhasedRun(ABC, Generic[PHASE, BATCH]):
    """Optimizers (Muon's, AdamW's) and position of one run. `clock`: what its seconds are of."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, recipe: Phased[PHASE], run: Path, optimizers: list[torch.optim.Optimizer], log: Callable[[str], None]):
        self._recipe, self.run, self.optimizers, self.log = recipe, run, optimizers, log
        self.phase = self.step = 0
        self.started = self.clock()
        self.elapsed_before = 0.0

    @abstractmethod
    def modules(self) -> nn.Module:
        """All whose weights are part of the state."""

    @abstractmethod
    def batches(self, index: int, phase: PHASE, start: int) -> AbstractContextManager[Iterator[BATCH]]:
        """What is left, from batch `start`, of the phase's own stream."""

    @abstractmethod
    def loss(self, batch: BATCH, phase: PHASE, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch, and what to log. `progress`: the share of the phase that is done."""

    def enter(self, phase: PHASE) -> None:
        """Before the first step of a phase, or the first after a stop."""

    def phases(self) -> None:
        """All that is left of them, in turn."""
        while True:
            phase = self._recipe.phases[self.phase]
            self.enter(phase)
            with self.batches(self.phase, phase, self.step) as batches:
                for batch in batches:
                    self._set_rates(schedule(self.step, phase, self._recipe.warmup))
                    loss, record = self.loss(batch, phase, self.step / phase.steps)
                    self._update(loss)
                    self.step += 1
                    self._after(phase, record)
            if self.phase + 1 == len(self._recipe.phases):
                return
            self.phase, self.step = self.phase + 1, 0

    def _update(self, loss: Tensor) -> None:
        self._demand_finite(loss, "loss")
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        everything = [p for o in self.optimizers for g in o.param_groups for p in g["params"]]
        self._demand_finite(torch.nn.utils.clip_grad_norm_(everything, MAX_GRADIENT), "gradient")
        for optimizer in self.optimizers:
            optimizer.step()

    def _demand_finite(self, value: Tensor, name: str) -> None:
        """Before a step that cannot be taken back."""
        if not torch.isfinite(value):
            raise PaliGemmaError(
                f"the {name} is {value.item()} after {self.step} steps of phase {self.phase}",
                hint="lower the learning rates of the recipe; the last saved state is from before",
                code="loss_not_finite",
            )

    def _set_rates(self, factor: float) -> None:
        for optimizer, rate in zip(self.optimizers, (self._recipe.muon_lr, self._recipe.adam_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor

    def _after(self, phase: PHASE, record: dict[str, float]) -> None:
        last = self.step == phase.steps
        if self.step % LOG_EVERY == 0 or last:
            seconds = self.elapsed_before + self.clock() - self.started
            entry = {"phase": self.phase, "step": self.step, "seconds": round(seconds, 1)} | {k: round(v, 4) for k, v in record.items()}
            with (self.run / LOG).open("a") as file:
                file.write(json.dumps(entry) + "\n")
            self.log(" ".join(f"{k}={v}" for k, v in entry.items()))
        if self.step % SAVE_EVERY == 0 or last:
            self.save()

    def save(self) -> None:
        """Write the whole state, then put it in place of the old one."""
        state = {
            "modules": self.modules().state_dict(), "optimizers": [o.state_dict() for o in self.optimizers],
            "phase": self.phase, "step": self.step, "seconds": self.elapsed_before + self.clock() - self.started,
        }  # fmt: skip
        temporary = self.run / "state.pt.tmp"
        torch.save(state, temporary)
        temporary.replace(self.run / "state.pt")

    def resume(self) -> None:
        """Continue from the latest state, if there is one. Raises `CheckpointError` if it cannot be read or is of another model."""
        path = self.run / "state.pt"
        if not path.exists():
            forget_later(self.run / LOG, self.phase, self.step)
            return
        try:
            state = torch.load(path, weights_only=True)
            self.modules().load_state_dict(state["modules"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.phase, self.step, self.elapsed_before = state["phase"], state["step"], state["seconds"]
        except Exception as error:  # a damaged file can raise anything on its way through the unpickler
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise CheckpointError(f"{path} is no state of this run: {reason}", hint="delete it to start again", code="bad_state") from error
        forget_later(self.run / LOG, self.phase, self.step)
        self.log(f"continuing after {self.step} steps of phase {self.phase}")


def write_whole(path: Path, content: bytes) -> None:
    """A file that is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def forget_later(path: Path, phase: int, step: int) -> None:
    """Take lines of steps after the state, which are done again, out of a log. Raises `CheckpointError` for what is no log."""
    if path.exists():
        try:
            entries = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            kept = [entry for entry in entries if (entry["phase"], entry["step"]) <= (phase, step)]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is no log of this run", hint="move it away: only the curve is lost", code="bad_state") from error
        write_whole(path, "".join(f"{json.dumps(entry)}\n" for entry in kept).encode())
