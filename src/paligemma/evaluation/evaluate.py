"""A model and a data set -> predictions, scores and a report in one folder. What was asked already is not asked again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.lessons import MOST_CLASSES
from ..data.records import DataSet, Record, evenly
from ..errors import InputError, UsageError
from ..video import DEFAULT_FRAMES
from .gain import earlier, gain
from .metrics import check_tasks, metric_for, metric_named
from .predict import class_names, predict
from .predictions import appending, read_predictions
from .report import write_report
from .run_file import Run, describe_run
from .scores import Scores, score

if TYPE_CHECKING:
    from ..predictor import Predictor

FILE = "predictions.jsonl"
Progress = Callable[[int, int], None]
"""Called with how many records are done, and of how many."""


def evaluate(
    predictor: Predictor,
    dataset: DataSet,
    *,
    metric: str = "auto",
    out: Path,
    batch_size: int | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    recipe: str = "",
    report: bool = True,
    fresh: bool = False,
    against: Path | None = None,
    frames: int = DEFAULT_FRAMES,
    names_per_prompt: int = MOST_CLASSES,
    **how: Any,
) -> Scores:
    """Ask a model about a data set; write `predictions.jsonl`, `run.json`, `scores.json` and (`report`) `report.html` into `out`.

    `limit`: ask only so many records, evenly spread over the data set. `recipe`: of a benchmark the model was trained by. `against`: the
    folder of an earlier measurement, for the report to show what was gained. `how`: options of the predictor, such as `beams=2`.

    A run that was broken off goes on where it stopped, and asks those again that failed; `fresh` begins anew, as it must where the model's
    weights have changed since they were read from its files. Records that ask the same of the same pictures count as one, with all their
    answers.

    Raises `UsageError` for a folder that holds another run's predictions, a metric that does not suit, or a limit below 1; `InputError`
    where nothing could be answered.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit is at least 1, got {limit}")
    before = None if against is None else earlier(against)
    records = evenly(merged(dataset.records), limit)
    if not records:
        raise InputError(f"{dataset.path}: no usable record", hint="`paligemma data check` says why", code="no_records")
    kind = metric_for(records, recipe, dataset.path, dataset.split) if metric == "auto" else metric_named(metric)
    check_tasks(kind, records)
    if before is not None:
        before.check(kind.name, [record.id for record in records])
    out.mkdir(parents=True, exist_ok=True)
    run = describe_run(predictor, dataset, recipe=recipe, options={"frames": frames, "names_per_prompt": names_per_prompt, **how})
    with appending(out / FILE) as add:
        done = _done(run, out, fresh=fresh)
        run.save(out)
        waiting = [record for record in records if record.id not in done]
        finished = len(records) - len(waiting)
        if progress:
            progress(finished, len(records))
        classes = dataset.classes or class_names(dataset.records)
        asked = predict(predictor, waiting, classes=classes, batch_size=batch_size, names_per_prompt=names_per_prompt, frames=frames, **how)
        for predictions in asked:
            add(predictions)
            finished += len(predictions)
            if progress:
                progress(finished, len(records))
    scores = score(out / FILE, metric, only={record.id for record in records})
    scores.save(out)
    if report:
        write_report(scores, out, before=None if against is None else gain(scores, against))
    return scores


def _done(run: Run, out: Path, *, fresh: bool) -> set[str]:
    """Ids that were answered before by the same run; whatever else the folder holds is refused, or with `fresh` removed."""
    file = out / FILE
    if not fresh and file.stat().st_size:
        before = Run.load(out)
        if before is None:
            raise UsageError(f"{out} holds predictions, but no run.json that says whose", hint="choose another folder", code="other_run")
        run.check_same(before, out)
        if run.model_fingerprint:
            return {one.id for one in read_predictions(file) if one.error is None}
    with file.open("r+b") as opened:  # the same file, which is locked
        opened.truncate(0)
    return set()


def merged(records: Sequence[Record]) -> list[Record]:
    """Records in words that ask the same of the same pictures become one, the first, which has all their answers."""
    found: dict[object, Record] = {}
    for record in records:
        key = record.id if record.in_places else (record.task, record.pictures, record.prompt)
        first = found.get(key)
        new = () if first is None else tuple(answer for answer in record.answers if answer not in first.answers)
        found[key] = record if first is None else dataclasses.replace(first, answers=first.answers + new)
    return list(found.values())
