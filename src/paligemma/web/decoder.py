"""Gemma 1 and 2 as one graph that reads a prompt and that adds a token. As `model/gemma.py` in PyTorch.

    x (T, D)  cos, sin (T, H/2)  past_key_i, past_value_i (K, P, H)   ->   logits (1, V)  key_i, value_i (K, P + T, H)

With an empty past it reads picture and prompt, later it takes one token at a time. A prefix-LM needs no mask for either: what is read at
once sees all of itself and everything before. Only the last row of the last layer is computed, since the others would feed nothing.

Embeddings are looked up outside, in the bytes of the output matrix: it is the same table, and is stored once. It is cut into parts that
fit into the buffers of a GPU. Cosines and sines come from outside too, where they are exact; a GPU's are not, of large angles.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import PaliGemmaConfig, TextConfig
from .graph import Bits, Graph, Matrix

PART = 2**25
"""Weights of a part of the output matrix: 128 MB as float32, which GPUs bind at once everywhere."""
TABLE = "text.embed.weight"


@dataclass(frozen=True)
class Words:
    """The table of words: `rows` each in its parts, the last may have fewer."""

    bits: Bits
    rows: int
    parts: tuple[Matrix, ...]


def past_names(layer: int) -> tuple[str, str]:
    return f"past_key_{layer}", f"past_value_{layer}"


def present_names(layer: int) -> tuple[str, str]:
    return f"key_{layer}", f"value_{layer}"


def build(graph: Graph, config: PaliGemmaConfig, bits: Bits) -> Words:
    """Returns where the table of words lies."""
    c = config.text
    x = graph.input("x", "tokens", c.width)
    turns = graph.input("cos", "tokens", c.head_dim // 2), graph.input("sin", "tokens", c.head_dim // 2)
    for layer in range(c.depth):
        x = _block(graph, c, bits, layer, x, turns)
    hidden = _norm(graph, c, x, "text.norm")

    rows = min(c.vocab_size, max(1, PART // c.width))
    cuts = [range(at, min(at + rows, c.vocab_size)) for at in range(0, c.vocab_size, rows)]
    parts = tuple(graph.matrix(TABLE, bits, cut) for cut in cuts)
    products = [graph.product(hidden, f"{TABLE}.{i}", part, bits) for i, part in enumerate(parts)]
    logits = products[0] if len(products) == 1 else graph.op("Concat", *products, axis=1)
    graph.output("logits", logits if c.final_softcap is None else graph.softcap(logits, c.final_softcap), 1, c.vocab_size)
    return Words(bits, rows, parts)


def _block(graph: Graph, c: TextConfig, bits: Bits, layer: int, x: str, turns: tuple[str, str]) -> str:
    block = f"text.blocks.{layer}"
    normed = _norm(graph, c, x, f"{block}.pre_attn_norm")
    key = _rotated(graph, graph.heads(graph.linear(normed, f"{block}.attn.k", bits), c.kv_heads, c.head_dim), turns)
    value = graph.heads(graph.linear(normed, f"{block}.attn.v", bits), c.kv_heads, c.head_dim)
    stored = []
    for own, past, present in zip((key, value), past_names(layer), present_names(layer), strict=True):
        before = graph.input(past, c.kv_heads, "past", c.head_dim)
        stored.append(graph.op("Concat", before, own, axis=1, to=present))
        graph.output(present, stored[-1], c.kv_heads, "past+tokens", c.head_dim)
    if layer == c.depth - 1:
        normed, x, cos, sin = (_last_row(graph, one) for one in (normed, x, *turns))
        turns = cos, sin
    asked = _rotated(graph, graph.heads(graph.linear(normed, f"{block}.attn.q", bits), c.heads, c.head_dim), turns)
    # Query heads that share a key head become more queries of it.
    q = graph.reshape(graph.op("Mul", asked, graph.number(c.scale)), c.kv_heads, -1, c.head_dim)
    seen = graph.reshape(graph.attention(q, stored[0], stored[1], c.attn_softcap), c.heads, -1, c.head_dim)
    out = graph.linear(graph.joined(seen, c.heads, c.head_dim), f"{block}.attn.o", bits)
    x = graph.op("Add", x, _norm(graph, c, out, f"{block}.post_attn_norm") if c.post_norms else out)
    normed = _norm(graph, c, x, f"{block}.pre_mlp_norm")
    gate = graph.gelu(graph.linear(normed, f"{block}.mlp.gate", bits))
    hidden = graph.op("Mul", gate, graph.linear(normed, f"{block}.mlp.up", bits))
    out = graph.linear(hidden, f"{block}.mlp.down", bits)
    return graph.op("Add", x, _norm(graph, c, out, f"{block}.post_mlp_norm") if c.post_norms else out)


def _norm(graph: Graph, c: TextConfig, x: str, name: str) -> str:
    """x / rms(x) * (1 + weight)."""
    return graph.op("SimplifiedLayerNormalization", x, graph.vector(f"{name}.weight", 1.0), epsilon=c.norm_eps, axis=-1, stash_type=1)


def _rotated(graph: Graph, x: str, turns: tuple[str, str]) -> str:
    """x (heads, T, H): element i of the first half turns with element i of the second."""
    cos, sin = turns
    first, second = graph.ops("Split", x, count=2, axis=-1, num_outputs=2)
    left = graph.op("Sub", graph.op("Mul", first, cos), graph.op("Mul", second, sin))
    right = graph.op("Add", graph.op("Mul", second, cos), graph.op("Mul", first, sin))
    return graph.op("Concat", left, right, axis=-1)


def _last_row(graph: Graph, x: str) -> str:
    return graph.op("Slice", x, graph.numbers(-1), graph.numbers(2**31 - 1), graph.numbers(0))
