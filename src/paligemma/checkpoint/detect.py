"""Which PaliGemma a file holds, from the shapes of its tensors alone; and the one sentence about files that contradict each other.

A big_vision file states every dimension in its shapes (heads and head sizes are axes of their own). What no shape shows is filled in from
the published model of the same dimensions: the query scale of the 28B model, the soft-cap of Gemma 2's attention.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ..config import GEMMA_1_2B, GEMMA_2_2B, GEMMA_2_9B, GEMMA_2_27B, VOCAB_SIZE, PaliGemmaConfig, TextConfig, VisionConfig
from ..errors import CheckpointError
from .hf_config import named
from .source import TensorSpec
from .weight_maps import COMMON, ENCODERBLOCK, NORMS_2, PADDED_VOCAB, Row

PUBLISHED_DECODERS = (GEMMA_1_2B, GEMMA_2_2B, GEMMA_2_9B, GEMMA_2_27B)
_POST_NORM = next(row for row in NORMS_2 if "post_attn_norm" in row.ours)


def bv_prefix(names: Mapping[str, object]) -> str:
    """`params/` where the file's names begin with it, else nothing."""
    return "params/" if any(name.startswith("params/") for name in names) else ""


def bv_scanned(names: Mapping[str, object], prefix: str) -> bool:
    """Whether the image tower's layers are stacked. (In a file of two towers the text tower's are as the image tower's.)"""
    return not any(name.startswith(prefix + "img/Transformer/encoderblock_") for name in names)


def config_from_shapes(specs: Mapping[str, TensorSpec], prefix: str, *, where: str) -> PaliGemmaConfig:
    """The model that a big_vision file holds. Raises `CheckpointError` where a dimension cannot be told."""
    sizes = sizes_by(COMMON, specs, prefix)
    letters = "dlnhftpqcWVLNKHF"
    if missing := [letter for letter in letters if letter not in sizes]:
        looked = [prefix + row.bv for row in COMMON if set(missing) & set("".join(row.axes.left))]
        raise CheckpointError(
            f"{where}: not a PaliGemma in big_vision's layout: no usable {', '.join(looked[:4]) or 'layers'}",
            hint="expected arrays such as img/embedding/kernel and llm/embedder/input_embedding",
            code="unknown_layout",
        )
    grid = math.isqrt(sizes["t"])
    if grid * grid != sizes["t"]:
        raise CheckpointError(f"{where}: {prefix}img/pos_embedding has {sizes['t']} positions, which is no square", code="tensors_differ")
    post_norms = prefix + _POST_NORM.bv in specs
    vocab = VOCAB_SIZE if sizes["V"] == PADDED_VOCAB else sizes["V"]
    text = TextConfig(
        width=sizes["W"], depth=sizes["L"], mlp_dim=sizes["F"], heads=sizes["N"], kv_heads=sizes["K"], head_dim=sizes["H"],
        vocab_size=vocab, attn_softcap=50.0 if post_norms else None, post_norms=post_norms,
    )  # fmt: skip
    for known in PUBLISHED_DECODERS:
        if dataclasses.replace(known, query_scale=None, vocab_size=vocab) == text:
            text = dataclasses.replace(known, vocab_size=vocab)
    vision = VisionConfig(
        width=sizes["d"], depth=sizes["l"], mlp_dim=sizes["f"], heads=sizes["n"], image_size=grid * sizes["p"], patch_size=sizes["p"]
    )
    if vision.width % vision.heads or text.heads % text.kv_heads or text.head_dim % 2:
        raise CheckpointError(
            f"{where}: {vision.heads} heads at width {vision.width} in the image tower, {text.heads} query and {text.kv_heads} key heads "
            f"of size {text.head_dim} in the decoder: no PaliGemma is built like that",
            code="tensors_differ",
        )
    return named(PaliGemmaConfig(vision, text, version=2 if post_norms else 1, resize="bilinear"))


def sizes_by(rows: Sequence[Row], specs: Mapping[str, TensorSpec], prefix: str) -> dict[str, int]:
    """The size of each letter of a table, from the first tensor that shows it."""
    sizes: dict[str, int] = {}
    for letter, start in {(row.layers, prefix + row.bv.partition(ENCODERBLOCK)[0]) for row in rows if ENCODERBLOCK in row.bv}:
        apart = start + "encoderblock_"
        blocks = {name.removeprefix(apart).split("/")[0] for name in specs if name.startswith(apart)}
        if letter and blocks:
            sizes[letter] = len(blocks)
    for row in rows:
        for name, stacked in _candidates(row, prefix):
            if name in specs:
                shape = specs[name].shape
                lead = (1 if stacked else 0) + (1 if row.parts > 1 else 0)
                found = row.axes.solve(shape[lead:]) if len(shape) > lead else {}
                if stacked and row.layers and found:
                    found[row.layers] = shape[0]
                sizes = {**found, **sizes}
                break
    return sizes


def _candidates(row: Row, prefix: str) -> list[tuple[str, bool]]:
    names = [(prefix + row.bv, row.layers is not None)]
    if ENCODERBLOCK in row.bv:
        names.append((prefix + row.bv.replace(ENCODERBLOCK, "encoderblock_0/"), False))
    return names


def describe(config: PaliGemmaConfig) -> str:
    """`PaliGemma 2 3B at 224 px`, or the dimensions of a model that was never published."""
    published = _SIZES.get(named(config).name)
    if published is not None:
        return f"{published} at {config.vision.image_size} px"
    v, t = config.vision, config.text
    size = f"{t.depth} layers of {t.width}, image tower {v.depth} of {v.width}"
    return f"a PaliGemma{' 2' if config.version == 2 else ''} ({size}) at {v.image_size} px"


_SIZES = {
    f"paligemma{number}-{size}-{res}": f"PaliGemma {number or 1} {size.upper()}"
    for number, sizes in (("", ("3b",)), ("2", ("3b", "10b", "28b")))
    for size in sizes
    for res in (224, 448, 896)
}


def hf_contradiction(config: PaliGemmaConfig, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """One sentence on how `config.json` and the weights (under hub names) disagree, or None where the big things fit."""
    vision, text = "vision_tower.vision_model.", "language_model.model."
    claims = []
    post_norms = any(name.endswith(".post_feedforward_layernorm.weight") for name in shapes)
    embedding, positions = shapes.get(text + "embed_tokens.weight", ()), shapes.get(vision + "embeddings.position_embedding.weight", ())
    if any(name.startswith(text + "layers.") for name in shapes) and post_norms != config.text.post_norms:
        claims.append((f"a PaliGemma {config.version}", f"those of a PaliGemma {2 if post_norms else 1}"))
    if len(embedding) == 2 and embedding[1] != config.text.width:
        claims.append((f"a decoder of width {config.text.width}", f"of width {embedding[1]}"))
    layers = len({name.split(".")[3] for name in shapes if name.startswith(text + "layers.")})
    if layers and layers != config.text.depth:
        claims.append((f"{config.text.depth} decoder layers", str(layers)))
    if len(positions) == 2 and positions[0] != config.vision.num_tokens:
        side = math.isqrt(positions[0]) * config.vision.patch_size
        claims.append((f"{config.vision.image_size} px", f"for {side} px" if side else "for none"))
    if not claims:
        return None
    told, found = "; ".join(told for told, _ in claims), "; ".join(found for _, found in claims)
    return f"config.json describes {told}, the weights are {found}"
