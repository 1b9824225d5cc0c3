"""Which SigLIP it is: from the published configurations, from shapes, and back; what is no SigLIP is refused with the field."""

from __future__ import annotations

import dataclasses
import json

import pytest

from paligemma.checkpoint.dual_config import describe, encoder_from_shapes, parse_encoder, read_resize, write_encoder, write_resize
from paligemma.checkpoint.dual_maps import bv_layout
from paligemma.checkpoint.source import TensorSpec
from paligemma.config import ENCODERS
from paligemma.errors import CheckpointError
from tests.encoders import TINY_ENCODER

SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
PUBLISHED = {
    "siglip-base-patch16-224": ({}, {}),
    "siglip-base-patch16-512": ({}, {"image_size": 512}),
    "siglip-base-patch16-256-multilingual": ({"vocab_size": 250000}, {"image_size": 256}),
    "siglip-so400m-patch14-224": (SO400M | {"max_position_embeddings": 16}, SO400M | {"image_size": 224, "patch_size": 14}),
    "siglip-so400m-patch14-384": (SO400M, SO400M | {"image_size": 384, "patch_size": 14}),
    "siglip2-base-patch16-384": ({"vocab_size": 256000}, {"image_size": 384}),
    "siglip2-so400m-patch16-256": (SO400M | {"vocab_size": 256000, "projection_size": 1152}, SO400M | {"image_size": 256}),
}
"""Name -> what its config.json says of either tower: what is transformers' default is left out there."""


def published(text, vision):
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "text_config": {"model_type": "siglip_text_model"} | text,
        "vision_config": {"model_type": "siglip_vision_model"} | vision,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(name):
    resize = "bilinear-antialias" if name.startswith("siglip2") else "bicubic"
    assert parse_encoder(published(*PUBLISHED[name]), resize) == ENCODERS[name]


@pytest.mark.parametrize("name", ENCODERS)
def test_written_and_read(name, tmp_path):
    config = ENCODERS[name]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(write_resize(config)))
    assert parse_encoder(json.loads(json.dumps(write_encoder(config, dtype="float32")))) == config
    assert read_resize(tmp_path) == config.resize


@pytest.mark.parametrize("scanned", [True, False])
@pytest.mark.parametrize("name", ENCODERS)
def test_from_shapes(name, scanned):
    shapes = bv_layout(ENCODERS[name], prefix="params/", scanned=scanned).shapes
    found = encoder_from_shapes({key: TensorSpec(shape, "float32") for key, shape in shapes.items()}, "params/", where="x.npz")
    assert found == dataclasses.replace(ENCODERS[name], resize="bilinear")


def test_how_pictures_are_resized(tmp_path):
    assert read_resize(tmp_path) is None
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"resample": 2}}))
    assert read_resize(tmp_path) == "bilinear-antialias"
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"resample": 3, "image_mean": [0.5, 0.5, 0.5]}))
    assert read_resize(tmp_path) == "bicubic"
    assert parse_encoder(published({}, {}) | {"paligemma": {"resize": "bilinear"}}, "bicubic").resize == "bilinear"


@pytest.mark.parametrize(
    ("table", "told"),
    [({"resample": 0}, "resample is 0"), ({"image_mean": [0.48, 0.46, 0.41]}, "image_mean is"), ({"image_std": None}, "image_std is None")],
)
def test_another_preparation_is_refused(tmp_path, table, told):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match=told):
        read_resize(tmp_path)


def test_a_table_that_is_null_is_all_defaults():
    assert parse_encoder(published({}, {}) | {"text_config": None}) == ENCODERS["siglip-base-patch16-224"]


def test_naflex_is_refused_in_one_sentence():
    with pytest.raises(CheckpointError) as error:
        parse_encoder(published({}, {}) | {"model_type": "siglip2"})
    assert error.value.message == "config.json: a NaFlex SigLIP 2, which keeps each picture's own proportions, is not supported"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "clip"}, "model_type is 'clip', expected 'siglip'"),
        ({"auto_map": {}}, "auto_map"),
        ({"quantization_config": {}}, "quantized"),
        ({"text_config": {"hidden_size": 516}}, "texts become vectors of 516 numbers, pictures of 768"),
        ({"text_config": {"projection_size": 512}}, "texts become vectors of 512"),
        ({"text_config": {"hidden_size": 510}}, "text_config: hidden_size 510 is not a multiple of num_attention_heads 12"),
        ({"text_config": {"vocab_size": 0}}, "text_config.vocab_size is 0"),
        ({"text_config": {"max_position_embeddings": "64"}}, "text_config.max_position_embeddings is '64'"),
        ({"text_config": {"hidden_act": "relu"}}, "text_config.hidden_act is 'relu'"),
        ({"vision_config": {"vision_use_head": False}}, "vision_config.vision_use_head is False"),
        ({"vision_config": {"image_size": 8}}, "image_size 8 is smaller than patch_size 16"),
        ({"vision_config": {"num_channels": 1}}, "vision_config.num_channels is 1"),
    ],
)
def test_what_is_refused(changes, told):
    with pytest.raises(CheckpointError, match=told):
        parse_encoder(published({}, {}) | changes)


@pytest.mark.parametrize(
    ("missing", "told"),
    [("img/MAPHead_0/probe", None), ("txt/pos_embedding", "no usable txt/pos_embedding"), ("img/embedding/kernel", "img")],
)
def test_shapes_that_say_too_little(missing, told):
    specs = {name: TensorSpec(shape, "float32") for name, shape in bv_layout(TINY_ENCODER).shapes.items() if name != missing}
    if told is None:
        assert encoder_from_shapes(specs, "", where="x.npz").text == TINY_ENCODER.text  # others say it too
        return
    with pytest.raises(CheckpointError, match=told):
        encoder_from_shapes(specs, "", where="x.npz")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("siglip-base-patch16-224", "SigLIP base (patches of 16) at 224 px"),
        ("siglip2-so400m-patch14-384", "SigLIP 2 so400m (patches of 14) at 384 px"),
    ],
)
def test_describe(name, told):
    assert describe(ENCODERS[name]) == told
    assert describe(TINY_ENCODER) == "a SigLIP (image tower 3 of 24, text tower 2 of 32) at 30 px"
