"""Models side by side: the same work for each in turn, so that a machine that slows down slows all. Every model has processes of its own.

cold       a new process: until the model is ready, and until the first token of a first answer
settled    the last of these goes on: answers until the model is as it stays; the most memory it ever took
rounds     the machine's limits; an answer to one picture; a mask; answers to several pictures at a time
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from ..checkpoint.finding import find
from ..checkpoint.memory import GB, free_memory
from ..engine.options import MOST
from ..errors import ResourceError, UsageError
from .counts import Work
from .figures import Benchmark, Figure, Measured
from .limits import SECONDS
from .remote import Remote

MOST_ROWS = 64
MOST_REPEATS = 100
Tell = Callable[[str, int, int], None]
"""(what is being done, how much is done, of how much)"""


@dataclass(frozen=True)
class Asked:
    """A model as the user named it; `given`: what else `paligemma.load` is told."""

    model: str
    given: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """`tokens`: of an answer. `batches`: pictures at a time; 1 is always among them. `settled`: wait until the model is as it stays, and
    do everything once more, uncounted. `seconds`: for each of the machine's limits. Raises `UsageError` for what makes no sense."""

    tokens: int = 32
    batches: tuple[int, ...] = (1, 2, 4)
    repeats: int = 3
    settled: bool = True
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        if not 2 <= self.tokens <= MOST["max_tokens"]:
            raise UsageError(
                f"tokens must be from 2 to {MOST['max_tokens']:,}, got {self.tokens}", hint="one token more than the first has to be timed"
            )
        if not self.batches or not all(1 <= batch <= MOST_ROWS for batch in self.batches):
            raise UsageError(f"batches must be from 1 to {MOST_ROWS}, got {', '.join(map(str, self.batches)) or 'none'}")
        if not 1 <= self.repeats <= MOST_REPEATS:
            raise UsageError(f"repeats must be from 1 to {MOST_REPEATS}, got {self.repeats}")

    @property
    def more(self) -> list[int]:
        """Batches of several pictures."""
        return sorted({batch for batch in self.batches if batch > 1})


QUICK = Plan(tokens=8, batches=(1,), repeats=3, settled=False, seconds=0.2)
"""A first look, in seconds for a small model. A large one is not yet as quick as it will be (see docs/performance.md)."""


def machine() -> str:
    """`AMD EPYC, 2 cores, Linux, 2026-11-29, paligemma 0.1.0`"""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    cores = f"{os.cpu_count()} core{'s' if os.cpu_count() != 1 else ''}"
    return f"{name}, {cores}, {platform.system()}, {datetime.date.today()}, paligemma {metadata.version('paligemma')}"


def measure(models: Sequence[Asked], plan: Plan | None = None, tell: Tell = lambda what, done, total: None) -> Benchmark:
    """The figures of each model. Raises what `paligemma.load` raises, `ResourceError` where they do not fit into memory together."""
    plan = plan or Plan()
    paths = [find(asked.model) for asked in models]
    if len(paths) > 1:
        _need_room(paths)
    subjects = [_Subject(asked) for asked in models]
    colds = plan.repeats if plan.settled else 1
    work = [(f"{subject.asked.model}: starting", subject.start) for _ in range(colds) for subject in subjects]
    work += [(f"{subject.asked.model}: first answers", subject.settle) for subject in subjects]
    if plan.settled:
        work += [(f"{subject.asked.model}: warming up", subject.warm_up) for subject in subjects]
    for number in range(plan.repeats):
        turn = subjects if number % 2 == 0 else subjects[::-1]
        work += [(f"{subject.asked.model}: round {number + 1} of {plan.repeats}", subject.round) for subject in turn]
    with ExitStack() as stack:
        for subject in subjects:
            stack.enter_context(subject)
        for done, (what, do) in enumerate(work):
            tell(what, done, len(work))
            do(plan)
        tell("done", len(work), len(work))
    return Benchmark(tuple(subject.measured(plan) for subject in subjects), machine())


def _need_room(paths: Sequence[Path]) -> None:
    """Raise `ResourceError` where the models' files are more than the memory that is free."""
    size = sum(
        file.stat().st_size
        for path in paths
        for file in (path.iterdir() if path.is_dir() else [path])
        if file.suffix in (".safetensors", ".npz", ".packed")
    )
    free = free_memory()
    if free is not None and size > free:
        raise ResourceError(
            f"{len(paths)} models side by side need {size / GB:.1f} GB of memory, {free / GB:.1f} GB are free",
            hint="measure them one at a time, without --against",
            code="out_of_memory",
        )


class _Subject:
    """A model that is being measured."""

    def __init__(self, asked: Asked):
        self.asked = asked
        self._remote: Remote | None = None
        self._facts: dict[str, Any] = {}
        self._units: dict[str, str] = {}
        self._values: dict[str, list[float]] = {}

    def start(self, plan: Plan) -> None:
        """A new process, to its first token."""
        self._close()
        # -P and the path: modules come from where they come from here, and not from the folder that the user happens to be in.
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._remote = Remote([sys.executable, "-P", "-m", "paligemma.benchmark.worker"], self.asked.model, environment)
        self._facts = self._ask("load", model=self.asked.model, **self.asked.given)
        ready = time.perf_counter() - self._remote.started
        self._add("ready", "s", ready)
        self._add("load", "s", self._facts.pop("seconds"))
        self._add("cold", "s", ready + self._ask("answer", batch=1, tokens=1)["first"])

    def settle(self, plan: Plan) -> None:
        """The first answers, and the memory they took."""
        if plan.settled:
            self._ask("settle")
        self._ask("answer", batch=1, tokens=plan.tokens)
        self._ask("mask")
        self._add("memory", "GB", self._ask("memory")["peak"] / GB)

    def warm_up(self, plan: Plan) -> None:
        """A round that is not counted."""
        for _ in self._round(plan):
            pass

    def round(self, plan: Plan) -> None:
        for name, unit, value in self._round(plan):
            self._add(name, unit, value)

    def __enter__(self) -> _Subject:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close(at_once=kind is not None)

    def _close(self, at_once: bool = False) -> None:
        if self._remote is not None:
            self._remote.close(at_once)

    def measured(self, plan: Plan) -> Measured:
        figures = {name: Figure(self._units[name], tuple(values)) for name, values in self._values.items()}
        facts: dict[str, Any] = self._facts | {"work": Work(**self._facts["work"])}
        return Measured(label=self.asked.model, tokens=plan.tokens, figures=figures, **facts)

    def _ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self._remote is not None
        return self._remote.ask(do, **arguments)

    def _add(self, name: str, unit: str, value: float) -> None:
        self._units[name] = unit
        self._values.setdefault(name, []).append(value)

    def _round(self, plan: Plan) -> Iterator[tuple[str, str, float]]:
        """(name, unit, value) of each figure."""
        limits = self._ask("limits", seconds=plan.seconds)
        yield "read", "B/s", limits["read"]
        yield "peak", "op/s", limits["peak"]
        for batch in (1, *plan.more):
            times = self._ask("answer", batch=batch, tokens=plan.tokens)
            step, end = (times["last"] - times["first"]) / (plan.tokens - 1), "" if batch == 1 else f"@{batch}"
            yield f"first{end}", "s", times["first"]
            yield f"decode{end}", "ms", 1000 * step
            yield f"rate{end}", "tokens/s", batch / step
            if batch == 1:
                yield "image", "s", times["image"]
                yield "answer", "s", times["last"]
                yield "cpu", "CPU-s", times["cpu"]
        yield "mask", "s", self._ask("mask")["seconds"]
