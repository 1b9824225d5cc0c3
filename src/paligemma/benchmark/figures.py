"""What was measured, as values; shares of the machine's limits, and which limit is near."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .counts import Work
from .limits import Limits

Limit = Literal["memory", "arithmetic", "overhead", "neither"]
NEAR = 0.5
"""From this share on, a limit is what decides."""
IN_CACHE = 64e6
"""Bytes that processors' caches may hold: reading fewer says nothing about memory."""
UNSTEADY = 0.15
"""A wider spread, as a share of the median, makes a figure doubtful."""
TOLERATED = 0.002
"""Seconds: what moves by less is no sign of a busy machine."""


@dataclass(frozen=True)
class Figure:
    """One figure, a value a repeat."""

    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """From the least to the most, as a share of the median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Share:
    """Of what the machine allows: `memory` and `arithmetic` (1 is all of it), and which of them `limits`."""

    memory: float
    arithmetic: float
    limits: Limit


@dataclass(frozen=True)
class Measured:
    """One model. `label`: as the user named it. `masks`: whether it can decode them. `figures`: by name, see `words.NAMES`; `first@2`,
    `decode@2` and `rate@2` are of two pictures at a time, others of one; `read` and `peak` are the machine's, of the same rounds."""

    label: str
    name: str
    description: str
    engine: str
    numbers: str
    products: str
    threads: int
    masks: bool
    tokens: int
    work: Work
    figures: Mapping[str, Figure]

    @property
    def limits(self) -> Limits:
        return Limits(self.value("read"), self.value("peak"))

    @property
    def batches(self) -> list[int]:
        return [1, *sorted(int(name.partition("@")[2]) for name in self.figures if name.startswith("rate@"))]

    def value(self, name: str, batch: int = 1) -> float:
        """A figure's median."""
        return self.figures[name if batch == 1 else f"{name}@{batch}"].median

    @property
    def picture_share(self) -> Share:
        """Of the image tower's time. What it reads is not counted: it has hundreds of rows."""
        return self._share(0, self.work.picture, self.value("image"))

    @property
    def prompt_share(self) -> Share:
        """Of the time from image tokens to the first token."""
        return self._share(self.work.weight_bytes, self.work.prompt, self.value("first") - self.value("image"))

    def decode_share(self, batch: int = 1) -> Share:
        """Of the time for another token in each row."""
        size = self.step_bytes(batch)
        return self._share(size, batch * self.work.token, self.value("decode", batch) / 1000)

    def step_bytes(self, batch: int = 1) -> float:
        """Read for another token in each row, in the middle of the answer."""
        return self.work.step_bytes(batch, self.work.tokens + self.tokens / 2)

    def _share(self, size: float, operations: float, seconds: float) -> Share:
        seconds = max(seconds, 1e-9)
        memory, arithmetic = size / seconds / self.limits.read, operations / seconds / self.limits.peak
        return Share(memory, arithmetic, limiting(memory, arithmetic, self.work.weight_bytes))

    def to_dict(self) -> dict[str, Any]:
        """JSON. Sizes in bytes, times in seconds and milliseconds as `unit` says, limits a second."""
        plain = {name: value for name, value in asdict(self).items() if name != "figures"}
        figures = {name: asdict(one) | {"median": one.median, "spread": one.spread} for name, one in self.figures.items()}
        shares = {"picture": self.picture_share, "prompt": self.prompt_share}
        shares |= {"decode" if batch == 1 else f"decode@{batch}": self.decode_share(batch) for batch in self.batches}
        return plain | {"figures": figures, "shares": {name: asdict(share) for name, share in shares.items()}}


def limiting(memory: float, arithmetic: float, weight_bytes: float) -> Limit:
    """Which limit is near, told from the shares of both that are used and what the weights take."""
    cached = weight_bytes < IN_CACHE
    if not cached and memory >= NEAR and memory >= arithmetic:
        return "memory"
    if arithmetic >= NEAR:
        return "arithmetic"
    return "overhead" if cached else "neither"


@dataclass(frozen=True)
class Benchmark:
    """Models that were measured side by side, the same repeats of each. `where`: on what machine, and when."""

    models: tuple[Measured, ...]
    where: str = ""

    @property
    def repeats(self) -> int:
        return max(len(figure.values) for model in self.models for figure in model.figures.values())

    def ratio(self, name: str, place: int) -> float | None:
        """A figure of the model at `place` to the first one's, the median of the pairs' ratios; None where one of them has none."""
        ours, theirs = (model.figures.get(name) for model in (self.models[place], self.models[0]))
        if ours is None or theirs is None or not all(theirs.values):
            return None
        return statistics.median(a / b for a, b in zip(ours.values, theirs.values, strict=True))

    @property
    def unsteady(self) -> list[tuple[str, str, float]]:
        """(model's label, figure's name, spread) of those that moved too much to be trusted, the worst first."""
        found = [
            (model.label, name, figure.spread)
            for model in self.models
            for name, figure in model.figures.items()
            if figure.spread > UNSTEADY and _seconds(figure) > TOLERATED
        ]
        return sorted(found, key=lambda one: -one[2])

    def to_dict(self) -> dict[str, Any]:
        return {"where": self.where, "models": [model.to_dict() for model in self.models]}


def _seconds(figure: Figure) -> float:
    """By how much a time moved; 0 for what is no time, or is one in other units."""
    return {"s": 1.0, "ms": 1e-3}.get(figure.unit, 0.0) * (max(figure.values) - min(figure.values))
