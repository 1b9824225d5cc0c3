"""How much better a model is than before: two measurements of the same records, one beside the other. Needs no model."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, UsageError
from ..printable import printable
from .intervals import clusters, mean_interval
from .metrics import Metric
from .scores import FILE, Scores

FEWEST = 6
"""Pictures that must differ before a difference may be called more than chance: so many coins fall alike in 2 of 2**6 throws, which is
less than 5 in 100; of fewer it is more, whatever a bootstrap says."""


@dataclass(frozen=True)
class Gain:
    """`model`, `value`, `interval`: of the earlier measurement; `difference`: the later main value less the earlier one; `better`, `worse`:
    how many records came out so; `left_out`: records that only one of the two answered, which are not compared.

    `spread`: where the main value is a mean over the records, 95 % bootstrap interval of the mean of what each record gained, drawing
    pictures, and all values are those of the records that are compared. Else None, and values are of all that each measurement answered.
    `pictures`: how many speak in this: those that came out otherwise, or without `spread` all that are compared.
    `apart`: chance would hardly do that: 0 lies outside `spread`, or without one the two intervals do not touch.
    """

    model: str
    value: float
    interval: tuple[float, float]
    difference: float
    better: int
    worse: int
    left_out: int
    spread: tuple[float, float] | None
    pictures: int
    apart: bool

    def change(self, kind: Metric) -> tuple[str, str]:
        """The difference, and its interval or ""."""
        ends = "" if self.spread is None else f"[{', '.join(_signed(kind, end) for end in self.spread)}]"
        return _signed(kind, self.difference), ends

    @property
    def verdict(self) -> str:
        """Whether it may be chance, and how one knows."""
        if self.apart:
            why = "the two intervals do not touch" if self.spread is None else "the interval of the difference does not hold 0"
            return f"more than chance would do: {why}"
        if self.pictures < FEWEST:
            return f"may be chance: only {self.pictures} picture{'' if self.pictures == 1 else 's'} to tell by"
        why = "the two intervals touch" if self.spread is None else "the interval of the difference holds 0"
        return f"may be chance: {why}"

    def counted(self, kind: Metric) -> str:
        """How many records came out better and worse, by what, and what was left out."""
        by = f" (each by {kind.each}, not by the main value)" if kind.each else ""
        rest = ""
        if self.left_out:
            still = "" if self.spread is not None else ", but count in the values"
            rest = f"; {self.left_out:,} that only one of the two answered are not compared{still}"
        return f"{self.better:,} records better, {self.worse:,} worse{by}{rest}"

    def shown(self, kind: Metric) -> str:
        """In a line."""
        low, high = (kind.shown(end) for end in self.interval)
        change = " ".join(filter(None, self.change(kind)))
        return f"before {kind.shown(self.value)}  [{low}, {high}]: {change}, {self.verdict}; {self.counted(kind)}"


def _signed(kind: Metric, value: float) -> str:
    return ("+" if value >= 0 else "") + kind.shown(value)


@dataclass(frozen=True)
class Earlier:
    """What is needed of a `scores.json`. `each`: value of a record by its id; `failed`: ids of those that were asked and not answered."""

    where: str
    metric: str
    value: float
    interval: tuple[float, float]
    each: Mapping[str, float]
    failed: frozenset[str]
    model: str

    def check(self, metric: str, asked: Collection[str]) -> None:
        """Raises `UsageError` unless it is by this metric and about the same records, whether or not they were answered."""
        if self.metric != metric:
            raise UsageError(f"{self.where} is measured by {self.metric}, this by {metric}", hint="choose the same with --metric")
        if different := set(asked) ^ (self.each.keys() | self.failed):
            raise UsageError(
                f"{self.where} is about other records: {len(different):,} are in one of the two only, such as {printable(min(different))}",
                hint="measure both on the same data, with the same --split and --limit",
            )


def earlier(before: Path) -> Earlier:
    """The measurement in that folder. Raises `InputError` where there is none."""
    path = before / FILE if before.is_dir() else before
    where = printable(str(path))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        low, high = map(float, found["interval"])
        each = {str(id): float(one) for id, one in found["each"]}
        failed = frozenset(str(one["id"]) for one in found.get("failed", ()))
        model = str((found.get("run") or {}).get("model_path", ""))
        return Earlier(where, str(found["metric"]), float(found["value"]), (low, high), each, failed, model)
    except OSError as error:
        hint = "name the folder that an earlier `paligemma eval` wrote"
        raise InputError(f"{where}: no scores to compare with ({error.strerror})", hint=hint, code="not_found") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{where} does not hold scores ({type(error).__name__}: {error})", code="bad_scores") from error


def gain(scores: Scores, before: Path) -> Gain:
    """Against the measurement in folder `before`, over the records that both answered.

    Raises `InputError` where there is none or no record was answered by both, `UsageError` where it is of other records or by another
    metric.
    """
    old = earlier(before)
    now = dict(scores.each)
    old.check(scores.metric, now.keys() | {one.id for one in scores.failed})
    both = [id for id in now if id in old.each]
    if not both:
        raise InputError(f"{old.where}: no record was answered both times", hint="see the failures in both reports", code="nothing_common")
    known = dict(zip(now, scores.together, strict=True))
    drawn = clusters([known[id] for id in both])
    was, change = np.array([old.each[id] for id in both]), np.array([now[id] - old.each[id] for id in both])
    value, interval, difference, spread = old.value, old.interval, scores.value - old.value, None
    if scores.kind.each:
        apart = scores.interval[0] > interval[1] or scores.interval[1] < interval[0]
        pictures = len(drawn)
    else:
        value, interval = float(was.mean()), mean_interval(drawn, was)
        difference, spread = float(change.mean()), mean_interval(drawn, change)
        apart = spread[0] > 0 or spread[1] < 0
        pictures = sum(bool(change[rows].any()) for rows in drawn)
    gained = change if scores.kind.higher_is_better else -change
    return Gain(
        model=old.model,
        value=value,
        interval=interval,
        difference=difference,
        better=int((gained > 0).sum()),
        worse=int((gained < 0).sum()),
        left_out=len(now.keys() ^ old.each.keys()),
        spread=spread,
        pictures=pictures,
        apart=apart and pictures >= FEWEST,
    )
