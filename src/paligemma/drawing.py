"""Pictures with boxes, masks and captions drawn on them. Pillow only; knows coordinates and strings, no results and no models.

Fonts: Pillow's own covers ASCII. For other characters a font that has them is looked for among those installed (system fonts, and font
packages of the `fonts_ttf` entry point). If none has them, accents are dropped and what remains is written as its code, such as U+4E2D;
where titles only repeat what is said elsewhere, above heat maps, they are left out instead.
"""

from __future__ import annotations

import base64
import functools
import io
import itertools
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

MIN_SIDE = 512
"""A picture whose longer side is shorter than this is enlarged before anything is drawn on it."""

MAX_CODES = 4
"""More characters in a row that no font has are not written one by one."""

PANEL = 300
"""Longest side, in pixels, of each picture where several stand side by side."""

PANELS_ACROSS = 4

HEAT = ((26, 0, 70), (122, 20, 110), (205, 60, 75), (245, 140, 40), (250, 245, 120))
"""From cold to hot, each brighter than the one before, so that the scale also works without colour."""

FILL = 70
"""Opacity of masks, of 255."""

COLOURS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (51, 34, 136), (170, 68, 153), (153, 153, 51), (136, 34, 85), (17, 119, 51), (221, 221, 221), (102, 153, 204),
)  # fmt: skip
"""Colours that people with colour-blindness can tell apart: seven of Okabe and Ito (2008), then some of Tol's "muted" scheme (2021)."""

_FONT_FILES = (
    "NotoSans-Regular.ttf", "DejaVuSans.ttf", "Arial.ttf", "arial.ttf", "segoeui.ttf", "Arial Unicode.ttf", "ArialUnicode.ttf",
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-microhei.ttc", "msyh.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc",
    "NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf",
    "NotoSansBengali-Regular.ttf", "NotoSansTelugu-Regular.ttf", "Nirmala.ttf", "Tahoma.ttf",
)  # fmt: skip
"""Looked for in this order, in the folders where the operating system keeps fonts."""

Colour: TypeAlias = tuple[int, int, int]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Shape:
    """Something to draw: its label, box (left, top, right, bottom) in pixels, a note such as "97%", and its mask (H, W) or None."""

    label: str
    box: tuple[float, float, float, float]
    note: str = ""
    mask: np.ndarray | None = None


def draw_shapes(image: Image.Image, shapes: Sequence[Shape]) -> Image.Image:
    """A new RGB picture with masks (translucent, outlined), boxes and labels. One colour for each different label."""
    picture, scale = _canvas(image)
    unit = _unit(picture)
    colours = dict(zip(dict.fromkeys(shape.label for shape in shapes), _cycle(COLOURS, len(shapes)), strict=False))
    for shape in shapes:
        if shape.mask is not None:
            _paint_mask(picture, shape.mask, colours[shape.label], unit)
    draw = ImageDraw.Draw(picture)
    # Large boxes first: a small one inside stays visible.
    placed = sorted(shapes, key=lambda s: -(s.box[2] - s.box[0]) * (s.box[3] - s.box[1]))
    boxes = {id(shape): _inside(shape.box, scale, picture.size, unit) for shape in placed}
    for shape in placed:
        _outline(draw, boxes[id(shape)], colours[shape.label], unit, faint=shape.mask is not None)
    taken: list[tuple[float, float, float, float]] = []
    for shape in reversed(placed):
        words = "  ".join(part for part in (_one_line(shape.label), shape.note) if part)
        if words:
            taken.append(_tag(picture, words, boxes[id(shape)], colours[shape.label], unit, boxes.values(), taken))
    return picture


@dataclass(frozen=True)
class HeatMap:
    """What a panel shows: its title, how hot each patch is (rows, columns), a note such as "97%", and a box in pixels or None."""

    title: str
    heat: Sequence[Sequence[float]]
    note: str = ""
    box: tuple[float, float, float, float] | None = None


def draw_heat(image: Image.Image, maps: Sequence[HeatMap], *, title: str = "", legend: str = "", note: str = "") -> Image.Image:
    """A new RGB page: the picture, then for each map a paler copy under its heat, with a ring about its hottest patch.

    `title` stands above, below a scale with its `legend` (each map has a scale of its own), and `note`. Titles that no font here can write
    are left out.
    """
    width = max(1, min(PANEL, round(PANEL * image.width / image.height)))
    height, unit = max(1, round(width * image.height / image.width)), 2
    small = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    title, *given = (words if _writable(words) else "" for words in (title, *(one.title for one in maps)))
    titles = ["", *("  ".join(filter(None, (words, one.note))) for words, one in zip(given, maps, strict=True))]
    panels = list(zip(titles, [small, *(_heated(small, one, width / image.width, unit) for one in maps)], strict=True))
    line, margin = 12 * unit, 5 * unit
    columns = min(len(panels), PANELS_ACROSS)
    rows = -(-len(panels) // columns)
    page_width = max(columns * (width + margin) + margin, MIN_SIDE)
    head, title = _fitting(title, 9 * unit)
    heads = _wrap(title, head, page_width - 2 * margin) if title.strip() else []
    feet = [one for one in (legend, note) if one]
    top, cell = margin + line * len(heads), height + line + margin
    page = Image.new("RGB", (page_width, top + rows * cell + line * len(feet) + margin), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for number, words in enumerate(heads):
        draw.text((margin, margin + line * number), words, fill=(20, 20, 20), font=head)
    for number, (words, panel) in enumerate(panels):
        x, y = margin + number % columns * (width + margin), top + number // columns * cell
        page.paste(panel, (x, y + line))
        font, words = _fitting(_one_line(words), 8 * unit)
        draw.text((x, y + line / 2), _shorten(words, font, width), fill=(20, 20, 20), font=font, anchor="lm")
    for number, words in enumerate(feet):
        x, y = margin, top + rows * cell + line * number + line / 2
        if words is legend:
            scale = Image.fromarray(_colours(np.linspace(0, 1, 40 * unit)[None].repeat(5 * unit, 0)))
            page.paste(scale, (margin, round(y - scale.height / 2)))
            x += scale.width + margin
        font, words = _fitting(words, 7 * unit)
        draw.text((x, y), words, fill=(90, 90, 90), font=font, anchor="lm")
    return page


def draw_text(image: Image.Image, text: str, *, title: str = "", note: str = "") -> Image.Image:
    """A new RGB picture with a bar under it that holds `title` (small), `text` and `note`, wrapped to the width of the picture."""
    picture, _ = _canvas(image)
    unit = _unit(picture)
    margin, width = 5 * unit, max(picture.width, MIN_SIDE)
    rows: list[tuple[str, Font, Colour]] = []
    for words, size, colour in ((title, 7 * unit, (120, 120, 120)), (text, 10 * unit, (20, 20, 20)), (note, 7 * unit, (120, 120, 120))):
        for line in words.splitlines() if words.strip() else ():
            font, line = _fitting(line, size)
            rows += [(part, font, colour) for part in _wrap(line, font, width - 2 * margin)]
    heights = [round(1.4 * _line_height(font)) for _, font, _ in rows]
    page = Image.new("RGB", (width, picture.height + sum(heights) + 2 * margin), (255, 255, 255))
    page.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(page)
    y = picture.height + margin
    for (words, font, colour), height in zip(rows, heights, strict=True):
        draw.text((margin, y + height / 2), words, fill=colour, font=font, anchor="lm")
        y += height
    return page


def data_url(image: Image.Image, side: int | None = None) -> str:
    """A picture as a `data:` URL (WebP), no longer than `side`, so that a page can hold many."""
    if side is not None:
        image = image.copy()
        image.thumbnail((side, side))
    written = io.BytesIO()
    image.save(written, "webp", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"


def _heated(picture: Image.Image, one: HeatMap, scale: float, unit: int) -> Image.Image:
    """A paler copy under its heat, which hides the more the hotter it is. `scale`: how much larger it is than what `box` belongs to."""
    heat = np.asarray(one.heat, np.float32)
    least, most = float(heat.min()), float(heat.max())
    level = (heat - least) / (most - least) if most > least else np.zeros_like(heat)
    smooth = np.asarray(Image.fromarray(level).resize(picture.size, Image.Resampling.BICUBIC)).clip(0, 1)[..., None]
    pale = np.asarray(Image.blend(picture.convert("L").convert("RGB"), picture, 0.6), np.float32)
    opacity = 0.1 + 0.6 * smooth
    heated = Image.fromarray((pale * (1 - opacity) + _colours(smooth[..., 0]) * opacity).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(heated)
    if one.box is not None:
        _outline(draw, _inside(one.box, scale, heated.size, unit), (255, 255, 255), unit, faint=False)
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    x, y = (column + 0.5) * heated.width / heat.shape[1], (row + 0.5) * heated.height / heat.shape[0]
    for radius, ink, breadth in ((5 * unit, (0, 0, 0), 2 * unit), (5 * unit - unit // 2, (255, 255, 255), unit)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=ink, width=breadth)
    return heated


def _colours(level: np.ndarray) -> np.ndarray:
    """Heat in [0, 1] -> uint8 (..., 3)."""
    places = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(level, places, channel) for channel in zip(*HEAT, strict=True)], -1).astype(np.uint8)


def _canvas(image: Image.Image) -> tuple[Image.Image, float]:
    """A copy to draw on, and how much larger it is than the original."""
    picture = image.convert("RGB")
    scale = max(1.0, MIN_SIDE / max(picture.size))
    if scale > 1:
        picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.BICUBIC)
    return (picture if picture is not image else picture.copy()), scale


def _unit(picture: Image.Image) -> int:
    """The length, in pixels, that lines, letters and margins are multiples of."""
    return max(2, round(max(picture.size) / 400))


def _cycle(colours: Sequence[Colour], count: int) -> Iterable[Colour]:
    return (colours[i % len(colours)] for i in range(count))


def _inside(box: Sequence[float], scale: float, size: tuple[int, int], unit: int) -> tuple[float, float, float, float]:
    """The box on the canvas, with all of its line in the picture."""
    x0, y0, x1, y1 = (v * scale for v in box)
    limit_x, limit_y = size[0] - 1, size[1] - 1
    x0, y0 = min(max(x0, 0), limit_x - 1), min(max(y0, 0), limit_y - 1)
    return x0, y0, min(max(x1, x0 + 1), limit_x), min(max(y1, y0 + 1), limit_y)


def _outline(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: Colour, unit: int, *, faint: bool) -> None:
    """A line inside the edge of the box, between two thin ones of contrasting brightness so that it shows on any background."""
    x0, y0, x1, y1 = map(round, box)
    width = 1 if faint else unit + 1
    for offset, breadth, ink in ((0, 1, _contrast(colour)), (1 + width, 1, _contrast(colour)), (1, width, colour)):
        if x1 - x0 > 2 * offset and y1 - y0 > 2 * offset:
            draw.rectangle((x0 + offset, y0 + offset, x1 - offset, y1 - offset), outline=ink, width=breadth)


def _paint_mask(picture: Image.Image, mask: np.ndarray, colour: Colour, unit: int) -> None:
    """Fills the mask with a translucent colour and draws its edge, the colour outside and a thin line of contrast inside it."""
    whole = Image.fromarray(np.asarray(mask, bool).astype(np.uint8) * 255)
    whole = np.asarray(whole.resize(picture.size, Image.Resampling.BILINEAR)) >= 128
    picture.paste(colour, mask=Image.fromarray(whole.astype(np.uint8) * FILL))
    # The frame of background makes the edge of the picture an edge of the mask.
    inner = Image.fromarray(np.pad(whole, 1).astype(np.uint8) * 255)
    rims = []
    for _ in range(unit + 2):
        inner = inner.filter(ImageFilter.MinFilter(3))
        rims.append(Image.fromarray((whole & (np.asarray(inner)[1:-1, 1:-1] == 0)).astype(np.uint8) * 255))
    picture.paste(_contrast(colour), mask=rims[-1])
    picture.paste(colour, mask=rims[-2])


def _tag(
    picture: Image.Image,
    words: str,
    box: tuple[float, float, float, float],
    colour: Colour,
    unit: int,
    boxes: Collection[tuple[float, float, float, float]],
    taken: Collection[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Writes a label at the box, wholly in the picture, off other labels and boxes where there is room. Returns the place it takes."""
    draw, canvas = ImageDraw.Draw(picture), picture.size
    font, words = _fitting(words, 9 * unit)
    pad = 2 * unit
    words = _shorten(words, font, 0.7 * canvas[0])
    width, height = draw.textlength(words, font) + 2 * pad, _line_height(font) + pad
    x0, y0, x1, y1 = box
    edges = [(x, y) for y in (y0 - height, y1) for x in (x0, x1 - width)]
    beside, within = [(x1, y0), (x0 - width, y0)], [(x0, y0), (x0, y1 - height)]
    # Above and below, a label may be pushed sideways into the picture; anywhere else it must fit where it is.
    wishes = [(_pushed(x, width, canvas[0]), y) for x, y in edges] + beside + within
    places = [(x, y, x + width, y + height) for x, y in wishes if x == _pushed(x, width, canvas[0]) and y == _pushed(y, height, canvas[1])]
    x, y = _pushed(x0, width, canvas[0]), _pushed(y0, height, canvas[1])
    places = places or [(x, y, x + width, y + height)]
    # A label is worse to cover than what a box holds. `min` keeps the first of equals.
    place = min(places, key=lambda p: sum(9 * _common(p, other) for other in taken) + sum(_common(p, other) for other in boxes))
    draw.rounded_rectangle(place, radius=unit, fill=colour, outline=_contrast(colour))
    draw.text((place[0] + pad, (place[1] + place[3]) / 2), words, fill=_contrast(colour), font=font, anchor="lm")
    return place


def _pushed(start: float, length: float, limit: int) -> float:
    """The place nearest to `start` from which `length` fits between 0 and `limit`."""
    return max(0, min(start, limit - 1 - length))


def _common(a: Sequence[float], b: Sequence[float]) -> float:
    """Area of the intersection."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def _contrast(colour: Colour) -> Colour:
    """Black or white, whichever is easier to read on it (relative luminance of WCAG 2.1)."""
    r, g, b = ((v / 255) ** 2.2 for v in colour)
    return (0, 0, 0) if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 else (255, 255, 255)


# Fonts


def _fitting(text: str, size: int) -> tuple[Font, str]:
    """A font that has every character of `text`, and the text; or the best font there is, and the text without what it lacks."""
    best, text, lacking = _best_font("".join(c if unicodedata.category(c) not in ("Cc", "Cs") else _code(c) for c in text), size)
    runs = ((foreign, "".join(run)) for foreign, run in itertools.groupby(text, lambda c: c in lacking))
    return best, "".join(_named(run) if foreign else run for foreign, run in runs)


def _writable(text: str) -> bool:
    """Whether some font has every character of `text`, accents apart."""
    return not _best_font(text, 16)[2]


def _best_font(text: str, size: int) -> tuple[Font, str, set[str]]:
    """The font that has most of `text`; the text, without those accents that it lacks; and the characters that it lacks still."""
    best, lacking = _default_font(size), _lacking(_default_font(size), text)
    for name in _font_files() if lacking else ():
        font = _open_font(name, size)
        less = _lacking(font, text) if font else lacking
        if font and len(less) < len(lacking):
            best, lacking = font, less
        if not lacking:
            break
    if lacking:
        text = "".join(c if c not in lacking or _lacking(best, _bare(c)) else _bare(c) for c in text)
        lacking = _lacking(best, text)
    return best, text, lacking


def _bare(c: str) -> str:
    """Without its accents."""
    return "".join(part for part in unicodedata.normalize("NFKD", c) if not unicodedata.combining(part))


def _named(run: str) -> str:
    return "".join(map(_code, run)) if len(run) <= MAX_CODES else f"[{len(run)} characters that no font here has]"


def _code(c: str) -> str:
    return f"U+{ord(c):04X}"


def _lacking(font: Font, text: str) -> set[str]:
    return {c for c in set(text) if not c.isspace() and not _has_glyph(font, c)}


@functools.lru_cache(maxsize=8192)
def _has_glyph(font: Font, c: str) -> bool:
    """Pillow does not say which characters a font has, so the picture of `c` is compared with that of a character no font has."""
    return _glyph(font, c) != _glyph(font, "\U0010fffe")


def _glyph(font: Font, c: str) -> tuple[tuple[int, int], bytes]:
    left, top, right, bottom = font.getbbox(c)
    picture = Image.new("L", (max(1, round(right - left)), max(1, round(bottom - top))))
    ImageDraw.Draw(picture).text((-left, -top), c, fill=255, font=font)
    return picture.size, picture.tobytes()


@functools.lru_cache(maxsize=64)
def _default_font(size: int) -> Font:
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=256)
def _open_font(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@functools.cache
def _font_files() -> tuple[str, ...]:
    """Names that Pillow looks up in the system's font folders, and paths of the regular fonts in installed font packages."""
    from importlib import metadata

    packages = [entry.load() for entry in metadata.entry_points(group="fonts_ttf")]
    return (*_FONT_FILES, *(path for files in packages for path in files.values() if path.endswith("-Regular.ttf")))


def _line_height(font: Font) -> float:
    _, top, _, bottom = font.getbbox("Ágpß|")
    return bottom - top


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _shorten(text: str, font: Font, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    keep = next((n for n in range(min(len(text), 400), 0, -1) if font.getlength(text[:n] + "...") <= width), 0)
    return text[:keep] + "..."


def _wrap(text: str, font: Font, width: float) -> list[str]:
    """Lines no wider than `width`; a word that is too wide, or a script without spaces, is broken between characters."""
    lines, line = [], ""
    for word in text.split(" "):
        candidate = f"{line} {word}" if line else word
        if font.getlength(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        line = ""
        for c in word:
            if line and font.getlength(line + c) > width:
                lines.append(line)
                line = ""
            line += c
    return [*lines, line]
