"""An encoder's vectors are its towers', whatever the batch, and its name is that of its weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from paligemma.embedding import Encoder, load_encoder
from paligemma.embedding import encoder as module
from paligemma.embedding.words import GemmaWords
from paligemma.image import to_pixels
from tests.encoders import our_encoder, with_vocabulary
from tests.tiny import TOKENIZER_VOCAB, tiny_tokenizer

CONFIG = with_vocabulary(TOKENIZER_VOCAB)
TEXTS = ["a cat", "Two dogs", "", "a red apple on the grass", "猫"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(our_encoder(CONFIG), GemmaWords(tiny_tokenizer()))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20 + i, 31, 3), np.uint8)) for i in range(5)]


def test_pictures(encoder, pictures):
    vectors = encoder.pictures(pictures)
    assert (vectors.shape, vectors.dtype) == ((5, encoder.dimensions), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    with torch.inference_mode():
        pixels = torch.from_numpy(to_pixels(pictures[3], CONFIG.vision.image_size, CONFIG.resize))[None]
        np.testing.assert_allclose(encoder.model.encode_pictures(pixels)[0].numpy(), vectors[3], atol=1e-6)


def test_texts(encoder):
    vectors = encoder.texts(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((5, encoder.dimensions), np.float32)
    ids = torch.tensor([GemmaWords(tiny_tokenizer()).ids(TEXTS[1], CONFIG.text.length)])
    with torch.inference_mode():
        np.testing.assert_allclose(encoder.model.encode_texts(ids)[0].numpy(), vectors[1], atol=1e-6)


def test_batches_do_not_matter(encoder, pictures, monkeypatch):
    whole = encoder.pictures(pictures), encoder.texts(TEXTS)
    monkeypatch.setattr(module, "PICTURES", 2)
    monkeypatch.setattr(module, "TEXTS", 2)
    np.testing.assert_allclose(encoder.pictures(pictures), whole[0], atol=1e-6)
    np.testing.assert_allclose(encoder.texts(TEXTS), whole[1], atol=1e-6)
    np.testing.assert_allclose(np.concatenate([encoder.texts([text]) for text in TEXTS]), whole[1], atol=1e-6)


def test_nothing_gives_nothing(encoder):
    assert encoder.pictures([]).shape == encoder.texts([]).shape == (0, encoder.dimensions)


def test_how_pictures_are_resized_is_the_checkpoints_affair(encoder, pictures):
    other = our_encoder(dataclasses.replace(CONFIG, resize="bilinear"))
    vectors = Encoder(other, encoder.words).pictures(pictures)
    assert np.abs(vectors - encoder.pictures(pictures)).max() > 1e-4


def test_scale_and_bias(encoder):
    assert encoder.scale == pytest.approx(float(encoder.model.logit_scale.detach().exp()))
    assert encoder.bias == pytest.approx(float(encoder.model.logit_bias.detach()))


def test_the_name_is_that_of_the_weights(encoder):
    same = Encoder(our_encoder(CONFIG), encoder.words)
    assert same.name == encoder.name
    assert encoder.name.startswith("tiny-siglip-")
    with torch.no_grad():
        same.model.text.head.bias[0] += 1e-6
    names = {encoder.name, Encoder(same.model, encoder.words).name, Encoder(our_encoder(CONFIG, seed=1), encoder.words).name}
    resized = Encoder(our_encoder(dataclasses.replace(CONFIG, resize="bilinear")), encoder.words)
    assert len(names | {resized.name}) == 4


def test_both_families(siglip_1, siglip_2):
    assert not np.allclose(load_encoder(siglip_1).texts(["a cat"]), load_encoder(siglip_2).texts(["a cat"]))
