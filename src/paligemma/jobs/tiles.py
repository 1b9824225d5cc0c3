"""Large pictures in tiles: what is too small to be seen in the whole picture is seen in a part of it. Places and words, no model.

    +-----+-----+           tiles overlap by half; the whole picture is looked at too.
    |  +--|--+  |           What is smaller than the overlap lies whole in one of the tiles;
    |  |  |  |  |           what is larger is seen in the whole picture, or joined from its pieces.
    +-----+-----+

Boxes are merged here and not by a library: of a box it matters which side of it a tile has cut, and non-maximum suppression as libraries
have it knows only boxes and scores: it keeps the piece of a thing that the model was surer of beside, or in place of, the thing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..results import Box, Detections, Reading

OVERLAP = 0.5
"""Of a tile's side, that it shares with its neighbour at least. `bench.tiles` compares it with less."""
MOST = 100
"""Tiles of a picture; where more would be needed they are larger."""
WORTH = 1.5
"""A picture is cut where its longer side is more than so many times that of what the model sees."""
EDGE = 0.02
"""A box that is nearer than this share of a tile's side to its edge is taken for cut."""
SAME, WITHIN, ALONG = 0.5, 0.7, 0.6
"""Two boxes are of one thing: intersection over union; over the smaller; and of two pieces, over union in the direction of the cut."""
LIKE = 0.25
"""A line was read before where so small a share of its letters differs."""
SURE = 0.5
"""What was read in a tile with a lower score is left out: there is nothing to read in most, and models read something all the same."""


@dataclass(frozen=True)
class Tile:
    """A part of a picture: left, top, right, bottom in pixels."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.x0, self.y0, self.x1, self.y1

    def meets(self, other: Tile) -> bool:
        return min(self.x1, other.x1) > max(self.x0, other.x0) and min(self.y1, other.y1) > max(self.y0, other.y0)


def tiles(width: int, height: int, side: int) -> list[Tile]:
    """Tiles of a picture for a model that sees `side` pixels: row by row, of one size, evenly spread. None where it is not worth it."""
    if max(width, height) <= WORTH * side:
        return []
    while len(found := _grid(width, height, side)) > MOST:
        side = math.ceil(1.1 * side)
    return found


def _grid(width: int, height: int, side: int) -> list[Tile]:
    columns, rows = _starts(width, side), _starts(height, side)
    return [Tile(x, y, min(x + side, width), min(y + side, height)) for y in rows for x in columns]


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    count = math.ceil((length - OVERLAP * side) / (side - OVERLAP * side))
    return [round(place * (length - side) / (count - 1)) for place in range(count)]


# Boxes


@dataclass(frozen=True)
class _Seen:
    """A box in the whole picture; whether a tile cut it at its left and right, at its top and bottom."""

    box: Box
    across: bool = False
    along: bool = False

    @property
    def cut(self) -> bool:
        return self.across or self.along


def merge_boxes(whole: Detections, parts: Sequence[tuple[Tile, Detections]], most: int | None = None) -> Detections:
    """What was found in the whole picture and in its tiles, each thing once, the surest first; the `most` surest, where that is given."""
    seen = [_Seen(box) for box in whole] + [_moved(box, tile, whole.width, whole.height) for tile, found in parts for box in found]
    merged: list[Box] = []
    for label in dict.fromkeys(one.box.label for one in seen):
        merged += _once([one for one in seen if one.box.label == label])
    every = [whole, *(found for _, found in parts)]
    return dataclasses.replace(
        whole,
        boxes=tuple(_surest(merged)[:most]),
        text=" ; ".join(filter(None, (found.text for found in every))),
        stop=next((found.stop for found in every if found.stop == "length"), whole.stop),
        leftover=" ".join(filter(None, (found.leftover for found in every))),
        invalid=sum(found.invalid for found in every),
    )


def _moved(box: Box, tile: Tile, width: int, height: int) -> _Seen:
    x, y = EDGE * (tile.x1 - tile.x0), EDGE * (tile.y1 - tile.y0)
    left, right = box.x0 < x and tile.x0 > 0, box.x1 > tile.x1 - tile.x0 - x and tile.x1 < width
    top, bottom = box.y0 < y and tile.y0 > 0, box.y1 > tile.y1 - tile.y0 - y and tile.y1 < height
    placed = dataclasses.replace(box, x0=box.x0 + tile.x0, y0=box.y0 + tile.y0, x1=box.x1 + tile.x0, y1=box.y1 + tile.y0)
    return _Seen(placed, left or right, top or bottom)


def _once(seen: Sequence[_Seen]) -> list[Box]:
    """Of one label. Whole boxes first; a piece counts only where it is not of one of these, and pieces of one thing are one."""
    kept: list[Box] = []
    for box in _surest(one.box for one in seen if not one.cut):
        if not any(box.iou(other) >= SAME or _inside(box, other) >= WITHIN for other in kept):
            kept.append(box)
    pieces = [one for one in seen if one.cut and not any(_inside(one.box, other) >= SAME for other in kept)]
    for box in _surest(_joined(pieces)):
        if not any(box.iou(other) >= SAME or _inside(box, other) >= WITHIN for other in kept):
            kept.append(box)
    return kept


def _surest(boxes: Iterator[Box] | Sequence[Box]) -> list[Box]:
    return sorted(boxes, key=lambda box: -(box.score or 0.0))


def _inside(a: Box, b: Box) -> float:
    """The intersection, as a share of the smaller one."""
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    smaller = min(a.area, b.area)
    return max(width, 0.0) * max(height, 0.0) / smaller if smaller else 0.0


def _joined(pieces: Sequence[_Seen]) -> list[Box]:
    """Pieces that continue each other, as the box around them, with the score of the surest."""
    groups: list[list[_Seen]] = []
    for piece in pieces:
        touching = [group for group in groups if any(_continue(piece, other) for other in group)]
        groups = [group for group in groups if group not in touching] + [[piece, *(one for group in touching for one in group)]]
    return [_around([one.box for one in group]) for group in groups]


def _continue(a: _Seen, b: _Seen) -> bool:
    if _inside(a.box, b.box) <= 0:
        return False
    across = a.across and b.across and _line_iou(a.box.y0, a.box.y1, b.box.y0, b.box.y1) >= ALONG
    along = a.along and b.along and _line_iou(a.box.x0, a.box.x1, b.box.x0, b.box.x1) >= ALONG
    return across or along or a.box.iou(b.box) >= SAME


def _line_iou(a0: float, a1: float, b0: float, b1: float) -> float:
    union = max(a1, b1) - min(a0, b0)
    return max(min(a1, b1) - max(a0, b0), 0.0) / union if union else 0.0


def _around(boxes: Sequence[Box]) -> Box:
    surest = _surest(boxes)[0]
    x0, y0 = min(box.x0 for box in boxes), min(box.y0 for box in boxes)
    return dataclasses.replace(surest, x0=x0, y0=y0, x1=max(box.x1 for box in boxes), y1=max(box.y1 for box in boxes))


# Words


def merge_readings(whole: Reading, parts: Sequence[tuple[Tile, Reading]]) -> Reading:
    """The lines of all tiles, row by row of tiles. A line is left out where a tile that meets its own has it too, whole or longer: it was
    seen twice, or cut. So a word that stands twice within two neighbours is read once. What the whole picture seemed to say is left out,
    unless the tiles say nothing: letters that are small in it are guessed. The score is that of the least sure tile that counts.
    """
    parts = [(tile, reading) for tile, reading in parts if reading.score is None or reading.score >= SURE]
    lines = [(tile, line.strip()) for tile, reading in parts for line in reading.text.split("\n") if line.strip()]
    kept: list[int] = []
    for place in sorted(range(len(lines)), key=lambda place: -len(lines[place][1])):
        tile, line = lines[place]
        others = (lines[other] for other in kept)
        if not any(other.meets(tile) and other != tile and _misfit(line, longer) <= LIKE * len(line) for other, longer in others):
            kept.append(place)
    if not kept:
        return whole
    read = [reading for _, reading in parts if reading.text.strip()]
    scores = [reading.score for reading in read if reading.score is not None]
    stop = next((reading.stop for _, reading in parts if reading.stop == "length"), whole.stop)
    text = "\n".join(lines[place][1] for place in sorted(kept))
    return dataclasses.replace(whole, text=text, score=min(scores) if scores else None, stop=stop)


def _misfit(piece: str, line: str) -> int:
    """Letters that must change to make `piece` a part of `line`: edit distance to the part that fits best."""
    row = [0] * (len(line) + 1)
    for count, letter in enumerate(piece, 1):
        before, row[0] = row[0], count
        for place, other in enumerate(line, 1):
            before, row[place] = row[place], min(before + (letter != other), row[place] + 1, row[place - 1] + 1)
    return min(row)
