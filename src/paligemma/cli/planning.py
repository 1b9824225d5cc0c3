"""What `train` and `data check` plan a run from: options they share, the recipe by its name, memory, the model to be trained."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import Group

from ..printable import printable
from .options import ModelOptions

if TYPE_CHECKING:
    import torch

    from ..predictor.loading import Parts
    from ..training.distributed import Processes
    from ..training.fitting import Fit
    from ..training.recipes import Recipe
    from ..training.run import Setup

DATA = Group("Data", sort_key=2)
RECIPE = Group("Recipe", sort_key=3)
RUN = Group("Run", sort_key=4)
AUGMENT = Group("Augmentation (off unless asked for)", sort_key=5)

Optimizer = Literal["adam", "adam-small", "sgd"]
Strategy = Literal["full", "freeze-vision", "attention-only", "lora", "qlora"]


def say(text: str) -> None:
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)


def find_recipe(name: str, resolution: int | None, model: Path) -> Recipe:
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


def weighted(text: str) -> tuple[str, float | None]:
    """`PATH=3` -> (PATH, 3); a path that exists as it is has no weight."""
    path, sign, weight = text.rpartition("=")
    if not sign or Path(text).exists():
        return text, None
    try:
        return path, float(weight)
    except ValueError:
        return text, None


def plan_memory(options: ModelOptions, recipe: Recipe, setup: Setup, out: Path, path: Path, processes: Processes) -> Fit:
    """The run's memory, planned from the checkpoint's headers. Of several processes the one with the least decides for all."""
    from .. import checkpoint
    from ..checkpoint.memory import free_on
    from ..predictor.loading import device_of
    from ..training.fitting import fit, machine_of
    from ..training.run import demand_resolution

    config = checkpoint.inspect(path).config
    demand_resolution(config, recipe)
    device = processes.device or device_of(options.device)
    machine = machine_of(
        config, _dtype(options, recipe, path, device), device, recompute=setup.recompute, devices=processes.world
    )  # fmt: skip
    beside = processes.gather((platform.node(), free_on(str(device))))
    here = sum(node == platform.node() for node, _ in beside) if device.type == "cpu" else 1
    known = [free // here for _, free in beside if free is not None]
    free, share = min(known, default=None), processes.share(recipe.batch)
    return processes.lead(lambda: fit(config, recipe, machine, share=share, free=free, run=out, micro=setup.micro))


def _dtype(options: ModelOptions, recipe: Recipe, path: Path, device: torch.device) -> torch.dtype:
    """Of the weights: float32 where the model itself learns, the file's own where it stays as it is."""
    from .. import checkpoint
    from ..model import cpu
    from ..predictor.loading import weights_dtype

    frozen = recipe.strategy in ("lora", "qlora") and (device.type != "cpu" or cpu.has_bfloat16())
    return weights_dtype(checkpoint.inspect(path), options.dtype or (None if frozen else "float32"), device)


def read_parts(options: ModelOptions, recipe: Recipe, path: Path, processes: Processes) -> Parts:
    """The model, to be trained.

    Several processes share it out later, piece by piece, so for them it stays in the file, or in main memory. So it does where its layers
    are to have 4 bits: each goes to the device when it has them, for together they might not fit.
    """
    from ..model.nf4 import quantize_linears
    from ..predictor.loading import device_of, read

    device = processes.device or device_of(options.device)
    packed = recipe.strategy == "qlora" and processes.alone and device.type != "cpu"
    where = device if processes.alone and not packed else "cpu"
    mapped = recipe.strategy in ("lora", "qlora") or not processes.alone
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
