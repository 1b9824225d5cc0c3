"""The table of tensor names of SigLIP's two towers; see `weight_maps.py`, whose rows of the image tower are used here as they are.

Hugging Face has the pooling head's three projections in one tensor (torch's `MultiheadAttention`), big_vision has all apart. Letters are
those of `weight_maps.py`; in the text tower W is the width, S the tokens of a text. Heads of size H there, h in the image tower.
Source: big_vision `models/vit.py`, `models/proj/image_text/text_transformer.py`; transformers `models/siglip`.
"""

from __future__ import annotations

import dataclasses

from ..config import DualEncoderConfig
from .axes import Axes
from .weight_maps import COMMON, Layout, Row, bv_layout_by, hf_layout_by, shapes_by

EMBEDDING_BV = "txt/Embed_0/embedding"
"""big_vision's name of the text tower's table, which no PaliGemma file has."""


def _vision() -> tuple[Row, ...]:
    """PaliGemma's image tower, which transformers calls by a shorter name here."""
    return tuple(dataclasses.replace(row, hf=row.hf.removeprefix("vision_tower.")) for row in COMMON if row.ours.startswith("vision."))


def _pool(ours: str, hf: str, bv: str, axes: str, hf_part: int = 0, hf_parts: int = 1) -> Row:
    return Row("pool." + ours, "vision_model.head." + hf, "img/MAPHead_0/" + bv, Axes.parse(axes), hf_part=hf_part, hf_parts=hf_parts)


def _text_of(row: Row) -> Row:
    """A row of the image tower's layers as the text tower has it: the same names, letters of its own."""
    letters = str.maketrans("dnhf", "WNHF")
    axes = Axes(tuple(part.translate(letters) for part in row.axes.left), tuple(part.translate(letters) for part in row.axes.right))
    return Row(
        row.ours.replace("vision.", "text."),
        row.hf.replace("vision_model.", "text_model."),
        row.bv.replace("img/Transformer/", "txt/Encoder_0/"),
        axes,
    )


def _text(ours: str, hf: str, bv: str, axes: str) -> Row:
    return Row("text." + ours, "text_model." + hf, "txt/" + bv, Axes.parse(axes))


_HEADS = "MultiHeadDotProductAttention_0/"
_VISION = _vision()
TABLE: tuple[Row, ...] = (
    *_VISION,
    Row("pool.probe", "vision_model.head.probe", "img/MAPHead_0/probe", Axes.parse("1 1 d -> d"), hf_ones=2),
    _pool("attn.q.weight", "attention.in_proj_weight", _HEADS + "query/kernel", "d n h -> nh d", 0, 3),
    _pool("attn.k.weight", "attention.in_proj_weight", _HEADS + "key/kernel", "d n h -> nh d", 1, 3),
    _pool("attn.v.weight", "attention.in_proj_weight", _HEADS + "value/kernel", "d n h -> nh d", 2, 3),
    _pool("attn.q.bias", "attention.in_proj_bias", _HEADS + "query/bias", "n h -> nh", 0, 3),
    _pool("attn.k.bias", "attention.in_proj_bias", _HEADS + "key/bias", "n h -> nh", 1, 3),
    _pool("attn.v.bias", "attention.in_proj_bias", _HEADS + "value/bias", "n h -> nh", 2, 3),
    _pool("attn.out.weight", "attention.out_proj.weight", _HEADS + "out/kernel", "n h d -> d nh"),
    _pool("attn.out.bias", "attention.out_proj.bias", _HEADS + "out/bias", "d -> d"),
    _pool("norm.weight", "layernorm.weight", "LayerNorm_0/scale", "d -> d"),
    _pool("norm.bias", "layernorm.bias", "LayerNorm_0/bias", "d -> d"),
    _pool("mlp.up.weight", "mlp.fc1.weight", "MlpBlock_0/Dense_0/kernel", "d f -> f d"),
    _pool("mlp.up.bias", "mlp.fc1.bias", "MlpBlock_0/Dense_0/bias", "f -> f"),
    _pool("mlp.down.weight", "mlp.fc2.weight", "MlpBlock_0/Dense_1/kernel", "f d -> d f"),
    _pool("mlp.down.bias", "mlp.fc2.bias", "MlpBlock_0/Dense_1/bias", "d -> d"),
    _text("embed.weight", "embeddings.token_embedding.weight", "Embed_0/embedding", "V W -> V W"),
    _text("pos_embed", "embeddings.position_embedding.weight", "pos_embedding", "1 S W -> S W"),
    *(_text_of(row) for row in _VISION if row.layers),
    _text("norm.weight", "final_layer_norm.weight", "Encoder_0/encoder_norm/scale", "W -> W"),
    _text("norm.bias", "final_layer_norm.bias", "Encoder_0/encoder_norm/bias", "W -> W"),
    _text("head.weight", "head.weight", "head/kernel", "W d -> d W"),
    _text("head.bias", "head.bias", "head/bias", "d -> d"),
    Row("logit_scale", "logit_scale", "t", Axes.parse("i -> i")),
    Row("logit_bias", "logit_bias", "b", Axes.parse("i -> i")),
)


def axis_sizes(config: DualEncoderConfig) -> dict[str, int]:
    """The size of every letter in the table; `i` is one."""
    v, t = config.vision, config.text
    sizes = {"d": v.width, "l": v.depth, "n": v.heads, "h": v.width // v.heads, "f": v.mlp_dim, "t": v.num_tokens}
    sizes |= {"p": v.patch_size, "q": v.patch_size, "c": 3, "i": 1}
    return sizes | {
        "W": t.width, "V": t.vocab_size, "L": t.depth, "N": t.heads, "H": t.width // t.heads, "F": t.mlp_dim, "S": t.length
    }  # fmt: skip


def our_shapes(config: DualEncoderConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `DualEncoder(config)`, without building it."""
    return shapes_by(TABLE, axis_sizes(config))


def hf_layout(config: DualEncoderConfig) -> Layout:
    """Hugging Face's names, of every release of transformers."""
    return hf_layout_by(TABLE, axis_sizes(config))


def bv_layout(config: DualEncoderConfig, *, prefix: str = "", scanned: bool = True) -> Layout:
    """big_vision's names after `prefix`. `scanned`: layers are stacked, as in SigLIP 2's files; in SigLIP 1's each is apart."""
    return bv_layout_by(TABLE, axis_sizes(config), prefix=prefix, scanned=scanned)
