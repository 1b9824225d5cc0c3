"""Dimensions and parameter counts of every published model, against the numbers known from elsewhere."""

from __future__ import annotations

import dataclasses

import pytest

from paligemma.config import (
    ENCODERS,
    GEMMA_1_2B,
    GEMMA_2_2B,
    GEMMA_2_9B,
    GEMMA_2_27B,
    PRESETS,
    VOCAB_SIZE,
    PaliGemmaConfig,
    preset,
)
from paligemma.errors import UsageError

COUNTS = """
    paligemma-3b    2,923,335,408   2,924,220,144   2,927,759,088
    paligemma2-3b   3,032,094,960   3,032,979,696   3,036,518,640
    paligemma2-10b  9,662,409,456   9,663,294,192   9,666,833,136
    paligemma2-28b 27,650,192,112  27,651,076,848  27,654,615,792
"""


def test_parameter_counts_of_whole_models():
    expected = {}
    for line in COUNTS.strip().splitlines():
        name, *counts = line.split()
        expected |= {f"{name}-{size}": int(count.replace(",", "")) for size, count in zip((224, 448, 896), counts, strict=True)}
    assert {name: config.num_parameters for name, config in PRESETS.items()} == expected


@pytest.mark.parametrize(
    ("text", "count"),
    [(GEMMA_1_2B, 2_508_531_712), (GEMMA_2_2B, 2_616_996_096), (GEMMA_2_9B, 9_245_834_752), (GEMMA_2_27B, 27_232_436_736)],
)
def test_parameter_counts_of_decoders(text, count):
    assert text.num_parameters == count


@pytest.mark.parametrize(
    ("size", "grid", "tokens", "count"), [(224, 16, 256, 412_442_352), (448, 32, 1024, 413_327_088), (896, 64, 4096, 416_866_032)]
)
def test_image_towers(size, grid, tokens, count):
    vision = PRESETS[f"paligemma-3b-{size}"].vision
    assert (vision.grid, vision.num_tokens, vision.num_parameters) == (grid, tokens, count)


def test_the_vocabulary_is_text_then_locations_then_masks():
    assert VOCAB_SIZE == 257_152
    assert {config.text.vocab_size for config in PRESETS.values()} == {VOCAB_SIZE}


@pytest.mark.parametrize(("text", "one_over_scale_squared"), [(GEMMA_1_2B, 256), (GEMMA_2_2B, 256), (GEMMA_2_9B, 256), (GEMMA_2_27B, 144)])
def test_query_scales(text, one_over_scale_squared):
    """The 27B's is not that of its head size, 128, but of width / heads."""
    assert text.scale**-2 == pytest.approx(one_over_scale_squared)


def test_versions_differ_where_gemma_1_and_2_differ():
    for config in PRESETS.values():
        newer = config.version == 2
        assert config.name.startswith("paligemma2") == newer
        assert config.text.post_norms == newer
        assert config.text.attn_softcap == (50.0 if newer else None)
        assert config.text.final_softcap is None


def test_presets_are_named_as_they_are_found():
    assert all(config.name == name for name, config in PRESETS.items())
    assert preset("paligemma2-10b-448").vision.image_size == 448


def test_an_unknown_preset_names_the_closest():
    with pytest.raises(UsageError, match="'paligemma2-3b-22'") as caught:
        preset("paligemma2-3b-22")
    assert caught.value.hint == "did you mean 'paligemma2-3b-224'?"


def test_another_resolution_is_another_value():
    config = PRESETS["paligemma-3b-224"]
    bigger = config.with_resolution(448)
    assert (config.vision.image_size, bigger.vision.image_size) == (224, 448)
    assert bigger.num_parameters == PRESETS["paligemma-3b-448"].num_parameters


def test_configurations_cannot_be_changed_in_place():
    config: PaliGemmaConfig = PRESETS["paligemma-3b-224"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.version = 2  # type: ignore[misc]


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_have_the_parameters_of_transformers(name):
    import torch
    from transformers import SiglipModel

    from tests.encoders import their_config

    with torch.device("meta"):
        theirs = SiglipModel(their_config(ENCODERS[name]))
    assert ENCODERS[name].num_parameters == sum(p.numel() for p in theirs.parameters())


def test_published_encoders():
    """In millions, as their pages say: the text tower's table counts."""
    found = {name: round(config.num_parameters / 1e6) for name, config in ENCODERS.items()}
    assert found["siglip-base-patch16-224"] == 203
    assert found["siglip-so400m-patch14-384"] == 878
    assert found["siglip2-base-patch16-224"] == 375
    assert found["siglip2-so400m-patch14-384"] == 1136
    assert len(found) == 17
