"""`paligemma data check`: what a run would see of annotated pictures, and whether they are fit for it, before anything is trained."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from ..printable import printable
from .options import OUTPUT, Json, ModelOptions, named
from .planning import DATA, RECIPE, RUN, Optimizer, Strategy, base_name, find_recipe, plan_memory, read_parts, weighted
from .show import as_json

if TYPE_CHECKING:
    from ..data.records import DataSet
    from ..errors import ResourceError
    from ..inspection.check import Opened, Tell
    from ..inspection.costs import Timing
    from ..inspection.ready import Ready
    from ..training.fitting import Fit
    from ..training.recipes import Recipe

app = App(name="data", help="Look at annotated pictures before training on them.", help_format="plaintext")

DEFAULTS = ModelOptions(model="bundled")
UNFIT = 3


@app.command(help_epilogue="Example: paligemma data check annotations.jsonl --recipe lora")
def check(
    sources: Annotated[list[str], named("SOURCE...", "Annotated pictures in any format that `train` reads; PATH=3 as there.")],
    /,
    *,
    valid: Annotated[str | None, Parameter(group=DATA)] = None,
    format: Annotated[str | None, Parameter(group=DATA)] = None,
    task: Annotated[str | None, Parameter(group=DATA)] = None,
    split: Annotated[str | None, Parameter(group=DATA)] = None,
    pictures: Annotated[Path | None, Parameter(group=DATA)] = None,
    max_bad_fraction: Annotated[float, Parameter(group=DATA)] = 0.01,
    limit: Annotated[int, Parameter(group=DATA)] = 2000,
    recipe: Annotated[str, Parameter(group=RECIPE)] = "simple",
    resolution: Annotated[int | None, Parameter(group=RECIPE)] = None,
    strategy: Annotated[Strategy | None, Parameter(group=RECIPE)] = None,
    epochs: Annotated[float | None, Parameter(group=RECIPE)] = None,
    steps: Annotated[int | None, Parameter(group=RECIPE)] = None,
    batch: Annotated[int | None, Parameter(group=RECIPE)] = None,
    text_len: Annotated[int | None, Parameter(group=RECIPE)] = None,
    optimizer: Annotated[Optimizer | None, Parameter(group=RECIPE)] = None,
    micro: Annotated[int, Parameter(group=RUN)] = 0,
    recompute: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False,
    measure: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False,
    samples: Annotated[int, Parameter(group=OUTPUT)] = 12,
    out: Annotated[Path, Parameter(alias="-o", group=OUTPUT)] = Path("data-check.html"),
    json: Json = False,
    options: ModelOptions = DEFAULTS,
) -> int:
    """Say whether data are fit to train on: a summary here, and a page with pictures. Exit code 3 if they are not.

    Parameters
    ----------
    valid
        Pictures that are held out. By default the data's own valid split, if it has one.
    format
        Of the data, where it is not to be recognised.
    task
        What the pictures are for, where the format leaves it open: detect, segment, caption, ...
    split
        Of a divided data set; by default train.
    pictures
        The folder that names of pictures are relative to.
    max_bad_fraction
        More records than this that cannot be used are an error, as for `train`.
    limit
        Open the pictures of so many records at most, evenly drawn; everything else is of all records.
    recipe
        The recipe of the run that is planned: a name or a file.
    resolution
        The recipe's for pictures of so many pixels; by default the model's.
    strategy
        What is to learn, if not what the recipe says.
    epochs
        Times through the data.
    steps
        Or: updates.
    batch
        Examples an update.
    text_len
        Most tokens of prompt and answer.
    optimizer
        If not the recipe's.
    micro
        Examples that go through at a time; by default as many as fit.
    recompute
        Activation checkpointing.
    measure
        Load the model and time two updates of it on these data.
    samples
        Records to show, evenly drawn; those with something odd come besides.
    out
        The page.
    """
    from .. import checkpoint
    from ..errors import UsageError
    from ..inspection.check import Setup
    from ..inspection.check import check as inspect
    from ..inspection.page import check_place, write_page
    from ..inspection.ready import ready
    from ..inspection.terminal import summary
    from ..predictor.loading import base_of, find

    for name, value, least in (("--limit", limit, 1), ("--samples", samples, 0), ("--micro", micro, 0)):
        if value < least:
            raise UsageError(f"{name} must be at least {least}, got {value}")
    check_place(out)
    path = find(options.model)
    chosen = find_recipe(recipe, resolution, base_of(path) if checkpoint.is_adapter(path) else path)
    changes: dict[str, Any] = {"strategy": strategy, "batch": batch, "text_len": text_len, "optimizer": optimizer}
    changes = {name: value for name, value in changes.items() if value is not None}
    if epochs is not None or steps is not None:
        changes |= {"epochs": epochs or 0.0, "steps": steps or 0, "examples": 0}
    chosen = dataclasses.replace(chosen, **changes)
    model = ready(options.model, chosen, tokenizer=options.tokenizer, codec=options.codec)
    fitted = _fitted(options, chosen, model, micro, recompute, out)
    paths, weights = zip(*map(weighted, sources), strict=True)
    reading = {"format": format, "task": task, "pictures": pictures, "max_bad_share": max_bad_fraction}
    mixed = None if set(weights) == {None} else [weight or 1.0 for weight in weights]
    with _progress() as tell:
        opened, held_out = _open(paths, split, valid, reading, tell)
        timing = _measure(opened, mixed, chosen, model, fitted, options, recompute, tell) if measure else None
        found = inspect(
            opened, model, chosen, fitted, weights=mixed, held_out=held_out, setup=Setup(samples, limit), timing=timing, tell=tell
        )  # fmt: skip
        tell("drawing the page", 0, 0)
        write_page(found, out)
    if json:
        print(as_json(found.to_dict()))
    else:
        print(summary(found))
        print(printable(f"page: {out}"))
    return 0 if found.fit else UNFIT


def _open(
    paths: tuple[str, ...], split: str | None, valid: str | None, reading: dict[str, Any], tell: Tell
) -> tuple[list[Opened], DataSet | None]:
    """Every source as `train` opens it, and what it would hold out. What `train` would refuse for its faults is read all the same."""
    from ..data.opening import BadData, open_data, splits
    from ..inspection.check import Opened

    def progress(done: int) -> None:
        tell("reading annotations", done, 0)

    opened: list[Opened] = []
    held_out: DataSet | None = None
    for path in paths:
        parts = splits(path, format=reading["format"])
        chosen = split or ("train" if "train" in parts else None)
        try:
            opened.append(Opened(open_data(path, split=chosen, progress=progress, **reading)))
        except BadData as error:
            opened.append(Opened(error.data, error.message, error.hint or ""))
        if valid is None and held_out is None and "valid" in parts and chosen == "train":
            held_out = _held_out(path, reading)
    if valid is not None:
        held_out = _held_out(valid, reading)
    return opened, held_out


def _held_out(path: str, reading: dict[str, Any]) -> DataSet:
    from ..data.opening import open_data, splits

    return open_data(path, split="valid" if "valid" in splits(path, format=reading["format"]) else None, **reading)


def _fitted(options: ModelOptions, recipe: Recipe, model: Ready, micro: int, recompute: bool, out: Path) -> Fit | ResourceError:
    """The memory that `train` would plan with, or why it would not begin."""
    from ..errors import ResourceError
    from ..training.distributed import ALONE
    from ..training.run import Setup

    try:  # a page is no run's folder, so nothing is remembered there
        return plan_memory(options, recipe, Setup(micro=micro, recompute=recompute), out, model.base, ALONE)
    except ResourceError as error:
        return error


def _measure(
    opened: list[Opened],
    weights: list[float] | None,
    recipe: Recipe,
    model: Ready,
    fitted: Fit | ResourceError,
    options: ModelOptions,
    recompute: bool,
    tell: Tell,
) -> Timing | None:
    """Some updates of the very run that `train` would do; None where there is nothing to learn from, or no memory for it."""
    from ..errors import ResourceError
    from ..inspection.costs import measure
    from ..training.distributed import ALONE
    from ..training.run import Run, Setup

    kept = [number for number, one in enumerate(opened) if len(one.data)]
    if not kept or isinstance(fitted, ResourceError):
        return None
    run = Run(
        recipe,
        read_parts(options, recipe, model.base, ALONE),
        [opened[i].data for i in kept],
        Path(),
        base=base_name(options.model, model.path),
        weights=None if weights is None else [weights[i] for i in kept],
        setup=Setup(micro=fitted.micro, recompute=recompute),
    )
    return measure(run, model.reader(recipe), lambda done, total: tell("timing updates", done, total))


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal: what is being done and how much of it. A total of 0 is not known."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: Any = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        line = bar.add_task("", total=None)
        doing = ""

        def tell(what: str, done: int, total: int) -> None:
            nonlocal doing
            if what != doing:
                doing = what
                bar.reset(line, description=what, total=total or None)
            bar.update(line, completed=done, total=total or None)

        yield tell
