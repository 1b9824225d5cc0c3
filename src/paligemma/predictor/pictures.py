"""Whatever is a picture -> `EncodedImage`: what the image tower makes of it, to be used with any number of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UsageError
from ..image import Clip, open_image, to_pixels
from ..model.lora import active_adapter
from ..model.paligemma import PaliGemma


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """A picture or clip after the image tower, accepted wherever a picture is, by the predictor that made it.

    `soft`: image tokens (1, P, D). `width`, `height`: of the original picture, a clip's first. `picture`: the original, for drawing.
    Only the tower's pass is saved: what the decoder makes of the tokens depends on the prompt.
    """

    soft: Tensor = field(repr=False)
    width: int
    height: int
    picture: Image.Image | None = field(repr=False)
    model: PaliGemma = field(repr=False)
    adapter: str | None = None
    """The one that was at work on the way from the picture to its tokens."""


Picture = str | Path | bytes | Image.Image | np.ndarray | Clip | EncodedImage
"""A file's path or contents, a Pillow image, an array (H, W, 3), several pictures for one prompt, or a picture that is encoded already."""


def num_tokens(model: PaliGemma, picture: Picture) -> int:
    """Image tokens it will have."""
    if isinstance(picture, EncodedImage):
        return picture.soft.shape[1]
    return model.config.vision.num_tokens * (len(picture.frames) if isinstance(picture, Clip) else 1)


@torch.inference_mode()
def encode(model: PaliGemma, pictures: Sequence[Picture], first: int | None = None) -> list[EncodedImage]:
    """All pictures in one pass; the same object twice is encoded once. `InputError` for what cannot be opened.

    `first`: the number of the first picture, where errors should name pictures that have no file name by their place in a list.
    """
    new = {id(picture): picture for picture in pictures if not isinstance(picture, EncodedImage)}
    names = {id(picture): f"image {first + place}" for place, picture in enumerate(pictures)} if first is not None else {}
    frames = {key: _frames(picture, names.get(key)) for key, picture in new.items()}
    config = model.config
    encoded: dict[int, EncodedImage] = {}
    if frames:
        pixels = np.stack([to_pixels(frame, config.vision.image_size, config.resize) for clip in frames.values() for frame in clip])
        soft = iter(model.encode_image(torch.from_numpy(pixels).to(model.device)))
        for key, clip in frames.items():
            tokens = torch.cat([next(soft) for _ in clip])[None]
            encoded[key] = EncodedImage(tokens, clip[0].width, clip[0].height, clip[0], model, _adapter(model))
    return [_own(picture, model) if isinstance(picture, EncodedImage) else encoded[id(picture)] for picture in pictures]


def _frames(picture: Picture, name: str | None) -> list[Image.Image]:
    if isinstance(picture, Clip):
        return [open_image(frame) for frame in picture.frames]
    assert not isinstance(picture, EncodedImage)
    return [open_image(picture, name=None if isinstance(picture, str | Path) else name)]


def _own(picture: EncodedImage, model: PaliGemma) -> EncodedImage:
    if picture.model is not model:
        raise UsageError("the picture was encoded by another model, whose image tokens mean nothing here", hint="encode it again")
    if picture.adapter != (now := _adapter(model)):
        raise UsageError(f"the picture was encoded with the adapter {picture.adapter!r}, now it is {now!r}", hint="encode it again")
    return picture


def _adapter(model: PaliGemma) -> str | None:
    """The adapter at work where pictures become tokens."""
    return active_adapter(model.vision) or active_adapter(model.projector)
