"""SigLIP image tower and projector as a graph: pixels (1, 3, S, S) -> image tokens (P, D). As `model/siglip.py` in PyTorch."""

from __future__ import annotations

from ..config import PaliGemmaConfig
from .graph import Bits, Graph

PIXELS, SOFT = "pixels", "soft"


def build(graph: Graph, config: PaliGemmaConfig, bits: Bits) -> None:
    """`bits`: of the matrices. Patches and positions stay float32."""
    v = config.vision
    size = v.width // v.heads
    pixels = graph.input(PIXELS, 1, 3, v.image_size, v.image_size)

    def norm(x: str, name: str) -> str:
        return graph.op("LayerNormalization", x, graph.vector(f"{name}.weight"), graph.vector(f"{name}.bias"), epsilon=v.norm_eps)

    patches = graph.op(
        "Conv", pixels, graph.plain("vision.patch_embed.weight"), graph.vector("vision.patch_embed.bias"),
        kernel_shape=[v.patch_size] * 2, strides=[v.patch_size] * 2,
    )  # fmt: skip
    x = graph.op("Transpose", graph.reshape(patches, v.width, v.num_tokens), perm=[1, 0])
    x = graph.op("Add", x, graph.plain("vision.pos_embed"))
    for i in range(v.depth):
        block = f"vision.blocks.{i}"
        normed = norm(x, f"{block}.norm1")
        q, k, own = (graph.heads(graph.linear(normed, f"{block}.attn.{part}", bits, bias=True), v.heads, size) for part in "qkv")
        seen = graph.attention(graph.op("Mul", q, graph.number(size**-0.5)), k, own)
        x = graph.op("Add", x, graph.linear(graph.joined(seen, v.heads, size), f"{block}.attn.out", bits, bias=True))
        hidden = graph.gelu(graph.linear(norm(x, f"{block}.norm2"), f"{block}.mlp.up", bits, bias=True))
        x = graph.op("Add", x, graph.linear(hidden, f"{block}.mlp.down", bits, bias=True))
    graph.output(SOFT, graph.linear(norm(x, "vision.norm"), "projector", bits, bias=True), v.num_tokens, config.text.width)
