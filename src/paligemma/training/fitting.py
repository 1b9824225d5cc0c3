"""A run's memory, planned before anything is loaded: what it takes here, how many examples go through at a time, what would fit instead.

    fit(...) -> Fit     printed, kept in RUN/memory.json; `ResourceError` where it does not fit

How many examples at a time is a fact of a run (sums are rounded otherwise), but what is free is another number every day. So the choice is
made once: a run that goes on takes what memory.json says.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..checkpoint.memory import GB
from ..checkpoint.placing import SMALL
from ..config import PaliGemmaConfig
from ..data.batch import AHEAD
from ..errors import ResourceError, UsageError
from ..model import cpu
from .disk import Disk, replace_file
from .memory_plan import Machine, MemoryPlan, largest_that_fits, plan, suggestions
from .recipes import Recipe

MEMORY = "memory.json"
SHOWN = 5
"""Suggestions that are shown."""
WAITING = AHEAD + 2
"""Batches of pictures that lie in main memory at once: those made ahead, the one at work, and its rows before they were put together."""
SOFTWARE = 200_000_000
"""What libraries, threads and the writing of results take of main memory besides (`python -m bench.run_memory`)."""


@dataclass(frozen=True)
class Fit:
    """`plan`: of `plan.batch` examples at a time. `share`: examples of an update that this process takes. `free`: bytes, None where nobody
    can tell. `beside`: bytes of waiting pictures and of software, where they take of the same memory. `why`: how the number of examples was
    settled.
    """

    plan: MemoryPlan
    share: int
    free: int | None
    beside: int
    why: str

    @property
    def micro(self) -> int:
        return self.plan.batch

    @property
    def available(self) -> int | None:
        """Bytes for what is planned."""
        return None if self.free is None else self.free - self.beside

    def __str__(self) -> str:
        """The plan's table, what there is, and what was chosen."""
        lines = [str(self.plan)]
        if self.beside:
            lines.append(f"  besides     {self.beside / GB:9.2f} GB of waiting pictures and software")
        if self.available is None:
            lines.append("how much memory is free, this machine does not tell")
        else:
            usable = max(self.plan.machine.usable(self.available), 0)
            lines.append(
                f"{_gb(self.free or 0)} are free; {_gb(usable)} of them are planned with, the rest is for what lies besides, and for gaps"
            )
        parts = -(-self.share // self.micro)
        lines.append(f"{self.micro:,} at a time, {parts:,} {'time' if parts == 1 else 'times'} an update: {self.why}")
        return "\n".join(lines)


def fit(
    config: PaliGemmaConfig, recipe: Recipe, machine: Machine, *, share: int, free: int | None, run: Path, micro: int = 0
) -> Fit:  # fmt: skip
    """Plan a run in folder `run`, before it is loaded.

    share: examples of an update that each process takes. free: bytes of the device. micro: examples at a time; 0 for what the run began
    with, else for the largest number that divides the share and fits with a margin (`memory_plan.MARGIN`). A number that was given, or that
    the run began with, may use the margin too.
    Raises `ResourceError`, with what would fit as its hint, and `UsageError` for a number below 0.
    """
    if micro < 0:
        raise UsageError(f"{micro} examples cannot go through at a time", hint="--micro 8, for example, or leave it out")
    beside = waiting_bytes(config, recipe, share) + SOFTWARE if machine.kind == "cpu" else 0
    begun = None if micro else _remembered(run, asked(config, recipe, machine, share))
    if micro or begun:
        wanted = plan(config, recipe, min(micro or begun or 0, share), machine)
        found = Fit(wanted, share, free, beside, "as --micro says" if micro else f"as the run began ({run / MEMORY})")
        if found.available is not None and wanted.total > found.available:
            raise _too_much(found)
        return found
    whole = Fit(plan(config, recipe, share, machine), share, free, beside, "all at once")
    if whole.available is None or whole.plan.fits(whole.available):
        return whole
    largest = largest_that_fits(whole.plan, whole.available)
    if largest is None:
        raise _too_much(whole)
    return dataclasses.replace(whole, plan=largest, why="the most that fit here (--micro takes another number)")


def waiting_bytes(config: PaliGemmaConfig, recipe: Recipe, share: int) -> int:
    """What pictures take between being read and being looked at."""
    return WAITING * share * recipe.frames * 3 * config.vision.image_size**2 * 4


def machine_of(
    config: PaliGemmaConfig, dtype: torch.dtype, device: torch.device, *, recompute: bool, devices: int = 1,
    frozen: torch.dtype | None = None,
) -> Machine:  # fmt: skip
    """The machine a run with weights of this type is on; `frozen`: see `Machine`."""
    return Machine(device.type, devices, dtype, autocasts(config, dtype, device), recompute, frozen)


def autocasts(config: PaliGemmaConfig, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products are in bfloat16 over float32 weights: where the machine has them; small models on a CPU stay in float32."""
    here = device.type != "cpu" or (cpu.has_bfloat16() and config.num_parameters >= SMALL)
    return dtype == torch.float32 and here


def keep(run: Path, found: Fit, recipe: Recipe) -> None:
    """Write memory.json: the choice, for when the run goes on, and for people what it was made of."""
    parts = ("weights", "gradients", "optimizer", "activations", "workspace", "total")
    text = {
        "micro": found.micro,
        "asked": asked(found.plan.config, recipe, found.plan.machine, found.share),
        "planned": {part: getattr(found.plan, part) for part in parts},
        "besides": found.beside,
        "free": found.free,
    }
    replace_file(Disk(), run / MEMORY, (json.dumps(text, indent=2) + "\n").encode())


def asked(config: PaliGemmaConfig, recipe: Recipe, machine: Machine, share: int) -> dict[str, Any]:
    """What the choice hangs on, besides what is free."""
    of_recipe = ("strategy", "optimizer", "batch", "text_len", "frames", "lora_rank")
    return {
        "parameters": config.num_parameters,
        "resolution": config.vision.image_size,
        **{name: getattr(recipe, name) for name in of_recipe},
        "share": share,
        "device": machine.kind,
        "devices": machine.devices,
        "dtype": str(machine.dtype).removeprefix("torch."),
        "recompute": machine.recompute,
    }


def _remembered(run: Path, now: Mapping[str, Any]) -> int | None:
    """The number a run began with, where it is still asked for the same."""
    try:
        kept = json.loads((run / MEMORY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(kept, dict) or kept.get("asked") != now:
        return None
    micro = kept.get("micro")
    return micro if type(micro) is int and 1 <= micro <= now["share"] else None


def _too_much(found: Fit) -> ResourceError:
    assert found.available is not None
    least = plan(found.plan.config, found.plan.recipe, 1, found.plan.machine)
    for_one = f" ({_gb(least.total)} for one at a time)" if found.micro > 1 else ""
    whole = found.plan if found.micro == found.share else plan(found.plan.config, found.plan.recipe, found.share, found.plan.machine)
    lines = []
    for suggestion in itertools.islice(suggestions(whole, found.available), SHOWN):
        option = options(found.plan, suggestion.plan)
        lines.append(f"  {suggestion.words}: {_gb(suggestion.plan.total)}{f'  {option}' if option else ''}")
    told = (
        "\n".join(["what would fit:", *lines])
        if lines
        else "nothing that is known here would fit: take a smaller model, or a larger machine"
    )
    return ResourceError(
        f"the run does not fit: with {found.micro:,} examples at a time it takes {_gb(found.plan.total)}{for_one}, "
        f"and there are {_gb(max(found.available, 0))}",
        hint=told,
        code="out_of_memory",
    )


def options(wanted: MemoryPlan, other: MemoryPlan) -> str:
    """What to add to `paligemma train` for another plan, where options can say it."""
    words = []
    if other.machine.recompute and not wanted.machine.recompute:
        words.append("--recompute")
    if other.recipe.strategy != wanted.recipe.strategy:
        words.append(f"--strategy {other.recipe.strategy}")
    if other.recipe.optimizer != wanted.recipe.optimizer:
        words.append(f"--optimizer {other.recipe.optimizer}")
    if other.machine.dtype != wanted.machine.dtype and other.recipe.strategy == wanted.recipe.strategy:
        words.append(f"--dtype {str(other.machine.dtype).removeprefix('torch.')}")
    if not words and other.batch < wanted.batch:
        words.append(f"--micro {other.batch}")
    same = (other.machine.devices, other.config) == (wanted.machine.devices, wanted.config)
    return " ".join(words) if same else ""


def _gb(size: float) -> str:
    return f"{size / GB:.{2 if size < 10 * GB else 1}f} GB"
