"""Rules that choose the next token from its candidates' logits: greedy, or temperature, then top-p, then a draw.

A rule maps logits (B, C) to logits (B, C). Where the random numbers come from: `streams.py`.
Source: big_vision `trainers/proj/paligemma/predict_fns.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .options import Options
from .streams import SHORT

Rule = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Temperature:
    """Logits divided by `value`: below 1 sharper, above 1 flatter."""

    value: float

    def __call__(self, logits: Tensor) -> Tensor:
        return logits / self.value


@dataclass(frozen=True)
class TopP:
    """Keeps the fewest most probable tokens whose probabilities reach `p`: the token that crosses `p` stays, and so do its ties."""

    p: float

    def __call__(self, logits: Tensor) -> Tensor:
        ordered = logits.sort(dim=-1, descending=True).values
        below = (ordered.softmax(-1).cumsum(-1) < self.p).sum(-1, keepdim=True)
        cutoff = ordered.gather(-1, below.clamp(max=logits.shape[-1] - 1))
        return logits.masked_fill(logits < cutoff, float("-inf"))


def rules(options: Options) -> tuple[Rule, ...]:
    """The rules in the order they apply; none means greedy."""
    if options.temperature == 0:
        return ()
    return (Temperature(options.temperature), TopP(options.top_p)) if options.top_p < 1 else (Temperature(options.temperature),)


def choose(logits: Tensor, options: Options, uniform: Sequence[float]) -> Tensor:
    """logits (B, C), a number from [0, 1) a row (unless greedy) -> the chosen columns (B,)."""
    applied = rules(options)
    if not applied:
        return logits.argmax(-1)
    for rule in applied:
        logits = rule(logits)
    return draw(logits, torch.tensor(uniform, dtype=torch.float32, device=logits.device))


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """logits (B, C), uniform (B,) in [0, 1) -> columns (B,), drawn by inverting the cumulative distribution.

    Never a column of probability zero: the point looked for stays a little under the total, whatever rounding did to it.
    """
    cumulative = logits.softmax(-1).cumsum(-1)
    point = uniform[:, None] * SHORT * cumulative[:, -1:]
    return (cumulative > point).to(torch.uint8).argmax(-1)
