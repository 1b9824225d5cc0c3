"""The results of a search to look at: a page that needs no other file, or one picture. Boxes of known objects are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..drawing import MIN_SIDE, Shape, data_url, draw_shapes, draw_text
from ..errors import InputError
from ..image import open_image
from ..pages.templates import templates
from ..printable import printable
from .query import Hit

SIDE = 640
"""Longest side of a picture on the page, in pixels."""
CELL, GAP = MIN_SIDE, 16
"""Of the one picture: a cell's width, such that writing fits, and what is between cells."""
ENDINGS = (".html", ".png")


@dataclass(frozen=True)
class Shown:
    """A hit and its picture with boxes, or None where it cannot be opened any more."""

    hit: Hit
    picture: Image.Image | None

    @property
    def caption(self) -> tuple[str, str] | None:
        """A language and words."""
        captions = self.hit.entry.captions or {}
        language = "en" if "en" in captions else next(iter(captions), None)
        return None if language is None else (language, captions[language])

    @property
    def alt(self) -> str:
        """What the picture shows, as far as the index knows."""
        objects = self.hit.entry.objects or ()
        counts = {box.label: sum(one.label == box.label for one in objects) for box in objects}
        boxed = ", ".join(f"{count} {label}" for label, count in counts.items())
        said = self.caption[1] if self.caption else f"picture {self.hit.entry.path}"
        return f"{said}. Boxed: {boxed}" if boxed else said

    @property
    def numbers(self) -> list[tuple[str, str]]:
        """What it was found by."""
        hit = self.hit
        found = [(f"place by {name}", str(rank)) for name, rank in hit.ranks.items() if name != "listed"]
        found += [("similarity", f"{hit.similarity:.3f}")] if hit.similarity is not None else []
        found += [("probability", f"{hit.probability:.1%}")] if hit.probability is not None else []
        return found + ([("log-likelihood", f"{hit.likelihood:.2f}")] if hit.likelihood is not None else [])


def show(hits: Sequence[Hit], root: Path) -> list[Shown]:
    return [Shown(hit, _drawn(hit, root)) for hit in hits]


def page(hits: Sequence[Hit], root: Path, asked: str) -> str:
    """HTML. `asked`: what was searched for, in words."""
    shown = [
        (one, None if one.picture is None else data_url(one.picture, SIDE), (root / one.hit.entry.path).as_uri())
        for one in show(hits, root)
    ]
    return templates("index").get_template("gallery.html").render(asked=asked, shown=shown)


def sheet(hits: Sequence[Hit], root: Path, asked: str) -> Image.Image:
    """All results in rows and columns of one picture, RGB."""
    cells = [_cell(number, one) for number, one in enumerate(show(hits, root), 1)]
    across = max(1, min(len(cells), math.ceil(math.sqrt(len(cells)))))
    rows = [cells[start : start + across] for start in range(0, len(cells), across)]
    heights = [max(cell.height for cell in row) for row in rows]
    whole = Image.new("RGB", (across * (CELL + GAP) + GAP, sum(heights) + GAP * (len(rows) + 1)), "white")
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            whole.paste(cell, (GAP + column * (CELL + GAP), top))
        top += height + GAP
    return draw_text(whole, asked, title="searched for")


def write(hits: Sequence[Hit], root: Path, asked: str, out: Path) -> None:
    """To a file, by its ending: one of `ENDINGS`."""
    if out.suffix.lower() == ".html":
        out.write_text(page(hits, root, asked), "utf-8")
    else:
        sheet(hits, root, asked).save(out)


def _drawn(hit: Hit, root: Path) -> Image.Image | None:
    try:
        picture = open_image(root / hit.entry.path, name=printable(hit.entry.path))
    except InputError:
        return None
    if picture.size != (hit.entry.width, hit.entry.height):  # another picture by now: the boxes are not its own
        return picture
    return draw_shapes(
        picture, [Shape(box.label, box.xyxy, "" if box.score is None else f"{box.score:.0%}") for box in hit.entry.objects or ()]
    )


def _cell(number: int, one: Shown) -> Image.Image:
    picture = Image.new("RGB", (CELL, CELL * 3 // 4), "#888") if one.picture is None else one.picture
    picture = picture.resize((CELL, max(1, min(2 * CELL, round(picture.height * CELL / picture.width)))))
    words: list[Any] = [
        printable(one.hit.entry.path),
        *([one.caption[1]] if one.caption else []),
        *(["(cannot be opened)"] if one.picture is None else []),
    ]
    return draw_text(picture, "\n".join(words), title=str(number))
