"""Two trainings in one picture: what they make of the held-out examples, update by update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from ..training.curves import PANEL, WIDTH, panel, points

PANELS = {"held_out_loss": "held-out loss", "held_out_right": "held-out share of right tokens"}
"""What of a log is drawn, and its title."""
COLOURS = ((210, 90, 40), (70, 110, 200))


def draw_compared(logs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> Path:
    """Write a PNG of two panels with a line for each of two logs, by name. Entries without held-out values are passed over."""
    picture = Image.new("RGB", (WIDTH, PANEL * len(PANELS)), "white")
    draw = ImageDraw.Draw(picture)
    last = max((entry["step"] for log in logs.values() for entry in log), default=1)
    colours = dict(zip(logs, COLOURS, strict=True))
    for number, (key, title) in enumerate(PANELS.items()):
        curves = {name: points(log, key) for name, log in logs.items()}
        panel(draw, number * PANEL, title, curves, colours, last)
    picture.save(path, "PNG")
    return path
