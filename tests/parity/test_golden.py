"""Equal to the original: what big_vision's own code computed from the same weights (see `tests/data/golden/README.md`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paligemma.checkpoint import load_codec, load_model

from .differences import close
from .golden import CONFIG, FOLDER, codec_arrays, reference

BOUND = 1e-4


@pytest.fixture(scope="module")
def model():
    model = load_model(FOLDER / "bv_tiny1.npz")
    assert (model.config.vision, model.config.text) == (CONFIG.vision, CONFIG.text)
    return model


@pytest.fixture(scope="module")
def ref():
    return reference("bv_tiny1")


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    path = tmp_path_factory.mktemp("codec") / "vae-oid.npz"
    np.savez(path, **codec_arrays())
    return load_codec(path)


@torch.no_grad()
def test_image_tokens(model, ref):
    close(model.encode_image(ref["image"].permute(0, 3, 1, 2)), ref["zimg"], BOUND)


@torch.no_grad()
def test_logits_of_prefix_and_suffix(model, ref):
    soft = model.encode_image(ref["image"].permute(0, 3, 1, 2))
    close(model(soft, ref["text"].long(), ref["mask_ar"]), ref["logits"], BOUND)


@torch.no_grad()
def test_prefill_and_greedy_decoding(model, ref):
    """Prompts of unequal length; the reference shifts the shorter one to the right, we mark its unused slots instead."""
    soft = model.encode_image(ref["image"].permute(0, 3, 1, 2))
    prompt, valid, steps = ref["prompt"].long(), ref["prompt_mask"], ref["greedy"].shape[1]
    cache = model.new_cache(2, soft.shape[1] + prompt.shape[1] + steps)
    hidden = model.prefill(soft, prompt, valid, cache)
    for step in range(steps):
        logits = model.logits(hidden)
        close(logits, ref["greedy_logits"][:, step], BOUND)
        chosen = logits.argmax(-1)
        assert torch.equal(chosen, ref["greedy"][:, step].long())
        hidden = model.extend(chosen, cache)


@torch.no_grad()
def test_mask_decoder(codec):
    ref = reference("vae_random")
    close(codec.decode(ref["indices"].long()), ref["masks"][..., 0], BOUND)


@torch.no_grad()
def test_mask_encoder(codec):
    ref = reference("vae_random")
    assert torch.equal(codec.encode(ref["encode_masks"][..., 0]), ref["encode_indices"])
