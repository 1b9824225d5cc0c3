"""Recipes for the bundled models: dimensions, data and schedule as frozen values. One of them, `debug`, learns nothing, quickly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..config import PaliGemmaConfig, TextConfig, VisionConfig
from ..errors import UsageError, did_you_mean
from ..tasks import caption
from .lessons import Mix
from .names import LANGUAGES
from .world import BACKGROUNDS, SIZE, TEXT_SHARE

TAUGHT = (*(caption.prompt(lang) for lang in LANGUAGES), "answer en", "detect", "segment", "ocr", "caption <box>")
"""What the prompts of the small world begin with."""


@dataclass(frozen=True)
class Phase:
    """One stretch of a run: what learns, from what, how fast. Pairs are values at its start and at its end."""

    steps: int
    batch: int
    vision_only: bool = False
    """The image tower alone, on dense targets; else everything, nothing frozen."""
    rate: float = 1.0
    """Factor on the recipe's learning rates, after a warm-up."""
    decay_from: float = 0.0
    """The share of the phase after which the rates fall to zero, as a cosine; 1 for never."""
    text_share: float = TEXT_SHARE
    """Of the scenes, how many show printed words."""
    dense_weight: tuple[float, float] = (1.0, 1.0)
    """Weight of the dense targets beside the texts."""
    point_weight: float = 0.0
    """Weight of what names in prompts stand for, beside the texts."""
    sigma: tuple[float, float] = (1.5, 1.5)
    """Width, in bins, of the soft targets of location tokens; it gets to its end value after four fifths of the phase."""
    mix: Mix = Mix()  # noqa: RUF009 - frozen


@dataclass(frozen=True)
class Recipe:
    """Dimensions, data and phases. Learning rates: `muon_lr` for the blocks' matrices, `adam_lr` for the rest."""

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
    phases: tuple[Phase, ...] = ()
    muon_lr: float = 0.015
    adam_lr: float = 2e-3
    warmup: int = 100
    """Steps at the start of every phase in which the rates rise to their values."""
    aid_steps: int = 300
    """Steps in which the training aids alone learn, when a run starts from an exported model, which is without them."""
    seed: int = 0
    start: str = ""
    """The model that a run begins with, where random weights will not do: `--start` names its folder."""
    samples: int = 500
    """Fresh samples a task that the finished model is measured on, unless told otherwise."""

    def config(self) -> PaliGemmaConfig:
        """The model's configuration."""
        text = TextConfig(
            self.text_width, self.text_depth, self.text_mlp_dim, self.heads, kv_heads=1, head_dim=self.head_dim, vocab_size=self.vocab_size
        )
        return PaliGemmaConfig(self.vision, text, version=1, name=self.name, taught=TAUGHT, frames=1)


NANO_112 = Recipe(
    name="nano-112",
    vision=VisionConfig(width=192, depth=5, mlp_dim=640, heads=6, image_size=SIZE),
    text_width=128, text_depth=3, text_mlp_dim=384, heads=4, head_dim=32,
    phases=(
        Phase(steps=800, batch=128, vision_only=True, decay_from=1.0),
        Phase(steps=2700, batch=64, decay_from=0.1, text_share=0.35, dense_weight=(1.0, 0.3), sigma=(24.0, 1.5)),
        Phase(steps=1200, batch=128, vision_only=True, rate=0.6, decay_from=1.0, text_share=0.5),
        Phase(
            steps=2600, batch=64, rate=0.5, text_share=0.4, dense_weight=(3.0, 1.0), sigma=(6.0, 1.5),
            mix=Mix(caption=0.4, count=0.18, presence=0.0, relation=0.28, colour=0.07, first_word=0.75, word_count=0.15),
        ),
        Phase(
            steps=1700, batch=64, rate=0.35, decay_from=0.1, text_share=0.35, dense_weight=(2.0, 0.5), point_weight=1.0, sigma=(4.0, 1.5),
            mix=Mix(
                caption=0.25, count=0.12, presence=0.1, relation=0.2, colour=0.06, side=0.1, place=0.04, first_word=0.75, word_count=0.15
            ),
        ),
        Phase(
            steps=600, batch=64, rate=0.3, decay_from=1.0, text_share=0.3, dense_weight=(2.0, 2.0), point_weight=1.0,
            mix=Mix(
                caption=0.1, count=0.05, presence=0.04, relation=0.6, colour=0.03, side=0.15, place=0.02, first_word=0.75, word_count=0.15
            ),
        ),
        Phase(
            steps=1900, batch=64, rate=0.3, text_share=0.4, dense_weight=(3.0, 1.0), point_weight=1.0, sigma=(4.0, 1.5),
            mix=Mix(
                caption=0.28, count=0.11, presence=0.09, relation=0.27, colour=0.05, side=0.1, place=0.04, first_word=0.75, word_count=0.15
            ),
        ),
        Phase(
            steps=3000, batch=64, rate=0.4, decay_from=0.1, text_share=0.45, dense_weight=(3.0, 1.0), point_weight=1.0, sigma=(4.0, 1.5),
            mix=Mix(
                caption=0.28, count=0.11, presence=0.09, relation=0.27, colour=0.05, side=0.1, place=0.04, first_word=0.75, word_count=0.15,
                detect=0.4,
            ),
        ),
    ),
)  # fmt: skip

PT_112 = dataclasses.replace(NANO_112, name="nano-pt-112", phases=NANO_112.phases[:2])
"""Pretraining: stage 0, the image tower alone, and stage 1, everything. `nano-112`, the mix, goes on from here."""

PT_224 = dataclasses.replace(
    PT_112, name="nano-pt-224", vision=dataclasses.replace(PT_112.vision, image_size=2 * SIZE), bank_size=40, backgrounds=400, aid_steps=60,
    warmup=20, seed=224, start="nano-pt-112",
    phases=(
        Phase(
            steps=400, batch=32, rate=0.35, decay_from=0.1, text_share=0.4, dense_weight=(2.0, 1.0), sigma=(6.0, 1.5),
            mix=Mix(caption=0.4, count=0.2, detect=0.5),
        ),
        Phase(
            steps=1000, batch=32, rate=0.4, decay_from=0.1, text_share=0.4, dense_weight=(3.0, 1.0), sigma=(12.0, 1.5),
            mix=Mix(caption=0.25, count=0.15, detect=0.5),
        ),
    ),
)  # fmt: skip
"""Stage 2: from `nano-pt-112` (`--start`) to pictures of twice the side, with more print to read, as the published models' stage 2 has."""

RECIPES: dict[str, Recipe] = {
    "nano-112": NANO_112,
    "nano-pt-112": PT_112,
    "nano-pt-224": PT_224,
    "debug": dataclasses.replace(
        NANO_112, name="debug", vision=VisionConfig(width=48, depth=2, mlp_dim=96, heads=4, image_size=SIZE), text_width=32, text_depth=2,
        text_mlp_dim=64, heads=2, head_dim=16, bank_size=2, backgrounds=16, codec_steps=4, warmup=1, samples=0,
        phases=(
            Phase(steps=2, batch=4, vision_only=True, decay_from=1.0),
            Phase(steps=4, batch=4, decay_from=0.1, text_share=0.35, dense_weight=(1.0, 0.3), point_weight=1.0, sigma=(24.0, 1.5)),
        ),
    ),
}  # fmt: skip


def recipe(name: str) -> Recipe:
    """The recipe of that name; an unknown name raises `UsageError` with the closest one."""
    if name in RECIPES:
        return RECIPES[name]
    raise UsageError(f"no recipe is called {name!r}", hint=did_you_mean(name, RECIPES, "recipes: " + ", ".join(RECIPES)))


def differences(found: dict[str, Any], recipe: Recipe) -> list[str]:
    """In what a recipe that was read from JSON is another one, in words."""
    return list(_differences(_filled(Recipe, found), json.loads(json.dumps(dataclasses.asdict(recipe)))))


def _filled(kind: type, found: dict[str, Any]) -> dict[str, Any]:
    """A dataclass read from JSON, with the defaults of settings that were invented after it was written."""
    defaults = {field.name: field.default for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}
    plain = json.loads(json.dumps(defaults, default=dataclasses.asdict))
    filled = found | {name: value for name, value in plain.items() if name not in found}
    if isinstance(filled.get("phases"), list):
        filled["phases"] = [_filled(Phase, phase) for phase in filled["phases"]]
    if isinstance(filled.get("mix"), dict):
        filled["mix"] = _filled(Mix, filled["mix"])
    return filled


def _differences(found: dict[str, Any], wanted: dict[str, Any], where: str = "") -> Iterator[str]:
    """What is another setting, or none any more, or was not there."""
    yield from (f"it has no {where}{name}" for name in wanted if name not in found)
    for name, value in found.items():
        if name not in wanted:
            yield f"{where}{name} is no setting of this version"
        elif isinstance(value, list) and isinstance(wanted[name], list) and any(isinstance(item, dict) for item in value):
            if len(value) != len(wanted[name]):
                yield f"it has {len(value)} {where}{name}, not {len(wanted[name])}"
            for place, (a, b) in enumerate(zip(value, wanted[name], strict=False)):
                yield from _differences(a, b, f"{where}{name}[{place}].")
        elif isinstance(value, dict) and isinstance(wanted[name], dict):
            yield from _differences(value, wanted[name], f"{where}{name}.")
        elif value != wanted[name]:
            yield f"{where}{name} is {value}, not {wanted[name]}"
