"""SigLIP's towers: what every vector depends on, and what it must not depend on."""

from __future__ import annotations

import pytest
import torch

from tests.encoders import TINY_ENCODER, our_encoder, random_inputs


@pytest.fixture(scope="module")
def model():
    return our_encoder()


@pytest.fixture(scope="module")
def inputs():
    return random_inputs(TINY_ENCODER)


@torch.inference_mode()
def test_vectors_have_unit_length(model, inputs):
    pixels, ids = inputs
    for vectors in (model.encode_pictures(pixels), model.encode_texts(ids)):
        assert vectors.shape == (3, TINY_ENCODER.dimensions)
        assert vectors.dtype == torch.float32
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))


@torch.inference_mode()
def test_a_batch_is_its_singles(model, inputs):
    pixels, ids = inputs
    for encode, rows in ((model.encode_pictures, pixels), (model.encode_texts, ids)):
        torch.testing.assert_close(encode(rows), torch.cat([encode(row[None]) for row in rows]), rtol=0, atol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("place", range(TINY_ENCODER.text.length))
def test_every_token_counts_wherever_it_stands(model, inputs, place):
    """The last is pooled, and sees all: padding is a token too."""
    ids = inputs[1][:1].clone()
    before = model.encode_texts(ids)
    ids[0, place] = (ids[0, place] + 1) % TINY_ENCODER.text.vocab_size
    assert (model.encode_texts(ids) - before).abs().max() > 1e-4


@torch.inference_mode()
def test_tokens_change_places(model):
    """Positions are learnt: the same tokens in another order are another text."""
    ids = torch.arange(TINY_ENCODER.text.length)[None]
    swapped = ids.clone()
    swapped[0, :2] = ids[0, [1, 0]]
    assert (model.encode_texts(ids) - model.encode_texts(swapped)).abs().max() > 1e-4


@torch.inference_mode()
def test_the_probe_is_not_added(model, inputs):
    """What is pooled comes from the patches alone: with values of zero nothing is left but biases, whatever the picture."""
    value = model.pool.attn.v.weight
    kept = value.clone()
    try:
        value.zero_()
        vectors = model.encode_pictures(inputs[0])
    finally:
        value.copy_(kept)
    torch.testing.assert_close(vectors[0], vectors[1])


def test_a_text_of_another_length_is_refused(model):
    with pytest.raises(ValueError, match="takes 9 tokens, padded, got 8"):
        model.encode_texts(torch.zeros(1, 8, dtype=torch.long))


@torch.inference_mode()
def test_logits(model, inputs):
    pictures, texts = model.encode_pictures(inputs[0]), model.encode_texts(inputs[1][:2])
    logits = model.logits(pictures, texts)
    assert logits.shape == (3, 2)
    expected = float(model.logit_scale.exp()) * (pictures[1] @ texts[0]) + float(model.logit_bias)
    torch.testing.assert_close(logits[1, 0], expected)
