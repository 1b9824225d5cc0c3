"""The one table of tensor names: this package's, Hugging Face's, big_vision's, and how an array of the last becomes one of ours.

    ours                          Hugging Face                                  big_vision array       its axes -> our axes
    text.blocks.3.attn.q.weight   language_model.model.layers.3.self_attn...    llm/layers/attn/...    N W H -> NH W      (of layer 3)

Hugging Face's tensors have our shapes. big_vision stacks the layers of a tower along a first axis, and stacks keys on values and the
gate on the up-projection. Everything else is derived: the reverse direction, the names and shapes a file must have, and the dimensions
a file's shapes imply. Norm weights are stored as offsets from one everywhere; no reordering for rotary embeddings is needed.
Source: big_vision `models/vit.py`, `models/ppp/gemma.py`; transformers `models/paligemma`.

Letters: text tower W width, V vocabulary, L layers, N heads, K key/value heads, H head size, F hidden; image tower d width, l layers,
n heads, h head size, f hidden, t patches, p q patch side, c colours.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..config import VOCAB_SIZE, PaliGemmaConfig
from .axes import Axes

PADDED_VOCAB = VOCAB_SIZE + 64
"""Rows of Hugging Face's published tables. Row 257152 is its `<image>` placeholder, the rest fill up a multiple of 64; none is a token."""

EMBEDDING = "text.embed.weight"
HF_EMBEDDING = "language_model.model.embed_tokens.weight"
ENCODERBLOCK = "encoderblock/"
"""In big_vision's names of the layers of a tower, where they are stacked."""
HF_TIED = "language_model.lm_head.weight"
"""The output matrix. PaliGemma's is its embedding table; files may hold it a second time."""


@dataclass(frozen=True)
class Row:
    """`{}` stands for the layer. `part` of `parts`: the place in big_vision's array between the layer axis and the axes named here;
    `hf_part` of `hf_parts`: the place along the first axis of Hugging Face's tensor, which has `hf_ones` axes of size one before it."""

    ours: str
    hf: str
    bv: str
    axes: Axes
    part: int = 0
    parts: int = 1
    hf_part: int = 0
    hf_parts: int = 1
    hf_ones: int = 0

    @property
    def layers(self) -> str | None:
        """The letter that counts this row's layers."""
        if "{}" not in self.ours:
            return None
        return "l" if self.ours.startswith("vision") else "L"


def _vision(ours: str, hf: str, bv: str, axes: str) -> Row:
    return Row("vision." + ours, "vision_tower.vision_model." + hf, "img/" + bv, Axes.parse(axes))


def _vision_block(ours: str, hf: str, bv: str, axes: str) -> Row:
    return _vision("blocks.{}." + ours, "encoder.layers.{}." + hf, "Transformer/encoderblock/" + bv, axes)


def _text_block(ours: str, hf: str, bv: str, axes: str, part: int = 0, parts: int = 1) -> Row:
    name = "language_model.model.layers.{}." + hf + ".weight"
    return Row("text.blocks.{}." + ours + ".weight", name, "llm/layers/" + bv, Axes.parse(axes), part, parts)


_HEADS = "MultiHeadDotProductAttention_0/"

COMMON: tuple[Row, ...] = (
    _vision("patch_embed.weight", "embeddings.patch_embedding.weight", "embedding/kernel", "p q c d -> d c p q"),
    _vision("patch_embed.bias", "embeddings.patch_embedding.bias", "embedding/bias", "d -> d"),
    _vision("pos_embed", "embeddings.position_embedding.weight", "pos_embedding", "1 t d -> t d"),
    _vision_block("norm1.weight", "layer_norm1.weight", "LayerNorm_0/scale", "d -> d"),
    _vision_block("norm1.bias", "layer_norm1.bias", "LayerNorm_0/bias", "d -> d"),
    _vision_block("attn.q.weight", "self_attn.q_proj.weight", _HEADS + "query/kernel", "d n h -> nh d"),
    _vision_block("attn.q.bias", "self_attn.q_proj.bias", _HEADS + "query/bias", "n h -> nh"),
    _vision_block("attn.k.weight", "self_attn.k_proj.weight", _HEADS + "key/kernel", "d n h -> nh d"),
    _vision_block("attn.k.bias", "self_attn.k_proj.bias", _HEADS + "key/bias", "n h -> nh"),
    _vision_block("attn.v.weight", "self_attn.v_proj.weight", _HEADS + "value/kernel", "d n h -> nh d"),
    _vision_block("attn.v.bias", "self_attn.v_proj.bias", _HEADS + "value/bias", "n h -> nh"),
    _vision_block("attn.out.weight", "self_attn.out_proj.weight", _HEADS + "out/kernel", "n h d -> d nh"),
    _vision_block("attn.out.bias", "self_attn.out_proj.bias", _HEADS + "out/bias", "d -> d"),
    _vision_block("norm2.weight", "layer_norm2.weight", "LayerNorm_1/scale", "d -> d"),
    _vision_block("norm2.bias", "layer_norm2.bias", "LayerNorm_1/bias", "d -> d"),
    _vision_block("mlp.up.weight", "mlp.fc1.weight", "MlpBlock_0/Dense_0/kernel", "d f -> f d"),
    _vision_block("mlp.up.bias", "mlp.fc1.bias", "MlpBlock_0/Dense_0/bias", "f -> f"),
    _vision_block("mlp.down.weight", "mlp.fc2.weight", "MlpBlock_0/Dense_1/kernel", "f d -> d f"),
    _vision_block("mlp.down.bias", "mlp.fc2.bias", "MlpBlock_0/Dense_1/bias", "d -> d"),
    _vision("norm.weight", "post_layernorm.weight", "Transformer/encoder_norm/scale", "d -> d"),
    _vision("norm.bias", "post_layernorm.bias", "Transformer/encoder_norm/bias", "d -> d"),
    Row("projector.weight", "multi_modal_projector.linear.weight", "img/head/kernel", Axes.parse("d W -> W d")),
    Row("projector.bias", "multi_modal_projector.linear.bias", "img/head/bias", Axes.parse("W -> W")),
    Row(EMBEDDING, HF_EMBEDDING, "llm/embedder/input_embedding", Axes.parse("V W -> V W")),
    _text_block("attn.q", "self_attn.q_proj", "attn/q_einsum/w", "N W H -> NH W"),
    _text_block("attn.k", "self_attn.k_proj", "attn/kv_einsum/w", "K W H -> KH W", 0, 2),
    _text_block("attn.v", "self_attn.v_proj", "attn/kv_einsum/w", "K W H -> KH W", 1, 2),
    _text_block("attn.o", "self_attn.o_proj", "attn/attn_vec_einsum/w", "N H W -> W NH"),
    _text_block("mlp.gate", "mlp.gate_proj", "mlp/gating_einsum", "W F -> F W", 0, 2),
    _text_block("mlp.up", "mlp.up_proj", "mlp/gating_einsum", "W F -> F W", 1, 2),
    _text_block("mlp.down", "mlp.down_proj", "mlp/linear", "F W -> W F"),
    Row("text.norm.weight", "language_model.model.norm.weight", "llm/final_norm/scale", Axes.parse("W -> W")),
)

NORMS_1: tuple[Row, ...] = (
    _text_block("pre_attn_norm", "input_layernorm", "pre_attention_norm/scale", "W -> W"),
    _text_block("pre_mlp_norm", "post_attention_layernorm", "pre_ffw_norm/scale", "W -> W"),
)
"""Gemma 1. Hugging Face's `post_attention_layernorm` comes after the attention *block*, which is before the MLP."""

NORMS_2: tuple[Row, ...] = (
    _text_block("pre_attn_norm", "input_layernorm", "pre_attention_norm/scale", "W -> W"),
    _text_block("post_attn_norm", "post_attention_layernorm", "post_attention_norm/scale", "W -> W"),
    _text_block("pre_mlp_norm", "pre_feedforward_layernorm", "pre_ffw_norm/scale", "W -> W"),
    _text_block("post_mlp_norm", "post_feedforward_layernorm", "post_ffw_norm/scale", "W -> W"),
)
"""Gemma 2. The same `post_attention_layernorm` now normalises what attention adds: another tensor under the same name."""


def table(post_norms: bool) -> tuple[Row, ...]:
    """The rows of a model with or without Gemma 2's post-norms."""
    return COMMON + (NORMS_2 if post_norms else NORMS_1)


def axis_sizes(config: PaliGemmaConfig) -> dict[str, int]:
    """The size of every letter in the table."""
    v, t = config.vision, config.text
    sizes = {"d": v.width, "l": v.depth, "n": v.heads, "h": v.width // v.heads, "f": v.mlp_dim, "t": v.num_tokens}
    sizes |= {"p": v.patch_size, "q": v.patch_size, "c": 3}
    return sizes | {
        "W": t.width, "V": t.vocab_size, "L": t.depth, "N": t.heads, "K": t.kv_heads, "H": t.head_dim, "F": t.mlp_dim
    }  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """Where one of our tensors lies in a file: in `theirs`, from value `start` on. `axes`: how to turn it, None: not at all."""

    ours: str
    theirs: str
    start: int = 0
    axes: Axes | None = None


@dataclass(frozen=True)
class Layout:
    """A model's tensors under the names of a file. `shapes`: what the file must hold; `pieces`: where ours are in it, in our order."""

    shapes: dict[str, tuple[int, ...]]
    pieces: dict[str, Piece]
    sizes: Mapping[str, int]

    def members(self) -> dict[str, list[Piece]]:
        """Per tensor of the file, the pieces it is made of, in the order they lie in it."""
        members: dict[str, list[Piece]] = {name: [] for name in self.shapes}
        for piece in self.pieces.values():
            members[piece.theirs].append(piece)
        return {name: sorted(pieces, key=lambda piece: piece.start) for name, pieces in members.items()}


def our_shapes(config: PaliGemmaConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `PaliGemma(config)`, without building it."""
    return shapes_by(table(config.text.post_norms), axis_sizes(config))


def hf_layout(config: PaliGemmaConfig) -> Layout:
    """Hugging Face's names as its hub files have them; the embedding table without surplus rows."""
    return hf_layout_by(table(config.text.post_norms), axis_sizes(config))


def bv_layout(config: PaliGemmaConfig, *, prefix: str = "", scanned: bool = True) -> Layout:
    """big_vision's names after `prefix` (`params/` or nothing). `scanned`: the image tower's layers are stacked, as published."""
    return bv_layout_by(table(config.text.post_norms), axis_sizes(config), prefix=prefix, scanned=scanned)


def shapes_by(rows: Sequence[Row], sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Our names and shapes, by a table and the sizes of its letters."""
    return {row.ours.format(layer): row.axes.right_shape(sizes) for row, layer in _layered(rows, sizes)}


def hf_layout_by(rows: Sequence[Row], sizes: Mapping[str, int]) -> Layout:
    """Hugging Face's layout, by a table and the sizes of its letters."""
    shapes: dict[str, tuple[int, ...]] = {}
    pieces: dict[str, Piece] = {}
    for row, layer in _layered(rows, sizes):
        ours, theirs = row.ours.format(layer), row.hf.format(layer)
        first, *rest = row.axes.right_shape(sizes)
        shapes[theirs] = (*(1,) * row.hf_ones, row.hf_parts * first, *rest)
        pieces[ours] = Piece(ours, theirs, row.hf_part * first * math.prod(rest))
    return Layout(shapes, pieces, sizes)


def bv_layout_by(rows: Sequence[Row], sizes: Mapping[str, int], *, prefix: str, scanned: bool) -> Layout:
    """big_vision's layout, by a table and the sizes of its letters; not `scanned`: towers of `encoderblock`s have each layer apart."""
    shapes: dict[str, tuple[int, ...]] = {}
    pieces: dict[str, Piece] = {}
    for row, layer in _layered(rows, sizes):
        ours = row.ours.format(layer)
        stacked = row.layers is not None and (scanned or ENCODERBLOCK not in row.bv)
        shape = row.axes.left_shape(sizes)
        inner = (*((row.parts,) if row.parts > 1 else ()), *shape)
        name = prefix + (row.bv if scanned else row.bv.replace(ENCODERBLOCK, f"encoderblock_{layer}/"))
        shapes[name] = (sizes[row.layers], *inner) if stacked and row.layers else inner
        start = ((layer if stacked else 0) * row.parts + row.part) * math.prod(shape)
        pieces[ours] = Piece(ours, name, start, None if row.axes.identity else row.axes)
    return Layout(shapes, pieces, sizes)


def _layered(table: Sequence[Row], sizes: Mapping[str, int]) -> Iterator[tuple[Row, int]]:
    """The table's rows with their layers, layer by layer: the order in which a compressed archive is read in one go."""
    for letter, group in itertools.groupby(table, key=lambda row: row.layers):
        rows = tuple(group)
        for layer in range(sizes[letter] if letter else 1):
            yield from ((row, layer) for row in rows)


_HF_TEXT = re.compile(r"^language_model\.(?!model\.|lm_head\.)")
_HF_VISION = re.compile(r"^vision_tower\.(?!vision_model\.)")


def hub_name(name: str) -> str:
    """Any era's Hugging Face name, as hub files have it.

    Hub files:           vision_tower.vision_model.X   multi_modal_projector.X         language_model.model.X   language_model.lm_head
    transformers >=4.52: model.vision_tower....X       model.multi_modal_projector.X   model.language_model.X   lm_head
    written by >=5:      vision_tower.X                multi_modal_projector.X         language_model.model.X   (none)
    """
    if name.startswith(("model.vision_tower.", "model.multi_modal_projector.", "model.language_model.")):
        name = name.removeprefix("model.")
    if name.startswith("lm_head."):
        name = "language_model." + name
    return _HF_VISION.sub("vision_tower.vision_model.", _HF_TEXT.sub("language_model.model.", name))
