"""Adam with a small state, for training all of a model in bfloat16: 2 bytes a number beside the weight's own 2, where Adam takes 12.

    first moment      bfloat16
    second moment     of a matrix, the means of its rows and of its columns in float32; v[i, j] = rows[i] * columns[j] / mean(rows)
    weights           no float32 copy: an update is added in float32 and rounded up or down by chance, in proportion, so that updates too
                      small for bfloat16 still count on average

An update whose mean square is above one is scaled down to it, since the factored second moment can be too low for single numbers.
Rates mean the same as for Adam. What chance decides depends on the seed, the step and the parameter, so a resumed run repeats it; on a GPU
also on how many processes share the parameter.
Source: the factored moment and the bound on updates are Adafactor's (Shazeer and Stern 2018); the bfloat16 moment, Zhai and others 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import EllipsisType

import torch
from torch import Tensor

from .optimizer import BETA_1, BETA_2, EPSILON, Group, Optimizer
from .sharding import local, own_rows, replicated, summed

SMALLEST = 32
"""A tensor with fewer rows or columns keeps its whole second moment: there is little to save."""
LARGEST_UPDATE = 1.0
PIECE = 2**24
"""Numbers worked on at a time."""
Part = slice | EllipsisType


class SmallAdam(Optimizer):
    """See above. `seed`: of the rounding. Works on a few rows at a time, so that what it needs besides is small too."""

    def __init__(self, groups: Iterable[Group], rate: float, seed: int = 0):
        super().__init__(groups, rate)
        self.seed = seed
        self._numbers = {name: number for number, name in enumerate(self.parameters)}
        self._first = {name: torch.zeros_like(p, dtype=torch.bfloat16) for name, p in self.parameters.items()}
        self._second: dict[str, tuple[Tensor, ...]] = {name: _second_moment(p) for name, p in self.parameters.items()}

    def _update(self, step: int) -> None:
        for group in self.groups:
            factor = group.schedule(step)
            for name, p in group.parameters.items():
                self._change(name, p, factor * self.rate, factor * group.decay)

    def _change(self, name: str, p: Tensor, rate: float, decay: float) -> None:
        """Three passes: over the gradient for the second moment, for the first one and the update's size, and to apply it."""
        assert p.grad is not None
        here, gradient, first = local(p), local(p.grad), local(self._first[name])
        mean_square = self._observe(name, p.grad)
        total = torch.zeros((), device=here.device)
        for part in _parts(here):
            first[part] = first[part].float().lerp_(gradient[part].float(), 1 - BETA_1)
            total += self._direction(first[part], mean_square(part)).square_().sum()
        size = (summed(total, p) / p.numel()).sqrt_().div_(LARGEST_UPDATE).clamp_(min=1.0)
        generator = torch.Generator("cpu" if here.is_meta else here.device)
        generator.manual_seed((self._numbers[name] + (self.updates << 16) + (self.seed << 48)) % 2**63)
        if here.dtype == torch.bfloat16:
            _pass_over(generator, own_rows(p).start * p.shape[1:].numel())
        for part in _parts(here):
            wide = here[part].float()
            change = self._direction(first[part], mean_square(part)).mul_(rate / size).add_(wide, alpha=decay)
            wide = wide - change
            here[part] = round_by_chance(wide, generator) if here.dtype == torch.bfloat16 else wide

    def _direction(self, first: Tensor, mean_square: Tensor) -> Tensor:
        """Adam's first moment over the root of its second, both corrected for their start at zero."""
        root = (mean_square / (1 - BETA_2**self.updates)).sqrt_().add_(EPSILON)
        return first.float().div_(1 - BETA_1**self.updates).div_(root)

    def _observe(self, name: str, gradient: Tensor) -> Callable[[Part], Tensor]:
        """Let the second moment see a gradient; return what tells it for a part of the tensor."""
        here, second = local(gradient), tuple(map(local, self._second[name]))
        if len(second) == 1:
            for part in _parts(here):
                second[0][part].lerp_(here[part].float().square(), 1 - BETA_2)
            return lambda part: second[0][part]
        rows, columns = second
        sums = torch.zeros_like(columns)
        for part in _parts(here):
            squares = here[part].float().square().flatten(1)
            rows[part].lerp_(squares.mean(1), 1 - BETA_2)
            sums += squares.sum(0)
        columns.lerp_(summed(sums, gradient) / len(gradient), 1 - BETA_2)
        mean = summed(rows.sum(), gradient) / len(gradient)
        shares = columns / mean.clamp(min=torch.finfo(torch.float32).tiny)
        return lambda part: (rows[part][:, None] * shares).view(here[part].shape)

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.parameters:
            yield f"first.{name}", self._first[name]
            kinds = ("second",) if len(self._second[name]) == 1 else ("rows", "columns")
            yield from ((f"{kind}.{name}", tensor) for kind, tensor in zip(kinds, self._second[name], strict=True))


def round_by_chance(value: Tensor, generator: torch.Generator) -> Tensor:
    """float32 -> bfloat16, to one of the two neighbours, the nearer one more often: the mean is the value.

    bfloat16 is float32 without its last 16 bits: adding a random number of 16 bits carries into the rest as often as it should.
    """
    bits = value.view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, generator=generator, device=bits.device, dtype=torch.int32)
    return (bits + noise).bitwise_and_(-(1 << 16)).view(torch.float32).to(torch.bfloat16)


def _pass_over(generator: torch.Generator, count: int) -> None:
    """What chance has for rows before a process's own, so that on a CPU rows are rounded as in a run alone. A GPU gives out its numbers by
    launches, not one after the other: there they are others.
    """
    for start in range(0, count, PIECE):
        torch.randint(0, 1 << 16, (min(PIECE, count - start),), generator=generator, device=generator.device, dtype=torch.int32)


def _second_moment(parameter: Tensor) -> tuple[Tensor, ...]:
    """Zeros: for the whole tensor, or for its rows and its columns. Of a tensor shared out by rows, every process has all columns."""
    if parameter.dim() < 2 or min(len(parameter), parameter.shape[1:].numel()) < SMALLEST:
        return (torch.zeros_like(parameter, dtype=torch.float32),)
    zeros = torch.zeros_like(parameter.detach(), dtype=torch.float32).flatten(1)
    return zeros.sum(1), replicated(zeros.sum(0))


def _parts(tensor: Tensor) -> Iterator[Part]:
    """Rows that are worked on together, in turn."""
    if tensor.dim() == 0:
        yield ...
        return
    step = max(1, PIECE // max(tensor[:1].numel(), 1))
    yield from (slice(start, start + step) for start in range(0, len(tensor), step))
