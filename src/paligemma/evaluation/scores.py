"""A file of predictions -> scores: values with an interval, groups, the worst records, reliability, lengths, speed. Needs no model."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .calibration import Fitted, Reliability, fit_calibration, reliability
from .intervals import bootstrap, clusters, mean_interval
from .measures import Group, Measured
from .metrics import METRICS, WORDS, Metric, check_tasks, metric_for, metric_named
from .predictions import Prediction, read_predictions
from .published import Published, benchmark_named, published_scores
from .run_file import Run, calibration_of

FILE = "scores.json"
MOST_GROUPS = 30
"""What a record's `about` says splits the records into groups where it takes at most so many values."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of the answers. `histogram`: (from, to, how many), both ends included."""

    mean: float
    median: float
    longest: int
    histogram: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Speed:
    """Seconds with the opening of pictures; `median` and `slowest` of a record's share of its batch."""

    seconds: float
    records_per_second: float
    median: float
    slowest: float


@dataclass(frozen=True)
class Failed:
    """A record that could not be asked, and why."""

    id: str
    where: str
    code: str
    message: str


@dataclass(frozen=True)
class Scores:
    """What a metric says of a model on a data set. Values are shares of one (CIDEr up to ten), but for the metric's `counts`.

    `interval`: 95 % bootstrap of the main value, drawing pictures; `count`: records that were answered; `failed`: those that were not,
    which no value counts; `each`: (id, value) of every record; `together`: of every record the number of what it is about, the same for
    those about one picture, which are drawn together; `groups`: by name of the grouping; `reliability`: by kind of score;
    `stops`: why answers ended; `invalid`: malformed objects; `leftover`: answers with text that belongs to no object; `published`: scores
    of the same benchmark, model and resolution; `run`: what was asked, where that is known.
    """

    metric: str
    values: Mapping[str, float]
    interval: tuple[float, float]
    count: int
    failed: tuple[Failed, ...]
    each: tuple[tuple[str, float], ...]
    groups: Mapping[str, Mapping[str, Group]]
    reliability: Mapping[str, Reliability]
    lengths: Lengths
    stops: Mapping[str, int]
    invalid: int
    leftover: int
    speed: Speed
    benchmark: str = ""
    published: tuple[Published, ...] = ()
    run: Run | None = None
    together: tuple[int, ...] = ()

    @property
    def kind(self) -> Metric:
        return METRICS[self.metric]

    @property
    def value(self) -> float:
        """The main value."""
        return self.values[self.kind.main]

    @property
    def title(self) -> str:
        """Of the data, for people."""
        if self.run is None:
            return "predictions"
        return " ".join(filter(None, (Path(self.run.data_path).name, self.run.data_split)))

    def better_than(self, other: Scores | float) -> bool:
        theirs = other.value if isinstance(other, Scores) else other
        return self.value > theirs if self.kind.higher_is_better else self.value < theirs

    def worst(self, count: int) -> list[str]:
        """Ids of the records of least value, of the most where less is better."""
        order = sorted(self.each, key=lambda one: one[1] if self.kind.higher_is_better else -one[1])
        return [id for id, _ in order[:count]]

    def to_dict(self) -> dict[str, Any]:
        return {"value": self.value, "main": self.kind.main, "higher_is_better": self.kind.higher_is_better} | dataclasses.asdict(self)

    def save(self, folder: Path) -> Path:
        """Write `scores.json`; returns its path."""
        path = folder / FILE
        unfinished = path.with_name(f".{FILE}.{os.getpid()}")
        unfinished.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        unfinished.replace(path)
        return path


def score(predictions: Path, metric: str = "auto", *, only: Collection[str] | None = None) -> Scores:
    """Of a file of predictions, or of the folder it is in. `only`: ids to count. What `auto` means is said in `metrics.metric_for`.

    Raises `InputError` for a broken file, one without an answered record, and a record without anything to compare with; `UsageError`
    for a metric that does not exist or does not suit the tasks.
    """
    asked, run = _read(predictions, only)
    answered = [one for one in asked if one.error is None]
    kind = _metric(metric, answered, asked, run)
    measured = kind.measure(answered)
    about = [one.pictures or one.id for one in answered]
    drawn = clusters(about)
    statistic = measured.statistic
    interval = mean_interval(drawn, measured.each) if statistic is None else bootstrap(drawn, statistic)
    place = {what: number for number, what in enumerate(dict.fromkeys(about))}
    names = run.names if run else ()
    benchmark = benchmark_named(*names)
    scored = {
        one: (np.array([g.score for g in found]), np.array([g.right for g in found])) for one, found in measured.judged.items() if found
    }
    return Scores(
        metric=kind.name,
        values={key: float(measured.values[key]) for key in kind.keys if key in measured.values},
        interval=interval,
        count=len(answered),
        failed=tuple(Failed(one.id, one.where, one.error.get("code", ""), one.error.get("message", "")) for one in asked if one.error),
        each=tuple((one.id, float(value)) for one, value in zip(answered, measured.each, strict=True)),
        groups={**measured.groups, **_groups(answered, measured)},
        reliability={one: reliability(*pair) for one, pair in scored.items()},
        lengths=_lengths([one.tokens for one in answered]),
        stops=dict(Counter(str((one.result or {}).get("stop", "eos")) for one in answered).most_common()),
        invalid=sum(int((one.result or {}).get("invalid", 0)) for one in answered),
        leftover=sum(bool((one.result or {}).get("leftover")) for one in answered),
        speed=_speed([one.seconds for one in answered]),
        benchmark=benchmark.name if benchmark else "",
        published=tuple(_published(run)),
        run=run,
        together=tuple(place[one] for one in about),
    )


def fit(predictions: Path, metric: str = "auto") -> Fitted:
    """Fit the calibration of a model to its predictions on a validation split; errors as of `score` and `fit_calibration`."""
    asked, run = _read(predictions, None)
    answered = [one for one in asked if one.error is None]
    measured = _metric(metric, answered, asked, run).measure(answered)
    return fit_calibration(measured.judged, [one.pictures or one.id for one in answered], calibration_of(run))


def _read(path: Path, only: Collection[str] | None) -> tuple[list[Prediction], Run | None]:
    file = path / "predictions.jsonl" if path.is_dir() else path
    asked = [one for one in read_predictions(file) if only is None or one.id in only]
    return asked, Run.load(file.parent)


def _metric(name: str, answered: Sequence[Prediction], asked: Sequence[Prediction], run: Run | None) -> Metric:
    if not answered:
        failed = next((one.error["message"] for one in asked if one.error), None)
        why = f"all {len(asked)} records failed, the first one: {failed}" if asked else "there are none"
        raise InputError(f"no prediction can be scored: {why}", code="nothing_answered")
    for one in answered:
        if (one.task in WORDS and not one.answers) or (one.task == "refer" and not one.things):
            raise InputError(f"record {one.id} ({one.where}) has nothing that its answer could be compared with")
    kind = metric_for(answered, *(run.names if run else ())) if name == "auto" else metric_named(name)
    check_tasks(kind, answered)
    return kind


def _groups(answered: Sequence[Prediction], measured: Measured) -> dict[str, dict[str, Group]]:
    """By everything that records say about themselves in few words."""
    found = {}
    for name in dict.fromkeys(name for one in answered for name in one.about):
        if any(isinstance(one.about.get(name), Mapping | list) for one in answered):
            continue
        said = [str(one.about[name]) if name in one.about else "(not said)" for one in answered]
        if 1 < len(set(said)) <= min(MOST_GROUPS, len(said) - 1) and name not in measured.groups:
            found[name] = {value: _group(measured, np.array([s == value for s in said]).nonzero()[0]) for value in sorted(set(said))}
    return found


def _group(measured: Measured, rows: np.ndarray) -> Group:
    value = measured.each[rows].mean() if measured.statistic is None else measured.statistic(rows)
    return Group(float(value), len(rows))


def _lengths(tokens: Sequence[int]) -> Lengths:
    width = max(1, -(-(max(tokens) + 1) // 20))
    counts = Counter(length // width for length in tokens)
    histogram = tuple((width * i, width * i + width - 1, counts[i]) for i in range(max(counts) + 1))
    return Lengths(float(np.mean(tokens)), float(np.median(tokens)), max(tokens), histogram)


def _speed(seconds: Sequence[float]) -> Speed:
    total = sum(seconds)
    return Speed(total, len(seconds) / total if total else 0.0, float(np.median(seconds)), max(seconds))


def _published(run: Run | None) -> list[Published]:
    if run is None or not run.model or (benchmark := benchmark_named(*run.names)) is None:
        return []
    models = [run.model, *([f"{run.model}-mix"] if run.is_mix else [])]
    return [row for model in models for row in published_scores(benchmark, model, run.resolution, *run.names)]
