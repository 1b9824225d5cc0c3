"""What an answer takes at least: operations and bytes, counted from the configuration and from how the weights are kept.

A product and a sum are two operations. Counted is what cannot be left out: of the last layer only one row feeds the first token; every
weight of the decoder is read for a token, the table of words among them, which is the output matrix. Norms and activations are not counted.
Axes: T tokens, N query heads, K key/value heads, H head size, D width, F the MLP's, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import PaliGemmaConfig, TextConfig

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of a number."""


@dataclass(frozen=True)
class Work:
    """Operations for a picture, for a prompt of `tokens` (image tokens among them) and for a token after it; what a token reads: `weights`
    numbers in `weight_bytes`, and `cache_bytes` of keys and values for each token before it."""

    tokens: int
    picture: int
    prompt: int
    token: int
    weights: int
    weight_bytes: int
    cache_bytes: int

    def step_bytes(self, rows: int, before: float) -> float:
        """Bytes read for one more token in each of so many rows, each with `before` tokens."""
        return self.weight_bytes + rows * before * self.cache_bytes


def work(config: PaliGemmaConfig, text_tokens: int, *, weight_bytes: int | None = None, numbers: str, cached: str) -> Work:
    """`numbers`: what the decoder's weights are, where `weight_bytes` does not say what they take; `cached`: what keys and values are."""
    tokens, text = config.vision.num_tokens + text_tokens, config.text
    return Work(
        tokens,
        picture_operations(config),
        prompt_operations(text, tokens),
        token_operations(text, tokens + 1),
        text.num_parameters,
        text.num_parameters * BYTES[numbers] if weight_bytes is None else weight_bytes,
        2 * text.depth * text.kv_heads * text.head_dim * BYTES[cached],
    )


def picture_operations(config: PaliGemmaConfig) -> int:
    """Image tower and projector, one picture."""
    v, patches = config.vision, config.vision.num_tokens
    block = 2 * patches * (4 * v.width**2 + 2 * v.width * v.mlp_dim) + 4 * patches**2 * v.width
    return v.depth * block + 2 * patches * (3 * v.patch_size**2 * v.width + v.width * config.text.width)


def prompt_operations(text: TextConfig, tokens: int) -> int:
    """From all tokens of picture and prompt, which see each other, to the logits of the first token of the answer."""
    whole = block_operations(text, queries=tokens, keys=tokens, seen=tokens)
    last = block_operations(text, queries=1, keys=tokens, seen=tokens)
    return (text.depth - 1) * whole + last + _logits(text)


def token_operations(text: TextConfig, seen: int) -> int:
    """One token of an answer, which sees `seen` tokens, itself among them."""
    return text.depth * block_operations(text, queries=1, keys=1, seen=seen) + _logits(text)


def block_operations(text: TextConfig, *, queries: int, keys: int, seen: int) -> int:
    """A block of the decoder: keys and values of `keys` tokens, the rest of `queries`, of which each sees `seen`."""
    heads = text.heads * text.head_dim
    rest = 2 * queries * (2 * text.width * heads + 3 * text.width * text.mlp_dim) + 4 * queries * seen * heads
    return rest + 2 * keys * 2 * text.width * text.kv_heads * text.head_dim


def _logits(text: TextConfig) -> int:
    return 2 * text.width * text.vocab_size
