"""What an answer takes: as published of the 3B model, and as torch counts the operations that it really does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from paligemma.benchmark.counts import block_operations, picture_operations, prompt_operations, token_operations, work
from paligemma.config import PRESETS, preset
from tests import tiny

TEXT = 8


def test_figures_of_the_3b_model():
    config = preset("paligemma-3b-224")
    found = work(config, TEXT, numbers="bfloat16", cached="bfloat16")
    assert found.tokens == 264
    assert found.weights == pytest.approx(2.51e9, rel=2e-3)
    assert found.weight_bytes == 2 * found.weights
    assert found.picture == pytest.approx(0.21e12, rel=0.05)
    whole = config.text.depth * block_operations(config.text, queries=264, keys=264, seen=264)
    assert whole == pytest.approx(1.07e12, rel=0.02), "every row through every layer"
    saved = (264 - 1) * 2 * (2 * 2048 * 2048 + 3 * 2048 * 16384)
    assert found.prompt == pytest.approx(whole - saved, rel=2e-3), "of the last layer only one row is needed"
    assert found.cache_bytes == 18 * 2 * 256 * 2
    assert found.token == pytest.approx(2 * found.weights, rel=0.02)


@pytest.mark.parametrize("name", PRESETS)
def test_a_token_multiplies_each_weight_once(name):
    text = PRESETS[name].text
    assert token_operations(text, 0) == pytest.approx(2 * text.num_parameters, rel=1e-3)


@pytest.mark.parametrize("config", tiny.TINY.values(), ids=tiny.TINY)
def test_operations_are_those_that_torch_counts(config):
    import torch

    from paligemma.model.empty import empty_model

    model, patches = empty_model(config), config.vision.num_tokens
    tokens = patches + TEXT
    with torch.device("meta"):
        pixels, ids = torch.zeros(1, 3, config.vision.image_size, config.vision.image_size), torch.zeros(1, TEXT, dtype=torch.long)
        soft, cache = torch.zeros(1, patches, config.text.width), model.new_cache(1, tokens + 1)
        one = torch.zeros(1, dtype=torch.long)
        assert counted(lambda: model.encode_image(pixels)) == picture_operations(config)
        assert counted(lambda: model.logits(model.prefill(soft, ids, None, cache))) == prompt_operations(config.text, tokens)
        assert counted(lambda: model.logits(model.extend(one, cache))) == token_operations(config.text, tokens + 1)


def counted(do: Callable[[], Any]) -> int:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        do()
    return counter.get_total_flops()


def test_rows_share_the_weights_but_not_their_keys_and_values():
    found = work(preset("paligemma-3b-224"), TEXT, numbers="bfloat16", cached="bfloat16")
    assert found.step_bytes(1, 300) == found.weight_bytes + 300 * found.cache_bytes
    assert found.step_bytes(8, 300) - found.step_bytes(1, 300) == 7 * 300 * found.cache_bytes
