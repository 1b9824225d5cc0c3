"""What an index needs of an encoder of pictures and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..image import squeeze


class Encoder(Protocol):
    """Vectors of unit length, float32 (n, dimensions); those of pictures and those of texts can be compared.

    `name`: changes with the weights. `config`: has `vision.image_size` and `resize`, with which `image.squeeze` makes of a picture what the
    encoder looks at. That a picture shows what a text says: probability = sigmoid(scale * similarity + bias).
    """

    @property
    def name(self) -> str: ...
    @property
    def dimensions(self) -> int: ...
    @property
    def scale(self) -> float: ...
    @property
    def bias(self) -> float: ...
    @property
    def config(self) -> Any: ...
    def pictures(self, pictures: Sequence[Image.Image], /) -> np.ndarray: ...
    def texts(self, texts: Sequence[str], /) -> np.ndarray: ...


def squeezed(encoder: Encoder, picture: Image.Image) -> Image.Image:
    """A picture as the encoder looks at it, of which it makes the same vector: threads of ours can do this, and what waits is small."""
    return Image.fromarray(squeeze(picture, encoder.config.vision.image_size, encoder.config.resize))
