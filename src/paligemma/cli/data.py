"""`paligemma data check`: what a run would see of annotated pictures, and whether they are fit for it, before anything is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from ..errors import InputError
from ..printable import printable
from ..training.recipes import Optimizer, Strategy
from .options import OUTPUT, Json, ModelOptions, named
from .planning import (
    DATA,
    READING,
    RECIPE,
    RUN,
    Reading,
    Source,
    Sources,
    base_name,
    changed_recipe,
    find_recipe,
    open_sources,
    plan_memory,
    read_parts,
)
from .show import as_json

if TYPE_CHECKING:
    from ..errors import ResourceError
    from ..inspection.check import Opened, Tell
    from ..inspection.costs import Timing
    from ..inspection.ready import Ready
    from ..training.fitting import Fit
    from ..training.recipes import Recipe

app = App(name="data", help="Look at annotated pictures before training on them.", help_format="plaintext")

DEFAULTS = ModelOptions(model="bundled")


@app.command(help_epilogue="Example: paligemma data check annotations.jsonl --recipe lora")
def check(
    sources: Annotated[list[str], named("SOURCE...", "Annotated pictures in any format that `train` reads; PATH=3 as there.")],
    /,
    *,
    reading: Reading = READING,
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
    from ..errors import UsageError
    from ..inspection.check import Setup
    from ..inspection.check import check as inspect
    from ..inspection.page import check_place, write_page
    from ..inspection.ready import ready
    from ..inspection.terminal import summary
    from ..predictor.loading import find

    for name, value, least in (("--limit", limit, 1), ("--samples", samples, 0), ("--micro", micro, 0)):
        if value < least:
            raise UsageError(f"{name} must be at least {least}, got {value}")
    check_place(out)
    path = find(options.model)
    changes = {"strategy": strategy, "epochs": epochs, "steps": steps, "batch": batch, "text_len": text_len, "optimizer": optimizer}
    chosen = changed_recipe(find_recipe(recipe, resolution, path), changes)
    model = ready(options.model, chosen, tokenizer=options.tokenizer, codec=options.codec)
    fitted = _fitted(options, chosen, model, micro, recompute, out)
    with _progress() as tell:
        there = open_sources(sources, reading, keep_bad=True, progress=lambda done: tell("reading annotations", done, 0))
        timing = _measure(there, chosen, model, fitted, options, recompute, tell) if measure else None
        found = inspect(
            [_opened(one) for one in there.train], model, chosen, fitted, weights=there.weights,
            held_out=there.held_out and _opened(there.held_out), setup=Setup(samples, limit), timing=timing, tell=tell,
        )  # fmt: skip
        tell("drawing the page", 0, 0)
        write_page(found, out)
    if json:
        print(as_json(found.to_dict()))
    else:
        print(summary(found))
        print(printable(f"page: {out}"))
    return 0 if found.fit else InputError.exit_code


def _opened(source: Source) -> Opened:
    from ..inspection.check import Opened

    bad = source.bad
    return Opened(source.data) if bad is None else Opened(source.data, bad.message, bad.hint or "")


def _fitted(options: ModelOptions, recipe: Recipe, model: Ready, micro: int, recompute: bool, out: Path) -> Fit | ResourceError:
    """The memory that `train` would plan with, or why it would not begin."""
    from ..errors import ResourceError
    from ..training.distributed import ALONE
    from ..training.run import Setup

    try:  # a page is no run's folder, so nothing is remembered there
        return plan_memory(options, recipe, Setup(micro=micro, recompute=recompute), out, model.path, ALONE)
    except ResourceError as error:
        return error


def _measure(
    sources: Sources,
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

    kept = [number for number, one in enumerate(sources.train) if len(one.data)]
    if not kept or isinstance(fitted, ResourceError):
        return None
    run = Run(
        recipe,
        read_parts(options, recipe, model.path, ALONE),
        [sources.train[i].data for i in kept],
        Path(),
        base=base_name(options.model, model.path),
        weights=None if sources.weights is None else [sources.weights[i] for i in kept],
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
