"""Recipes for the bundled models: dimensions, data and schedule as frozen values. One of them, `debug`, runs in seconds."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass

from ..config import PaliGemmaConfig, TextConfig, VisionConfig
from ..errors import UsageError
from .world import BACKGROUNDS, SIZE


@dataclass(frozen=True)
class Recipe:
    """Stage 0 trains the image tower on dense targets alone, stage 1 everything jointly, nothing frozen.

    Learning rates: `muon_lr` for the blocks' matrices, `adam_lr` for the rest; warm-up, constant, then cosine from `decay_from` to zero.
    """

    name: str
    vision: VisionConfig
    text_width: int
    text_depth: int
    text_mlp_dim: int
    heads: int
    head_dim: int
    vocab_size: int = 2560
    bank_size: int = 160
    """Views of each thing that training scenes are composed from."""
    backgrounds: int = BACKGROUNDS
    codec_steps: int = 2000
    stage0_steps: int = 800
    stage0_batch: int = 128
    steps: int = 2700
    batch: int = 64
    muon_lr: float = 0.015
    adam_lr: float = 2e-3
    warmup: int = 100
    decay_from: float = 0.1
    text_share: tuple[float, float] = (0.3, 0.35)
    """Of the scenes of stage 0 and of stage 1, how many show printed words."""
    dense_weight: tuple[float, float] = (1.0, 0.3)
    """Weight of the dense targets at the start and the end of stage 1."""
    sigma: tuple[float, float] = (24.0, 1.5)
    """Width, in bins, of the soft targets of location tokens at the start and the end of stage 1."""
    seed: int = 0

    def config(self) -> PaliGemmaConfig:
        """The model's configuration."""
        text = TextConfig(
            self.text_width, self.text_depth, self.text_mlp_dim, self.heads, kv_heads=1, head_dim=self.head_dim, vocab_size=self.vocab_size
        )
        return PaliGemmaConfig(self.vision, text, version=1, name=self.name)


NANO_112 = Recipe(
    name="nano-112",
    vision=VisionConfig(width=192, depth=5, mlp_dim=640, heads=6, image_size=SIZE),
    text_width=128, text_depth=3, text_mlp_dim=384, heads=4, head_dim=32,
)  # fmt: skip

RECIPES: dict[str, Recipe] = {
    "nano-112": NANO_112,
    "debug": dataclasses.replace(
        NANO_112, name="debug", vision=VisionConfig(width=48, depth=2, mlp_dim=96, heads=4, image_size=SIZE), text_width=32, text_depth=2,
        text_mlp_dim=64, heads=2, head_dim=16, bank_size=2, backgrounds=16, codec_steps=4, stage0_steps=2, stage0_batch=4, steps=4,
        batch=4, warmup=1,
    ),
}  # fmt: skip


def recipe(name: str) -> Recipe:
    """The recipe of that name; an unknown name raises `UsageError` with the closest one."""
    if name in RECIPES:
        return RECIPES[name]
    close = difflib.get_close_matches(name, RECIPES, n=1)
    raise UsageError(f"no recipe is called {name!r}", hint=f"did you mean {close[0]!r}?" if close else "recipes: " + ", ".join(RECIPES))
