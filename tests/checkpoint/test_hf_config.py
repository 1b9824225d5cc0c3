"""config.json: what transformers and the published files write is understood; L11: values are bounded, code is never run."""

from __future__ import annotations

import dataclasses
import json

import pytest
from transformers import Gemma2Config, GemmaConfig, SiglipVisionConfig

from paligemma.checkpoint import hf_config
from paligemma.checkpoint.hf_config import named, parse_config, read_config_file, write_config, write_preprocessor
from paligemma.config import PRESETS, preset
from paligemma.errors import CheckpointError
from tests.tiny import TINY, TINY_1, TINY_2

# As on the hub, shortened: PaliGemma 1 leaves out head_dim and image_size, PaliGemma 2 has a stale hidden_size.
PUBLISHED_1 = {
    "model_type": "paligemma",
    "hidden_size": 2048,
    "image_token_index": 257152,
    "projection_dim": 2048,
    "text_config": {
        "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_attention_heads": 8, "num_hidden_layers": 18,
        "num_image_tokens": 256, "num_key_value_heads": 1, "torch_dtype": "float32", "vocab_size": 257216,
    },
    "vision_config": {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16,
        "num_hidden_layers": 27, "num_image_tokens": 256, "patch_size": 14, "projection_dim": 2048, "projector_hidden_act": "gelu_fast",
        "vision_use_head": False,
    },
}  # fmt: skip
PUBLISHED_2 = PUBLISHED_1 | {
    "_vocab_size": 257152,
    "text_config": {
        "model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216, "num_attention_heads": 8, "num_hidden_layers": 26,
        "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "vocab_size": 257216,
        "eos_token_id": [1, 107], "use_cache": True, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
    },
    "vision_config": PUBLISHED_1["vision_config"] | {"image_size": 448},
}  # fmt: skip


def test_published_files():
    one, two = parse_config(PUBLISHED_1), parse_config(PUBLISHED_2)
    assert one.config == preset("paligemma-3b-224")
    assert two.config == preset("paligemma2-3b-448"), "the top-level hidden_size of 2048 must not be believed"
    assert (one.recorded_softcap, two.recorded_softcap) == (None, 30.0)
    assert two.config.text.final_softcap is None, "recorded, not applied"


@pytest.mark.parametrize("config", [*TINY.values(), *PRESETS.values()], ids=lambda config: config.name)
def test_what_is_written_reads_back_equal(config):
    written = json.loads(json.dumps(write_config(config, dtype="bfloat16", recorded_softcap=30.0)))
    assert parse_config(written).config == config
    assert parse_config(written).recorded_softcap == (30.0 if config.version == 2 else None)


def test_own_keys_survive():
    config = dataclasses.replace(
        TINY_2,
        name="mine",
        resize="bilinear-antialias",
        taught=("caption de", "detect"),
        frames=4,
        text=dataclasses.replace(TINY_2.text, final_softcap=20.0, rope_base=5000.0),
    )
    assert parse_config(write_config(config, dtype="float32")).config == config


def test_without_a_record_transformers_is_told_not_to_cap():
    """Its default for Gemma 2 is a cap of 30, which a model trained without one must not get."""
    assert write_config(TINY_2, dtype="float32")["text_config"]["final_logit_softcapping"] is None


def test_the_published_vocabulary_is_written_with_its_surplus_rows():
    data = write_config(preset("paligemma2-3b-224"), dtype="bfloat16")
    assert data["text_config"]["vocab_size"] == data["vocab_size"] == 257216
    assert data["image_token_index"] == 257152
    assert data["hidden_size"] == data["text_config"]["hidden_size"] == 2304


@pytest.mark.parametrize(
    ("ours", "theirs"), [(hf_config.GEMMA, GemmaConfig), (hf_config.GEMMA2, Gemma2Config), (hf_config.SIGLIP, SiglipVisionConfig)]
)
def test_absent_keys_mean_what_they_mean_to_transformers(ours, theirs):
    assert {key: getattr(theirs(), key) for key in ours} == ours


@pytest.mark.parametrize("version", [1, 2])
def test_configs_of_transformers(version):
    from tests.parity.huggingface import their_config

    config = {1: TINY_1, 2: TINY_2}[version]
    theirs = their_config(config, final_softcap=30.0 if version == 2 else None)
    described = parse_config(json.loads(theirs.to_json_string(use_diff=False)))
    assert dataclasses.replace(described.config, name=config.name) == config
    assert described.recorded_softcap == (30.0 if version == 2 else None)


def changed(**changes: object) -> dict:
    """The published file with keys replaced: `text_config.x` style names with two underscores."""
    data = json.loads(json.dumps(PUBLISHED_2))
    for key, value in changes.items():
        table, _, field = key.rpartition("__")
        (data[table] if table else data)[field] = value
    return data


L11 = {
    "a billion layers": (changed(text_config__num_hidden_layers=10**9), "text_config.num_hidden_layers is 1000000000"),
    "no layers": (changed(text_config__num_hidden_layers=0), "whole number"),
    "negative": (changed(text_config__hidden_size=-2304), "text_config.hidden_size"),
    "a number for texts": (changed(paligemma={"taught": ["caption en", 3]}), "paligemma.taught"),
    "text for texts": (changed(paligemma={"taught": "caption en"}), "paligemma.taught"),
    "text for a number": (changed(text_config__hidden_size="2304"), "'2304'"),
    "fraction": (changed(text_config__head_dim=256.0), "head_dim"),
    "boolean": (changed(vision_config__num_attention_heads=True), "vision_config.num_attention_heads is True"),
    "NaN": (changed(text_config__rms_norm_eps=float("nan")), "rms_norm_eps"),
    "no number": (changed(text_config__rms_norm_eps=None), "rms_norm_eps is None"),
    "a query scale of zero": (changed(text_config__query_pre_attn_scalar=0), "query_pre_attn_scalar"),
    "a long value is shortened": (changed(text_config__head_dim="x" * 10_000), "xxx..."),
    "auto_map": (changed(auto_map={"AutoModel": "evil.py"}), "never happens"),
    "quantization": (changed(quantization_config={"bits": 4}), "quantized"),
    "another model": (changed(model_type="llava"), "expected 'paligemma'"),
    "no model type": ({}, "expected 'paligemma'"),
    "another decoder": (changed(text_config__model_type="gemma3_text"), "gemma or gemma2"),
    "another tower": (changed(vision_config__model_type="clip_vision_model"), "siglip_vision_model"),
    "another activation": (changed(text_config__hidden_activation="relu"), "hidden_activation"),
    "exact instead of tanh GELU": (changed(vision_config__hidden_act="gelu"), "hidden_act"),
    "biases": (changed(text_config__attention_bias=True), "attention_bias"),
    "stretched rotary embedding": (changed(text_config__rope_scaling={"rope_type": "linear", "factor": 2}), "rope_type"),
    "a table that is a list": (changed(text_config=[1]), "expected a table"),
    "heads that do not divide": (changed(vision_config__num_attention_heads=7), "not a multiple"),
    "key heads that do not divide": (changed(text_config__num_key_value_heads=3), "not a multiple"),
    "an odd head size": (changed(text_config__head_dim=255), "not a multiple of 2"),
    "no whole patch": (changed(vision_config__image_size=13), "smaller than patch_size"),
    "an unknown resize": (changed(paligemma={"resize": "nearest"}), "paligemma.resize"),
    "a name with escapes": (changed(paligemma={"name": "x\x1b[31m"}), "paligemma.name"),
}


@pytest.mark.parametrize("case", L11)
def test_l11_refused(case):
    data, word = L11[case]
    with pytest.raises(CheckpointError) as caught:
        parse_config(data)
    assert word in caught.value.message
    assert caught.value.code == "bad_config"
    assert len(caught.value.message) < 300
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b" " * (2 << 20), "limit"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a":' * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
    ],
    ids=["2 MB", "cut", "a list", "deep", "bytes", "pointer"],
)
def test_l11_files(tmp_path, content, word):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=word):
        read_config_file(tmp_path / "config.json")


UNSPEAKABLE = [
    dataclasses.replace(TINY_1, text=dataclasses.replace(TINY_1.text, attn_softcap=50.0)),
    dataclasses.replace(TINY_1, text=dataclasses.replace(TINY_1.text, query_scale=0.1)),
    dataclasses.replace(TINY_1, text=dataclasses.replace(TINY_1.text, post_norms=True)),
    dataclasses.replace(TINY_2, text=dataclasses.replace(TINY_2.text, query_scale=0.123)),
    dataclasses.replace(TINY_2, version=1),
]


@pytest.mark.parametrize("config", UNSPEAKABLE)
def test_what_config_json_cannot_say_is_not_written(config):
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_config(config, dtype="float32")


def test_names():
    unnamed = dataclasses.replace(preset("paligemma2-10b-448"), name="?", resize="bilinear")
    assert named(unnamed).name == "paligemma2-10b-448"
    assert named(TINY_1).name == "custom"
    assert named(TINY_1, "mine").name == "mine"


def test_the_preprocessor_names_the_resize():
    assert write_preprocessor(TINY_1)["resample"] == 3
    assert write_preprocessor(dataclasses.replace(TINY_1, resize="bilinear"))["resample"] == 2
    assert write_preprocessor(TINY_1)["size"] == {"height": 28, "width": 28}
