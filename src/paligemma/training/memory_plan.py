"""Will a run fit? Its memory by kind before anything is loaded, and in words what would fit instead.

Weights, gradients and the optimizer's state are counted on the model as it will be trained, on the meta device; what a pass holds comes
from `footprint.py`. Left out: pictures waiting to be used, what a device's own software takes, gaps between tensors. `MARGIN` is for those.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint.detect import describe
from ..checkpoint.memory import GB
from ..config import PRESETS, PaliGemmaConfig
from ..model.empty import empty_model
from ..model.nf4 import Nf4Linear
from .footprint import Pass, footprint
from .optim import make_optimizer
from .optimizer import UPDATES, Adam
from .recipes import Recipe
from .strategies import prepare

MARGIN = {"cpu": 0.2, "elsewhere": 0.1}
"""Share of what is free that a plan leaves alone. On a CPU gaps between tensors take up to a fifth (`python -m bench.plans --measure`)."""
SMALLER = (448, 224)
"""Resolutions to fall back to."""
MORE_DEVICES = (2, 4, 8)


@dataclass(frozen=True)
class Machine:
    """`dtype` of the weights; `autocast`: to bfloat16, for float32 weights. `devices`: processes that share weights, gradients and state
    (FSDP2), each with examples of its own. `recompute`: see `model/recompute.py`. `frozen`: the type of weights that only carry an adapter,
    where it is another one than that of weights that learn."""

    kind: str = "cuda"
    devices: int = 1
    dtype: torch.dtype = torch.bfloat16
    autocast: bool = False
    recompute: bool = False
    frozen: torch.dtype | None = None

    def usable(self, available: int) -> float:
        """Of so many free bytes."""
        return available * (1 - MARGIN["cpu" if self.kind == "cpu" else "elsewhere"])


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each device. `batch`: examples at a time on each; `workspace`: what is there besides for a moment, at the worst one."""

    config: PaliGemmaConfig
    recipe: Recipe
    batch: int
    machine: Machine
    weights: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.workspace

    def fits(self, available: int) -> bool:
        """Whether it does in so many free bytes, of which `MARGIN` is left alone."""
        return self.total <= self.machine.usable(available)

    def __str__(self) -> str:
        """A table for people."""
        machine, name = self.machine, self.config.name or describe(self.config)
        kind = f"{str(machine.dtype).removeprefix('torch.')}{', bfloat16 products' if machine.autocast else ''}"
        pictures = f" of {self.recipe.frames} pictures" if self.recipe.frames > 1 else ""
        lines = [
            f"{name}, {self.config.vision.image_size} pixels, {self.recipe.strategy}, {self.recipe.optimizer}, {kind}",
            f"{_count(self.batch, 'example')}{pictures} at a time, {self.recipe.text_len} tokens each"
            + (", blocks computed again" if machine.recompute else "")
            + (f", shared by {machine.devices} devices" if machine.devices > 1 else ""),
        ]
        parts = ("weights", "gradients", "optimizer", "activations", "workspace", "total")
        return "\n".join([*lines, *(f"  {part:<11} {getattr(self, part) / GB:9.2f} GB" for part in parts)])


def plan(config: PaliGemmaConfig, recipe: Recipe, batch: int, machine: Machine = Machine()) -> MemoryPlan:
    """The memory of a recipe on a model, `batch` examples at a time. A recipe's own resolution counts, if it has one."""
    if recipe.resolution:
        config = config.with_resolution(recipe.resolution)
    still = _still(config, recipe, machine.dtype)
    how = Pass(batch, machine.dtype, machine.autocast, machine.recompute, fused_attention=machine.kind != "cpu")
    moving = footprint(config, recipe, how)
    n = machine.devices
    workspace = max(moving.peak - moving.kept + still.unpacked, still.step - moving.kept, 0) + (still.gathered if n > 1 else 0)
    weights, gradients, optimizer = (-(-size // n) for size in (still.weights, still.gradients, still.optimizer))
    return MemoryPlan(config, recipe, batch, machine, weights + still.buffers, gradients, optimizer, moving.kept, workspace)


@dataclass(frozen=True)
class _Still:
    """What is there all the time. `buffers`: weights of 4-bit layers, of which every device has all, since FSDP2 shares out parameters
    only. `unpacked`: the largest 4-bit matrix as a plain one. `step`: what the optimizer needs besides for a moment. `gathered`: what a
    device has whole of shared tensors, all that is in no block and two blocks, and the gradients of that.
    """

    weights: int
    buffers: int
    gradients: int
    optimizer: int
    unpacked: int
    step: int
    gathered: int


@functools.lru_cache(maxsize=64)
def _still(config: PaliGemmaConfig, recipe: Recipe, dtype: torch.dtype) -> _Still:
    model = empty_model(config).to(dtype)
    trainable = prepare(model, recipe)
    optimizer = make_optimizer(recipe, trainable.parameters, 1)
    packed = [layer.in_features * layer.out_features for layer in model.modules() if isinstance(layer, Nf4Linear)]
    narrow = [p.numel() for p in trainable.parameters.values() if p.dtype.itemsize < 4]
    blocks = [_bytes(block.parameters()) for tower in (model.text, model.vision) for block in tower.blocks]
    weights = _bytes(model.parameters())
    return _Still(
        weights=weights,
        buffers=_bytes(model.buffers()),
        gradients=_bytes(trainable.parameters.values()),
        optimizer=sum(tensor.nbytes for name, tensor in optimizer.state_tensors().items() if name != UPDATES),
        unpacked=max(packed, default=0) * (dtype.itemsize + 4),
        step=4 * max(narrow, default=0) if isinstance(optimizer, Adam) else 0,
        gathered=(weights - sum(blocks) + 2 * max(blocks)) * (2 if trainable.strategy in ("full", "freeze-vision") else 1),
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@dataclass(frozen=True)
class Suggestion:
    """`words`: what to change, for people; `plan`: with that."""

    words: str
    plan: MemoryPlan


def suggestions(wanted: MemoryPlan, available: int) -> Iterator[Suggestion]:
    """What would fit in so many free bytes where a plan does not, the smallest change first, each with the largest number of examples at a
    time that fits, up to the plan's. None if nothing does. Each takes some seconds to find, so take as many as you show.
    """
    kinds = set()
    for kind, words, recipe, machine in _changes(wanted):
        smaller = None if kind in kinds else largest_that_fits(dataclasses.replace(wanted, recipe=recipe, machine=machine), available)
        if smaller is not None:
            kinds.add(kind)
            yield Suggestion(", ".join([*words, *_fewer(wanted.batch, smaller.batch)]), smaller)


def _changes(wanted: MemoryPlan) -> Iterator[tuple[str, list[str], Recipe, Machine]]:
    """Ever larger changes, each besides the number of examples: (kind, words, recipe, machine); of a kind one that fits is enough."""
    recipe, machine = wanted.recipe, wanted.machine
    yield "batch", [], recipe, machine
    words: list[str] = []
    if not machine.recompute:
        words = ["compute blocks again in the backward pass (a third more arithmetic)"]
        machine = dataclasses.replace(machine, recompute=True)
        yield "recompute", words, recipe, machine
    if recipe.optimizer == "adam" and recipe.strategy in ("full", "freeze-vision"):
        small = dataclasses.replace(recipe, optimizer="adam-small")
        if machine.dtype == torch.bfloat16:
            yield "optimizer", [*words, "the optimizer adam-small"], small, machine
        elif machine.kind != "cpu":
            narrow = dataclasses.replace(machine, dtype=torch.bfloat16, autocast=False)
            yield "optimizer", [*words, "bfloat16 weights with the optimizer adam-small"], small, narrow
    for strategy in ("lora", "qlora"):
        if recipe.strategy not in ("qlora", strategy):
            yield strategy, [*words, f"the strategy {strategy}"], dataclasses.replace(recipe, strategy=strategy), _of_frozen(machine)
    for size in SMALLER:
        if wanted.config.name in PRESETS and size < wanted.config.vision.image_size:
            yield "resolution", [*words, f"the model for {size} pixels"], dataclasses.replace(recipe, resolution=size), machine
    for devices in MORE_DEVICES:
        if devices > machine.devices and machine.kind != "cpu":
            yield "devices", [*words, f"{devices} devices"], recipe, dataclasses.replace(machine, devices=devices)


def _of_frozen(machine: Machine) -> Machine:
    """The machine when weights stay as they are."""
    if machine.frozen in (None, machine.dtype):
        return machine
    return dataclasses.replace(machine, dtype=machine.frozen, autocast=machine.autocast and machine.frozen == torch.float32)


def largest_that_fits(wanted: MemoryPlan, available: int) -> MemoryPlan | None:
    """The plan with as many examples at a time as fit in so many free bytes: all of its own, or a number that divides them, so that all
    passes of an update are alike. None if one does not fit.

    A pass grows in a straight line with them, so two looks tell where to begin.
    """

    def look(batch: int) -> MemoryPlan:
        return plan(wanted.config, wanted.recipe, batch, wanted.machine)

    if (whole := look(wanted.batch)).fits(available):
        return whole
    if wanted.batch == 1 or not (one := look(1)).fits(available):
        return None
    each = (whole.total - one.total) / (wanted.batch - 1)
    for batch in range(wanted.batch // 2, 1, -1):
        near = wanted.batch % batch == 0 and one.total + (batch - 1) * each <= wanted.machine.usable(available)
        if near and (found := look(batch)).fits(available):
            return found
    return one


def _fewer(wanted: int, batch: int) -> Iterator[str]:
    if batch < wanted:
        yield f"{_count(batch, 'example')} at a time and {-(-wanted // batch)} times an update (the result is the same)"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
