"""A run that begins with an exported model: its weights, and the training aids that its file is without, taught before anything moves."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..checkpoint import load_model
from .resolution import resize_positions

if TYPE_CHECKING:
    from .train import Trainer

SAY_EVERY = 20


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
