"""Which SigLIP a checkpoint is: `config.json` and `preprocessor_config.json` of a Hugging Face folder, or the shapes of an `.npz`.

As with PaliGemma's (`hf_config.py`, `detect.py`), every value is checked before it is used, and absent keys mean what they mean to
transformers. How pictures are resized stands in the folder's second file: SigLIP 1's say bicubic, SigLIP 2's bilinear; big_vision resizes
bilinearly without antialiasing. Our own keys stand under `"paligemma"`: `name`, `resize`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from ..config import ENCODERS, DualEncoderConfig, Resize, TextTowerConfig, VisionConfig
from ..errors import CheckpointError
from .detect import sizes_by
from .dual_maps import TABLE
from .hf_config import (
    CONFIG,
    Fields,
    bad_config,
    read_config_file,
    refuse_foreign,
    short,
    tower_sizes,
    vision_config,
    write_preprocessor,
    write_tower,
    write_vision,
)  # fmt: skip
from .source import TensorSpec

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
"""Where transformers 5 writes what earlier ones put into `PREPROCESSOR`: in a table `image_processor`."""
TEXT_DEFAULTS = {
    "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072, "num_attention_heads": 12, "vocab_size": 32000,
    "max_position_embeddings": 64, "layer_norm_eps": 1e-6,
}  # fmt: skip
"""Of transformers' SiglipTextConfig."""
_RESAMPLE: dict[int, Resize] = {3: "bicubic", 2: "bilinear-antialias"}
"""Pillow's numbers; Pillow always antialiases."""


def parse_encoder(data: dict[str, Any], resize: Resize | None = None, where: str = CONFIG) -> DualEncoderConfig:
    """Hugging Face's fields -> ours. `resize`: the preprocessor's, transformers' default where None. Raises `CheckpointError`."""
    refuse_foreign(data, where)
    if data.get("model_type") == "siglip2":
        raise CheckpointError(
            f"{where}: a NaFlex SigLIP 2, which keeps each picture's own proportions, is not supported",
            hint="take one for squares of a fixed size, such as google/siglip2-base-patch16-224",
            code="naflex",
        )
    if data.get("model_type") != "siglip":
        raise bad_config(where, f"model_type is {short(data.get('model_type'))}, expected 'siglip'")
    text, vision, own = (
        Fields(where, key, {} if data.get(key) is None else data[key]) for key in ("text_config", "vision_config", "paligemma")
    )
    text.defaults = TEXT_DEFAULTS
    text.choice("model_type", ("siglip_text_model",), "siglip_text_model")
    text.choice("hidden_act", ("gelu_pytorch_tanh",), "gelu_pytorch_tanh")
    vision.choice("vision_use_head", (True,), True)
    v = vision_config(vision)
    t = TextTowerConfig(
        **tower_sizes(text), vocab_size=text.count("vocab_size", 1 << 22), length=text.count("max_position_embeddings", 1 << 16)
    )
    given = text.data.get("projection_size")
    if (t.width if given is None else given) != v.width:
        raise bad_config(where, f"texts become vectors of {short(t.width if given is None else given)} numbers, pictures of {v.width}")
    return named(DualEncoderConfig(v, t, resize=own.choice("resize", get_args(Resize), resize or "bicubic")), own.text("name"))


def read_resize(folder: Path) -> Resize | None:
    """What the folder says on resizing, None where it says nothing. Raises `CheckpointError` for a preparation that is not SigLIP's."""
    for name, key in ((PREPROCESSOR, None), (PROCESSOR, "image_processor")):
        if (folder / name).is_file():
            data = read_config_file(folder / name)
            table = data if key is None else data.get(key)
            if isinstance(table, dict):
                return _resize(Fields(name, key or "pictures", table))
    return None


def _resize(fields: Fields) -> Resize:
    for what in ("image_mean", "image_std"):
        fields.choice(what, ([0.5, 0.5, 0.5],), [0.5, 0.5, 0.5])
    return _RESAMPLE[fields.choice("resample", tuple(_RESAMPLE), 3)]


def named(config: DualEncoderConfig, name: str | None = None) -> DualEncoderConfig:
    """With that name, else with the name of the published model of the same dimensions, else `custom`."""
    if name is None:
        name = next((key for key, one in ENCODERS.items() if (one.vision, one.text) == (config.vision, config.text)), "custom")
    return dataclasses.replace(config, name=name)


def describe(config: DualEncoderConfig) -> str:
    """`SigLIP 2 base (patches of 16) at 224 px`, or the dimensions of a model that was never published."""
    v, t = config.vision, config.text
    published = named(config).name
    if published != "custom":
        family, size, *_ = published.split("-")
        kind = "SigLIP 2" if family == "siglip2" else "SigLIP"
        return f"{kind} {size} (patches of {v.patch_size}) at {v.image_size} px"
    return f"a SigLIP (image tower {v.depth} of {v.width}, text tower {t.depth} of {t.width}) at {v.image_size} px"


def encoder_from_shapes(specs: Mapping[str, TensorSpec], prefix: str, *, where: str) -> DualEncoderConfig:
    """The SigLIP that a big_vision file holds. Raises `CheckpointError` where a dimension cannot be told."""
    sizes = sizes_by(TABLE, specs, prefix)
    if missing := [letter for letter in "dlnhftpqcWVLNHFS" if letter not in sizes]:
        looked = [prefix + row.bv for row in TABLE if set(missing) & set("".join(row.axes.left))]
        naflex = sizes.get("t") is None and prefix + "img/embedding/kernel" in specs
        raise CheckpointError(
            f"{where}: not a SigLIP in big_vision's layout: no usable {', '.join(looked[:4]) or 'layers'}",
            hint="NaFlex models are not supported" if naflex else "expected arrays such as img/MAPHead_0/probe and txt/Embed_0/embedding",
            code="unknown_layout",
        )
    grid = math.isqrt(sizes["t"])
    if grid * grid != sizes["t"]:
        raise CheckpointError(f"{where}: {prefix}img/pos_embedding has {sizes['t']} positions, which is no square", code="tensors_differ")
    vision = VisionConfig(sizes["d"], sizes["l"], sizes["f"], sizes["n"], grid * sizes["p"], sizes["p"])
    text = TextTowerConfig(sizes["W"], sizes["L"], sizes["F"], sizes["N"], sizes["V"], sizes["S"])
    if vision.width % vision.heads or text.width % text.heads:
        raise CheckpointError(
            f"{where}: {vision.heads} heads at width {vision.width} in the image tower, {text.heads} at {text.width} in the text tower: "
            "no SigLIP is built like that",
            code="tensors_differ",
        )
    # 384 is no multiple of 14: the published pictures are a little larger than their patches.
    named_by = {(one.vision.grid, one.vision.patch_size): one.vision.image_size for one in ENCODERS.values()}
    vision = dataclasses.replace(vision, image_size=named_by.get((vision.grid, vision.patch_size), vision.image_size))
    return named(DualEncoderConfig(vision, text, resize="bilinear"))


def write_encoder(config: DualEncoderConfig, *, dtype: str) -> dict[str, Any]:
    """Our configuration as `config.json`, which transformers loads too."""
    t = config.text
    text = {
        "model_type": "siglip_text_model",
        "vocab_size": t.vocab_size,
        "max_position_embeddings": t.length,
        "projection_size": config.dimensions,
    } | write_tower(t)
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "torch_dtype": dtype,
        "text_config": text,
        "vision_config": write_vision(config.vision),
        "paligemma": {"name": config.name, "resize": config.resize},
    }


def write_resize(config: DualEncoderConfig) -> dict[str, Any]:
    """`preprocessor_config.json`."""
    return write_preprocessor(config, "SiglipProcessor")
