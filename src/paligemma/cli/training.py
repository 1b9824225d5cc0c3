"""`paligemma train`: a model, annotated pictures and a recipe -> a better model; at the end, the command that uses it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..training.recipes import Optimizer, Strategy
from .options import ModelOptions
from .planning import (
    AUGMENT,
    DATA,
    READING,
    RECIPE,
    RUN,
    Reading,
    base_name,
    changed_recipe,
    find_recipe,
    open_sources,
    plan_memory,
    read_parts,
    say,
)  # fmt: skip

if TYPE_CHECKING:
    from ..data.records import DataSet
    from ..training.tensorboard import Board
    from .planning import Sources


DEFAULTS = ModelOptions(model="bundled")
EXAMPLE = "for example: paligemma train --data annotations.jsonl --recipe lora --out run"


def train(
    *,
    data: Annotated[tuple[str, ...], Parameter(group=DATA, consume_multiple=True, negative="", show_default=False)] = (),
    reading: Reading = READING,
    out: Annotated[Path | None, Parameter(alias="-o", group=RUN)] = None,
    recipe: Annotated[str, Parameter(group=RECIPE)] = "simple",
    resolution: Annotated[int | None, Parameter(group=RECIPE)] = None,
    strategy: Annotated[Strategy | None, Parameter(group=RECIPE)] = None,
    epochs: Annotated[float | None, Parameter(group=RECIPE)] = None,
    steps: Annotated[int | None, Parameter(group=RECIPE)] = None,
    batch: Annotated[int | None, Parameter(group=RECIPE)] = None,
    learning_rate: Annotated[float | None, Parameter(name=["--learning-rate", "--lr"], group=RECIPE)] = None,
    text_len: Annotated[int | None, Parameter(group=RECIPE)] = None,
    optimizer: Annotated[Optimizer | None, Parameter(group=RECIPE)] = None,
    seed: Annotated[int | None, Parameter(group=RECIPE)] = None,
    print_recipe: Annotated[bool, Parameter(group=RECIPE, negative="", show_default=False)] = False,
    micro: Annotated[int, Parameter(group=RUN)] = 0,
    recompute: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False,
    save_every: Annotated[int, Parameter(group=RUN)] = 200,
    evaluate_every: Annotated[int, Parameter(group=RUN)] = 0,
    tensorboard: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False,
    allow_inexact: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False,
    allow_data_change: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False,
    crop: Annotated[float, Parameter(group=AUGMENT)] = 0.0,
    flip: Annotated[float, Parameter(group=AUGMENT)] = 0.0,
    colour: Annotated[float, Parameter(group=AUGMENT)] = 0.0,
    jpeg: Annotated[float, Parameter(group=AUGMENT)] = 0.0,
    options: ModelOptions = DEFAULTS,
) -> int:
    """Fine-tune a model on annotated pictures. A run that was stopped goes on where it was, bit for bit, with the same command.

    Parameters
    ----------
    data
        Annotated pictures in any known format; several are mixed. PATH=3 gives one three times the weight of PATH=1.
    out
        The run's folder: checkpoints, log, curves, and at the end `best` and `last`, which --model takes.
    recipe
        A recipe by name (`simple`, `lora`, `docvqa`, ...), or a file that --print-recipe wrote.
    resolution
        The recipe's for pictures of so many pixels; by default the model's.
    strategy
        What learns, if not what the recipe says.
    epochs
        Times through the data.
    steps
        Or: updates.
    batch
        Examples an update.
    learning_rate
        Its highest value.
    text_len
        Most tokens of prompt and answer.
    optimizer
        If not the recipe's. adam-small: a sixth of adam's memory, for --dtype bfloat16.
    seed
        Of everything that is left to chance.
    print_recipe
        Show the recipe with every setting explained, and do nothing else.
    micro
        Examples that go through at a time; by default as many as fit, and when a run goes on as many as it began with. The result is the
        same but for rounding, and for what dropout draws.
    recompute
        Activation checkpointing: far less memory for a third more time.
    save_every
        Updates between checkpoints.
    evaluate_every
        Updates between looks at the held-out pictures; by default ten times a run.
    tensorboard
        Write event files for TensorBoard to the run's folder too.
    allow_inexact
        Go on although settings, machine or versions are not as they were.
    allow_data_change
        Go on although the data are not as they were.
    crop
        Cut up to this share off each side (boxes and masks follow).
    flip
        Mirror with this probability; "left" and "right" follow.
    colour
        Change brightness, contrast and saturation by up to this share.
    jpeg
        Compress with this probability.
    """
    from ..data.augment import Augment
    from ..errors import UsageError
    from ..predictor.loading import find
    from ..training.distributed import joined
    from ..training.recipes import to_text
    from ..training.run import Run, Setup
    from ..training.tensorboard import Board
    from .failures import exit_code
    from .try_out import try_out

    with joined(options.device, exit_code=exit_code) as processes:
        path = find(options.model)
        changes = {"strategy": strategy, "epochs": epochs, "steps": steps, "batch": batch, "learning_rate": learning_rate}
        changes |= {"text_len": text_len, "optimizer": optimizer, "seed": seed}
        chosen = changed_recipe(find_recipe(recipe, resolution, path), changes)
        if print_recipe:
            print(to_text(chosen), end="")
            return 0
        if not data:
            raise UsageError("--data names the annotated pictures to learn from, and is missing", hint=EXAMPLE)
        if out is None:
            raise UsageError("--out names the folder of the run, and is missing", hint=EXAMPLE)
        board = Board(out) if tensorboard and processes.first else None
        setup = Setup(
            micro=micro,
            recompute=recompute,
            save_every=save_every,
            evaluate_every=evaluate_every,
            augment=Augment(crop, flip, colour, jpeg),
            allow_inexact=allow_inexact,
            allow_data_change=allow_data_change,
        )
        sources = _open(data, reading)
        learnt, held_out = [one.data for one in sources.train], sources.held_out
        memory = plan_memory(options, chosen, setup, out, path, processes)
        setup = dataclasses.replace(setup, micro=memory.micro, memory=memory)
        say(str(memory))
        parts = read_parts(options, chosen, path, processes)
        with _progress(board) as tell:
            run = Run(
                chosen, parts, learnt, out, base=base_name(options.model, path), weights=sources.weights,
                held_out=held_out and held_out.data, setup=setup, tell=tell, processes=processes,
            )  # fmt: skip
            tell({"total": run.steps})
            say(str(run.trainable))
            say(f"{run.steps:,} updates of {chosen.batch} examples; recipe {chosen.name}: {out / 'recipe.toml'}")
            finished = run.go()
        if finished.model is None:
            say(f"stopped after {finished.ending.position.step:,} of {finished.steps:,} updates; the same command goes on")
            return finished.ending.exit_code
        for name, value in finished.measures.items():
            print(f"held-out {name.replace('_', ' ')}: {value:.4f}")
        print(f"curves: {out / 'curves.png'}")
        # An adapter's folder has neither tokenizer nor codec.
        more = [("--tokenizer", options.tokenizer), ("--codec", options.codec)] if chosen.adapts else []
        print(try_out(finished.model, learnt[0], [word for name, value in more if value for word in (name, str(value))]))
        return 0


def _open(data: Sequence[str], reading: Reading) -> Sources:
    """Every source, read, checked and said."""
    from ..data.quarantine import summary

    def opened(path: str, found: DataSet) -> None:
        say(f"{path}: {found.format}, {found.task}{f', split {found.split}' if found.split else ''}\n{summary(found)}")

    sources = open_sources(data, reading, opened=opened)
    if sources.held_out is not None:
        held_out = sources.held_out.data
        say(f"held out: {held_out.path} {held_out.split}, {len(held_out):,} records")
    else:
        say("nothing is held out: the last model counts (--valid SOURCE)")
    return sources


@contextlib.contextmanager
def _progress(board: Board | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Who hears of each entry: a bar with throughput and remaining time on a terminal, else a line now and then; and TensorBoard."""
    with _bar() as show:

        def both(entry: dict[str, Any]) -> None:
            show(entry)
            if board is not None:
                board.add(entry)

        try:
            yield both
        finally:
            if board is not None:
                board.close()


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[dict[str, Any]], None]]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: Sequence[Any] = (
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[shown]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, shown="")

        def tell(entry: dict[str, Any]) -> None:
            if "total" in entry:
                bar.update(task, total=entry["total"])
            else:
                bar.update(task, completed=entry["step"], shown=_shown(entry))

        yield tell


def _lines(entry: dict[str, Any]) -> None:
    if "step" in entry:
        say(f"step {entry['step']}  {_shown(entry)}")


def _shown(entry: dict[str, Any]) -> str:
    names = ("loss", "right", "examples_per_second", "held_out_loss", "held_out_right")
    return "  ".join(f"{name.replace('_', ' ')} {entry[name]:.4g}" for name in names if name in entry)
