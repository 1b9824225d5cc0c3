"""How many questions an engine can hold at a time: from what a token of the cache takes, and what memory is free."""

from __future__ import annotations

from ..checkpoint.memory import free_memory
from ..config import PaliGemmaConfig

SHARE = 0.5
"""Of the free memory that caches may take; the rest is for image towers at work, pictures and everything else."""
BYTES = 4
"""Of a number in a cache, at most."""


def token_bytes(config: PaliGemmaConfig) -> int:
    """Keys and values of one token in all layers."""
    text = config.text
    return 2 * text.depth * text.kv_heads * text.head_dim * BYTES


def picture_bytes(config: PaliGemmaConfig) -> int:
    """What the image tower needs besides its weights for one picture: the scores of a layer's attention, and its widest states."""
    vision = config.vision
    tokens = vision.num_tokens
    return BYTES * (vision.heads * tokens**2 + 2 * tokens * vision.mlp_dim)


def tokens_that_fit(config: PaliGemmaConfig, memory: int | None = None) -> int:
    """Tokens that caches have room for in `memory` bytes, by default a share of what is free; at least those of one whole context."""
    free = free_memory() if memory is None else memory
    least = config.vision.num_tokens + 1024
    if free is None:
        return 16 * least
    room = free * (SHARE if memory is None else 1.0) - picture_bytes(config)
    return max(least, int(room / token_bytes(config)))
