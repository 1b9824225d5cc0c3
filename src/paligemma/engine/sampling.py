"""Rules that choose the next token from its candidates' logits: greedy, or temperature, then top-p, then a draw.

A rule maps logits (B, C) to logits (B, C). Every row draws from its own stream of random numbers, made on the CPU, so that a row's answer
depends neither on its neighbours nor on the device. Source: big_vision `trainers/proj/paligemma/predict_fns.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .options import Options

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


class Sampler:
    """Chooses columns for `rows` answers. With a seed, copy c of every prompt draws the same numbers in every batch."""

    def __init__(self, options: Options, prompts: int):
        self.rules = rules(options)
        self.streams: list[torch.Generator] = []
        if self.rules:
            copies = range(options.best_of)
            if options.seed is None:
                seeds = torch.randint(2**62, (prompts * options.best_of,)).tolist()
            else:
                seeds = [(options.seed + copy * _STRIDE) % 2**63 for _ in range(prompts) for copy in copies]
            self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def choose(self, logits: Tensor, answers: Sequence[int]) -> Tensor:
        """logits (B, C) of the answers numbered `answers` -> the chosen columns (B,)."""
        if not self.rules:
            return logits.argmax(-1)
        for rule in self.rules:
            logits = rule(logits)
        uniform = torch.cat([torch.rand(1, generator=self.streams[answer]) for answer in answers])
        return draw(logits, uniform.to(logits.device))


_STRIDE = 0x9E3779B97F4A7C15
"""Keeps the copies' seeds apart for any two seeds a user would write."""


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """logits (B, C), uniform (B,) in [0, 1) -> columns (B,), drawn by inverting the cumulative distribution.

    Never a column of probability zero: the point looked for stays a little under the total, whatever rounding did to it.
    """
    cumulative = logits.softmax(-1).cumsum(-1)
    point = uniform[:, None] * (1 - 2**-22) * cumulative[:, -1:]
    return (cumulative > point).to(torch.uint8).argmax(-1)
