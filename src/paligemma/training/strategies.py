"""What learns: a strategy turns a model into named trainable parameters, the rest frozen; in a form that can be shown.

full             everything
freeze-vision    all but the image tower and the projector (the reference's `freeze_vit` takes the projector along)
attention-only   the query, key, value and output matrices of the decoder (big_vision's notebook)
lora             adapters on the decoder, or on the layers named
qlora            the same on a base whose layers have 4 bits
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..model.lora import LoraConfig, add_adapter
from ..model.nf4 import Nf4Linear, quantize_linears
from ..model.paligemma import PaliGemma
from .recipes import Recipe, Strategy

PARTS = {
    "image tower": "vision.",
    "projector": "projector.",
    "decoder": "text.blocks.",
    "embeddings": "text.embed.",
    "final norm": "text.norm.",
}
"""Parts of a model, and how the names of their parameters begin."""
_ADAPTER = ".adapters."
_ATTENTION = re.compile(r"text\.blocks\.\d+\.attn\.[qkvo]\.weight")

LEARNS: dict[Strategy, Callable[[str], bool]] = {
    "full": lambda name: True,
    "freeze-vision": lambda name: not name.startswith(("vision.", "projector.")),
    "attention-only": lambda name: _ATTENTION.fullmatch(name) is not None,
    "lora": lambda name: _ADAPTER in name,
    "qlora": lambda name: _ADAPTER in name,
}
"""Strategy -> does the parameter of that name learn?"""


@dataclass(frozen=True)
class Trainable:
    """The result. `counts`: part of the model -> (numbers that learn, numbers that do not); adapters are a part."""

    strategy: Strategy
    parameters: Mapping[str, nn.Parameter]
    frozen: tuple[str, ...]
    counts: Mapping[str, tuple[int, int]]

    def __str__(self) -> str:
        """A table for people."""
        rows = [("", "learns", "frozen"), *((part, f"{a:,}", f"{b:,}") for part, (a, b) in self.counts.items())]
        learns, frozen = (sum(pair[i] for pair in self.counts.values()) for i in (0, 1))
        rows.append(("all", f"{learns:,}", f"{frozen:,}"))
        width = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{part:<{width[0]}}  {a:>{width[1]}}  {b:>{width[2]}}".rstrip() for part, a, b in rows]
        return "\n".join([*lines, f"{_percent(learns, learns + frozen)} of the numbers learn ({self.strategy})"])


def _percent(part: int, whole: int) -> str:
    """Whole ones, and of less than one two digits: an adapter is a fraction."""
    share = 100 * part / max(whole, 1)
    return f"{share:.0f} %" if share >= 1 else f"{share:.2g} %"


def prepare(model: PaliGemma, recipe: Recipe, *, generator: torch.Generator | None = None, adapter: str = "default") -> Trainable:
    """Make a model ready for a recipe's strategy: quantize its layers, add an adapter, freeze what does not learn, set the dropout.

    generator: for the adapter's first values; `recipe.seed` unless given. Raises `UsageError` for layers that are not there.
    """
    if recipe.strategy == "qlora":
        quantize_linears(model, recipe.lora_targets)
    if recipe.adapts:
        generator = torch.Generator().manual_seed(recipe.seed) if generator is None else generator
        add_adapter(model, lora_config(recipe), adapter, generator=generator)
    for block in model.text.blocks:
        cast(nn.Dropout, block.drop).p = recipe.dropout
    return choose(model, recipe.strategy, adapter)


def choose(model: PaliGemma, strategy: Strategy, adapter: str = "default") -> Trainable:
    """Let exactly the strategy's parameters learn, in a model that has its adapter already where the strategy is about one.

    Of several adapters only the named one learns. Raises `UsageError` where nothing would learn.
    """
    for name, parameter in model.named_parameters():
        other = _ADAPTER in name and f"{_ADAPTER}{adapter}." not in name
        parameter.requires_grad_(LEARNS[strategy](name) and not other)
    chosen = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not chosen:
        raise UsageError(f"nothing learns with the strategy {strategy!r}: the model has no adapter {adapter!r}", hint="add one first")
    frozen = tuple(name for name, p in model.named_parameters() if not p.requires_grad)
    return Trainable(strategy, chosen, frozen, _counts(model, chosen))


def lora_config(recipe: Recipe) -> LoraConfig:
    """A recipe's adapter."""
    return LoraConfig(rank=recipe.lora_rank, alpha=recipe.lora_alpha, dropout=recipe.lora_dropout, targets=recipe.lora_targets)


def _counts(model: PaliGemma, chosen: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """By part. A 4-bit layer counts its weights, whatever they are packed in."""
    counts = {part: [0, 0] for part in (*PARTS, "adapters")}
    for name, p in model.named_parameters():
        part = "adapters" if _ADAPTER in name else _part(name)
        counts[part][name not in chosen] += p.numel()
    for name, module in model.named_modules():
        if isinstance(module, Nf4Linear):
            counts[_part(name)][1] += module.in_features * module.out_features + (0 if module.bias is None else module.out_features)
    return {part: (learns, stays) for part, (learns, stays) in counts.items() if learns or stays}


def _part(name: str) -> str:
    return next(part for part, start in PARTS.items() if name.startswith(start))
