"""Whatever is a picture -> `EncodedImage`: what the image tower makes of it, to be used with any number of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..config import PaliGemmaConfig
from ..engine.network import Network
from ..errors import UsageError
from ..image import Clip, open_image, to_pixels


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """A picture or clip after the image tower, accepted wherever a picture is, by the predictor that made it.

    `soft`: image tokens (1, P, D), of the kind that `network` works with. `width`, `height`: of the original picture, a clip's first.
    `picture`: the original, for drawing.
    Only the tower's pass is saved: what the decoder makes of the tokens depends on the prompt.
    """

    soft: Any = field(repr=False)
    width: int
    height: int
    picture: Image.Image | None = field(repr=False)
    network: Network = field(repr=False)
    adapter: str | None = None
    """The one that was at work on the way from the picture to its tokens."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture or clip as the image tower takes it, accepted wherever a picture is: `pixels` (F, 3, S, S), float32 in [-1, 1].

    `width`, `height`: of the original, a clip's first. `picture`: the original, where it is still at hand.
    """

    pixels: np.ndarray = field(repr=False)
    width: int
    height: int
    picture: Image.Image | None = field(default=None, repr=False)


class Seen(Protocol):
    """What of a picture an answer is read with."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def picture(self) -> Image.Image | None: ...


Picture = str | Path | bytes | Image.Image | np.ndarray | Clip | Prepared | EncodedImage
"""A file's path or contents, a Pillow image, an array (H, W, 3), several pictures for one prompt, or one that is prepared or encoded."""


def num_tokens(network: Network, picture: Picture) -> int:
    """Image tokens it will have."""
    if isinstance(picture, EncodedImage):
        return picture.soft.shape[1]
    frames = len(picture.frames) if isinstance(picture, Clip) else len(picture.pixels) if isinstance(picture, Prepared) else 1
    return network.config.vision.num_tokens * frames


def prepare(config: PaliGemmaConfig, picture: Picture, name: str | None = None) -> Prepared:
    """Opened and squeezed into the square that the model sees. `name`: what errors call a picture that has no file name. `InputError`."""
    if isinstance(picture, Prepared):
        return picture
    frames = _frames(picture, name)
    pixels = np.stack([to_pixels(frame, config.vision.image_size, config.resize) for frame in frames])
    return Prepared(pixels, frames[0].width, frames[0].height, frames[0])


def encode(network: Network, pictures: Sequence[Picture], first: int | None = None) -> list[EncodedImage]:
    """All pictures in one pass; the same object twice is encoded once. `InputError` for what cannot be opened.

    `first`: the number of the first picture, where errors should name pictures that have no file name by their place in a list.
    """
    new = {id(picture): picture for picture in pictures if not isinstance(picture, EncodedImage)}
    names = {id(picture): f"image {first + place}" for place, picture in enumerate(pictures)} if first is not None else {}
    prepared = {key: prepare(network.config, picture, names.get(key)) for key, picture in new.items()}
    encoded: dict[int, EncodedImage] = {}
    if prepared:
        soft, start = network.encode(np.concatenate([one.pixels for one in prepared.values()])), 0
        for key, one in prepared.items():
            tokens = soft[start : start + len(one.pixels)].reshape(1, -1, soft.shape[-1])
            encoded[key] = EncodedImage(tokens, one.width, one.height, one.picture, network, network.sight)
            start += len(one.pixels)
    return [_own(picture, network) if isinstance(picture, EncodedImage) else encoded[id(picture)] for picture in pictures]


def _frames(picture: Picture, name: str | None) -> list[Image.Image]:
    if isinstance(picture, Clip):
        return [open_image(frame) for frame in picture.frames]
    assert not isinstance(picture, EncodedImage | Prepared)
    return [open_image(picture, name=None if isinstance(picture, str | Path) else name)]


def _own(picture: EncodedImage, network: Network) -> EncodedImage:
    if getattr(picture.network, "model", picture.network) is not getattr(network, "model", network):
        raise UsageError("the picture was encoded by another model, whose image tokens mean nothing here", hint="encode it again")
    if picture.adapter != network.sight:
        raise UsageError(
            f"the picture was encoded with the adapter {picture.adapter!r}, now it is {network.sight!r}", hint="encode it again"
        )
    return picture
