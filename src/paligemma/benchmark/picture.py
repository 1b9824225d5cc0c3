"""Charts and words as one PNG. Pillow only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..drawing import draw_text
from ..printable import printable
from . import words
from .charts import KINDS, Bar, Chart, charts
from .figures import Benchmark

WIDTH, MARGIN, LABEL, NOTE = 1200, 24, 200, 310
"""Of the picture, of its rim, of what stands before a bar and behind it."""
ROW, THICK, GAP = 32, 20, 18
INK, SOFT, BACK, LINE = (29, 28, 26), (110, 106, 100), (238, 236, 231), (163, 38, 15)


def draw(benchmark: Benchmark) -> Image.Image:
    """All charts, and below them the words."""
    found = charts(benchmark)
    picture = Image.new("RGB", (WIDTH, MARGIN + sum(map(_height, found))), "white")
    pen, top = ImageDraw.Draw(picture), MARGIN
    for chart in found:
        _draw(pen, top, chart)
        top += _height(chart)
    for model in benchmark.models:
        picture = draw_text(picture, words.headline(model), note="\n".join(words.said(model)))
    doubts = [f"Warning: {warning}" for warning in words.warnings(benchmark)]
    return draw_text(picture, "", note="\n".join([*doubts, benchmark.where, words.explained(benchmark)]))


def save(benchmark: Benchmark, path: Path) -> None:
    draw(benchmark).save(path, "PNG")


def _height(chart: Chart) -> int:
    return 2 * ROW + sum(ROW * (len(bars) + (len(chart.groups) > 1)) for _, bars in chart.groups) + GAP


def _draw(pen: ImageDraw.ImageDraw, top: int, chart: Chart) -> None:
    small, large = ImageFont.load_default(size=18), ImageFont.load_default(size=24)
    left, right = MARGIN + LABEL, WIDTH - MARGIN - NOTE
    pen.text((MARGIN, top), chart.title, fill=INK, font=large)
    _legend(pen, top, chart.kinds, small)
    first = y = top + ROW + ROW // 2
    for label, bars in chart.groups:
        if len(chart.groups) > 1:
            pen.text((MARGIN, y + ROW / 2), _ascii(label), fill=INK, font=small, anchor="lm")
            y += ROW
        for bar in bars:
            _bar(pen, y, bar, left, right, small)
            y += ROW
    if chart.mark is not None:
        at = left + (right - left) * chart.mark[0]
        pen.line((at, first, at, y), fill=LINE, width=2)
        pen.text((at, first - 4), chart.mark[1], fill=LINE, font=small, anchor="mb")


def _legend(pen: ImageDraw.ImageDraw, top: int, kinds: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    x = WIDTH - MARGIN - NOTE
    for kind in reversed(kinds):
        x -= pen.textlength(kind, font)
        pen.text((x, top + 12), kind, fill=SOFT, font=font, anchor="lm")
        pen.rectangle((x - 20, top + 6, x - 8, top + 18), fill=KINDS[kind])
        x -= 40


def _bar(
    pen: ImageDraw.ImageDraw, y: int, bar: Bar, left: int, right: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:  # fmt: skip
    middle, x = y + ROW / 2, float(left)
    pen.text((left - 12, middle), bar.label, fill=SOFT, font=font, anchor="rm")
    pen.rectangle((left, middle - THICK / 2, right, middle + THICK / 2), fill=BACK)
    for part in bar.parts:
        end = min(x + (right - left) * part.length, right)
        if end - x >= 1:
            pen.rectangle((x, middle - THICK / 2, end, middle + THICK / 2), fill=KINDS[part.kind])
        x = end
    pen.text((right + 12, middle), bar.note, fill=INK, font=font, anchor="lm")


def _ascii(text: str) -> str:
    """Pillow's own font has no other characters."""
    return printable(text).encode("ascii", "backslashreplace").decode()
