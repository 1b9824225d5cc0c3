"""What `train` and `data check` plan a run from: options they share, the data, the recipe and what is changed in it, memory, the model."""

from __future__ import annotations

import dataclasses
import math
import platform
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from ..data.opening import MAX_BAD_SHARE
from ..printable import printable
from .options import ModelOptions

if TYPE_CHECKING:
    import torch

    from ..data.opening import BadData
    from ..data.records import DataSet
    from ..predictor.loading import Parts
    from ..training.distributed import Processes
    from ..training.fitting import Fit
    from ..training.recipes import Recipe
    from ..training.run import Setup

DATA = Group("Data", sort_key=2)
RECIPE = Group("Recipe", sort_key=3)
RUN = Group("Run", sort_key=4)
AUGMENT = Group("Augmentation (off unless asked for)", sort_key=5)


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """How annotated pictures are read, and which are held out."""

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
    max_bad_fraction: Annotated[float, Parameter(group=DATA)] = MAX_BAD_SHARE
    """More of the records than this that cannot be used are an error."""


READING = Reading()


@dataclass(frozen=True)
class Source:
    """`bad`: why a run would not take it; `data` is then what was read."""

    data: DataSet
    bad: BadData | None = None


@dataclass(frozen=True)
class Sources:
    """What is learnt from and what is held out. `weights`: of each in the mixture, None where nobody gave one."""

    train: tuple[Source, ...]
    weights: tuple[float, ...] | None
    held_out: Source | None


def say(text: str) -> None:
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)


def find_recipe(name: str, resolution: int | None, model: Path) -> Recipe:
    from .. import checkpoint
    from ..errors import InputError
    from ..training import recipes

    file = Path(name).expanduser()
    if file.suffix == ".toml" or file.is_file():
        try:
            found = recipes.from_text(file.read_text(encoding="utf-8"))
            return found if resolution is None else dataclasses.replace(found, resolution=resolution)
        except OSError as error:
            raise InputError(f"{file}: no recipe can be read ({error.strerror})", hint="--print-recipe shows one to save") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: a recipe is text, and this is none", hint="--print-recipe shows one to save") from error
    if resolution is None:
        known = recipes.RECIPES.get(name.lower().replace("_", "-"), {})
        size = checkpoint.inspect(model).config.vision.image_size
        resolution = size if size in known or 0 in known else None
    return recipes.recipe(name, resolution)


def changed_recipe(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """With what options say otherwise; None says nothing. A length, `epochs` or `steps`, takes the place of the recipe's own."""
    said = {name: value for name, value in changes.items() if value is not None}
    if "epochs" in said or "steps" in said:
        said = {"epochs": 0.0, "steps": 0, "examples": 0} | said
    return dataclasses.replace(recipe, **said)


def weighted(text: str) -> tuple[str, float | None]:
    """`PATH=3` -> (PATH, 3); a path that exists as it is has no weight. Raises `UsageError` for a weight that is not above 0."""
    from ..errors import UsageError

    path, sign, number = text.rpartition("=")
    if not sign or Path(text).exists():
        return text, None
    try:
        weight = float(number)
    except ValueError:
        return text, None
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"{printable(text)}: the weight of a source must be above 0", hint="leave out what is not to be learnt from")
    return path, weight


def open_sources(
    sources: Sequence[str],
    reading: Reading,
    *,
    keep_bad: bool = False,
    opened: Callable[[str, DataSet], None] = lambda path, data: None,
    progress: Callable[[int], None] | None = None,
) -> Sources:
    """Every source read and checked, and what is held out. `opened` hears of each that is learnt from, `progress` as `open_data`.

    `keep_bad`: data of which too much cannot be used are kept with the reason, instead of raising `BadData`. Raises what `weighted` and
    `open_data` raise.
    """
    from ..data.opening import BadData, open_data, splits

    common: dict[str, Any] = {"format": reading.format, "task": reading.task, "pictures": reading.pictures, "progress": progress}
    common |= {"max_bad_share": reading.max_bad_fraction}

    def take(path: str, split: str | None) -> Source:
        try:
            return Source(open_data(path, split=split, **common))
        except BadData as error:
            if not keep_bad:
                raise
            return Source(error.data, error)

    paths, weights = zip(*map(weighted, sources), strict=True)
    train, held_out = [], None
    for path in paths:
        parts = splits(path, format=reading.format)
        split = reading.split or ("train" if "train" in parts else None)
        train.append(take(path, split))
        opened(path, train[-1].data)
        if reading.valid is None and held_out is None and "valid" in parts and split == "train":
            held_out = take(path, "valid")
    if reading.valid is not None:
        held_out = take(reading.valid, "valid" if "valid" in splits(reading.valid, format=reading.format) else None)
    mixed = None if set(weights) == {None} else tuple(1.0 if weight is None else weight for weight in weights)
    return Sources(tuple(train), mixed, held_out)


def plan_memory(options: ModelOptions, recipe: Recipe, setup: Setup, out: Path, path: Path, processes: Processes) -> Fit:
    """The run's memory, planned from the checkpoint's headers. Of several processes the one with the least decides for all."""
    from .. import checkpoint
    from ..checkpoint.memory import free_on
    from ..checkpoint.placing import device_of
    from ..training.fitting import fit, machine_of
    from ..training.run import demand_resolution

    config = checkpoint.inspect(path).config
    demand_resolution(config, recipe)
    device = processes.device or device_of(options.device)
    frozen = _dtype(options, dataclasses.replace(recipe, strategy="lora"), path, device)
    machine = machine_of(
        config, _dtype(options, recipe, path, device), device, recompute=setup.recompute, devices=processes.world, frozen=frozen
    )  # fmt: skip
    beside = processes.gather((platform.node(), free_on(str(device))))
    sharing = Counter(node for node, _ in beside)
    known = [free // (sharing[node] if device.type == "cpu" else 1) for node, free in beside if free is not None]
    free, share = min(known, default=None), processes.share(recipe.batch)
    return processes.lead(lambda: fit(config, recipe, machine, share=share, free=free, run=out, micro=setup.micro))


def _dtype(options: ModelOptions, recipe: Recipe, path: Path, device: torch.device) -> torch.dtype:
    """Of the weights: float32 where the model itself learns, the file's own where it stays as it is."""
    from .. import checkpoint
    from ..model import cpu
    from ..predictor.loading import weights_dtype

    frozen = recipe.adapts and (device.type != "cpu" or cpu.has_bfloat16())
    return weights_dtype(checkpoint.inspect(path), options.dtype or (None if frozen else "float32"), device)


def read_parts(options: ModelOptions, recipe: Recipe, path: Path, processes: Processes) -> Parts:
    """The model, to be trained.

    Several processes share it out later, piece by piece, so for them it stays in the file, or in main memory. So it does where its layers
    are to have 4 bits: each goes to the device when it has them, for together they might not fit.
    """
    from ..checkpoint.placing import device_of
    from ..model.nf4 import quantize_linears
    from ..predictor.loading import read

    device = processes.device or device_of(options.device)
    packed = recipe.strategy == "qlora" and processes.alone and device.type != "cpu"
    where = device if processes.alone and not packed else "cpu"
    mapped = recipe.adapts or not processes.alone
    dtype = _dtype(options, recipe, path, device)
    parts = read(options.model, device=where, dtype=dtype, tokenizer=options.tokenizer, codec=options.codec, mapped=mapped)
    if packed:
        quantize_linears(parts.network, recipe.lora_targets, device=device)
        parts.network.to(device)
    return parts


def base_name(model: str | None, path: Path) -> str:
    """How an adapter names its base: as the user did where that is an id, else the absolute path."""
    from .. import checkpoint

    return model if model is not None and checkpoint.is_hub_id(model) and not Path(model).exists() else str(path.resolve())
