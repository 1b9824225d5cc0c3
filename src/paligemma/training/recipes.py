"""Recipes: everything a fine-tuning run is but its model, data and machine. Frozen values with names; plain text and back. No torch.

    recipe("docvqa", resolution=448)         a published transfer; `simple`, `lora` and `debug` are ours
    text = to_text(recipe("simple"))         TOML with a comment at every setting: save it, edit it
    from_text(text)                          and hand it back

`transfers.py` holds the numbers of the published ones, docs/recipes.md shows them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from ..config import PRESETS, Resize
from ..errors import UsageError, did_you_mean
from ..tasks import task_named
from . import settings
from .schedule import Shape
from .settings import Range, differences, setting
from .transfers import BEYOND, TRANSFERS

__all__ = ["RECIPES", "Decay", "Mean", "Optimizer", "Recipe", "Strategy", "differences", "from_text", "recipe", "to_text"]

Strategy = Literal["full", "freeze-vision", "attention-only", "lora", "qlora"]
Optimizer = Literal["adam", "adam-small", "sgd"]
Mean = Literal["example", "token"]
"""Of what a batch's loss is the mean."""
Decay = Literal["reference", "matrices"]

_COUNT = Range(1, 2**40)
_SHARE = Range(0, 1, below=True)
_OPEN = Range(0, 2**40)
BASES = tuple(dict.fromkeys(name.rpartition("-")[0] for name in PRESETS))
"""Families of published models: `paligemma-3b`, `paligemma2-3b`, ..."""


@dataclass(frozen=True)
class Recipe:
    """Every field is one setting and says in its own words what it is. Raises `UsageError` naming a field that is wrong.

    Its length is `epochs`, `steps` or `examples`: one of them is above 0.
    """

    name: str = setting("how the recipe is called")
    about: str = setting("what for", "")
    task: str = setting("the task its prompts are of; empty: any", "")
    prompt: str = setting("what its pictures are asked, as published; for people to read", "")
    metric: str = setting("what it is judged by; auto: as suits the task", "auto")

    base: str = setting("the family of published models it was made for; empty: any", "")
    resolution: int = setting("side of the square pictures in pixels; 0: the model's own", 0, Range(0, 2**14))
    resize: Literal["", Resize] = setting("how pictures become square; empty: as the model has it", "")
    frames: int = setting("pictures a prompt: more than 1 for videos and pairs", 1, Range(1, 4096))
    text_len: int = setting("tokens of prompt and answer together that are read; what is beyond is cut", 128, Range(4, 2**16))

    epochs: float = setting("times through the data", 0.0, Range(0, 10_000))
    steps: int = setting("or: updates", 0, _OPEN)
    examples: int = setting("or: examples seen", 0, _OPEN)
    batch: int = setting("examples an update, however many fit at once", 256, Range(1, 2**20))
    loss: Mean = setting("what counts alike: every example (the reference), or every token", "example")  # noqa: RUF009 - a field
    label_smoothing: float = setting("share of the target that is spread over all other tokens", 0.0, _SHARE)
    dropout: float = setting("share of numbers dropped from what each half of a decoder block adds", 0.0, _SHARE)
    final_softcap: float = setting("soft-cap on the logits while training; 0: none", 0.0, Range(0, 1e6))

    strategy: Strategy = setting("what learns", "full")  # noqa: RUF009 - a field
    lora_rank: int = setting("lora, qlora: rank", 8, Range(1, 4096))
    lora_alpha: float = setting("lora, qlora: the adapter counts alpha / rank times", 16.0, Range(0, 1e12, above=True))
    lora_dropout: float = setting("lora, qlora: share of the adapter's input that is dropped", 0.0, _SHARE)
    lora_targets: tuple[str, ...] = setting("lora, qlora: groups or names of layers", ("language",))

    optimizer: Optimizer = setting("adam-small: a sixth of adam's memory, for bfloat16 weights", "adam")  # noqa: RUF009 - a field
    learning_rate: float = setting("its highest value", 1e-5, Range(0, 1e3, above=True))
    weight_decay: float = setting("share of a weight lost an update; not multiplied by the learning rate, but by the schedule", 0.0, _SHARE)
    decay: Decay = setting("what decays: the image tower's and projector's matrices, or all matrices", "reference")  # noqa: RUF009 - a field
    clip: float = setting("largest norm of all gradients together; 0: any", 1.0, Range(0, 1e6))
    schedule: Shape = setting("how the learning rate falls", "cosine")  # noqa: RUF009 - a field
    warmup: float = setting("share of the run in which it first rises from 0", 0.05, _SHARE)
    slow_vision: float = setting("share of the run in which the image tower's rate rises besides", 0.0, Range(0, 1))
    timescale: int = setting("rsqrt: updates after which it has fallen to 0.71", 10_000, _COUNT)
    start: int = setting("rsqrt: updates of earlier stages that it counts on from", 0, _OPEN)

    beams: int = setting("answers: beams; 1: greedy", 1, Range(1, 64))
    max_tokens: int = setting("answers: most tokens", 128, Range(1, 2**16))
    seed: int = setting("of everything that is left to chance", 0, Range(0, 2**32 - 1))

    def __post_init__(self) -> None:
        settings.check(self)
        if not self.name:
            raise UsageError("name: expected a text that is not empty, found ''")
        if self.task:
            task_named(self.task)
        if self.base and self.base not in BASES:
            raise UsageError(f"base: no family of models is called {self.base!r}", hint=did_you_mean(self.base, BASES, ", ".join(BASES)))
        lengths = [
            f"{name} = {value:g}" for name, value in (("epochs", self.epochs), ("steps", self.steps), ("examples", self.examples)) if value
        ]
        if len(lengths) != 1:
            found = " and ".join(lengths) or "none"
            raise UsageError(f"epochs, steps, examples: expected one of them above 0, found {found}", hint="set the other two to 0")

    @property
    def adapts(self) -> bool:
        """Whether an adapter learns, and the model itself stays as it is."""
        return self.strategy in ("lora", "qlora")

    @property
    def freeze_vision(self) -> bool:
        """The reference's `freeze_vit`: all but the image tower and the projector learns."""
        return self.strategy == "freeze-vision"

    @property
    def preset(self) -> str | None:
        """The published model it starts from, where it is made for one, such as `paligemma-3b-448`."""
        name = f"{self.base}-{self.resolution}"
        return name if name in PRESETS else None

    def total_steps(self, examples: int) -> int:
        """Updates of a run on so many examples; at least one. What is left of a last batch is dropped, as in the reference."""
        seen = self.examples or int(self.epochs * examples)
        return max(self.steps or seen // self.batch, 1)


def to_text(recipe: Recipe) -> str:
    """A recipe as TOML, a line for each setting with a comment that says what it is."""
    return settings.to_text(recipe, f"A recipe for fine-tuning: {recipe.about or recipe.name}. Edit it, and pass the file as --recipe.")


def from_text(text: str) -> Recipe:
    """A recipe from TOML; what is left out is as in `simple`, whose length is left out too. Raises `UsageError` naming what is wrong."""
    return settings.from_text(Recipe, text)


PRETRAINING_BATCH = 2048
"""Ours: the batch of the published pretraining is not known, nor are the length of its warm-up and the time scale of its schedule."""
STAGE_RATES = {"paligemma-3b": 2e-5, "paligemma2-3b": 1e-5, "paligemma2-10b": 5e-6, "paligemma2-28b": 5e-6}
STAGE_SOFTCAP = 30.0
"""PaliGemma 2's, in stages 1 and 2 only: transfers came out worse with it."""
_STAGE_EXAMPLES = {"stage1": 1_000_000_000, "stage2a": 50_000_000, "stage2b": 10_000_000}


SIMPLE = Recipe(name="simple", about="the setting recommended for any transfer; all of the model learns", epochs=10)


def _published(name: str, base: str) -> dict[int, Recipe]:
    row = (TRANSFERS | BEYOND)[name]
    unsaid: dict[str, Any] = {"epochs": SIMPLE.epochs}
    return {size: Recipe(name=name, base=base, resolution=size, **(unsaid | row.at(size))) for size in row.resolutions}


def _stage(name: str, about: str, resolution: int, text_len: int, **different: Any) -> Recipe:
    """One of the stages that come before a transfer: all of it learns, with one schedule over all stages."""
    before = list(_STAGE_EXAMPLES).index(name)
    start = sum(list(_STAGE_EXAMPLES.values())[:before]) // PRETRAINING_BATCH
    common = Recipe(
        name=name, about=about, base=BASES[0], resolution=resolution, text_len=text_len, max_tokens=text_len,
        examples=_STAGE_EXAMPLES[name], batch=PRETRAINING_BATCH, learning_rate=STAGE_RATES[BASES[0]], schedule="rsqrt", warmup=0.0,
        start=start,
    )  # fmt: skip
    return dataclasses.replace(common, **different)


def _same(recipe: Recipe, *resolutions: int) -> dict[int, Recipe]:
    return {size: dataclasses.replace(recipe, resolution=size) for size in resolutions}


RECIPES: dict[str, dict[int, Recipe]] = {
    "simple": {0: SIMPLE},
    "lora": {
        0: dataclasses.replace(
            SIMPLE, name="lora", about="adapters on the language model, for one GPU", strategy="lora", batch=16, learning_rate=1e-4
        )
    },
    "debug": {
        0: Recipe(
            name="debug", about="three updates that learn nothing, quickly", steps=3, batch=2, text_len=64, max_tokens=8, learning_rate=1e-4
        )
    },
    **{name: _published(name, "paligemma-3b") for name in TRANSFERS},
    **{name: _published(name, "paligemma2-3b") for name in BEYOND},
    "mix": {
        size: dataclasses.replace(
            SIMPLE, name="mix", about="several tasks at once", base="paligemma-3b", resolution=size, text_len=length, max_tokens=length
        )
        for size, length in ((224, 256), (448, 512))
    },
    "stage1": {224: _stage("stage1", "pretraining, stage 1", 224, 128, warmup=0.01, slow_vision=0.1)},
    "stage2a": {448: _stage("stage2a", "pretraining, stage 2 at 448 pixels", 448, 512)},
    "stage2b": {896: _stage("stage2b", "pretraining, stage 2 at 896 pixels", 896, 512)},
    "forkme": _same(
        Recipe(
            name="forkme", about="big_vision's template for one's own data: long captions", task="caption", prompt="caption en",
            base="paligemma-3b", resize="bilinear-antialias", epochs=15, batch=32, weight_decay=3e-7,
        ),
        224, 448, 896,
    ),
    "vertexai-l4": _same(
        Recipe(
            name="vertexai-l4", about="big_vision's for one GPU of 24 GB: no state at all", task="caption", prompt="caption en",
            base="paligemma-3b", resize="bilinear-antialias", epochs=1, batch=4, optimizer="sgd", learning_rate=0.1,
        ),
        224,
    ),
    "notebook": _same(
        Recipe(
            name="notebook", about="big_vision's notebook: the decoder's attention only, for a GPU of 16 GB", task="caption",
            prompt="caption en", base="paligemma-3b", resize="bilinear-antialias", steps=64, batch=8, strategy="attention-only",
            optimizer="sgd", learning_rate=0.03, clip=0.0, warmup=0.1,
        ),
        224,
    ),
    "maestro": {
        0: dataclasses.replace(
            SIMPLE, name="maestro", about="what the maestro tool does, as far as is known: to compare with", strategy="lora", loss="token",
            batch=16, schedule="constant", warmup=0.0,
            lora_targets=("language", "vision.blocks.*.attn.q", "vision.blocks.*.attn.k", "vision.blocks.*.attn.v"),
        )
    },
}  # fmt: skip
"""Name -> resolution -> recipe; resolution 0 stands for that of any model. The first three are not made for a published model."""


def recipe(name: str, resolution: int | None = None, base: str | None = None) -> Recipe:
    """The recipe of that name, at its smallest resolution unless told otherwise. big_vision's spelling (`science_qa`) will do.

    base: another family of models, such as `paligemma2-10b`; stages of pretraining then have its learning rate and soft-cap. Published
    transfers of PaliGemma 2 kept everything but the learning rate, which was searched for anew and not published by task.
    Raises `UsageError` for an unknown name with the nearest, and for a resolution at which there is none.
    """
    known = name.lower().replace("_", "-")
    if known not in RECIPES:
        raise UsageError(f"no recipe is called {name!r}", hint=did_you_mean(known, RECIPES, "recipes: " + ", ".join(RECIPES)))
    sizes = RECIPES[known]
    size = min(sizes) if resolution is None else resolution
    if size not in sizes and 0 not in sizes:
        there = ", ".join(map(str, sizes))
        raise UsageError(
            f"the recipe {known!r} is for {there} pixels, found {size}", hint="take one of these, save it and edit its resolution"
        )
    found = sizes[size] if size in sizes else dataclasses.replace(sizes[0], resolution=size)
    if base is None:
        return found
    found = dataclasses.replace(found, base=base)
    if known in _STAGE_EXAMPLES:
        softcap = 0.0 if base == BASES[0] else STAGE_SOFTCAP
        found = dataclasses.replace(found, learning_rate=STAGE_RATES[base], final_softcap=softcap)
    return found
