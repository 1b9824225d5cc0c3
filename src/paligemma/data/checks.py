"""What an annotation may say: text, names, boxes, polygons, run lengths. Everything else raises `Flaw` with what is wrong."""

from __future__ import annotations

import math
import re
import reprlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from ..errors import UsageError
from ..mask_formats import decompress
from ..tasks.detect import check_label, tidy
from .outlines import Outline, Polygons, Ring, RunLengths
from .pictures import Size
from .records import Corners, Flaw

OVER_THE_EDGE = 2.0
"""Pixels that a box may reach out of its picture, from rounding; it is cut there. More is a mistake."""
LONGEST_LABEL = 256
"""Characters. A name that is longer is a paragraph that stands in the wrong field."""
FARTHEST = 1e6
"""Pixels from the picture's corner that a polygon's may have."""
ROUND = 72
"""Corners of the polygon that stands for an ellipse."""

_CONTROL = re.compile(r"<(?:image|pad|eos|bos|unk|mask|unused\d+|start_of_turn|end_of_turn|loc\d{4}|seg\d{3})>")
_START, _END = re.compile(r"\s*<(?:image|bos)>"), re.compile(r"<(?:eos|pad)>\s*$")


def text(value: object, what: str, code: str = "field") -> str:
    """Text, or a number written out. `what` is for the message: "the question"."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not _finite([value]):
            raise Flaw(code, f"{what} must be text, found {_short(value)}")
        value = str(value)
    if not isinstance(value, str):
        raise Flaw(code, f"{what} is missing" if value is None else f"{what} must be text, found {_short(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Flaw("encoding", f"{what} holds bytes or half characters that are no UTF-8") from None
    return value


def prompt(value: object, what: str = "the prompt", *, empty: bool = False) -> str:
    """Text to ask. What the sequence puts before it by itself may not stand there again."""
    asked = text(value, what)
    if not empty and not asked.strip():
        raise Flaw("field", f"{what} is empty")
    if found := _START.match(asked):
        raise Flaw("field", f"{what} starts with {found[0].strip()}, which is put there by itself: leave it out")
    return asked


def answer(value: object, what: str = "the answer", *, empty: bool = False) -> str:
    """Text to be answered. Its end is marked by itself."""
    given = text(value, what, "answer")
    if not empty and not given.strip():
        raise Flaw("answer", f"{what} is empty")
    if found := _END.search(given):
        raise Flaw("answer", f"{what} ends with {found[0].strip()}, which is put there by itself: leave it out")
    return given


def label(value: object) -> str:
    """The name of a thing, with one blank between words."""
    name = tidy(text(value, "the label", "label"))
    if not name:
        raise Flaw("label", "the label is empty")
    if len(name) > LONGEST_LABEL:
        raise Flaw("label", f"the label has {len(name)} characters, at most {LONGEST_LABEL} are allowed: {name[:40]!r}...")
    if found := _CONTROL.search(name):
        raise Flaw("label", f"the label {name[:80]!r} holds {found[0]}, which is a token of its own")
    try:
        return check_label(name)
    except UsageError as error:
        raise Flaw("label", error.message) from error


def numbers(values: object, count: int, what: str, code: str) -> Sequence[float]:
    """`count` finite numbers."""
    if not isinstance(values, list | tuple) or len(values) != count or not all(map(_is_number, values)):
        raise Flaw(code, f"{what} must be {count} numbers, found {_short(values)}")
    if not _finite(values):
        raise Flaw(code, f"{what} is not finite: {_short(values)}")
    return values


def box(given: Corners, size: Size) -> Corners:
    """Left, top, right, bottom in pixels: checked, and cut at the edges of the picture where it is hardly out of it."""
    x0, y0, x1, y1 = given
    if not _finite(given):
        raise Flaw("box", f"the box is not finite: {_short(given)}")
    if x1 < x0 or y1 < y0:
        raise Flaw("box", f"the box is inside out: {_short(given)}")
    width, height = size
    out = max(-x0, -y0, x1 - width, y1 - height)
    if out > OVER_THE_EDGE:
        raise Flaw("box", f"the box reaches {out:g} pixels out of a picture of {width} x {height}: {_short(given)}")
    inside = given if out <= 0 else (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        raise Flaw("box", f"the box has no area: {_short(given)}")
    return inside


def polygons(rings: object, what: str = "the polygon") -> Polygons:
    """Rings as COCO has them, [x, y, x, y, ...] each, or as lists of points."""
    if not isinstance(rings, list | tuple) or not rings:
        raise Flaw("outline", f"{what} must be a list of rings, found {_short(rings)}")
    if isinstance(rings[0], int | float) or (isinstance(rings[0], list | tuple) and len(rings[0]) == 2 and _is_number(rings[0][0])):
        rings = [rings]  # one ring, not wrapped
    return Polygons(tuple(ring(one, what) for one in rings))


def ellipse(centre: Sequence[float], radii: Sequence[float], degrees: float = 0.0) -> Polygons:
    """The ellipse with these half axes, turned clockwise, as a polygon."""
    if not min(radii) > 0:
        raise Flaw("outline", "the circle has no radius")
    (x, y), (across, down), angles = centre, radii, (2 * math.pi * i / ROUND for i in range(ROUND))
    return turned([(x + across * math.cos(angle), y + down * math.sin(angle)) for angle in angles], centre, degrees)


def turned(corners: Iterable[Sequence[float]], about: Sequence[float], degrees: float) -> Polygons:
    """Corners turned clockwise on the screen."""
    (x, y), sine, cosine = about, math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return polygons([[[x + (a - x) * cosine - (b - y) * sine, y + (a - x) * sine + (b - y) * cosine] for a, b in corners]])


def ring(points: Any, what: str = "the polygon") -> Ring:
    """[x, y, x, y, ...] or [[x, y], ...] -> corners."""
    if not isinstance(points, list | tuple):
        raise Flaw("outline", f"{what} must be a list of points, found {_short(points)}")
    if points and isinstance(points[0], list | tuple):
        if any(not isinstance(point, list | tuple) or len(point) != 2 for point in points):
            raise Flaw("outline", f"{what} has a point that is no pair of numbers")
        points = [value for point in points for value in point]
    if len(points) % 2 or len(points) < 6:
        raise Flaw("outline", f"{what} needs three points or more, found {len(points) / 2:g}")
    try:
        packed = array("f", points)
    except (TypeError, OverflowError):
        raise Flaw("outline", f"{what} has a corner that is no number") from None
    corners = np.frombuffer(packed, np.float32).reshape(-1, 2)
    least, most = corners.min(0), corners.max(0)
    if not (least.min() >= -FARTHEST and most.max() <= FARTHEST):  # not a number is neither
        raise Flaw("outline", f"{what} has a corner that is not finite, or far away")
    if (least == most).any():
        raise Flaw("outline", f"{what} has no area")
    return packed.tobytes()


def run_lengths(rle: Mapping[str, Any], size: Size) -> RunLengths:
    """COCO's {"size": [height, width], "counts": text or numbers}."""
    height, width = numbers(rle.get("size"), 2, "the size of the run lengths", "outline")
    if (width, height) != size:
        raise Flaw("outline", f"the mask is {width:g} x {height:g} pixels, the picture {size[0]} x {size[1]}")
    counts = rle.get("counts")
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    try:
        plain = decompress(counts) if isinstance(counts, str) else counts
        if not isinstance(plain, list) or not all(type(count) is int and count >= 0 for count in plain):
            raise Flaw("outline", "the run lengths must be text or numbers that are not negative")
    except ValueError as error:
        raise Flaw("outline", f"broken run lengths: {error}") from error
    if sum(plain) != width * height:
        raise Flaw("outline", f"the run lengths add up to {sum(plain)} pixels, the picture has {width * height:g}")
    if not any(plain[1::2]):
        raise Flaw("outline", "the mask is empty")
    return RunLengths((size[1], size[0]), counts if isinstance(counts, str) else tuple(plain))


def outline(value: Any, size: Size) -> Outline | None:
    """COCO's `segmentation`: rings, run lengths, or nothing."""
    if not value or value == [[]]:
        return None
    return run_lengths(value, size) if isinstance(value, Mapping) else polygons(value)


def within(polygons: Polygons, size: Size) -> Polygons:
    """Polygons that lie in the picture, save for what boxes may reach out of it too."""
    width, height = size
    out = max(float(max(-ring.min(), (ring - (width, height)).max())) for ring in polygons.corners)
    if out > OVER_THE_EDGE:
        raise Flaw("outline", f"the polygon reaches {out:g} pixels out of a picture of {width} x {height}")
    return polygons


def around(outline: Outline, size: Size) -> Corners:
    """The box around an outline, as far as it lies in the picture."""
    width, height = size
    if isinstance(outline, Polygons):
        points = np.concatenate(outline.corners)
        (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
        return box((max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))), size)
    found = corners(outline.mask(width, height))
    if found is None:
        raise Flaw("outline", "the mask is empty")
    return found


def corners(mask: np.ndarray) -> Corners | None:
    """The box around the pixels of a mask (H, W), or None if it has none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)) if rows.size else None


def _finite(values: Iterable[float]) -> bool:
    try:
        return all(map(isfinite, values))
    except OverflowError:  # JSON can hold a whole number that is larger than every float
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
_REPR.maxlist = _REPR.maxdict = 6


def _short(value: object) -> str:
    """Bounded before it is written out: YAML can say a list of lists that grows without bounds in words."""
    return _REPR.repr(value)
