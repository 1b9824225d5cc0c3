"""C16: numbers that are none, memory that runs out, signals, and a second trainer on the same run."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from .reference import Reference
from .trial import Outcome, Plan

NAME = "C16"
TITLE = "NaN, memory, signals, locks"
SIZES = {"push": 8, "ci": 80, "release": 800}
SHARES = {"poison": 30, "memory": 20, "signal": 15, "two signals": 5, "lock": 5, "dead lock": 5}

Point = tuple


def points(reference: Reference, tier: str, rng: random.Random) -> list[Point]:
    """(kind, seed), each kind at least once, else by `SHARES`."""
    kinds = [*SHARES, *rng.choices(list(SHARES), weights=list(SHARES.values()), k=SIZES[tier])]
    return [(kind, rng.randrange(1 << 30)) for kind in kinds[: SIZES[tier]]]


def check(reference: Reference, point: Point, rng: random.Random) -> None:
    kind, seed = point
    rng = random.Random(seed)
    with reference.trial() as run:
        outcomes = _DO[kind](reference, run, rng)
        reference.survived(run, *outcomes)
        reference.finish(run, *outcomes)
        reference.unharmed(run)


def _poison(reference: Reference, run: Path, rng: random.Random) -> list[Outcome]:
    """In a weight or a moment, at a step that is saved; nothing of it reaches a checkpoint."""
    file, name = rng.choice(poisonable(reference))
    step = rng.choice(_saved_steps(reference))
    done = reference.start(run, Plan(incident=f"poison {file} {name}", at_step=step)).end()
    assert done.code == 7, f"exit code {done.code}, expected 7\n{done.stderr}"
    assert name in done.stderr, f"{name} is not named\n{done.stderr}"
    # The steps up to the poisoned one were those of the reference.
    assert done.last("saved") < step, "I6: a poisoned state was saved"
    return [done]


def poisonable(reference: Reference) -> list[tuple[str, str]]:
    """(file, name) of the tensors of floating point that the run saves."""
    from paligemma.training.manifest import folder_name
    from paligemma.training.saved import open_saved

    saved = open_saved(reference.folder / "reference" / "run" / folder_name(reference.steps))
    return [(file, name) for file in saved.files for name, tensor in saved.read(file).items() if tensor.dtype.is_floating_point]


def _saved_steps(reference: Reference) -> list[int]:
    return [line[1] for line in reference.expected() if line[0] == "checkpoint"]


def _memory(reference: Reference, run: Path, rng: random.Random) -> list[Outcome]:
    done = reference.start(run, Plan(incident="memory", at_step=rng.randint(1, reference.steps))).end()
    assert done.code == 5, f"exit code {done.code}, expected 5\n{done.stderr}"
    return [done]


def _signal(reference: Reference, run: Path, rng: random.Random) -> list[Outcome]:
    """At some moment of the run: the step is finished and saved, and the run goes on from there."""
    number = rng.choice([signal.SIGTERM, signal.SIGINT])
    running = reference.start(run)
    running.until("step", rng.randint(1, reference.steps - 2))
    time.sleep(rng.random() * reference.seconds / reference.steps)
    running.signal(number)
    done = running.end()
    if done.code == 0:  # it came after the last look
        return [done]
    assert done.code == 128 + number, f"exit code {done.code}, expected {128 + number}\n{done.stderr}"
    assert done.last("saved") == done.last("step"), f"step {done.last('step')} was done, {done.last('saved')} saved"
    return [done]


def _two_signals(reference: Reference, run: Path, rng: random.Random) -> list[Outcome]:
    """In a step that does not end: the second one does not wait for it."""
    number = rng.choice([signal.SIGTERM, signal.SIGINT])
    running = reference.start(run, Plan(incident="wait", at_step=rng.randint(1, reference.steps)))
    running.until("waits")
    running.signal(number)
    running.until_printed(signal.Signals(number).name)
    assert not running.ended_within(0.2), "the first signal ended it in the middle of a step"
    running.signal(number)
    assert running.ended_within(5.0), "the second signal did not end it"
    done = running.end()
    assert done.code == 128 + number, f"exit code {done.code}, expected {128 + number}\n{done.stderr}"
    return [done]


def _lock(reference: Reference, run: Path, rng: random.Random) -> list[Outcome]:
    """A second trainer leaves at once, naming the first, which does not notice."""
    first = reference.start(run, Plan(incident="wait", at_step=rng.randint(1, reference.steps)))
    first.until("waits")
    before = sorted(path.name for path in run.iterdir())
    second = reference.start(run).end()
    assert second.code == 2, f"exit code {second.code}, expected 2\n{second.stderr}"
    assert str(first.pid) in second.stderr, f"process {first.pid} is not named\n{second.stderr}"
    assert sorted(path.name for path in run.iterdir()) == before, "the second trainer changed the run"
    (run.parent / "go").touch()
    done = first.end()
    assert done.code == 0, done.stderr
    return [done]


def _dead_lock(reference: Reference, run: Path, rng: random.Random) -> list[Outcome]:
    """A trainer that died holding the lock, twice; the next one takes it over."""
    outcomes = []
    for _ in range(2):
        running = reference.start(run, Plan(incident="wait", at_step=reference.steps))
        running.until("waits")
        running.signal(signal.SIGKILL)
        outcomes.append(running.end())
        assert outcomes[-1].code == -signal.SIGKILL
    return outcomes


_DO = {
    "poison": _poison, "memory": _memory, "signal": _signal, "two signals": _two_signals, "lock": _lock, "dead lock": _dead_lock,
}  # fmt: skip
