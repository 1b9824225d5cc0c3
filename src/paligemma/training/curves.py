"""A run's log as a picture: loss, held-out loss and learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, PANEL, MARGIN = 900, 240, 70
INK, GRID = (40, 40, 40), (225, 225, 225)
PANELS: tuple[tuple[str, dict[str, tuple[int, int, int]]], ...] = (
    ("loss", {"loss": (70, 110, 200), "held_out_loss": (210, 90, 40)}),
    ("share of right tokens", {"right": (70, 110, 200), "held_out_right": (210, 90, 40)}),
    ("learning rate", {"rate": (110, 110, 110)}),
)
"""What is drawn where: title, and the log's names with their colours."""
TICKS = 4


def draw_curves(log: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write a PNG. Values that are no numbers leave a gap; a log without entries gives empty panels."""
    picture = Image.new("RGB", (WIDTH, PANEL * len(PANELS)), "white")
    draw = ImageDraw.Draw(picture)
    last = max((entry["step"] for entry in log), default=1)
    for number, (title, curves) in enumerate(PANELS):
        panel(draw, number * PANEL, title, {name: points(log, name) for name in curves}, curves, last)
    picture.save(path, "PNG")
    return path


def points(log: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(step, value) of the entries that have a number by that name."""
    return [(entry["step"], entry[name]) for entry in log if isinstance(entry.get(name), float | int) and math.isfinite(entry[name])]


def panel(
    draw: ImageDraw.ImageDraw, top: int, title: str, curves: Mapping[str, list[tuple[int, float]]],
    colours: Mapping[str, tuple[int, int, int]], last: int,
) -> None:  # fmt: skip
    """Draw lines by name into the panel that begins at row `top`; the axis of steps ends at `last`."""
    font = ImageFont.load_default(size=13)
    values = [value for points in curves.values() for _, value in points] or [0.0, 1.0]
    low, high = min(0.0, *values), max(values)
    high = high if high > low else low + 1
    left, right, upper, lower = MARGIN, WIDTH - 20, top + 34, top + PANEL - 30

    def place(step: float, value: float) -> tuple[float, float]:
        return left + (right - left) * step / max(last, 1), lower - (lower - upper) * (value - low) / (high - low)

    for tick in range(TICKS + 1):
        value = low + (high - low) * tick / TICKS
        y = place(0, value)[1]
        draw.line((left, y, right, y), fill=GRID)
        draw.text((left - 8, y), f"{value:.3g}", fill=INK, font=font, anchor="rm")
        step = last * tick // TICKS
        draw.text((place(step, 0)[0], lower + 8), f"{step:,}", fill=INK, font=font, anchor="mt")
    draw.text((left, top + 8), title, fill=INK, font=ImageFont.load_default(size=15))
    x = right
    for name, points in reversed(list(curves.items())):
        label = name.replace("_", " ").replace("held out", "held-out")
        draw.text((x, top + 8), label, fill=colours[name], font=font, anchor="ra")
        x -= draw.textlength(label, font=font) + 20
        line = [place(*point) for point in points]
        if len(line) > 1:
            draw.line(line, fill=colours[name], width=2)
        for px, py in line if len(line) <= 40 else []:
            draw.ellipse((px - 3, py - 3, px + 3, py + 3), fill=colours[name])
