"""Gemma 1 and 2 on arrays: prompts are read into a key/value cache, then one token per row and step. Logits on request.

A prefix-LM needs no mask here: while a prompt is read everything in it sees everything, and of a batch each row has a length of its own.
Source: big_vision `models/ppp/gemma.py`; `model/gemma.py` in PyTorch. Axes: B rows, T tokens, S slots, N query heads, K key/value heads,
H head size, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import TextConfig
from . import plain
from .layers import Kernels, Plain, Quantized, gated, matrix
from .pack_file import Arrays
from .packing import Floats, Rows


class Cache:
    """Keys and values (depth, B, S, K, H), the bits of bfloat16 or float32, of which row b has `lengths[b]`."""

    def __init__(self, config: TextConfig, batch: int, slots: int, kind: type):
        shape = (config.depth, batch, slots, config.kv_heads, config.head_dim)
        self.keys, self.values = np.empty(shape, kind), np.empty(shape, kind)
        self.lengths = np.zeros(batch, np.int64)

    def select(self, places: Sequence[int]) -> Cache:
        """A cache whose row i is this one's row `places[i]`."""
        other = object.__new__(Cache)
        rows = np.asarray(places)
        other.keys, other.values = np.take(self.keys, rows, axis=1), np.take(self.values, rows, axis=1)  # in order, unlike [:, rows]
        other.lengths = self.lengths[rows]
        return other

    def join(self, other: Cache) -> Cache:
        """A cache of this one's rows and then the other's, with as many slots as the longer of the two."""
        joined = object.__new__(Cache)
        own, batch = self.keys.shape[1], self.keys.shape[1] + other.keys.shape[1]
        shape = (self.keys.shape[0], batch, max(self.keys.shape[2], other.keys.shape[2]), *self.keys.shape[3:])
        joined.keys, joined.values = np.empty(shape, self.keys.dtype), np.empty(shape, self.values.dtype)
        for cache, rows in ((self, slice(own)), (other, slice(own, batch))):
            filled = slice(int(cache.lengths.max()))
            joined.keys[:, rows, filled], joined.values[:, rows, filled] = cache.keys[:, :, filled], cache.values[:, :, filled]
        joined.lengths = np.concatenate([self.lengths, other.lengths])
        return joined


class Decoder:
    def __init__(self, arrays: Arrays, config: TextConfig, kernels: Kernels):
        self.config, self.kernels = config, kernels
        width, size = config.width, config.head_dim

        def norm(name: str) -> Floats:
            return arrays.numbers(f"text.{name}.weight", (width,))

        def block(i: int) -> dict[str, Any]:
            shapes = {
                "attn.q": (config.heads * size, width),
                "attn.kv": (2 * config.kv_heads * size, width),
                "attn.o": (width, config.heads * size),
                "mlp.gate": (config.mlp_dim, width),
                "mlp.up": (config.mlp_dim, width),
                "mlp.down": (width, config.mlp_dim),
            }
            norms = ("pre_attn_norm", "pre_mlp_norm", *(("post_attn_norm", "post_mlp_norm") if config.post_norms else ()))
            matrices = {name: matrix(arrays, f"text.blocks.{i}.{name}.weight", shape, kernels) for name, shape in shapes.items()}
            return matrices | {name: norm(f"blocks.{i}.{name}") for name in norms}

        self.table = matrix(arrays, "text.embed.weight", (config.vocab_size, width), kernels)
        self.blocks = [block(i) for i in range(config.depth)]
        self.norm = norm("norm")
        self.stack = _stack(self.blocks, config, kernels)

    def embed(self, ids: NDArray[np.int64]) -> Floats:
        """ids (n,) -> (n, D), times sqrt(D)."""
        return self.table.embed(ids) * np.float32(self.config.width**0.5)

    def read(self, x: Floats, lengths: NDArray[np.int64], cache: Cache) -> Floats:
        """x (B, T, D), of which row b's first `lengths[b]` count, into an empty cache -> the final states of each row's last one (B, D)."""
        batch, count, width = x.shape
        cache.lengths = lengths.astype(np.int64)
        last = np.arange(batch) * count + cache.lengths - 1
        turns = self._turns(np.tile(np.arange(count), batch))
        x = np.ascontiguousarray(x.reshape(-1, width))
        for layer, block in enumerate(self.blocks):
            normed = self._normed(x, block["pre_attn_norm"])
            keys, values = self._keys(block, normed, turns)
            cache.keys[layer, :, :count] = self._stored(keys).reshape(batch, count, *keys.shape[1:])
            cache.values[layer, :, :count] = self._stored(values).reshape(batch, count, *values.shape[1:])
            asked = turns
            if layer == len(self.blocks) - 1:  # the others' results would feed nothing
                normed, x, asked = normed[last], x[last], (turns[0][last], turns[1][last])
            x = self._rest(block, x, normed, asked, cache, layer, batch)
        return self._normed(x, self.norm)

    def extend(self, ids: Sequence[int], cache: Cache) -> Floats:
        """One more token a row -> its final states (B, D)."""
        x, rows, at = self.embed(np.asarray(ids, np.int64)), np.arange(len(ids)), cache.lengths
        turns = self._turns(at)
        cache.lengths = at + 1
        if self.stack is not None and self.narrow:
            self.stack.step(x, *turns, cache.keys, cache.values, cache.lengths)
            return self._normed(x, self.norm)
        for layer, block in enumerate(self.blocks):
            normed = self._normed(x, block["pre_attn_norm"])
            keys, values = self._keys(block, normed, turns)
            cache.keys[layer, rows, at], cache.values[layer, rows, at] = self._stored(keys), self._stored(values)
            x = self._rest(block, x, normed, turns, cache, layer, len(ids))
        return self._normed(x, self.norm)

    def states(self, x: Floats, prompt: int) -> Floats:
        """x (T, D), a prompt of so many tokens and its answer -> the final states of all (T, D), in one pass and without a cache to add to.

        What `read` and `extend` must come to. Takes T rows of keys: for short ones.
        """
        count = len(x)
        cache, turns = Cache(self.config, count, count, np.uint16 if self.narrow else np.float32), self._turns(np.arange(count))
        cache.lengths = np.maximum(np.arange(1, count + 1), prompt)  # each token is a row of its own, which sees so many
        for layer, block in enumerate(self.blocks):
            normed = self._normed(x, block["pre_attn_norm"])
            keys, values = self._keys(block, normed, turns)
            cache.keys[layer], cache.values[layer] = self._stored(keys), self._stored(values)
            x = self._rest(block, x, normed, turns, cache, layer, count)
        return self._normed(x, self.norm)

    def logits(self, hidden: Floats, rows: Rows | None = None) -> Floats:
        """hidden (B, D) -> (B, V), or of some tokens only."""
        out = self.table.linear(hidden) if rows is None else self.table.rows(hidden, rows)
        cap = self.config.final_softcap
        return out if cap is None else self.kernels.soft_cap(np.ascontiguousarray(out), cap)

    def _keys(self, block: dict[str, Any], normed: Floats, turns: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
        """(n, D) -> keys and values (n, K, H)."""
        both = block["attn.kv"].linear(normed).reshape(len(normed), 2, self.config.kv_heads, -1)
        return self.kernels.rotate(both[:, 0], *turns), both[:, 1]

    def _rest(
        self, block: dict[str, Any], x: Floats, normed: Floats, turns: tuple[Floats, Floats], cache: Cache, layer: int, batch: int
    ) -> Floats:
        """What a block adds to x (n, D), once keys and values are stored."""
        c, kernels = self.config, self.kernels
        q = kernels.rotate(block["attn.q"].linear(normed).reshape(len(x), c.heads, -1), *turns).reshape(batch, -1, c.heads, c.head_dim)
        seen = kernels.attention(q, cache.keys[layer], cache.values[layer], cache.lengths, scale=c.scale, softcap=c.attn_softcap)
        x = x + self._after(block, "post_attn_norm", block["attn.o"].linear(seen.reshape(len(x), -1)))
        hidden = gated(kernels, block["mlp.gate"], block["mlp.up"], self._normed(x, block["pre_mlp_norm"]))
        return x + self._after(block, "post_mlp_norm", block["mlp.down"].linear(hidden))

    def _after(self, block: dict[str, Any], norm: str, x: Floats) -> Floats:
        return self._normed(x, block[norm]) if norm in block else x

    def _normed(self, x: Floats, weight: Floats) -> Floats:
        return self.kernels.rms_norm(x, weight, self.config.norm_eps)

    def _turns(self, positions: NDArray[np.int64]) -> tuple[Floats, Floats]:
        return plain.rotary_table(positions, self.config.head_dim, self.config.rope_base)

    def _stored(self, x: Floats) -> NDArray[Any]:
        return self.kernels.to_bfloat16(np.ascontiguousarray(x)) if self.narrow else x

    narrow = True
    """Whether keys and values are kept as bfloat16."""


def _stack(blocks: Sequence[dict[str, Any]], config: TextConfig, kernels: Kernels) -> Any:
    """The blocks in compiled code, where all they need is there."""
    if not hasattr(kernels, "stack"):
        return None
    bare = [{name: one.packed if isinstance(one, Quantized) else one for name, one in block.items()} for block in blocks]
    return None if any(isinstance(one, Plain) for block in bare for one in block.values()) else kernels.stack(bare, config)
