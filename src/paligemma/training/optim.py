"""From a recipe to its optimizer: which weights decay, which rise slowly, by which rule; and clipping, which comes before its step.

Source: big_vision `optax.py`; for the order of all that, see `optimizer.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from .optimizer import Adam, GradientDescent, Group, Optimizer
from .recipes import Decay, Recipe
from .schedule import Schedule
from .sharding import all_rows, is_shared, local
from .small_adam import SmallAdam


def make_optimizer(recipe: Recipe, parameters: Mapping[str, Tensor], steps: int) -> Optimizer:
    """The optimizer of a run of `steps` updates, for parameters by name (`Trainable.parameters`) whose values are in place."""
    groups = make_groups(recipe, parameters, steps)
    if recipe.optimizer == "sgd":
        return GradientDescent(groups, recipe.learning_rate)
    if recipe.optimizer == "adam-small":
        return SmallAdam(groups, recipe.learning_rate, recipe.seed)
    return Adam(groups, recipe.learning_rate)


def make_groups(recipe: Recipe, parameters: Mapping[str, Tensor], steps: int) -> list[Group]:
    """At most four: of the image tower and of the rest, what decays and what does not."""
    groups = []
    for vision in (False, True):
        schedule = make_schedule(recipe, steps, vision=vision)
        for decay in (True, False):
            chosen = {
                name: p for name, p in parameters.items() if name.startswith("vision.") == vision and decays(name, p, recipe.decay) == decay
            }
            if chosen:
                name = ("image tower" if vision else "rest") + (", decays" if decay else "")
                groups.append(Group(name, chosen, recipe.weight_decay if decay else 0.0, schedule))
    return groups


def make_schedule(recipe: Recipe, steps: int, *, vision: bool = False) -> Schedule:
    """Of the image tower, or of everything else. Shares of the run become whole updates, rounded down."""
    slow = int(recipe.slow_vision * steps) if vision else 0
    return Schedule(recipe.schedule, steps, int(recipe.warmup * steps), recipe.start, recipe.timescale, slow)


def decays(name: str, parameter: Tensor, mask: Decay) -> bool:
    """Whether a weight decays.

    `reference`: the matrices of the image tower and the projector only. The reference picks weights whose name ends in `/kernel`, and the
    decoder's are called otherwise; its published recipes were tuned so. `matrices`: whatever has two axes or more.
    """
    if mask == "matrices":
        return parameter.dim() >= 2
    return name.startswith(("vision.", "projector.")) and name.endswith(".weight") and parameter.dim() >= 2


def clip_gradients(parameters: Iterable[Tensor], largest: float) -> Tensor:
    """Scale all gradients so that their global norm is at most `largest` (0: leave them); return the norm before, a float32 scalar.

    A norm that is not finite is returned and nothing is scaled: it is for the caller not to take that step.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = global_norm(gradients)
    if largest and bool(norm.isfinite()) and norm > largest:
        for gradient in gradients:
            gradient.mul_(largest / float(norm))
    return norm


def global_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of all tensors as one vector, summed in float32. Of tensors that are shared out by rows, the other processes' rows count."""
    tensors = list(tensors)
    if not tensors:
        return torch.zeros(())
    own = [local(tensor) for tensor in tensors]
    norms = torch.stack([torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in own])
    if is_shared(tensors[0]):  # then all of them are
        norms = torch.linalg.vector_norm(all_rows(norms[None], tensors[0]), dim=0)
    return torch.linalg.vector_norm(norms)
