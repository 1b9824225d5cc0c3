"""What a run would take: updates and pictures by the recipe, memory by the plan, seconds only where they were measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..data.batch import Batches, RowReader
from ..errors import ResourceError
from ..training.fitting import Fit
from ..training.recipes import Recipe
from ..training.run import Run
from ..training.step import train_step

TIMED = 2
"""Updates that are timed, after one that is not: it also makes the optimizer's state."""


@dataclass(frozen=True)
class Memory:
    """Bytes by kind, of `micro` examples at a time; `beside`: of waiting pictures and software, where they take of the same memory;
    `free`: what there is, None where nobody can tell."""

    micro: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int
    total: int
    beside: int
    free: int | None
    described: str
    why: str

    @classmethod
    def of(cls, fit: Fit) -> Memory:
        plan = fit.plan
        parts = (plan.weights, plan.gradients, plan.optimizer, plan.activations, plan.workspace, plan.total)
        return cls(fit.micro, *parts, fit.beside, fit.free, "; ".join(str(plan).splitlines()[:2]), fit.why)


@dataclass(frozen=True)
class Timing:
    """`seconds` an update took, the mean of `updates` of them."""

    updates: int
    seconds: float
    device: str


@dataclass(frozen=True)
class Costs:
    """`seen`: examples of the whole run; `epochs`: times through the data. `memory` is None where a run would be `refused` for it; `hint`:
    what would fit."""

    strategy: str
    batch: int
    updates: int
    seen: int
    epochs: float
    memory: Memory | None = None
    refused: str = ""
    hint: str = ""
    timing: Timing | None = None

    @property
    def seconds(self) -> float | None:
        """Of all updates, where some were timed."""
        return None if self.timing is None else self.timing.seconds * self.updates


def costs(recipe: Recipe, examples: int, fitted: Fit | ResourceError, timing: Timing | None = None) -> Costs:
    """`examples`: places of an epoch. `fitted`: what `training.fitting.fit` gives or raises."""
    updates = recipe.total_steps(examples)
    seen = updates * recipe.batch
    refused = isinstance(fitted, ResourceError)
    return Costs(
        recipe.strategy,
        recipe.batch,
        updates,
        seen,
        seen / examples,
        None if refused else Memory.of(fitted),
        fitted.message if refused else "",
        (fitted.hint or "") if refused else "",
        timing,
    )


def measure(run: Run, reader: RowReader, tell: Callable[[int, int], None] = lambda done, total: None) -> Timing:
    """Do a few updates of a run, on its own data, and time them; nothing is written, and the run is of no use afterwards."""
    batches = Batches(run.mixture, reader, pad_id=run.parts.tokenizer.pad_id, seed=run.recipe.seed, threads=run.setup.threads)
    seconds: list[float] = []
    with contextlib.closing(batches.stream(0, run.recipe.batch, 1 + TIMED)) as coming:
        start = time.perf_counter()
        for step, batch in enumerate(coming):
            train_step(
                run.objective, run.optimizer, batch, step=step, micro=run.plan.micro, clip=run.plan.clip, device=run.device,
                precision=run.precision,
            )  # fmt: skip
            if run.device.type == "cuda":
                torch.cuda.synchronize(run.device)
            now = time.perf_counter()
            seconds.append(now - start)
            start = now
            tell(step + 1, 1 + TIMED)
    return Timing(TIMED, sum(seconds[1:]) / TIMED, str(run.device))
