"""The model behind a file's shapes."""

from __future__ import annotations

import dataclasses

import pytest

from paligemma.checkpoint.detect import bv_prefix, bv_scanned, config_from_shapes, describe, hf_contradiction
from paligemma.checkpoint.source import TensorSpec
from paligemma.checkpoint.weight_maps import bv_layout, hf_layout
from paligemma.config import PRESETS, preset
from paligemma.errors import CheckpointError
from tests.tiny import TINY_1, TINY_2


def specs(config, **layout) -> dict[str, TensorSpec]:
    return {name: TensorSpec(shape, "float32") for name, shape in bv_layout(config, **layout).shapes.items()}


@pytest.mark.parametrize("scanned", [True, False])
@pytest.mark.parametrize("prefix", ["", "params/"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_published_model_is_known_by_its_shapes(name, prefix, scanned):
    file = specs(PRESETS[name], prefix=prefix, scanned=scanned)
    assert bv_prefix(file) == prefix
    assert bv_scanned(file, prefix) == scanned
    found = config_from_shapes(file, prefix, where="x.npz")
    assert found == dataclasses.replace(PRESETS[name], resize="bilinear")


def test_an_unpublished_model_gets_the_defaults_of_its_version():
    one = config_from_shapes(specs(TINY_1), "", where="x.npz")
    assert one == dataclasses.replace(TINY_1, name="custom", resize="bilinear")
    two = config_from_shapes(specs(TINY_2), "", where="x.npz")
    assert two.text == dataclasses.replace(TINY_2.text, attn_softcap=50.0)


def test_surplus_vocabulary_rows_are_no_tokens():
    file = specs(preset("paligemma-3b-224")) | {"llm/embedder/input_embedding": TensorSpec((257216, 2048), "float32")}
    assert config_from_shapes(file, "", where="x.npz") == dataclasses.replace(preset("paligemma-3b-224"), resize="bilinear")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"img/pos_embedding": (1, 5, 24)}, "no square"),
        ({"llm/embedder/input_embedding": None}, "llm/embedder/input_embedding"),
        ({"img/embedding/kernel": (14, 3, 24)}, "img/embedding/kernel"),
        ({"llm/layers/attn/kv_einsum/w": (3, 2, 3, 32, 16)}, "no PaliGemma is built like that"),
    ],
)
def test_what_cannot_be_told_is_refused(changes, word):
    file = specs(TINY_1)
    for name, shape in changes.items():
        file.pop(name)
        if shape is not None:
            file[name] = TensorSpec(shape, "float32")
    with pytest.raises(CheckpointError, match=word):
        config_from_shapes(file, "", where="x.npz")


def test_another_models_archive_is_named_as_such():
    with pytest.raises(CheckpointError, match="not a PaliGemma in big_vision's layout") as caught:
        config_from_shapes({"encoder.0.weight": TensorSpec((1, 2), "float32")}, "", where="vae.npz")
    assert len(caught.value.message) < 400


SENTENCES = {
    ("paligemma-3b-224", "paligemma2-3b-224"): "config.json describes a PaliGemma 1; a decoder of width 2048; 18 decoder layers, "
    "the weights are those of a PaliGemma 2; of width 2304; 26",
    ("paligemma-3b-448", "paligemma-3b-224"): "config.json describes 448 px, the weights are for 224 px",
    ("paligemma2-3b-224", "paligemma2-10b-224"): "config.json describes a decoder of width 2304; 26 decoder layers, "
    "the weights are of width 3584; 42",
}


@pytest.mark.parametrize(("told", "held"), SENTENCES)
def test_one_sentence_on_a_contradiction(told, held):
    assert hf_contradiction(preset(told), hf_layout(preset(held)).shapes) == SENTENCES[told, held]
    assert hf_contradiction(preset(told), hf_layout(preset(told)).shapes) is None


def test_descriptions():
    assert describe(preset("paligemma2-28b-896")) == "PaliGemma 2 28B at 896 px"
    assert describe(dataclasses.replace(preset("paligemma-3b-224"), name="my-tune")) == "PaliGemma 1 3B at 224 px"
    assert describe(TINY_2) == "a PaliGemma 2 (3 layers of 40, image tower 2 of 24) at 28 px"
