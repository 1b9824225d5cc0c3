"""C20: bit for bit in every arithmetic: number type, what learns, parts of a batch, threads. A run is killed at some step and resumed."""

from __future__ import annotations

import itertools
import random

from .real import EVERY, RECIPE, STEPS
from .reference import Reference
from .trial import Plan

NAME = "C20"
TITLE = "every arithmetic"
TRAINER = "tests.training.campaigns.real:train"
"""Only the real one has all of these."""
VARIANTS = tuple(itertools.product(("float32", "bfloat16"), ("full", "lora"), (1, 3), (1, 2)))
"""(number type, strategy, parts that a batch goes through in, threads)."""
HALF = (("float32", "full", 1, 1), ("bfloat16", "full", 3, 2), ("float32", "lora", 3, 2), ("bfloat16", "lora", 1, 1))
"""Each value twice."""
ROUNDS = {"ci": 1, "release": 4}

Point = tuple


def points(reference: Reference, tier: str, rng: random.Random) -> list[Point]:
    """(a variant, the step at whose end it is killed)."""
    chosen = HALF if tier == "push" else VARIANTS * ROUNDS[tier]
    return [(*variant, rng.randint(EVERY + 1, STEPS - 1)) for variant in chosen]


def check(reference: Reference, point: Point, rng: random.Random) -> None:
    dtype, strategy, parts, threads, step = point
    words = f"--dtype {dtype} --strategy {strategy} --micro {RECIPE.batch // parts} threads={threads}"
    with reference.trial() as place:
        variant = Reference.of(f"{reference.trainer} {words}", place, once=True)
        with variant.trial() as run:
            killed = variant.start(run, Plan(incident="kill", at_step=step)).end()
            assert killed.code == -9, f"not killed: {killed.code}\n{killed.stderr}"
            assert variant.survived(run, killed), "nothing was saved before it was killed"
            variant.finish(run, killed)
