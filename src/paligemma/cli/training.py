"""`paligemma train`: a model, annotated pictures and a recipe -> a better model; at the end, the command that uses it."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from ..printable import printable
from .options import ModelOptions

if TYPE_CHECKING:
    from ..data.records import DataSet
    from ..predictor.loading import Parts
    from ..training.recipes import Recipe

DATA = Group("Data", sort_key=2)
RECIPE = Group("Recipe", sort_key=3)
RUN = Group("Run", sort_key=4)
AUGMENT = Group("Augmentation (off unless asked for)", sort_key=5)

Strategy = Literal["full", "freeze-vision", "attention-only", "lora", "qlora"]


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Which annotated pictures, and how they are read."""

    data: Annotated[tuple[str, ...], Parameter(group=DATA, consume_multiple=True, negative="", show_default=False)] = ()
    """Annotated pictures in any known format; several are mixed. PATH=3 gives one three times the weight of PATH=1."""
    valid: Annotated[str | None, Parameter(group=DATA)] = None
    """Pictures that are held out, to say which checkpoint is best. By default the data's own valid split, if it has one."""
    format: Annotated[str | None, Parameter(group=DATA)] = None
    """Of the data, where it is not to be recognised."""
    task: Annotated[str | None, Parameter(group=DATA)] = None
    """What the pictures are for, where the format leaves it open: detect, segment, caption, ..."""
    split: Annotated[str | None, Parameter(group=DATA)] = None
    """Of a divided data set; by default train."""
    pictures: Annotated[Path | None, Parameter(group=DATA)] = None
    """The folder that names of pictures are relative to."""
    max_bad_fraction: Annotated[float, Parameter(group=DATA)] = 0.01
    """Stop if more of the records than this cannot be used."""


DEFAULTS = ModelOptions(model="bundled")
NO_DATA = DataOptions()
EXAMPLE = "for example: paligemma train --data annotations.jsonl --recipe lora --out run"


@dataclasses.dataclass(frozen=True)
class _Chosen:
    train: tuple[DataSet, ...]
    weights: tuple[float, ...] | None
    held_out: DataSet | None


def train(
    *,
    data: DataOptions = NO_DATA,
    out: Annotated[Path | None, Parameter(alias="-o", group=RUN)] = None,
    recipe: Annotated[str, Parameter(group=RECIPE)] = "simple",
    resolution: Annotated[int | None, Parameter(group=RECIPE)] = None,
    strategy: Annotated[Strategy | None, Parameter(group=RECIPE)] = None,
    epochs: Annotated[float | None, Parameter(group=RECIPE)] = None,
    steps: Annotated[int | None, Parameter(group=RECIPE)] = None,
    batch: Annotated[int | None, Parameter(group=RECIPE)] = None,
    learning_rate: Annotated[float | None, Parameter(name=["--learning-rate", "--lr"], group=RECIPE)] = None,
    text_len: Annotated[int | None, Parameter(group=RECIPE)] = None,
    seed: Annotated[int | None, Parameter(group=RECIPE)] = None,
    print_recipe: Annotated[bool, Parameter(group=RECIPE, negative="", show_default=False)] = False,
    micro: Annotated[int, Parameter(group=RUN)] = 0,
    recompute: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False,
    save_every: Annotated[int, Parameter(group=RUN)] = 200,
    evaluate_every: Annotated[int, Parameter(group=RUN)] = 0,
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
    seed
        Of everything that is left to chance.
    print_recipe
        Show the recipe with every setting explained, and do nothing else.
    micro
        Examples that go through at a time; by default the whole batch. The result is the same but for rounding.
    recompute
        Activation checkpointing: far less memory for a third more time.
    save_every
        Updates between checkpoints.
    evaluate_every
        Updates between looks at the held-out pictures; by default ten times a run.
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
    from ..training.recipes import to_text
    from ..training.run import Run, Setup

    path = find(options.model)
    chosen = _recipe(recipe, resolution, path)
    changes = {"strategy": strategy, "batch": batch, "learning_rate": learning_rate, "text_len": text_len, "seed": seed}
    changes = {name: value for name, value in changes.items() if value is not None}
    if epochs is not None or steps is not None:
        changes |= {"epochs": epochs or 0.0, "steps": steps or 0, "examples": 0}
    chosen = dataclasses.replace(chosen, **changes)
    if print_recipe:
        print(to_text(chosen), end="")
        return 0
    if not data.data:
        raise UsageError("--data names the annotated pictures to learn from, and is missing", hint=EXAMPLE)
    if out is None:
        raise UsageError("--out names the folder of the run, and is missing", hint=EXAMPLE)
    setup = Setup(
        micro=micro,
        recompute=recompute,
        save_every=save_every,
        evaluate_every=evaluate_every,
        augment=Augment(crop, flip, colour, jpeg),
        allow_inexact=allow_inexact,
        allow_data_change=allow_data_change,
    )
    sources = _open(data)
    parts = _parts(options, chosen)
    with _progress() as tell:
        run = Run(
            chosen, parts, sources.train, out, base=_base(options.model, path), weights=sources.weights, held_out=sources.held_out,
            setup=setup, tell=tell,
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
    verb = {"describe_box": "describe-box"}.get(sources.train[0].task, sources.train[0].task)
    command = {"answer": "ask", "mixed": "run"}.get(verb, verb)
    print(f"paligemma {command} PICTURE --model {finished.model}")
    return 0


def say(text: str) -> None:
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)


def _recipe(name: str, resolution: int | None, model: Path) -> Recipe:
    from .. import checkpoint
    from ..errors import InputError
    from ..training import recipes

    file = Path(name).expanduser()
    if file.suffix == ".toml" or file.is_file():
        try:
            return recipes.from_text(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{file}: no recipe can be read ({error.strerror})", hint="--print-recipe shows one to save") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: a recipe is text, and this is none", hint="--print-recipe shows one to save") from error
    if resolution is None:
        known = recipes.RECIPES.get(name.lower().replace("_", "-"), {})
        size = checkpoint.inspect(model).config.vision.image_size
        resolution = size if size in known or 0 in known else None
    return recipes.recipe(name, resolution)


def _open(options: DataOptions) -> _Chosen:
    """Every source, read and checked, and said."""
    from ..data.opening import open_data, splits
    from ..data.quarantine import summary

    paths, weights = zip(*map(_weighted, options.data), strict=True)
    common: dict[str, Any] = {"format": options.format, "task": options.task, "max_bad_share": options.max_bad_fraction}
    common |= {"pictures": options.pictures}
    sources, held_out = [], None
    for path in paths:
        parts = splits(path, format=options.format)
        split = options.split or ("train" if "train" in parts else None)
        sources.append(open_data(path, split=split, **common))
        say(f"{path}: {sources[-1].format}, {sources[-1].task}{f', split {split}' if split else ''}\n{summary(sources[-1])}")
        if options.valid is None and held_out is None and "valid" in parts and split == "train":
            held_out = open_data(path, split="valid", **common)
    if options.valid is not None:
        parts = splits(options.valid, format=options.format)
        held_out = open_data(options.valid, split="valid" if "valid" in parts else None, **common)
    if held_out is not None:
        say(f"held out: {held_out.path} {held_out.split}, {len(held_out):,} records")
    else:
        say("nothing is held out: the last model counts (--valid SOURCE)")
    return _Chosen(tuple(sources), None if set(weights) == {None} else tuple(weight or 1.0 for weight in weights), held_out)


def _weighted(text: str) -> tuple[str, float | None]:
    """`PATH=3` -> (PATH, 3); a path that exists as it is has no weight."""
    path, sign, weight = text.rpartition("=")
    if not sign or Path(text).exists():
        return text, None
    try:
        return path, float(weight)
    except ValueError:
        return text, None


def _parts(options: ModelOptions, recipe: Recipe) -> Parts:
    """The model, to be trained: float32 weights where all of it learns, the file's own where they stay as they are."""
    from ..model import cpu
    from ..predictor.loading import device_of, read

    dtype = options.dtype
    adapters = recipe.strategy in ("lora", "qlora")
    if dtype is None and (not adapters or (device_of(options.device).type == "cpu" and not cpu.has_bfloat16())):
        dtype = "float32"
    return read(options.model, device=options.device, dtype=dtype, tokenizer=options.tokenizer, codec=options.codec, mapped=adapters)


def _base(model: str | None, path: Path) -> str:
    """How an adapter names its base: as the user did where that is an id, else the absolute path."""
    from .. import checkpoint

    return model if model is not None and checkpoint.is_hub_id(model) and not Path(model).exists() else str(path.resolve())


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar with throughput and remaining time on a terminal, else a line now and then."""
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
