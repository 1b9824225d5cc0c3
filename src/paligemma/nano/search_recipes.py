"""Recipes for the bundled encoder: a small SigLIP of the drawn world, whose image tower begins as a PaliGemma's. As `recipes.py`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from ..config import DualEncoderConfig, PaliGemmaConfig, TextTowerConfig
from ..errors import UsageError, did_you_mean
from .recipes import NANO_112
from .world import BACKGROUNDS


@dataclass(frozen=True)
class SearchPhase:
    """One stretch of a run. `locked`: the image tower rests, and what has to fit it learns; `rate` and `decay_from`: see `Phase`."""

    steps: int
    batch: int
    locked: bool = False
    rate: float = 1.0
    decay_from: float = 0.0


@dataclass(frozen=True)
class SearchRecipe:
    """Dimensions, data and phases. `start`: the bundled model whose image tower and tokenizer it begins with."""

    name: str
    start: str
    text_width: int
    text_depth: int
    text_mlp_dim: int
    text_heads: int
    text_length: int = 32
    bank_size: int = 160
    backgrounds: int = BACKGROUNDS
    text_share: float = 0.1
    """Of the scenes, how many show printed words."""
    few_share: float = 0.5
    """Of the batches, how many are of few kinds of things."""
    phases: tuple[SearchPhase, ...] = ()
    muon_lr: float = 0.015
    adam_lr: float = 2e-3
    warmup: int = 60
    seed: int = 0
    scenes: int = 1000
    """Scenes with distinct captions that the finished encoder is measured on."""

    def config(self, base: PaliGemmaConfig) -> DualEncoderConfig:
        """The encoder's configuration, on the image tower and the vocabulary of `base`."""
        sizes = self.text_width, self.text_depth, self.text_mlp_dim, self.text_heads
        text = TextTowerConfig(*sizes, vocab_size=base.text.vocab_size, length=self.text_length)
        return DualEncoderConfig(base.vision, text, self.name)

    @property
    def first_bias(self) -> float:
        """log(1 / batch): where every text is as likely as any other. SigLIP's -10 is that of a batch of 32,768."""
        return -math.log(self.phases[0].batch)


NANO_SIGLIP = SearchRecipe(
    name="nano-siglip",
    start=NANO_112.name,
    text_width=128,
    text_depth=3,
    text_mlp_dim=384,
    text_heads=4,
    phases=(
        SearchPhase(steps=900, batch=128, locked=True, decay_from=1.0),
        SearchPhase(steps=600, batch=128, rate=0.5),
    ),
)

SEARCH_RECIPES: dict[str, SearchRecipe] = {
    "nano-siglip": NANO_SIGLIP,
    "debug": dataclasses.replace(
        NANO_SIGLIP,
        name="debug",
        text_width=32,
        text_depth=1,
        text_mlp_dim=48,
        text_heads=2,
        bank_size=2,
        backgrounds=16,
        warmup=1,
        scenes=12,
        phases=(SearchPhase(steps=2, batch=4, locked=True, decay_from=1.0), SearchPhase(steps=2, batch=4)),
    ),
}


def search_recipe(name: str) -> SearchRecipe:
    """The recipe of that name; an unknown name raises `UsageError` with the closest one."""
    if name in SEARCH_RECIPES:
        return SEARCH_RECIPES[name]
    raise UsageError(f"no recipe is called {name!r}", hint=did_you_mean(name, SEARCH_RECIPES, "recipes: " + ", ".join(SEARCH_RECIPES)))
