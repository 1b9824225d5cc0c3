"""A picture that is the same on every machine, and what each resize made of it where this was written. No torch."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..config import Resize
from ..image import to_pixels


def golden_picture(width: int = 12, height: int = 9) -> Image.Image:
    """Small and colourful: slopes, stripes, a hard edge and a dot."""
    y, x = np.mgrid[:height, :width]
    red, green = 255 * x // (width - 1), 255 * y // (height - 1)
    blue = np.where((x + y) % 5 < 2, 230, 20)
    pixels = np.stack([red, green, blue], axis=-1)
    pixels[height // 2 :, width // 3] = (10, 200, 90)
    pixels[height // 4, width // 2] = 255
    return Image.fromarray(pixels.astype(np.uint8))


def resized(resize: Resize) -> list[int]:
    """`golden_picture()` at 4 x 4 as bytes, in the order of `GOLDEN_PIXELS`."""
    return np.rint((to_pixels(golden_picture(), 4, resize) + 1) * 127.5).astype(int).ravel().tolist()


# fmt: off
GOLDEN_PIXELS: dict[Resize, tuple[int, ...]] = {
    "bicubic": (
        25, 94, 169, 229, 24, 89, 172, 229, 25, 63, 162, 230, 25, 64, 163, 230, 21, 24, 31, 20, 89, 102, 105, 88, 165, 176, 163,
        165, 233, 222, 233, 233, 93, 125, 90, 143, 95, 116, 139, 69, 123, 97, 92, 131, 70, 99, 103, 90,
    ),
    "bilinear": (
        23, 92, 162, 231, 23, 92, 162, 231, 23, 10, 162, 231, 23, 10, 162, 231, 19, 19, 19, 19, 91, 91, 91, 91, 163, 200, 163,
        163, 235, 200, 235, 235, 98, 151, 20, 230, 20, 46, 203, 20, 203, 90, 20, 230, 20, 90, 98, 20,
    ),
    "bilinear-antialias": (
        28, 94, 167, 225, 28, 88, 168, 225, 28, 65, 161, 225, 28, 64, 161, 225, 25, 30, 34, 25, 90, 101, 101, 90, 163, 174, 163,
        163, 228, 218, 228, 228, 96, 124, 90, 140, 95, 113, 131, 76, 121, 99, 95, 127, 71, 98, 102, 89,
    ),
}
# fmt: on
"""`golden_picture()` at 4 x 4 as Pillow 13 makes it: all of red row by row, then green, then blue."""
