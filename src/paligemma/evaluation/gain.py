"""How much better a model is than before: two measurements of the same records, one beside the other. Needs no model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, UsageError
from ..printable import printable
from .metrics import Metric
from .scores import FILE, Scores


@dataclass(frozen=True)
class Gain:
    """`model`, `value`, `interval`: of the earlier measurement; `difference`: the later main value less the earlier one; `better`, `worse`:
    how many records came out so; `apart`: the two intervals do not touch, which chance hardly brings about.
    """

    model: str
    value: float
    interval: tuple[float, float]
    difference: float
    better: int
    worse: int
    apart: bool

    def shown(self, kind: Metric) -> str:
        """In a line."""
        low, high = (kind.shown(end) for end in self.interval)
        sign = "+" if self.difference >= 0 else ""
        verdict = "more than chance would do" if self.apart else "which may be chance: the intervals overlap"
        change = f"{sign}{kind.shown(self.difference)}, {verdict}; {self.better:,} records better, {self.worse:,} worse"
        return f"before {kind.shown(self.value)}  [{low}, {high}]: {change}"


@dataclass(frozen=True)
class Earlier:
    """What is needed of a `scores.json`. `each`: value of a record by its id."""

    where: str
    metric: str
    value: float
    interval: tuple[float, float]
    each: Mapping[str, float]
    model: str


def earlier(before: Path) -> Earlier:
    """The measurement in that folder. Raises `InputError` where there is none."""
    path = before / FILE if before.is_dir() else before
    where = printable(str(path))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        low, high = map(float, found["interval"])
        each = {str(id): float(one) for id, one in found["each"]}
        model = str((found.get("run") or {}).get("model_path", ""))
        return Earlier(where, str(found["metric"]), float(found["value"]), (low, high), each, model)
    except OSError as error:
        hint = "name the folder that an earlier `paligemma eval` wrote"
        raise InputError(f"{where}: no scores to compare with ({error.strerror})", hint=hint, code="not_found") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{where} does not hold scores ({type(error).__name__}: {error})", code="bad_scores") from error


def gain(scores: Scores, before: Path) -> Gain:
    """Against the measurement in folder `before`.

    Raises `InputError` where there is none, `UsageError` where it is of other records or by another metric.
    """
    old = earlier(before)
    if old.metric != scores.metric:
        raise UsageError(f"{old.where} is measured by {old.metric}, this by {scores.metric}", hint="choose the same with --metric")
    now = dict(scores.each)
    if different := now.keys() ^ old.each.keys():
        raise UsageError(
            f"{old.where} is about other records: {len(different):,} are in one of the two only, such as {printable(min(different))}",
            hint="measure both on the same data, with the same --split and --limit",
        )
    sign = 1 if scores.kind.higher_is_better else -1
    change = [sign * (now[id] - old.each[id]) for id in now]
    return Gain(
        model=old.model,
        value=old.value,
        interval=old.interval,
        difference=scores.value - old.value,
        better=sum(one > 0 for one in change),
        worse=sum(one < 0 for one in change),
        apart=scores.interval[0] > old.interval[1] or scores.interval[1] < old.interval[0],
    )
