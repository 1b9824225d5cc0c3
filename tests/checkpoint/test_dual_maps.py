"""The table of SigLIP's tensors: it names the model's, and every number of a file is one of ours exactly once."""

from __future__ import annotations

import math

import pytest

from paligemma.checkpoint.dual_maps import bv_layout, hf_layout, our_shapes
from paligemma.config import ENCODERS
from tests.encoders import TINY_ENCODER, big_vision_arrays, our_encoder, their_encoder


def test_our_names_are_the_models():
    assert our_shapes(TINY_ENCODER) == {name: tuple(tensor.shape) for name, tensor in our_encoder().state_dict().items()}


@pytest.mark.parametrize("scanned", [True, False])
def test_big_visions_names_and_shapes(scanned):
    found = {name: array.shape for name, array in big_vision_arrays(their_encoder(), scanned=scanned).items()}
    assert bv_layout(TINY_ENCODER, prefix="params/", scanned=scanned).shapes == found


def test_hugging_faces_names_and_shapes():
    assert hf_layout(TINY_ENCODER).shapes == {name: tuple(tensor.shape) for name, tensor in their_encoder().state_dict().items()}


@pytest.mark.parametrize("layout", [hf_layout, bv_layout, lambda config: bv_layout(config, scanned=False)])
def test_the_pieces_fill_the_file(layout):
    config = ENCODERS["siglip-base-patch16-224"]
    found, shapes = layout(config), our_shapes(config)
    assert found.pieces.keys() == shapes.keys()
    for name, pieces in found.members().items():
        end = 0
        for piece in pieces:
            assert piece.start == end
            end += math.prod(shapes[piece.ours])
        assert end == math.prod(found.shapes[name]), name


@pytest.mark.parametrize("name", ENCODERS)
def test_parameters_are_the_shapes(name):
    config = ENCODERS[name]
    assert sum(map(math.prod, our_shapes(config).values())) == config.num_parameters
