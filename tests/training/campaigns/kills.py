"""C12: kill -9 before every call to the file system, in the middle of every write, at random times, during a resume, and again."""

from __future__ import annotations

import random

from .reference import Reference
from .trial import Plan

NAME = "C12"
TITLE = "kill -9"
SIZES = {"push": 40, "ci": 410, "release": 5000}
"""At least; every call of a save is tried even in the smallest."""
RANDOM_TIMES, IN_RESUME, FRESH = 300, 30, 10
"""Of the size "ci"; the enumerated points come on top."""

Point = tuple


def points(reference: Reference, tier: str, rng: random.Random) -> list[Point]:
    """("call", n), ("write", n), ("time", share of the run), ("resume", step, n, m), ("model", n): all calls first."""
    calls = [("call", number) for number in range(1, len(reference.calls) + 1)]
    writes = [("write", number) for number, name in enumerate(reference.calls, 1) if name == "write"]
    wanted = SIZES[tier]
    if tier == "push":
        first, last = reference.saves[-2]  # the last one that training follows; it prunes
        of_a_save = [*calls[first - 1 : last], *rng.sample(writes, 8)]
        return [*of_a_save, *_times(wanted // 2, rng), *_resumes(reference, 8, rng), *_models(reference, 4, rng), ("first",)]
    at_random = RANDOM_TIMES if tier == "ci" else max(RANDOM_TIMES, wanted - len(calls) - len(writes) - 10 * IN_RESUME)
    in_resume = IN_RESUME if tier == "ci" else 10 * IN_RESUME
    fresh = [("fresh", rng.random()) for _ in range(FRESH)]
    models = _models(reference, in_resume, rng)
    return [*calls, *writes, *_times(at_random, rng), *_resumes(reference, in_resume, rng), *models, *fresh, ("first",)]


def _times(count: int, rng: random.Random) -> list[Point]:
    return [("time", rng.random()) for _ in range(count)]


def _resumes(reference: Reference, count: int, rng: random.Random) -> list[Point]:
    """Killed in a step, then at a call of the resume, then at one of the next resume."""
    in_resume = 40
    return [("resume", rng.randint(1, reference.steps), rng.randint(1, in_resume), rng.randint(1, in_resume)) for _ in range(count)]


def _models(reference: Reference, count: int, rng: random.Random) -> list[Point]:
    """Killed while the finished models are written out, by a trainer that writes them."""
    return [("model", rng.randint(1, reference.exports)) for _ in range(count)] if reference.exports else []


def check(reference: Reference, point: Point, rng: random.Random) -> None:
    kind, *where = point
    with reference.trial() as run:
        fresh = kind == "fresh"
        if kind in ("call", "write"):
            killed = [reference.start(run, Plan("kill" if kind == "call" else "tear", where[0])).end()]
        elif kind in ("time", "fresh"):
            # A fresh interpreter has torch to import before it begins: the clock starts when it says something.
            running = reference.start(run, fresh=fresh)
            if fresh:
                running.until("step", 1 + int(where[0] * reference.steps))
                killed = [running.end(kill_after=0.0)]
            else:
                killed = [running.end(kill_after=where[0] * reference.seconds)]
        elif kind == "model":
            killed = [reference.start(run, Plan(at_export=where[0])).end()]
        elif kind == "first":
            killed = [reference.start(run, Plan("kill", reference.saves[0][0] - 1)).end()]
            assert not killed[0].of("saved")
        else:
            killed = [reference.start(run, Plan(incident="kill", at_step=where[0])).end()]
            for call in where[1:]:
                reference.survived(run, *killed)
                killed.append(reference.start(run, Plan("kill", call)).end())
        if kind in ("call", "write", "first", "resume", "model"):
            assert all(outcome.code == -9 for outcome in killed), f"not killed: {[outcome.code for outcome in killed]}\n{killed[-1].stderr}"
        if run.exists():
            reference.survived(run, *killed)
        reference.finish(run, *killed, fresh=fresh)
        reference.unharmed(run)
