"""What an index needs of an encoder of pictures and texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from PIL import Image

from ..errors import CheckpointError
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


def to_keep(name: str) -> str:
    """The name of an encoder as an index writes it down: a file or a folder is found from every other folder too."""
    path = Path(name).expanduser()
    return os.path.abspath(path) if name and path.exists() else name


def encoder_of(where: str, source: str, named: str | None = None, *, device: str | None = None) -> Encoder:
    """The encoder that was named, or else that of the index at `where`, which wrote down `source` ("" for the bundled one).

    Raises what `load_encoder` raises.
    """
    from ..embedding import load_encoder

    try:
        return cast("Encoder", load_encoder(named or source or None, device=device))
    except CheckpointError as error:
        if named or not source:
            raise
        hint = "say where it is now: --encoder FOLDER" if error.code == "not_found" else error.hint
        raise CheckpointError(f"{where}: the encoder of this index: {error.message}", hint=hint, code=error.code) from error
