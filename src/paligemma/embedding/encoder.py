"""`Encoder`: SigLIP's two towers with what they need around them, lists of pictures and texts in, arrays of vectors out."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..image import to_pixels
from ..model.dual_encoder import DualEncoder
from .words import Words

T = TypeVar("T")

PICTURES = 32
"""In one pass of the image tower."""
TEXTS = 128
DIGEST = 8
"""Bytes of the weights' digest in a name."""


class Encoder:
    """Vectors of one encoder are near where what they stand for belongs together; those of another mean nothing beside them.

    `dimensions`: numbers in a vector. Similarity is the product of two vectors, probability = sigmoid(scale * similarity + bias).
    """

    def __init__(self, model: DualEncoder, words: Words):
        self.model = model
        self.words = words
        self.config = model.config
        self.dimensions: int = model.config.dimensions
        self.scale = float(model.logit_scale.detach().float().exp())
        self.bias = float(model.logit_bias.detach().float())

    @functools.cached_property
    def name(self) -> str:
        """What the vectors are of: the model's name and a digest of its weights, as they are loaded, and of how pictures are resized."""
        digest = hashlib.blake2b(repr(self.config).encode(), digest_size=DIGEST)
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.float().cpu().contiguous().numpy().data)
        return f"{self.config.name}-{digest.hexdigest()}"

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> float32 (n, dimensions), unit length. The whole picture is squeezed into the model's square."""
        return self._all(pictures, PICTURES, self._pixels, self.model.encode_pictures)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> float32 (n, dimensions), unit length. Raises `InputError` for what is not text."""
        return self._all(texts, TEXTS, self._ids, self.model.encode_texts)

    def _all(
        self, things: Sequence[T], size: int, prepare: Callable[[Sequence[T]], Tensor], encode: Callable[[Tensor], Tensor]
    ) -> np.ndarray:
        rows = [encode(prepare(things[start : start + size])).cpu().numpy() for start in range(0, len(things), size)]
        return np.concatenate(rows) if rows else np.empty((0, self.dimensions), np.float32)

    def _pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        side, resize = self.config.vision.image_size, self.config.resize
        pixels = np.stack([to_pixels(picture, side, resize) for picture in pictures])
        return torch.from_numpy(pixels).to(self.model.logit_scale.device, self.model.logit_scale.dtype)

    def _ids(self, texts: Sequence[str]) -> Tensor:
        ids = [self.words.ids(text, self.config.text.length) for text in texts]
        return torch.tensor(ids, device=self.model.logit_scale.device)
