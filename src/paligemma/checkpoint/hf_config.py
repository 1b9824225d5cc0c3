"""`config.json` of a Hugging Face PaliGemma folder <-> `PaliGemmaConfig`.

Every value is checked for kind and range before it is used for anything. Keys that are absent mean what they mean to transformers: the
default of the class named by `model_type` (published PaliGemma 1 files leave out `head_dim` and `image_size`).
Not used: the top-level `hidden_size` and `projection_dim` (published PaliGemma 2 files say 2048 whatever the decoder's width), and
Gemma 2's sliding window (see `TextConfig`). Our own keys stand under `"paligemma"`: `name`, `resize`, `taught`, `frames`,
`final_softcap`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ..config import PRESETS, VOCAB_SIZE, DualEncoderConfig, PaliGemmaConfig, Resize, TextConfig, TextTowerConfig, VisionConfig
from ..errors import CheckpointError
from .recognise import beginning, why_not_weights
from .weight_maps import PADDED_VOCAB

MAX_CONFIG = 1 << 20
CONFIG = "config.json"

GEMMA = {
    "hidden_size": 3072, "num_hidden_layers": 28, "intermediate_size": 24576, "num_attention_heads": 16, "num_key_value_heads": 16,
    "head_dim": 256, "vocab_size": 256000, "rms_norm_eps": 1e-6,
}  # fmt: skip
GEMMA2 = {
    "hidden_size": 2304, "num_hidden_layers": 26, "intermediate_size": 9216, "num_attention_heads": 8, "num_key_value_heads": 4,
    "head_dim": 256, "vocab_size": 256000, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
}  # fmt: skip
SIGLIP = {
    "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 224,
    "patch_size": 16, "num_channels": 3, "layer_norm_eps": 1e-6,
}  # fmt: skip
"""Defaults of transformers' GemmaConfig, Gemma2Config and SiglipVisionConfig."""


@dataclass(frozen=True)
class Described:
    """What a configuration file says. `recorded_softcap`: the final soft-cap it names, kept for writing but not applied."""

    config: PaliGemmaConfig
    recorded_softcap: float | None = None


def read_config_file(path: Path) -> dict[str, Any]:
    """The JSON object in the file, bounded. Raises `CheckpointError`."""
    size = path.stat().st_size
    if size > MAX_CONFIG:
        raise bad_config(CONFIG, f"{size:,} bytes, the limit is {MAX_CONFIG:,}")
    if (error := why_not_weights(path, beginning(path))) is not None:
        raise error
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise bad_config(CONFIG, f"not JSON ({type(error).__name__})") from None
    if not isinstance(data, dict):
        raise bad_config(CONFIG, "not a JSON object")
    return data


def parse_config(data: dict[str, Any], where: str = CONFIG) -> Described:
    """Hugging Face's fields -> ours. Raises `CheckpointError` with the field, what was expected and what was found.

    `where`: what errors call the place the fields were found in.
    """
    refuse_foreign(data, where)
    if data.get("model_type") != "paligemma":
        raise bad_config(where, f"model_type is {short(data.get('model_type'))}, expected 'paligemma'")
    text, vision, own = (Fields(where, key, data.get(key, {})) for key in ("text_config", "vision_config", "paligemma"))

    family = text.choice("model_type", ("gemma", "gemma2"), "gemma")
    text.defaults = GEMMA2 if family == "gemma2" else GEMMA
    text.choice("hidden_act", ("gelu_pytorch_tanh", "gelu", None), None)
    text.choice("hidden_activation", ("gelu_pytorch_tanh", None), None)
    text.choice("attention_bias", (False,), False)

    head_dim = text.count("head_dim", 4096)
    scalar = text.number("query_pre_attn_scalar", 1e-6, 1e6) if family == "gemma2" else None
    config = PaliGemmaConfig(
        vision=vision_config(vision),
        text=TextConfig(
            width=text.count("hidden_size", 1 << 16),
            depth=text.count("num_hidden_layers", 512),
            mlp_dim=text.count("intermediate_size", 1 << 20),
            heads=text.count("num_attention_heads", 1024),
            kv_heads=text.count("num_key_value_heads", 1024),
            head_dim=head_dim,
            vocab_size=_without_padding(text.count("vocab_size", 1 << 22)),
            query_scale=None if scalar is None or scalar == head_dim else scalar**-0.5,
            attn_softcap=text.number("attn_logit_softcapping", 1e-3, 1e6) if family == "gemma2" else None,
            final_softcap=own.number("final_softcap", 1e-3, 1e6),
            post_norms=family == "gemma2",
            rope_base=_rope_base(text),
            norm_eps=text.real("rms_norm_eps", 0.0, 1.0),
        ),
        version=2 if family == "gemma2" else 1,
        resize=own.choice("resize", get_args(Resize), "bicubic"),
        taught=own.texts("taught"),
        frames=own.count("frames", 4096) if "frames" in own.data else 0,
    )
    _check_sums(where, config)
    recorded = text.number("final_logit_softcapping", 1e-3, 1e6) if family == "gemma2" else None
    return Described(named(config, own.text("name")), recorded)


def vision_config(vision: Fields) -> VisionConfig:
    """`vision_config`, of a PaliGemma or of SigLIP itself."""
    vision.defaults = SIGLIP
    vision.choice("model_type", ("siglip_vision_model",), "siglip_vision_model")
    vision.choice("hidden_act", ("gelu_pytorch_tanh",), "gelu_pytorch_tanh")
    vision.choice("num_channels", (3,), 3)
    v = VisionConfig(**tower_sizes(vision), image_size=vision.count("image_size", 8192), patch_size=vision.count("patch_size", 512))
    if v.image_size < v.patch_size:
        raise bad_config(vision.where, f"{vision.table}: image_size {v.image_size} is smaller than patch_size {v.patch_size}")
    return v


def tower_sizes(tower: Fields) -> dict[str, Any]:
    """What both towers of SigLIP have, under our names."""
    sizes = {
        "width": tower.count("hidden_size", 1 << 16),
        "depth": tower.count("num_hidden_layers", 512),
        "mlp_dim": tower.count("intermediate_size", 1 << 20),
        "heads": tower.count("num_attention_heads", 1024),
        "norm_eps": tower.real("layer_norm_eps", 0.0, 1.0),
    }
    if sizes["width"] % sizes["heads"]:
        told = f"hidden_size {sizes['width']} is not a multiple of num_attention_heads {sizes['heads']}"
        raise bad_config(tower.where, f"{tower.table}: {told}")
    return sizes


def refuse_foreign(data: dict[str, Any], where: str) -> None:
    """Raise for what no checkpoint is read with: code of its own, quantized weights."""
    if "auto_map" in data:
        raise bad_config(where, "auto_map asks to run code from the checkpoint, which never happens", hint="remove auto_map there")
    if "quantization_config" in data:
        raise bad_config(where, "the weights are quantized, which is not supported", hint="use the unquantized checkpoint")


def named(config: PaliGemmaConfig, name: str | None = None) -> PaliGemmaConfig:
    """With that name, else with the name of the published model of the same dimensions, else `custom`."""
    if name is None:
        name = next((key for key, known in PRESETS.items() if same_dimensions(known, config)), "custom")
    return dataclasses.replace(config, name=name)


def same_dimensions(a: PaliGemmaConfig, b: PaliGemmaConfig) -> bool:
    """Equal but for name, resize, what was taught, and final soft-cap."""
    text = dataclasses.replace(b.text, final_softcap=a.text.final_softcap)
    return (a.vision, a.text, a.version) == (b.vision, text, b.version)


def write_config(config: PaliGemmaConfig, *, dtype: str, recorded_softcap: float | None = None) -> dict[str, Any]:
    """Our configuration as `config.json`, which transformers loads too.

    Of Gemma 2's layers all are said to attend fully, because that is what the weights were trained with and what this package computes.
    `final_logit_softcapping` is what was recorded when the checkpoint was read; without a record it is null, since transformers would
    otherwise apply its default of 30 to a model that was trained without. Raises `CheckpointError` for a mixture no field can express.
    """
    v, t = config.vision, config.text
    padded = PADDED_VOCAB if t.vocab_size == VOCAB_SIZE else t.vocab_size
    text: dict[str, Any] = {
        "model_type": "gemma2" if t.post_norms else "gemma",
        "hidden_size": t.width,
        "num_hidden_layers": t.depth,
        "intermediate_size": t.mlp_dim,
        "num_attention_heads": t.heads,
        "num_key_value_heads": t.kv_heads,
        "head_dim": t.head_dim,
        "num_image_tokens": v.num_tokens,
        "vocab_size": padded,
        "rms_norm_eps": t.norm_eps,
        "rope_theta": t.rope_base,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "torch_dtype": dtype,
    }
    if config.version != (2 if t.post_norms else 1):
        raise CheckpointError(f"version {config.version} with{'' if t.post_norms else 'out'} post-norms cannot be written as config.json")
    if t.post_norms:
        scalar = round(t.scale**-2)
        if not math.isclose(scalar**-0.5, t.scale, rel_tol=1e-12):
            raise CheckpointError(f"a query scale of {t.scale} cannot be written: config.json holds its inverse square as a whole number")
        text |= {
            "query_pre_attn_scalar": scalar,
            "attn_logit_softcapping": t.attn_softcap,
            "final_logit_softcapping": recorded_softcap if t.final_softcap is None else t.final_softcap,
            "sliding_window": 4096,
            "layer_types": ["full_attention"] * t.depth,
        }
    elif t.attn_softcap is not None or t.query_scale not in (None, t.head_dim**-0.5):
        raise CheckpointError("a soft-cap or query scale without post-norms cannot be written as config.json")
    own: dict[str, Any] = {"name": config.name, "resize": config.resize}
    if config.taught:
        own["taught"] = list(config.taught)
    if config.frames:
        own["frames"] = config.frames
    if t.final_softcap is not None:
        own["final_softcap"] = t.final_softcap
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "model_type": "paligemma",
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "hidden_size": t.width,
        "projection_dim": t.width,
        "image_token_index": t.vocab_size,
        "vocab_size": padded,
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
        "text_config": text,
        "vision_config": write_vision(v)
        | {"num_image_tokens": v.num_tokens, "projection_dim": t.width, "vision_use_head": False, "torch_dtype": dtype},
        "paligemma": own,
    }


def write_tower(tower: VisionConfig | TextTowerConfig) -> dict[str, Any]:
    """The reverse of `tower_sizes`."""
    return {
        "hidden_size": tower.width,
        "num_hidden_layers": tower.depth,
        "intermediate_size": tower.mlp_dim,
        "num_attention_heads": tower.heads,
        "layer_norm_eps": tower.norm_eps,
        "hidden_act": "gelu_pytorch_tanh",
    }


def write_vision(v: VisionConfig) -> dict[str, Any]:
    """The reverse of `vision_config`."""
    own = {"model_type": "siglip_vision_model", "image_size": v.image_size, "patch_size": v.patch_size, "num_channels": 3}
    return own | write_tower(v)


def write_preprocessor(config: PaliGemmaConfig | DualEncoderConfig, processor: str = "PaliGemmaProcessor") -> dict[str, Any]:
    """`preprocessor_config.json`: how transformers should resize for this model. It has no bilinear resize without antialiasing."""
    side = config.vision.image_size
    return {
        "image_processor_type": "SiglipImageProcessor",
        "processor_class": processor,
        "image_seq_length": config.vision.num_tokens,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 3 if config.resize == "bicubic" else 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


def _without_padding(rows: int) -> int:
    return VOCAB_SIZE if rows == PADDED_VOCAB else rows


def _rope_base(text: Fields) -> float:
    """`rope_theta`, which newer files keep in a table; any scheme but the plain one is refused."""
    table = text.data.get("rope_parameters") or text.data.get("rope_scaling") or {}
    if not isinstance(table, dict):
        raise bad_config(text.where, f"text_config.rope_parameters is {short(table)}, expected a table")
    rope = Fields(text.where, "text_config.rope_parameters", {**{"rope_theta": text.data.get("rope_theta", 10_000.0)}, **table})
    rope.choice("rope_type", ("default",), "default")
    return rope.real("rope_theta", 1.0, 1e9)


def _check_sums(where: str, config: PaliGemmaConfig) -> None:
    t = config.text
    for total, part, what in (
        (t.heads, t.kv_heads, "text_config: num_attention_heads {} is not a multiple of num_key_value_heads {}"),
        (t.head_dim, 2, "text_config: head_dim {} is not a multiple of {}"),
    ):
        if total % part:
            raise bad_config(where, what.format(total, part))


class Fields:
    """One table of the file; every getter checks, and names the field when it complains."""

    def __init__(self, where: str, table: str, data: Any):
        if not isinstance(data, dict):
            raise bad_config(where, f"{table} is {short(data)}, expected a table")
        self.where, self.table = where, table
        self.data: dict[str, Any] = data
        self.defaults: dict[str, Any] = {}

    def _get(self, key: str) -> Any:
        return self.data.get(key, self.defaults.get(key))

    def count(self, key: str, most: int) -> int:
        value = self._get(key)
        if type(value) is not int or not 1 <= value <= most:
            raise bad_config(self.where, f"{self.table}.{key} is {short(value)}, expected a whole number from 1 to {most:,}")
        return value

    def number(self, key: str, least: float, most: float) -> float | None:
        return None if self._get(key) is None else self.real(key, least, most)

    def real(self, key: str, least: float, most: float) -> float:
        value = self._get(key)
        if type(value) not in (int, float) or not least <= value <= most:
            raise bad_config(self.where, f"{self.table}.{key} is {short(value)}, expected a number from {least:g} to {most:g}")
        return float(value)

    def choice(self, key: str, allowed: tuple[Any, ...], default: Any) -> Any:
        value = self.data.get(key, default)
        if not any(value is option or (type(value) is type(option) and value == option) for option in allowed):
            expected = " or ".join(str(option) for option in allowed)
            raise bad_config(self.where, f"{self.table}.{key} is {short(value)}, expected {expected}")
        return value

    def text(self, key: str) -> str | None:
        value = self.data.get(key)
        if value is not None and not _is_line(value):
            raise bad_config(self.where, f"{self.table}.{key} is {short(value)}, expected a line of text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key, [])
        if not isinstance(value, list) or len(value) > 1000 or not all(map(_is_line, value)):
            raise bad_config(self.where, f"{self.table}.{key} is {short(value)}, expected a list of at most 1,000 lines of text")
        return tuple(value)


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 200 and value.isprintable()


def short(value: object) -> str:
    return ascii(value) if len(ascii(value)) <= 60 else ascii(value)[:57] + "..."


def bad_config(where: str, message: str, *, hint: str | None = None) -> CheckpointError:
    return CheckpointError(f"{where}: {message}", hint=hint, code="bad_config")
