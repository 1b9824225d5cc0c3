"""Adam and plain gradient descent in the order of the reference's chain of updates, with a state of flat tensors.

    u <- rate * adam(gradient) + decay * weight                 decay is not multiplied by the rate
    weight <- weight - schedule(step) * u

That is AdamW with a weight decay of decay / rate, so Adam is torch's own, with its fused kernels. Weights in half precision get a float32
copy that is updated in their place (they are rounded from it), since most updates are smaller than what they can hold.
Source: big_vision `optax.py`, `trainers/proj/paligemma/train.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import CheckpointError
from .schedule import Schedule
from .sharding import fill

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's, as the reference leaves them."""
UPDATES = "updates"
PIECE = 2**26
"""Numbers whose gradients are widened to float32 at a time."""


@dataclass(frozen=True)
class Group:
    """Parameters by name that decay alike and follow one schedule."""

    name: str
    parameters: Mapping[str, Tensor]
    decay: float
    schedule: Schedule


class Optimizer(ABC):
    """Made once the weights are in place; then `step` whenever gradients are. Its state is one flat dict of tensors, sharded like the
    parameters. A parameter without a gradient counts as one whose gradient is zero, as in the reference.
    """

    def __init__(self, groups: Iterable[Group], rate: float):
        self.groups = tuple(groups)
        self.rate = rate
        self.updates = 0
        """Steps that were made; a step that was left out does not count."""
        self.parameters: dict[str, Tensor] = {name: p for group in self.groups for name, p in group.parameters.items()}

    def rates(self, step: int) -> dict[str, float]:
        """Group -> learning rate at a step, for the log."""
        return {group.name: self.rate * group.schedule(step) for group in self.groups}

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Update every parameter. `step`: the place in the schedule, from 0."""
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.updates += 1
        self._update(step)

    def clear_gradients(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything there is to be saved: `updates`, and per parameter tensors such as `first.NAME`. Not copies."""
        return {UPDATES: torch.tensor(self.updates)} | dict(self._state())

    @torch.no_grad()
    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from a state, whose tensors may be whole where this one's are shared out.

        Raises `CheckpointError`, with nothing changed, where names, shapes or number types are not this one's.
        """
        own = self.state_tensors()
        problems = [f"{name} is missing" for name in own if name not in tensors]
        problems += [f"{name} belongs to nothing that is trained" for name in tensors if name not in own]
        for name in own.keys() & tensors.keys():
            expected, found = ((tensor.dtype, tuple(tensor.shape)) for tensor in (own[name], tensors[name]))
            if expected != found:
                problems.append(f"{name} is {found[0]} {found[1]}, expected {expected[0]} {expected[1]}")
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise CheckpointError(
                f"the optimizer's state is of another run: {problems[0]}{more}",
                hint="resume with the model, strategy and optimizer of that run",
                code="bad_state",
            )
        for name, tensor in self._state():
            fill(tensor, tensors[name])
        self.updates = int(tensors[UPDATES])
        self._loaded()

    @abstractmethod
    def _update(self, step: int) -> None: ...

    @abstractmethod
    def _state(self) -> Iterator[tuple[str, Tensor]]: ...

    def _loaded(self) -> None:  # noqa: B027 - most have nothing to do
        """What follows from a state that was just put in place."""


class Adam(Optimizer):
    """8 bytes of state for a number in float32, 12 for one in half precision."""

    def __init__(self, groups: Iterable[Group], rate: float):
        super().__init__(groups, rate)
        self._copies = {name: p.detach().float() for name, p in self.parameters.items() if p.dtype.itemsize < 4}
        wide = {name: p for name, p in self.parameters.items() if name not in self._copies}
        self._wide, self._narrow = self._torch(wide), self._torch(self._copies)

    def _torch(self, numbers: Mapping[str, Tensor]) -> torch.optim.AdamW | None:
        """Torch's optimizer of those numbers, with its state made now and not in the first step, so that one can be loaded before."""
        if not numbers:
            return None
        adam = torch.optim.AdamW(
            [
                {"params": [numbers[name] for name in group.parameters if name in numbers], "weight_decay": group.decay / self.rate}
                for group in self.groups
            ],
            lr=self.rate,
            betas=(BETA_1, BETA_2),
            eps=EPSILON,
            fused=all(p.device.type in ("cpu", "cuda") for p in numbers.values()),
        )
        for p in numbers.values():
            count = torch.zeros((), device=p.device)
            adam.state[p] = {"step": count, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        return adam

    def _update(self, step: int) -> None:
        for adam in (self._wide, self._narrow):
            if adam is not None:
                for group, theirs in zip(self.groups, adam.param_groups, strict=True):
                    theirs["lr"] = self.rate * group.schedule(step)
        if self._wide is not None:
            self._wide.step()
        if self._narrow is not None:
            for piece in _pieces(self._copies):
                for name, copy in piece.items():
                    copy.grad = self._gradient(name).float()
                self._narrow.step()
                for name, copy in piece.items():
                    self.parameters[name].copy_(copy)
                    copy.grad = None

    def _gradient(self, name: str) -> Tensor:
        gradient = self.parameters[name].grad
        assert gradient is not None
        return gradient

    def _moments(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        for name, p in self.parameters.items():
            adam = self._narrow if name in self._copies else self._wide
            assert adam is not None
            yield name, adam.state[self._copies.get(name, p)]

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        for name, moments in self._moments():
            yield f"first.{name}", moments["exp_avg"]
            yield f"second.{name}", moments["exp_avg_sq"]
        for name, copy in self._copies.items():
            yield f"copy.{name}", copy

    def _loaded(self) -> None:
        for _, moments in self._moments():
            moments["step"].fill_(self.updates)
        for name, copy in self._copies.items():
            self.parameters[name].copy_(copy)


class GradientDescent(Optimizer):
    """Nothing but the gradient: no momentum, no state."""

    def _update(self, step: int) -> None:
        for group in self.groups:
            factor = group.schedule(step)
            for p in group.parameters.values():
                assert p.grad is not None
                p.mul_(1 - factor * group.decay).sub_(p.grad, alpha=factor * self.rate)

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        yield from ()


def _pieces(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    piece: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        piece[name] = tensor
        size += tensor.numel()
        if size >= PIECE:
            yield piece
            piece, size = {}, 0
    if piece:
        yield piece
