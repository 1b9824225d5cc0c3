"""The smallest trainer that has everything a real one has to keep: weights of two number types, moments, an order of the data, chance.

It is also the shortest example of a loop on top of `paligemma.training.store`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paligemma.errors import PaliGemmaError
from paligemma.training import random_state
from paligemma.training.disk import Disk
from paligemma.training.facts import check_resume, machine_facts
from paligemma.training.saved import Saved
from paligemma.training.stopping import Stopping
from paligemma.training.store import Store

from .trial import Watch

STEPS = 15
SAVE_EVERY = 3
EXAMPLES = 10
SEED = 4
"""With it the best step is the second that is saved: the mark moves, and then outlives what is pruned."""


def train(run: Path, disk: Disk, watch: Watch, *, seed: int = SEED) -> int:
    """Begin or continue the run; its exit code."""
    facts = machine_facts() | {"base": "none", "data": f"{EXAMPLES} examples", "recipe.seed": str(seed)}
    del facts["version.code"]  # somebody may be at work on the code while campaigns run
    store = Store(run, facts=facts, disk=disk)
    try:
        with store.lock(), Stopping() as stopping:
            saved = store.newest()
            state = Training(seed)
            if saved is not None:
                check_resume(saved.facts, facts)
                state.take(saved)
                watch.resumed(saved.step)
            while state.step < STEPS:
                loss, batch = state.advance()
                watch.step(state.step, loss, batch, state.tensors)
                last = stopping.requested or state.step == STEPS
                if (last or state.step % SAVE_EVERY == 0) and store.save(state.step, state.tensors, state.rest(), required=last):
                    watch.saved(state.step)
                    if state.is_best() and store.mark_best(state.step):
                        watch.best(state.step)
                if stopping.requested:
                    return stopping.exit_code
        return 0
    except PaliGemmaError as error:
        print(f"error[{error.code}]: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        print(f"error[out_of_memory]: {error}", file=sys.stderr)
        return 5


def train_other(run: Path, disk: Disk, watch: Watch) -> int:
    """Another run of the same shape."""
    return train(run, disk, watch, seed=SEED + 1)


class Training:
    """Weights towards a noisy mean of examples that are drawn without replacement, epoch by epoch."""

    def __init__(self, seed: int):
        random_state.seed_all(seed)
        self.step = 0
        self.noise = torch.Generator().manual_seed(seed)
        self.order = np.random.default_rng(seed)
        self.left: list[int] = []
        self.losses: list[float] = []
        self.data = torch.randn(EXAMPLES, 6, generator=torch.Generator().manual_seed(seed))
        self.tensors: dict[str, dict[str, torch.Tensor]] = {
            "model": {"matrix": torch.zeros(4, 6), "bias": torch.ones(5, dtype=torch.bfloat16)},
            "optimizer": {
                "matrix.first": torch.zeros(4, 6),
                "bias.first": torch.zeros(5),
                "bias.count": torch.zeros((), dtype=torch.int64),
            },
        }

    def advance(self) -> tuple[float, list[int]]:
        """One optimizer step: its loss, and the examples it was made of."""
        if len(self.left) < 2:
            self.left = self.order.permutation(EXAMPLES).tolist()
        batch, self.left = self.left[:2], self.left[2:]
        model, moments = self.tensors["model"], self.tensors["optimizer"]
        wanted = self.data[batch].mean(0) + 0.1 * torch.randn(4, 6, generator=self.noise)
        gradient = model["matrix"] - wanted
        moments["matrix.first"].lerp_(gradient, 0.3)
        model["matrix"] -= 0.2 * moments["matrix.first"]
        moments["bias.first"].lerp_(torch.rand(5), 0.5)  # the global generator
        model["bias"] -= 0.1 * moments["bias.first"].to(torch.bfloat16)
        moments["bias.count"] += 1
        self.step += 1
        self.losses.append(float(gradient.square().mean()))
        return self.losses[-1], batch

    def is_best(self) -> bool:
        """Among the saved ones, so far."""
        return self.losses[-1] == min(self.losses[SAVE_EVERY - 1 :: SAVE_EVERY], default=0.0)

    def rest(self) -> dict[str, Any]:
        """All that is no tensor."""
        return {"left": self.left, "losses": self.losses, "random": random_state.capture(self._generators())}

    def take(self, saved: Saved) -> None:
        """Be what was saved."""
        self.step = saved.step
        self.left, self.losses = list(saved.state["left"]), list(saved.state["losses"])
        for file, tensors in self.tensors.items():
            found = saved.read(file)
            for name, tensor in tensors.items():
                tensor.copy_(found[name])
        random_state.restore(saved.state["random"], self._generators())

    def _generators(self) -> dict[str, random_state.Generator]:
        return {"noise": self.noise, "order": self.order}
