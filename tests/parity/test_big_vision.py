"""Checkpoints in big_vision's layout, read by our loader, against big_vision's formulas written out a second time (`big_vision.py`).

The golden files hold a Gemma 1 with one key/value head. This covers the rest: Gemma 2, several key/value heads, both spellings of the
image tower, with and without `params/`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from paligemma.checkpoint import load_model, save_npz
from paligemma.config import PaliGemmaConfig
from tests.tiny import TINY, TINY_1, TINY_2, random_model

from .big_vision import Arrays, forward, random_arrays
from .differences import close
from .golden import CONFIG, FOLDER, reference

PG2 = dataclasses.replace(TINY_2, text=dataclasses.replace(TINY_2.text, attn_softcap=50.0))
"""A bare file does not say the soft-cap; Gemma 2's is 50."""


def test_the_second_writing_equals_the_original():
    ref = reference("bv_tiny1")
    with np.load(FOLDER / "bv_tiny1.npz") as file:
        arrays = {name.removeprefix("params/"): file[name] for name in file.files}
    soft, logits = forward(arrays, CONFIG, ref["image"], ref["text"].long(), ref["mask_ar"])
    close(soft, ref["zimg"], 1e-5)
    close(logits, ref["logits"], 1e-5)


def unscanned(arrays: Arrays) -> Arrays:
    """With one set of arrays per layer of the image tower."""
    out: Arrays = {}
    for name, array in arrays.items():
        if "/encoderblock/" in name:
            out |= {name.replace("/encoderblock/", f"/encoderblock_{i}/"): layer for i, layer in enumerate(array)}
        else:
            out[name] = array
    return out


@pytest.mark.parametrize("prefix", ["", "params/"])
@pytest.mark.parametrize("scanned", [True, False])
@pytest.mark.parametrize("config", [TINY_1, PG2], ids=["gemma-1", "gemma-2"])
@torch.no_grad()
def test_checkpoints_of_every_kind(tmp_path, config: PaliGemmaConfig, scanned: bool, prefix: str):
    arrays = random_arrays(config)
    arrays["llm/layers/attn/q_einsum/w"] *= 12  # scores large enough to be bent by the cap
    stored = arrays if scanned else unscanned(arrays)
    path = tmp_path / "model.npz"
    np.savez(path, **{prefix + name: array for name, array in stored.items()})
    model = load_model(path)
    assert dataclasses.replace(model.config, name=config.name, resize=config.resize) == config

    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 28, 28, 3, generator=generator) * 2 - 1
    text = torch.randint(0, config.text.vocab_size, (2, 7), generator=generator)
    mask_ar = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]])
    soft, logits = forward(arrays, config, image, text, mask_ar)
    found = model.encode_image(image.permute(0, 3, 1, 2))
    close(found, soft, 1e-4 * soft.abs().max().item())
    close(model(found, text, mask_ar), logits, 1e-4 * logits.abs().max().item())


@pytest.mark.parametrize("name", list(TINY))
@torch.no_grad()
def test_what_we_write_is_big_visions_layout(tmp_path, name):
    model = random_model(TINY[name])
    with np.load(save_npz(model, tmp_path / "model.npz", prefix="")) as file:
        arrays = {key: file[key] for key in file.files}
    assert {key: array.shape for key, array in arrays.items()} == {key: array.shape for key, array in random_arrays(model.config).items()}
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 28, 28, 3, generator=generator) * 2 - 1
    text, mask_ar = torch.randint(0, model.config.text.vocab_size, (1, 7), generator=generator), torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    soft, logits = forward(arrays, model.config, image, text, mask_ar)
    found = model.encode_image(image.permute(0, 3, 1, 2))
    close(found, soft, 1e-4)
    close(model(found, text, mask_ar), logits, 1e-4)
