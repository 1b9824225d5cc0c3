"""Which pixels an annotated object covers, kept as its file says it and drawn only when asked: polygons, run lengths, or a bitmap file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ..mask_formats import decompress, from_run_lengths

Ring = tuple[tuple[float, float], ...] | bytes
"""(x, y) corners in pixels; (0, 0) is the top left corner of the top left pixel. Or the same as float32, x, y, x, y, ..., packed."""
BITMAPS = ("PNG", "BMP", "GIF", "TIFF")
"""What a bitmap of classes may be written in: nothing that changes pixels, as JPEG does."""


class Outline(Protocol):
    """Something that knows which pixels of a width x height picture it covers."""

    def mask(self, width: int, height: int) -> np.ndarray:
        """Boolean (height, width). Raises `ValueError` where the picture has another size than the outline was made for."""
        ...


@dataclass(frozen=True)
class Polygons:
    """Filled rings; a pixel belongs to it if its centre lies inside one of them. They are kept packed: a large data set has millions.

    Exact, and so the inverse of `mask_formats.polygons`. `pycocotools` rounds corners to a fifth of a pixel first: its masks of the same
    rings differ in some of the pixels that an edge passes through: random stars of 300 pixels' width have a mean IoU of 0.998 with its, of
    100 0.996, of 30 0.985, of 10 0.96.
    """

    rings: tuple[Ring, ...]

    def __post_init__(self) -> None:
        packed = (ring if isinstance(ring, bytes) else np.asarray(ring, np.float32).tobytes() for ring in self.rings)
        object.__setattr__(self, "rings", tuple(packed))

    @property
    def corners(self) -> tuple[np.ndarray, ...]:
        """float32 (N, 2), x and y, of each ring."""
        return tuple(np.frombuffer(ring, np.float32).reshape(-1, 2) for ring in self.rings if isinstance(ring, bytes))

    def mask(self, width: int, height: int) -> np.ndarray:
        covered = np.zeros((height, width), bool)
        for ring in self.corners:
            covered |= _inside(ring, width, height)
        return covered


def _inside(ring: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixels whose centre has an odd number of edges to its left."""
    x, y = ring.astype(float).T - 0.5  # centres of pixels now have whole numbers
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    first, stop = (np.ceil(end(y, next_y)).clip(0, height).astype(int) for end in (np.minimum, np.maximum))
    rows = stop - first
    edge = np.repeat(np.arange(len(x)), rows)
    row = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows) + first[edge]
    slope = (next_x - x) / np.where(next_y == y, 1, next_y - y)
    column = np.ceil(x[edge] + (row - y[edge]) * slope[edge]).clip(0, width).astype(int)
    covered = np.zeros((height, width), bool)
    if not row.size:
        return covered
    top, bottom, left, right = first.min(), stop.max(), column.min(), column.max()
    span = right - left + 1
    crossings = np.bincount((row - top) * span + column - left, minlength=(bottom - top) * span).astype(np.uint8).reshape(-1, span)
    covered[top:bottom, left:right] = np.bitwise_xor.accumulate(crossings & 1, axis=1)[:, : right - left]
    return covered


@dataclass(frozen=True)
class RunLengths:
    """COCO's run lengths, column by column, of a mask with `size` (height, width): compressed text, or plain numbers."""

    size: tuple[int, int]
    counts: str | tuple[int, ...]

    def mask(self, width: int, height: int) -> np.ndarray:
        _check_size((self.size[1], self.size[0]), width, height)
        counts = decompress(self.counts) if isinstance(self.counts, str) else list(self.counts)
        return from_run_lengths(counts, height, width)


@dataclass(frozen=True)
class Bitmap:
    """The pixels of an image file that have `value`: an index of a palette or grey picture, or red, green, blue."""

    path: Path
    value: int | tuple[int, int, int]

    def mask(self, width: int, height: int) -> np.ndarray:
        pixels = bitmap(self.path, width, height, colours=isinstance(self.value, tuple))
        return (pixels == np.array(self.value)).all(-1) if isinstance(self.value, tuple) else pixels == self.value


def bitmap(path: Path, width: int, height: int, *, colours: bool = False) -> np.ndarray:
    """The values of a bitmap file: integers (height, width), or with `colours` bytes (height, width, 3), red, green, blue.

    Raises `ValueError` for a file that is none, or of another size; its header is looked at first.
    """
    try:
        with Image.open(path, formats=BITMAPS) as picture:
            _check_size(picture.size, width, height)
            pixels = np.asarray(picture.convert("RGB") if colours else picture)
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"the mask {path.name} cannot be read: {type(error).__name__}") from error
    if not colours and pixels.ndim == 3:
        grey = pixels[..., 0]
        if (pixels[..., :3] != grey[..., None]).any():
            raise ValueError(f"the mask {path.name} is in colours, expected the numbers of classes or objects")
        return grey
    return pixels


def _check_size(size: tuple[int, int], width: int, height: int) -> None:
    if size != (width, height):
        raise ValueError(f"the mask is {size[0]} x {size[1]} pixels, the picture {width} x {height}")
