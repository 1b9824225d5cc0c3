"""The small world: scenes of emoji or printed words over drawn backgrounds, with exact boxes, masks and texts. No torch.

A scene is a function of a seed. Training and evaluation draw from different seed streams, which give different backgrounds,
different sprite warps and (for part of the printed words) different words: see `Split`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import UsageError
from .names import dictionary_words, things
from .sprites import SIZE, Sprite, sprite_bank, warp

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
HELD_OUT_EVERY = 5
"""Every fifth dictionary word is never printed in training."""
TEXT_SHARE = 0.3
"""Of all scenes, how many show printed words instead of things."""
BACKGROUNDS = 1500
"""Backgrounds drawn beforehand for training; each use flips, turns and recolours one of them."""


class Split(Enum):
    """Which stream of seeds a scene comes from."""

    TRAIN = 1
    TEST = 2


@dataclass(frozen=True)
class Placed:
    """A thing in a scene: `x0, y0, x1, y1` in pixels (edges, so x1 - x0 is the width in pixels)."""

    thing: int
    x0: int
    y0: int
    x1: int
    y1: int
    sprite: Sprite
    view: int | None
    """Index of the sprite in the bank, None for a sprite warped for this scene."""
    side: int = SIZE
    """Of the picture it is in, in pixels."""

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2


@dataclass(frozen=True)
class Line:
    """A printed word; `centres` are the (x, y) of its letters."""

    text: str
    centres: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scene:
    """`pixels` (S, S, 3) uint8; `objects` from left to right by centre; `lines` from top to bottom."""

    pixels: np.ndarray
    objects: tuple[Placed, ...]
    lines: tuple[Line, ...]
    owner: np.ndarray = field(repr=False)
    """(S, S) int8: index into `objects` of the object whose mask covers the pixel, -1 for none."""

    @property
    def side(self) -> int:
        """Of the square picture, in pixels."""
        return len(self.pixels)

    def mask(self, index: int) -> np.ndarray:
        """Full-size boolean mask of one object."""
        return self.owner == index


class World:
    """Draws scenes of one split.

    Training draws from a bank: `bank_size` views of each thing and `backgrounds` backgrounds, made beforehand. Without one
    (`bank_size` 0) every scene gets sprites and a background of its own. A larger `side` than SIZE makes larger pictures, in which the
    smallest things and letters keep their size in pixels and the largest grow along.
    """

    def __init__(
        self, split: Split, *, bank_size: int = 0, bank_seed: int = 0, seed: int = 0, backgrounds: int = BACKGROUNDS,
        text_share: float = TEXT_SHARE, side: int = SIZE,
    ):  # fmt: skip
        self.split = split
        self.seed = seed
        self.text_share = text_share
        self.side = side
        self.zoom = side / SIZE
        self.bank = sprite_bank(bank_seed, bank_size, self.zoom) if bank_size else None
        self.backgrounds = (
            [background(np.random.default_rng([bank_seed, split.value, 0xB6, i]), side) for i in range(backgrounds)] if bank_size else None
        )
        self.among: Sequence[int] | None = None
        """Things that scenes are made of from now on; None: all."""
        self.fonts = _Fonts()
        words = dictionary_words()
        held_out = set(words[::HELD_OUT_EVERY])
        self.words = [w for w in words if (w in held_out) == (split is Split.TEST)]

    def scene(self, index: int) -> Scene:
        """Scene number `index`: the same for the same split and seed, whatever was drawn before."""
        rng = np.random.default_rng([self.seed, self.split.value, index])
        bank = self.backgrounds
        pixels = background(rng, self.side) if bank is None else _vary(rng, bank[int(rng.integers(len(bank)))])
        if rng.random() < self.text_share:
            return self._text_scene(rng, pixels)
        return self._object_scene(rng, pixels)

    def _object_scene(self, rng: np.random.Generator, pixels: np.ndarray) -> Scene:
        count = int(rng.choice(4, p=(0.2, 0.25, 0.275, 0.275))) + 1
        kinds = self._kinds(rng, count)
        placed: list[Placed] = []
        owner = np.full((self.side, self.side), -1, np.int8)
        for kind in kinds:
            spot = self._place(rng, kind, placed, owner, crowd=count)
            if spot is not None:
                placed.append(spot)
                owner[spot.y0 : spot.y1, spot.x0 : spot.x1][spot.sprite.mask] = len(placed) - 1
        order = sorted(range(len(placed)), key=lambda i: placed[i].centre[0])
        rank = np.full(len(placed) + 1, -1, np.int8)
        for new, old in enumerate(order):
            rank[old] = new
        for spot in placed:
            blend(pixels, spot.sprite.rgb, spot.sprite.alpha, spot.x0, spot.y0)
        return Scene(finish(rng, pixels), tuple(placed[i] for i in order), (), rank[owner])

    def _kinds(self, rng: np.random.Generator, count: int) -> list[int]:
        """Different things most of the time; now and then several of one, so that counting and referring mean something."""
        kinds = [int(k) for k in rng.choice(len(things()) if self.among is None else self.among, size=count, replace=False)]
        if count > 1 and rng.random() < 0.4:
            repeats = int(rng.integers(2, count + 1))
            kinds[:repeats] = [kinds[0]] * repeats
        return kinds

    def _place(self, rng: np.random.Generator, kind: int, placed: list[Placed], owner: np.ndarray, crowd: int) -> Placed | None:
        """A spot where the mask overlaps no other mask and no centre is so close that "left of" becomes a matter of taste."""
        for _ in range(30):
            if self.bank is None:
                view, sprite = None, warp(things()[kind], rng, self.zoom)
            else:
                view = int(rng.integers(len(self.bank[kind])))
                sprite = self.bank[kind][view]
            height, width = sprite.alpha.shape
            if max(height, width) > (56, 50, 44, 40)[crowd - 1] * self.zoom:
                continue
            x0, y0 = int(rng.integers(0, self.side - width + 1)), int(rng.integers(0, self.side - height + 1))
            cx, cy = x0 + width / 2, y0 + height / 2
            if any(abs(cx - o.centre[0]) < 4 * self.zoom for o in placed):
                continue
            if any(math.hypot(cx - o.centre[0], cy - o.centre[1]) < 12 * self.zoom for o in placed):
                continue
            if (owner[y0 : y0 + height, x0 : x0 + width][sprite.alpha > 0.05] >= 0).any():
                continue
            return Placed(kind, x0, y0, x0 + width, y0 + height, sprite, view, self.side)
        return None

    def _text_scene(self, rng: np.random.Generator, pixels: np.ndarray) -> Scene:
        count = int(rng.integers(1, 4))
        if rng.random() < 0.5:
            box = [int(v * self.zoom) for v in (rng.integers(0, 12), rng.integers(0, 12), rng.integers(100, 113), rng.integers(100, 113))]
            plate = Image.fromarray(pixels)
            ImageDraw.Draw(plate).rounded_rectangle(box, radius=int(rng.integers(1, 16)), fill=tuple(int(v) for v in _random_colour(rng)))
            pixels = np.array(plate)
        angle = rng.uniform(-10, 10)
        ink = _contrasting(rng, pixels)
        lines: list[Line] = []
        slots = np.linspace(0, self.side, count + 1)
        for i in range(count):
            word = self._word(rng)
            patch, centres = self.fonts.word(rng, word, angle, max_width=self.side - 8, max_height=self.side / count - 2, zoom=self.zoom)
            height, width = patch.shape
            x0 = int(rng.integers(0, self.side - width + 1))
            low, high = math.ceil(slots[i]), math.floor(slots[i + 1]) - height
            y0 = int(rng.integers(low, max(low, high) + 1)) if high > low else max(0, min(self.side - height, low))
            blend(pixels, np.broadcast_to(ink, (*patch.shape, 3)), patch, x0, y0)
            lines.append(Line(word, tuple((x0 + x, y0 + y) for x, y in centres)))
        return Scene(finish(rng, pixels), (), tuple(lines), np.full((self.side, self.side), -1, np.int8))

    def _word(self, rng: np.random.Generator) -> str:
        kind = rng.random()
        if kind < 0.6:
            return self.words[int(rng.integers(len(self.words)))]
        letters = CHARACTERS if kind < 0.85 else CHARACTERS[26:]
        return "".join(letters[int(i)] for i in rng.integers(len(letters), size=int(rng.integers(2, 7))))


def background(rng: np.random.Generator, side: int = SIZE) -> np.ndarray:
    """(S, S, 3) uint8: a gradient, soft blobs, stripes, checks or noise in random colours."""
    first, second = _random_colour(rng).astype(np.float32), _random_colour(rng).astype(np.float32)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    angle = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    kind = rng.integers(5)
    if kind == 0:
        mix = along - along.min()
        mix /= mix.max()
    elif kind == 1:
        coarse = rng.random((int(rng.integers(3, 9)),) * 2).astype(np.float32)
        mix = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    elif kind == 2:
        mix = 0.5 + 0.5 * np.sin(along * rng.uniform(10, 45))
    elif kind == 3:
        cells = rng.uniform(3, 9)
        mix = ((np.floor(x * cells) + np.floor(y * cells)) % 2).astype(np.float32)
    else:
        mix = np.full((side, side), 0.5, np.float32)
    strength = rng.uniform(0.3, 1.0)
    pixels = first + (second - first) * (0.5 + (mix[..., None] - 0.5) * strength)
    pixels += rng.normal(0, rng.uniform(0, 10), (side, side, 1)).astype(np.float32)
    return pixels.clip(0, 255).astype(np.uint8)


def _vary(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """A background from the bank turned, flipped and with its colour channels exchanged."""
    pixels = np.rot90(pixels, int(rng.integers(4)))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels[..., rng.permutation(3)])


def _random_colour(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, 3)


def _contrasting(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """A colour for print: 60 grey levels above or below nine tenths of the background's, or else black or white."""
    grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    low, high = np.percentile(grey, (5, 95))
    for _ in range(20):
        colour = _random_colour(rng)
        level = float(colour @ np.array([0.299, 0.587, 0.114]))
        if level < low - 60 or level > high + 60:
            return colour
    return np.array([0, 0, 0]) if low + high > 255 else np.array([255, 255, 255])


def blend(pixels: np.ndarray, rgb: np.ndarray, alpha: np.ndarray, x0: int, y0: int) -> None:
    """Draws a sprite into `pixels` with its upper left corner at (x0, y0)."""
    height, width = alpha.shape
    region = pixels[y0 : y0 + height, x0 : x0 + width]
    region[...] = (region + (rgb.astype(np.float32) - region) * alpha[..., None] + 0.5).astype(np.uint8)


def finish(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """The whole picture a little lighter or darker."""
    gain, shift = rng.uniform(0.9, 1.1), rng.uniform(-12, 12)
    return (pixels * np.float32(gain) + np.float32(shift)).clip(0, 255).astype(np.uint8)


class _Fonts:
    """Fonts for printed words, from small packages that hold nothing else."""

    def __init__(self) -> None:
        try:
            import font_caladea
            import font_fredoka_one
            import font_roboto
            import font_source_sans_pro
            import font_source_serif_pro
        except ImportError as error:
            raise UsageError(f"drawing printed words needs the package {error.name}", hint="pip install 'paligemma[world]'") from error
        wanted = (
            (font_roboto, "Roboto-Regular"), (font_roboto, "Roboto-Bold"), (font_roboto, "Roboto-Italic"), (font_roboto, "Roboto-Black"),
            (font_caladea, "Caladea-Regular"), (font_caladea, "Caladea-Bold"), (font_fredoka_one, "FredokaOne-Regular"),
            (font_source_sans_pro, "SourceSansPro-Semibold"), (font_source_serif_pro, "SourceSerifPro-Regular"),
            (font_source_serif_pro, "SourceSerifPro-Bold"),
        )  # fmt: skip
        self.paths = [str(Path(package.__path__[0]) / "files" / f"{name}.ttf") for package, name in wanted]
        self.cache: dict[tuple[str, int], ImageFont.FreeTypeFont] = {}
        self.advances: dict[ImageFont.FreeTypeFont, dict[str, float]] = {}

    def word(
        self, rng: np.random.Generator, text: str, angle: float, max_width: float, max_height: float, zoom: float = 1.0
    ) -> tuple[np.ndarray, list[tuple[float, float]]]:
        """One rotated word: its ink (h, w) in [0, 1], tight, and each letter's centre in it."""
        path = self.paths[int(rng.integers(len(self.paths)))]
        size = int(rng.integers(17, round(29 * zoom)))
        while True:
            font = self._font(path, size)
            patch, centres = self._render(font, text, angle)
            if (patch.shape[1] <= max_width and patch.shape[0] <= max_height) or size <= 13:
                return patch, centres
            size -= 1

    def _font(self, path: str, size: int) -> ImageFont.FreeTypeFont:
        if (path, size) not in self.cache:
            font = ImageFont.truetype(path, size)
            self.cache[path, size] = font
            self.advances[font] = {letter: font.getlength(letter) for letter in CHARACTERS}
        return self.cache[path, size]

    def _render(self, font: ImageFont.FreeTypeFont, text: str, angle: float) -> tuple[np.ndarray, list[tuple[float, float]]]:
        left, top, right, bottom = font.getbbox(text)
        width, height = int(right - left) + 8, int(bottom - top) + 8
        side = int(math.hypot(width, height)) + 4
        canvas = Image.new("L", (side, side), 0)
        origin_x, origin_y = (side - width) / 2 + 4 - left, (side - height) / 2 + 4 - top
        ImageDraw.Draw(canvas).text((origin_x, origin_y), text, fill=255, font=font)
        canvas = canvas.rotate(angle, Image.Resampling.BILINEAR)
        ink = np.asarray(canvas, np.float32) / 255
        rows, columns = np.flatnonzero((ink > 0.3).any(1)), np.flatnonzero((ink > 0.3).any(0))
        y0, x0 = rows[0], columns[0]
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        centres, pen = [], origin_x - side / 2
        y = origin_y + (top + bottom) / 2 - side / 2
        for letter in text:
            advance = self.advances[font][letter]
            x = pen + advance / 2
            pen += advance
            centres.append((x * cos + y * sin + side / 2 - x0, -x * sin + y * cos + side / 2 - y0))
        return ink[y0 : rows[-1] + 1, x0 : columns[-1] + 1], centres
