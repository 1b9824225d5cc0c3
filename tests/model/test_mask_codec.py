"""The mask codec: that it equals the original is in `tests/parity`; here its shapes, order and names."""

from __future__ import annotations

import pytest
import torch

from paligemma.config import MASK_CODES, MASK_SIZE
from paligemma.model.mask_codec import CODE_GRID, MaskCodec
from tests.parity.golden import codec_arrays
from tests.tiny import random_codec


def test_names_and_shapes_are_those_of_the_published_file():
    state = MaskCodec().state_dict()
    assert state["encoder.0.weight"].shape == (16, 1, 4, 4)
    assert state["encoder.8.net.0.weight"].shape == (128, 128, 3, 3)
    assert state["encoder.10.weight"].shape == (512, 128, 1, 1)
    assert state["_vq_vae._embedding"].shape == (128, 512)
    assert state["decoder.0.weight"].shape == (128, 512, 1, 1)
    assert state["decoder.6.weight"].shape == (128, 64, 4, 4)
    assert state["decoder.12.weight"].shape == (1, 16, 1, 1)
    assert list(codec_arrays()) == list(state)


@torch.no_grad()
def test_codes_go_row_by_row():
    """Changing one code changes the picture most around its cell."""
    codec = random_codec()
    codes = torch.zeros(1, MASK_CODES, dtype=torch.long)
    before = codec.decode(codes)
    codes[0, 1 * CODE_GRID + 2] = 77
    moved = (codec.decode(codes) - before).abs()[0]
    cells = moved.unflatten(1, (CODE_GRID, -1)).unflatten(0, (CODE_GRID, -1)).mean(dim=(1, 3))
    assert cells.flatten().argmax() == 1 * CODE_GRID + 2


@torch.no_grad()
def test_features_are_in_the_same_order_as_codes():
    codec = random_codec()
    mask = torch.zeros(1, MASK_SIZE, MASK_SIZE)
    before = codec.features(mask)
    mask[:, 16:32, 32:48] = 1.0
    moved = (codec.features(mask) - before).abs()[0].mean(-1)
    assert moved.argmax() == 1 * CODE_GRID + 2


@torch.no_grad()
def test_the_nearest_code_is_nearest_by_distance():
    codec = random_codec()
    features = torch.randn(3, MASK_CODES, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codec.nearest(features), torch.cdist(features, codec.codebook).argmin(-1))
    assert torch.equal(codec.nearest(codec.codebook[None, :16]), torch.arange(16)[None])


@torch.no_grad()
def test_decoding_codes_is_decoding_their_vectors():
    codec = random_codec()
    codes = torch.randint(0, 128, (2, MASK_CODES), generator=torch.Generator().manual_seed(0))
    decoded = codec.decode(codes)
    assert decoded.shape == (2, MASK_SIZE, MASK_SIZE)
    assert torch.equal(decoded, codec.decode_features(codec.codebook[codes]))


@torch.no_grad()
def test_masks_of_a_batch_do_not_meet():
    codec = random_codec()
    masks = (torch.rand(3, MASK_SIZE, MASK_SIZE, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    together = codec.encode(masks)
    assert together.shape == (3, MASK_CODES)
    assert torch.equal(together, torch.cat([codec.encode(mask[None]) for mask in masks]))


def test_a_code_outside_the_book_is_an_error():
    with pytest.raises(IndexError):
        random_codec().decode(torch.full((1, MASK_CODES), 128))
