"""SigLIP's loss is transformers' where every text has one picture, and knows more where it has two."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from paligemma.nano.sigmoid_loss import found_first, sigmoid_loss
from tests.encoders import TINY_ENCODER, random_inputs, their_encoder


def test_as_in_transformers():
    pixels, ids = random_inputs(TINY_ENCODER, count=5)
    with torch.inference_mode():
        theirs = their_encoder()(input_ids=ids, pixel_values=pixels, return_loss=True)
    torch.testing.assert_close(sigmoid_loss(theirs.logits_per_image, torch.eye(5, dtype=torch.bool)), theirs.loss)


def test_every_pair_is_a_question_of_its_own():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    together = torch.tensor([[True, False, True], [False, True, False]])
    expected = F.binary_cross_entropy_with_logits(logits, together.float(), reduction="sum") / 2
    torch.testing.assert_close(sigmoid_loss(logits, together), expected)


def test_found_first():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 0.7]])
    assert found_first(logits, torch.tensor([[True, False, True], [False, True, False]])) == pytest.approx(2 / 3)
