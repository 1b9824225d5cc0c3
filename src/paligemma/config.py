"""Dimensions of every PaliGemma: frozen values, a dict of presets, and parameter counts. Knows no tensors and no files.

Facts: big_vision `models/vit.py`, `models/ppp/gemma.py`, `models/proj/paligemma/paligemma.py`; reports arXiv 2407.07726, 2412.03555.
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
    """SigLIP image tower (no pooling, no class token)."""

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
        d, f = self.width, self.mlp_dim
        block = 4 * (d * d + d) + 2 * d * f + f + d + 4 * d
        patch = 3 * self.patch_size**2 * d + d
        return self.depth * block + 2 * d + patch + self.num_tokens * d


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
    """A whole model. `version` 1 is built on Gemma 1, 2 on Gemma 2."""

    vision: VisionConfig
    text: TextConfig
    version: Literal[1, 2] = 1
    name: str = "custom"
    resize: Resize = "bicubic"

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


def preset(name: str) -> PaliGemmaConfig:
    """The preset of that name; an unknown name raises `UsageError` with the closest one."""
    if name in PRESETS:
        return PRESETS[name]
    raise UsageError(f"no preset is called {name!r}", hint=did_you_mean(name, PRESETS, "known presets: " + ", ".join(PRESETS)))
