"""Tiny predictors of both versions, and pictures of several sizes."""

import numpy as np
import pytest
from PIL import Image

from paligemma.predictor import Predictor
from tests import tiny


@pytest.fixture(scope="session", params=[1, 2])
def model(request) -> Predictor:
    return Predictor(tiny.tiny_model(version=request.param), tiny.tiny_tokenizer(), tiny.random_codec())


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(40, 30), (28, 28), (30, 61), (9, 50), (64, 64)]
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)) for width, height in sizes]


@pytest.fixture(scope="session")
def picture(pictures) -> Image.Image:
    return pictures[0]
