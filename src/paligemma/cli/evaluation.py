"""`paligemma eval`: a model and annotated pictures -> predictions, scores, a page; or scores anew of predictions that are there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from ..data.opening import MAX_BAD_SHARE
from ..printable import printable
from .options import OUTPUT, Json, ModelOptions
from .planning import say
from .show import as_json

if TYPE_CHECKING:
    from ..evaluation.scores import Scores

DATA = Group("Data", sort_key=2)
MEASURE = Group("Measure", sort_key=3)
DEFAULTS = ModelOptions(model="bundled")
SOME_FAILED = 6


def evaluate(
    *,
    data: Annotated[str | None, Parameter(group=DATA)] = None,
    format: Annotated[str | None, Parameter(group=DATA)] = None,
    task: Annotated[str | None, Parameter(group=DATA)] = None,
    split: Annotated[str | None, Parameter(group=DATA)] = None,
    pictures: Annotated[Path | None, Parameter(group=DATA)] = None,
    max_bad_fraction: Annotated[float, Parameter(group=DATA)] = MAX_BAD_SHARE,
    limit: Annotated[int | None, Parameter(group=DATA)] = None,
    predictions: Annotated[Path | None, Parameter(group=DATA)] = None,
    metric: Annotated[str, Parameter(group=MEASURE)] = "auto",
    recipe: Annotated[str, Parameter(group=MEASURE)] = "",
    batch: Annotated[int | None, Parameter(group=MEASURE)] = None,
    beams: Annotated[int, Parameter(group=MEASURE)] = 1,
    max_tokens: Annotated[int | None, Parameter(group=MEASURE)] = None,
    calibrate: Annotated[bool, Parameter(group=MEASURE, negative="", show_default=False)] = False,
    fresh: Annotated[bool, Parameter(group=MEASURE, negative="", show_default=False)] = False,
    against: Annotated[Path | None, Parameter(group=MEASURE)] = None,
    out: Annotated[Path, Parameter(alias="-o", group=OUTPUT)] = Path("paligemma-eval"),
    json: Json = False,
    options: ModelOptions = DEFAULTS,
) -> int:
    """Measure a model on annotated pictures. A measurement that was broken off goes on with the same command.

    Parameters
    ----------
    data
        Annotated pictures in any format that `train` reads.
    format
        Of the data, where it is not to be recognised.
    task
        What the pictures are for, where the format leaves it open.
    split
        Of a divided data set; by default test, or valid where there is no test.
    pictures
        The folder that names of pictures are relative to.
    max_bad_fraction
        Stop if more of the records than this cannot be used.
    limit
        Ask about so many records only, evenly spread.
    predictions
        Instead of data: score the predictions.jsonl that is here already. Needs no model.
    metric
        By default what suits the task: ap, refer, cider, vqa, anls, exact, ocr, ...
    recipe
        The benchmark the model was trained for, to see its published score.
    batch
        How many pictures go through the model at a time.
    beams
        Search for the most probable whole answer, this many candidates wide.
    max_tokens
        Longest answer. By default what suits the task.
    calibrate
        Fit the scores to these answers and store the fit with the model: `--min-score` then means a probability.
    fresh
        Ask everything anew.
    against
        The folder of an earlier measurement on the same data: what was gained is shown, over the records that both answered.
    out
        The folder for predictions.jsonl, scores.json and report.html.
    """
    from ..errors import UsageError
    from ..evaluation.gain import gain
    from ..evaluation.summary import summary

    if (data is None) == (predictions is None):
        raise UsageError("say what to measure on: --data SOURCE, or --predictions FILE to score again", hint="one of the two")
    if predictions is not None:
        scores = _again(predictions, metric)
    else:
        assert data is not None
        scores = _ask(
            options, data, split, {"format": format, "task": task, "pictures": pictures, "max_bad_share": max_bad_fraction},
            {"metric": metric, "out": out, "batch_size": batch, "limit": limit, "recipe": recipe, "fresh": fresh, "against": against}
            | ({"beams": beams} if beams != 1 else {}) | ({} if max_tokens is None else {"max_tokens": max_tokens}),
        )  # fmt: skip
    if calibrate:
        _calibrate(predictions if predictions is not None else out, metric, options)
    before = None if against is None else gain(scores, against)
    if json:
        print(as_json(scores.to_dict() | ({"before": asdict(before)} if before else {})))
    else:
        print(summary(scores, before))
        if predictions is None:
            print(f"\nreport: {out / 'report.html'}")
    return SOME_FAILED if scores.failed else 0


def _ask(options: ModelOptions, path: str, split: str | None, reading: dict, how: dict) -> Scores:
    from ..data.opening import open_data, splits
    from ..data.quarantine import summary
    from ..evaluation.evaluate import evaluate as run
    from .batch import load

    parts = splits(path, format=reading["format"])
    chosen = split or next((name for name in ("test", "valid") if name in parts), None)
    dataset = open_data(path, split=chosen, **reading)
    say(f"{path}: {dataset.format}, {dataset.task}{f', split {dataset.split}' if dataset.split else ''}\n{summary(dataset)}")
    with asking() as progress:
        return run(load(options), dataset, progress=progress, **how)


def _again(predictions: Path, metric: str) -> Scores:
    from ..errors import InputError
    from ..evaluation.scores import score

    if not predictions.exists():
        raise InputError(f"{printable(str(predictions))}: no such file", hint="paligemma eval --data writes one", code="not_found")
    return score(predictions, metric)


def _calibrate(predictions: Path, metric: str, options: ModelOptions) -> None:
    from ..checkpoint.finding import BUNDLED, find
    from ..errors import UsageError
    from ..evaluation.calibration import save_calibration
    from ..evaluation.scores import fit

    folder = find(options.model)
    folder = folder if folder.is_dir() else folder.parent
    if folder.parent == BUNDLED:
        raise UsageError("the bundled model has its calibration", hint="--calibrate is for models of your own: --model FOLDER")
    fitted = fit(predictions, metric)
    say(f"{fitted}\nstored in {save_calibration(fitted.calibration, folder)}")


@contextlib.contextmanager
def asking() -> Iterator[Callable[[int, int], None] | None]:
    """A bar, on a terminal only."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
