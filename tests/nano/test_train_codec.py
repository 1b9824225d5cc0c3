"""The mask codec learns masks, repeatably, and square masks are those the predictor crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paligemma.config import MASK_SIZE
from paligemma.nano.train_codec import CodebookAverage, codec_iou, sprite_masks, square_mask, train_codec
from paligemma.results import Box
from paligemma.tasks import segment
from tests import tiny


@pytest.fixture(scope="module")
def masks(train_world) -> torch.Tensor:
    return sprite_masks(train_world.bank)


def test_square_masks_are_the_crops_of_the_scene(train_scenes):
    scene = next(scene for scene in train_scenes if len(scene.objects) > 2)
    for index, spot in enumerate(scene.objects):
        cropped = segment.crop(scene.mask(index), Box("", spot.x0, spot.y0, spot.x1, spot.y1))
        assert np.array_equal(square_mask(spot.sprite.mask), cropped)


def test_masks_of_a_bank_come_thing_by_thing(train_world, masks):
    assert masks.shape == (49 * 2, MASK_SIZE, MASK_SIZE)
    assert masks.dtype == torch.float32
    assert 0 <= masks.min() <= masks.max() <= 1
    assert torch.equal(masks[2 * 5 + 1], torch.from_numpy(square_mask(train_world.bank[5][1].mask)))


def test_training_makes_masks_come_back(masks):
    said: list[str] = []
    codec = train_codec(masks, width=32, codebook_dim=16, steps=200, batch=32, log=said.append)
    untrained = train_codec(masks, width=32, codebook_dim=16, steps=1, batch=32, log=lambda line: None)
    assert codec_iou(codec, masks) > max(0.6, codec_iou(untrained, masks) + 0.1)
    assert "IoU" in said[-1]
    assert not codec.training


def test_training_is_repeatable(masks):
    first, second, other = (
        train_codec(masks, width=16, codebook_dim=8, steps=3, batch=8, seed=seed, log=lambda line: None) for seed in (1, 1, 2)
    )
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.codebook, other.codebook)


def test_the_ceiling_is_the_mean_overlap_of_what_comes_back(masks):
    codec = tiny.random_codec()
    with torch.inference_mode():
        back = [codec.decode(codec.encode(mask[None]))[0] > 0 for mask in masks[:5]]
    expected = [((a & (b > 0.5)).sum() / (a | (b > 0.5)).sum()).item() for a, b in zip(back, masks[:5], strict=True)]
    assert codec_iou(codec, masks[:5]) == pytest.approx(np.mean(expected), abs=1e-6)


def test_codes_move_to_the_features_they_stand_for_and_unused_ones_restart():
    codec = tiny.random_codec(codebook_dim=4)
    average = CodebookAverage(codec, torch.Generator().manual_seed(0))
    unused = codec.codebook[3:].clone()
    features = torch.stack([torch.full((4,), 5.0), torch.full((4,), -2.0), torch.full((4,), 1.0)])
    for _ in range(290):
        average.update(features, torch.tensor([0, 1, 1]))
    torch.testing.assert_close(codec.codebook[0], features[0], atol=0.5, rtol=0)
    torch.testing.assert_close(codec.codebook[1], torch.full((4,), -0.5), atol=0.5, rtol=0)
    torch.testing.assert_close(codec.codebook[3:], unused), "not yet"
    for _ in range(20):
        average.update(features, torch.tensor([0, 1, 1]))
    assert all(any(torch.allclose(code, feature) for feature in features) for code in codec.codebook[3:]), "0.99 ** 299 < 0.05"
