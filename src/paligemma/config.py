"""Dimensions of every PaliGemma and SigLIP: frozen values, dicts of presets, and parameter counts. Knows no tensors and no files.

Facts: big_vision `models/vit.py`, `models/ppp/gemma.py`, `models/proj/paligemma/paligemma.py`, `models/proj/image_text/two_towers.py`;
reports arXiv 2407.07726, 2412.03555, 2303.15343, 2502.14786.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from .errors import UsageError, did_you_mean

NUM_LOC = 1024
"""Location tokens `<loc0000>` .. `<loc1023>`."""
MASK_CODES = 16
"""Mask codes of one object, for a mask of `MASK_SIZE` x `MASK_SIZE`."""
MASK_SIZE = 64
NUM_SEG = 128
"""Mask-codec tokens `<seg000>` .. `<seg127>`."""
GEMMA_VOCAB = 256_000
VOCAB_SIZE = GEMMA_VOCAB + NUM_LOC + NUM_SEG
"""257,152: rows of the published embedding table. Hugging Face files hold 64 more, which stand for no token and are dropped."""

Resize = Literal["bicubic", "bilinear", "bilinear-antialias"]
"""How a picture becomes square: Hugging Face's `bicubic` (Pillow, antialiased), big_vision's `bilinear` (no antialias), and the
`bilinear-antialias` of most big_vision question-answering recipes."""


@dataclass(frozen=True)
class VisionConfig:
    """SigLIP image tower (no class token; pooling is a `DualEncoderConfig`'s affair)."""

    width: int
    depth: int
    mlp_dim: int
    heads: int
    image_size: int
    patch_size: int = 14
    norm_eps: float = 1e-6

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Soft tokens per picture."""
        return self.grid**2

    @property
    def num_parameters(self) -> int:
        d = self.width
        patch = 3 * self.patch_size**2 * d + d
        return self.depth * _block(d, self.mlp_dim) + 2 * d + patch + self.num_tokens * d


def _block(width: int, mlp_dim: int) -> int:
    """Parameters of one layer of a SigLIP tower: four projections, an MLP and two norms, everything with biases."""
    return 4 * (width * width + width) + 2 * width * mlp_dim + mlp_dim + width + 4 * width


@dataclass(frozen=True)
class TextConfig:
    """Gemma decoder. Gemma 2 adds `post_norms`, soft-caps and, in two sizes, a query scale that is not head_dim ** -0.5.

    `final_softcap` is recorded but off by default: PaliGemma 2 was transferred without it and big_vision's prefill skips it, while some
    stacks apply it. Greedy answers do not depend on it; probabilities do.
    There is no sliding window although Gemma 2 itself has one of 4096 on alternate layers: the published PaliGemma 2 checkpoints were
    trained with full attention (big_vision has no window), so full attention is the reference. It matters only past 4096 tokens.
    """

    width: int
    depth: int
    mlp_dim: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int = VOCAB_SIZE
    query_scale: float | None = None
    attn_softcap: float | None = None
    final_softcap: float | None = None
    post_norms: bool = False
    rope_base: float = 10_000.0
    norm_eps: float = 1e-6

    @property
    def scale(self) -> float:
        """Factor on the queries."""
        return self.head_dim**-0.5 if self.query_scale is None else self.query_scale

    @property
    def num_parameters(self) -> int:
        d = self.width
        attention = d * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        block = attention + 3 * d * self.mlp_dim + d * (4 if self.post_norms else 2)
        return self.depth * block + self.vocab_size * d + d


@dataclass(frozen=True)
class PaliGemmaConfig:
    """A whole model. `version` 1 is built on Gemma 1, 2 on Gemma 2. `taught`: what the prompts begin with that it was taught, such as
    "caption de" or "detect" (`tasks.taught` reads them). `frames`: pictures that a prompt had at most then. Empty and 0 where nobody wrote
    that down."""

    vision: VisionConfig
    text: TextConfig
    version: Literal[1, 2] = 1
    name: str = "custom"
    resize: Resize = "bicubic"
    taught: tuple[str, ...] = ()
    frames: int = 0

    def taught_more(self) -> PaliGemmaConfig:
        """Of a model that learnt something after this was written: what it says of its lessons is no longer all."""
        return dataclasses.replace(self, taught=(), frames=0)

    @property
    def num_parameters(self) -> int:
        projector = self.vision.width * self.text.width + self.text.width
        return self.vision.num_parameters + projector + self.text.num_parameters

    def with_resolution(self, image_size: int) -> PaliGemmaConfig:
        return dataclasses.replace(self, vision=dataclasses.replace(self.vision, image_size=image_size))


def _so400m(image_size: int) -> VisionConfig:
    return VisionConfig(width=1152, depth=27, mlp_dim=4304, heads=16, image_size=image_size)


GEMMA_1_2B = TextConfig(width=2048, depth=18, mlp_dim=16384, heads=8, kv_heads=1, head_dim=256)
GEMMA_2_2B = TextConfig(width=2304, depth=26, mlp_dim=9216, heads=8, kv_heads=4, head_dim=256, attn_softcap=50.0, post_norms=True)
GEMMA_2_9B = TextConfig(width=3584, depth=42, mlp_dim=14336, heads=16, kv_heads=8, head_dim=256, attn_softcap=50.0, post_norms=True)
GEMMA_2_27B = TextConfig(
    width=4608, depth=46, mlp_dim=36864, heads=32, kv_heads=16, head_dim=128, query_scale=144**-0.5, attn_softcap=50.0, post_norms=True
)

_FAMILIES: tuple[tuple[str, Literal[1, 2], dict[str, TextConfig]], ...] = (
    ("paligemma", 1, {"3b": GEMMA_1_2B}),
    ("paligemma2", 2, {"3b": GEMMA_2_2B, "10b": GEMMA_2_9B, "28b": GEMMA_2_27B}),
)

PRESETS: dict[str, PaliGemmaConfig] = {
    f"{family}-{size}-{res}": PaliGemmaConfig(_so400m(res), text, version, f"{family}-{size}-{res}")
    for family, version, sizes in _FAMILIES
    for size, text in sizes.items()
    for res in (224, 448, 896)
}
"""Every published model by name, such as `paligemma-3b-224` or `paligemma2-10b-448`."""


@dataclass(frozen=True)
class TextTowerConfig:
    """SigLIP text tower: every token sees every other, and the last one is pooled. `length`: tokens of every text, padding among them."""

    width: int
    depth: int
    mlp_dim: int
    heads: int
    vocab_size: int
    length: int = 64
    norm_eps: float = 1e-6

    def num_parameters(self, dimensions: int) -> int:
        """With a head that puts out `dimensions` numbers."""
        d = self.width
        return self.depth * _block(d, self.mlp_dim) + 2 * d + (self.vocab_size + self.length) * d + d * dimensions + dimensions


@dataclass(frozen=True)
class DualEncoderConfig:
    """SigLIP's two towers, whose vectors are compared. The pooled picture is its vector, so both have the image tower's width."""

    vision: VisionConfig
    text: TextTowerConfig
    name: str = "custom"
    resize: Resize = "bicubic"

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self.vision.width

    @property
    def num_parameters(self) -> int:
        """The pooling head is a layer with a probe in place of one norm; scale and bias are one number each."""
        d = self.vision.width
        pooling = _block(d, self.vision.mlp_dim) - 2 * d + d
        return self.vision.num_parameters + pooling + self.text.num_parameters(self.dimensions) + 2


def _encoders() -> dict[str, DualEncoderConfig]:
    """Patch size and sides of the pictures as published; SigLIP 1 reads 16 tokens in one size, and in two more than English."""
    base = {"width": 768, "depth": 12, "mlp_dim": 3072, "heads": 12}
    so400m = {"width": 1152, "depth": 27, "mlp_dim": 4304, "heads": 16}
    english, many = 32_000, 250_000
    first: dict[str, tuple[dict[str, int], int, int, int, int]] = {
        "siglip-base-patch16-224": (base, 16, 224, english, 64),
        "siglip-base-patch16-256": (base, 16, 256, english, 64),
        "siglip-base-patch16-384": (base, 16, 384, english, 64),
        "siglip-base-patch16-512": (base, 16, 512, english, 64),
        "siglip-base-patch16-256-multilingual": (base, 16, 256, many, 64),
        "siglip-so400m-patch14-224": (so400m, 14, 224, english, 16),
        "siglip-so400m-patch14-384": (so400m, 14, 384, english, 64),
        "siglip-so400m-patch16-256-i18n": (so400m, 16, 256, many, 64),
    }
    second = {
        f"siglip2-{size}-patch{patch}-{side}": (dimensions, patch, side, GEMMA_VOCAB, 64)
        for size, dimensions, patch, sides in (
            ("base", base, 16, (224, 256, 384, 512)), ("so400m", so400m, 14, (224, 384)), ("so400m", so400m, 16, (256, 384, 512)),
        )
        for side in sides
    }  # fmt: skip
    return {
        name: DualEncoderConfig(
            VisionConfig(**dimensions, image_size=side, patch_size=patch),
            TextTowerConfig(**dimensions, vocab_size=vocab, length=length),
            name,
            "bilinear-antialias" if name in second else "bicubic",
        )
        for name, (dimensions, patch, side, vocab, length) in (first | second).items()
    }


ENCODERS: dict[str, DualEncoderConfig] = _encoders()
"""The published SigLIP and SigLIP 2 of the base and So400m sizes by name, with the resizing of their Hugging Face folders."""


def preset(name: str) -> PaliGemmaConfig:
    """The preset of that name; an unknown name raises `UsageError` with the closest one."""
    if name in PRESETS:
        return PRESETS[name]
    raise UsageError(f"no preset is called {name!r}", hint=did_you_mean(name, PRESETS, "known presets: " + ", ".join(PRESETS)))
