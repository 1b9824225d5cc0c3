"""Where a model looked: equal to attention worked out by hand, token by token, and to nothing that a token could not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paligemma.engine.looking import looks, smoothed
from paligemma.model import gemma
from tests.tiny import TINY, random_model, random_pixels

PROMPT, ANSWER = [2, 17, 30, 4], [51, 9, 9, 120, 77]


@pytest.fixture(params=TINY)
def model(request):
    return random_model(TINY[request.param])


@pytest.fixture
def soft(model):
    with torch.inference_mode():
        return model.encode_image(random_pixels(model.config, 1))


def by_hand(model, soft, told: list[int], monkeypatch) -> np.ndarray:
    """Attention of the last of the prompt and what was `told`, as a mean over heads and layers: every head by itself, in loops."""
    layers = []

    def attention(q, k, v, mask=None, *, scale, softcap=None):
        heads, each = [], q.shape[1] // k.shape[1]
        for head in range(q.shape[1]):
            scores = scale * q[0, head] @ k[0, head // each].T
            scores = scores if softcap is None else softcap * (scores / softcap).tanh()
            heads.append(scores.masked_fill(~mask[0, 0], -torch.inf).softmax(-1))
        layers.append(torch.stack([weights[-1] for weights in heads]).mean(0))
        return torch.stack([w @ v[0, head // each] for head, w in enumerate(heads)])[None]

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(gemma, "attention", attention)
        model(soft, torch.tensor([PROMPT + told]), torch.tensor([[0] * len(PROMPT) + [1] * len(told)]))
    assert len(layers) == model.config.text.depth
    return torch.stack(layers).mean(0)[: soft.shape[1]].numpy()


def test_it_is_the_attention_of_the_position_that_wrote_each_token(model, soft, monkeypatch):
    found = looks(model, soft, PROMPT, ANSWER)
    assert found.shape == (len(ANSWER), soft.shape[1])
    for place in range(len(ANSWER)):
        np.testing.assert_allclose(found[place], by_hand(model, soft, ANSWER[:place], monkeypatch), atol=1e-5)


def test_rows_are_shares(model, soft):
    found = looks(model, soft, PROMPT, ANSWER)
    assert (found > 0).all()
    assert (found.sum(1) < 1).all(), "some attention goes to words"


def test_what_comes_later_changes_nothing(model, soft):
    whole = looks(model, soft, PROMPT, ANSWER)
    np.testing.assert_allclose(looks(model, soft, PROMPT, ANSWER[:2]), whole[:2], atol=1e-6)


def test_the_model_is_as_it_was(model, soft):
    looks(model, soft, PROMPT, ANSWER)
    assert not any(block.attn._forward_pre_hooks for block in model.text.blocks)


def test_there_must_be_something_to_read(model, soft):
    for prompt, answer in (([], ANSWER), (PROMPT, [])):
        with pytest.raises(ValueError, match="at least one id"):
            looks(model, soft, prompt, answer)


def test_smoothing_keeps_sums_and_spreads_a_point():
    maps = np.zeros((3, 4, 5))
    maps[0, 1, 2] = maps[1, 0, 0] = maps[2, 3, 2] = 16.0
    found = smoothed(maps)
    np.testing.assert_allclose(found.sum((1, 2)), 16)
    np.testing.assert_allclose(found[0, :3, 1:4], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    np.testing.assert_allclose(found[1, :2, :2], [[9, 3], [3, 1]])
    np.testing.assert_allclose(found[2, 2:, 1:4], [[1, 2, 1], [3, 6, 3]])
