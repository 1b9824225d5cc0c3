"""What a run begins with: random weights, or an exported model and the training aids that its file lacks, taught before anything moves.

It is written down once, beside the recipe: a run that was stopped goes on as it was begun, whatever the command says or leaves out.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..checkpoint import find_codec, load_model
from ..config import PaliGemmaConfig
from ..errors import CheckpointError, UsageError
from ..training.run import fingerprint
from .recipes import Recipe
from .resolution import resize_positions

if TYPE_CHECKING:
    from .train import Trainer

SAY_EVERY = 20
START = "start.json"
CODEC, TOKENIZER = "mask_codec.safetensors", "tokenizer.model"


def parts(model: Path) -> dict[str, Path]:
    """What a run takes over from the model it begins with, besides the weights: its name in the run -> where it is, if it is there."""
    found = {CODEC: find_codec(model), TOKENIZER: model / TOKENIZER}
    return {name: path for name, path in found.items() if path is not None and path.name == name and path.is_file()}


@dataclass(frozen=True)
class Beginning:
    """The model a run begins with: its name and what its weights are, and at which phase. No name: random weights.

    `folder`: where it was; only a run without a state has to look there again.
    """

    name: str = ""
    fingerprint: str = ""
    phase: int = 0
    folder: str = ""

    def __str__(self) -> str:
        return f"`{self.name}` ({self.fingerprint[:8]}) at phase {self.phase}" if self.name else "random weights"


def beginning(recipe: Recipe, run: Path, start: Path | None, phase: int | None) -> Beginning:
    """What the run in that folder begins with, or began with: writes nothing. None for `start` and `phase`: as it is written there.

    Raises `UsageError` where something else is written there, or a recipe that needs a model, or a phase, is given none; `CheckpointError`
    where the model is another than it was, is of another shape than the recipe's, or lacks its tokenizer or its mask codec.
    """
    if phase is not None and not 0 <= phase < len(recipe.phases):
        raise UsageError(f"--phase is one of 0 to {len(recipe.phases) - 1}, got {phase}")
    there = _read(run)
    asked = (there or Beginning()) if start is None else _asked(start, there.phase if there else 0)
    if phase is not None:
        asked = dataclasses.replace(asked, phase=phase)
    if phase and not asked.name:
        raise UsageError(f"a run from random weights begins at phase 0, not {phase}", hint="--start MODEL begins with a model's weights")
    if there is not None and _what(asked) != _what(there):
        raise UsageError(f"{run} holds a run that began with {there}, not with {asked}", hint="choose another run folder, or say neither")
    if not (run / "state.pt").exists():
        if recipe.start and not asked.name:
            raise UsageError(f"the recipe {recipe.name} begins with a model: {recipe.start}", hint="--start FOLDER names it")
        if asked.name:
            _demand(recipe, asked)
    return asked


def _what(one: Beginning) -> tuple[str, int]:
    return one.fingerprint, one.phase


def _read(run: Path) -> Beginning | None:
    """What is written in the folder, None where nothing is. A run with a state and no such file is older than the file."""
    path = run / START
    if not path.exists():
        return Beginning() if (run / "state.pt").exists() else None
    try:
        return Beginning(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} does not say what the run begins with", hint="choose another folder", code="bad_state") from error


def origin(run: Path) -> str:
    """Name of the model that a run began with, "" for none."""
    there = _read(run)
    return "" if there is None else there.name


def _asked(start: Path, phase: int) -> Beginning:
    model = load_model(start, dtype=torch.float32)
    return Beginning(name_of(model.config, start), fingerprint(model), phase, str(start.resolve()))


def name_of(config: PaliGemmaConfig, folder: Path) -> str:
    """What a model calls itself, or else its folder's name."""
    return folder.resolve().name if config.name in ("", PaliGemmaConfig.name) else config.name


def _demand(recipe: Recipe, beginning: Beginning) -> None:
    """That the model is there, is the one that was, and fits the recipe."""
    folder = Path(beginning.folder)
    if not folder.is_dir():
        raise UsageError(f"the model that the run begins with is no longer at {folder}", hint=f"--start says where {beginning.name} is")
    model = load_model(folder, dtype=torch.float32)
    if fingerprint(model) != beginning.fingerprint:
        raise CheckpointError(f"{folder} is no longer the model that the run begins with", hint="choose another run folder")
    if missing := [name for name in (CODEC, TOKENIZER) if name not in parts(folder)]:
        raise CheckpointError(f"{folder} has no {' and no '.join(missing)}", hint="begin with a model that `paligemma nano train` made")
    wanted = recipe.config()
    found = model.config.with_resolution(wanted.vision.image_size)  # positions are stretched
    if (found.vision, found.text) != (wanted.vision, wanted.text):
        raise CheckpointError(f"{folder} is of another shape than the recipe {recipe.name}", hint="its widths and depths must be the same")


def begin(trainer: Trainer, start: Path, phase: int) -> None:
    """Give the trainer the weights of the model in folder `start`, teach the aids, and save: the run is at the start of `phase`."""
    _take_weights(trainer, start)
    trainer.phase = phase
    _teach_aids(trainer)
    trainer.save()


def _take_weights(trainer: Trainer, start: Path) -> None:
    """The table is folded in the file: what the coordinate code adds to it is taken off again."""
    state = load_model(start, dtype=torch.float32).state_dict()
    state["vision.pos_embed"] = resize_positions(state["vision.pos_embed"], trainer.recipe.vision.grid)
    table = state.pop("text.embed.weight")
    with torch.no_grad():
        state["text.embed.parametrizations.weight.original"] = table - trainer.code(torch.zeros_like(table))
    of_the_code = {name for name in trainer.model.state_dict() if ".parametrizations.weight.0." in name}
    trainer.model.load_state_dict(state | {name: trainer.model.state_dict()[name] for name in of_the_code})


def _teach_aids(trainer: Trainer) -> None:
    """With everything else still: what they say at first would spoil it."""
    phase = trainer.recipe.phases[trainer.phase]
    moving = [p for p in trainer.modules().parameters() if p.requires_grad]
    aids = [*trainer.head.parameters(), *trainer.pointer.parameters()]
    for p in moving:
        p.requires_grad_(False)
    for p in aids:
        p.requires_grad_(True)
    optimizer = torch.optim.AdamW(aids, lr=trainer.recipe.adam_lr)
    with trainer.batches(trainer.phase, phase, 0) as batches:
        for step, batch in enumerate(itertools.islice(batches, trainer.recipe.aid_steps)):
            loss, record = trainer.loss(batch, phase, 0.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % SAY_EVERY == 0:
                trainer.log(f"aids, step {step}: " + " ".join(f"{name}={value:.4f}" for name, value in record.items()))
    for p in moving:
        p.requires_grad_(True)
    torch.compiler.reset()  # what was compiled for still weights does not count against the limit of recompilations
