"""LabelMe: a JSON file of shapes for each picture. Rectangles are boxes; polygons, circles and masks are outlines too.

Shapes of one label and `group_id` are parts of one thing. Points and lines cover nothing: they are counted and not used. A shape's
`description` is the sentence that means it, for `refer` and `describe_box`. A picture that is not at `imagePath` is taken from the JSON
file, if that carries it (`imageData`).
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..mask_formats import compress, run_lengths
from ..printable import printable
from . import checks
from .collector import PLACES, Collector
from .layout import Found, Part, files_of, split_folders, sub_folders
from .outlines import Outline, Polygons, Ring, RunLengths
from .pictures import Size
from .reading import BOM, decoded, glance, parsed_json
from .records import Corners, Flaw, Thing

name = "labelme"
description = "LabelMe JSON: rectangles, polygons, circles, masks"
recognised = "a .json file with shapes and imagePath, or a folder of such files"
tasks: tuple[str, ...] = PLACES

AREAS = ("rectangle", "polygon", "circle", "mask", "oriented_rectangle")


def find(path: Path) -> Found | None:
    if path.is_file():
        return Found((Part((path,)),), f"{path.name} has shapes") if _is(path) else None
    for folder in (path, *sub_folders(path)[:20]):
        if folder in split_folders(path).values():
            continue
        if any(map(_is, files_of(folder, ".json")[:3])):
            return Found((Part((folder,)),), f"{_relative(folder, path)}*.json have shapes")
    parts = [Part((folder,), None, split) for split, folder in split_folders(path).items() if any(map(_is, files_of(folder, ".json")[:3]))]
    return Found(tuple(parts), f"{parts[0].files[0].name}/*.json have shapes") if parts else None


def _relative(folder: Path, top: Path) -> str:
    return "" if folder == top else printable(f"{folder.relative_to(top)}/")


def _is(path: Path) -> bool:
    seen = glance(path) if path.suffix.lower() == ".json" else None
    return seen is not None and "shapes" in seen.keys and bool({"imagePath", "version", "flags"} & seen.keys)


def read(part: Part, to: Collector) -> None:
    """A file that is no JSON is a fault of its own. Raises `InputError` where there is none."""
    place = part.files[0]
    files = files_of(place, ".json") if place.is_dir() else [place]
    if not files:
        raise InputError(f"{to.place(place)}: there are no .json files", code="no_records")
    for file in files:
        id = os.path.relpath(file.with_suffix(""), to.root)
        with to.record(to.place(file), id, file.stem):
            _File(to, file, id).add(parsed_json(decoded(to.bytes_of(file).removeprefix(BOM))), part)
    for label in sorted({thing.label for record in to.records for thing in record.things}):
        to.classes[label] = None


class _File:
    """One JSON file."""

    def __init__(self, to: Collector, file: Path, id: str):
        self.to, self.file, self.id = to, file, id

    def add(self, data: Any, part: Part) -> None:
        shapes = data.get("shapes") if isinstance(data, Mapping) else None
        if not isinstance(shapes, list):
            raise Flaw("field", "there is no list of shapes")
        picture = self.picture(data)
        size = self.to.pictures.size(picture, (data.get("imageWidth"), data.get("imageHeight")))
        parts: dict[Any, list[tuple[str, Corners, Outline | None, str]]] = {}
        for number, shape in enumerate(shapes, 1):
            try:
                if (read := self.shape(shape, size)) is not None:
                    group = shape.get("group_id")
                    parts.setdefault(number if group is None else (read[0], str(group)), []).append(read)
            except Flaw as flaw:
                raise Flaw(flaw.code, f"shape {number}: {flaw.detail}") from flaw
        things = [_joined([(label, box, outline) for label, box, outline, _ in group], size) for group in parts.values()]
        texts = [tuple(dict.fromkeys(text for *_, text in group if text)) for group in parts.values()]
        self.to.things(self.id, self.to.place(self.file), picture, size, things, texts=texts, about=part.about)

    def picture(self, data: Mapping[str, Any]) -> Path:
        try:
            return self.to.picture(data.get("imagePath"), self.file.parent)
        except Flaw:
            if not data.get("imageData"):
                raise
        path = self.to.pictures.unpack(_base64(data["imageData"], "imageData", "picture"))
        self.to.trace(self.to.root / path.name)
        self.to.notes[f"pictures are not at their imagePath and were taken from the JSON files, to {self.to.pictures.scratch}"] += 1
        return path

    def shape(self, shape: Any, size: Size) -> tuple[str, Corners, Outline | None, str] | None:
        """Label, box, outline and description; None for what has no area."""
        if not isinstance(shape, Mapping):
            raise Flaw("field", f"a shape must be an object, found {type(shape).__name__}")
        kind = shape.get("shape_type") or "polygon"
        if kind not in AREAS:
            self.to.notes[f"shapes are a {kind:.20} and cover nothing, so were not used"] += 1
            return None
        label = checks.label(shape.get("label"))
        text = checks.text(shape.get("description") or "", "the description").strip()
        points = shape.get("points")
        if not isinstance(points, list):
            raise Flaw("field", "there is no list of points")
        if kind == "polygon" or (kind == "oriented_rectangle" and len(points) > 2):
            outline = checks.within(checks.polygons([points]), size)
            return label, checks.around(outline, size), outline, text
        if len(points) not in (2, 4):
            raise Flaw("box", f"a {kind} needs two points, found {len(points)}")
        x, y = zip(*(checks.numbers(point, 2, "a point", "box") for point in points), strict=True)
        if kind == "circle":
            outline = checks.ellipse((x[0], y[0]), 2 * [math.dist((x[0], y[0]), (x[1], y[1]))])
            return label, checks.around(outline, size), outline, text
        box = self.to.box((min(x), min(y), max(x), max(y)), size) if kind != "mask" else None
        if box:
            return label, box, None, text
        outline = _mask(shape.get("mask"), int(min(x)), int(min(y)), size)
        return label, checks.around(outline, size), outline, text


def _mask(encoded: object, left: int, top: int, size: Size) -> RunLengths:
    """A PNG of what a box holds -> run lengths of the whole picture."""
    data = _base64(encoded, "the mask", "outline")
    width, height = size
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if left < 0 or top < 0 or left + picture.width > width or top + picture.height > height:
                raise Flaw("outline", f"the mask reaches out of a picture of {width} x {height}")
            inner = np.asarray(picture.convert("L")) > 0
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise Flaw("outline", f"the mask is no PNG: {type(error).__name__}") from error
    whole = np.zeros((height, width), bool)
    whole[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    if not whole.any():
        raise Flaw("outline", "the mask is empty")
    return RunLengths((height, width), compress(run_lengths(whole)))


def _base64(value: object, what: str, code: str) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Flaw(code, f"{what} is no base64") from error


def _joined(parts: list[tuple[str, Corners, Outline | None]], size: Size) -> Thing:
    """Shapes of one group -> one thing: the box around them, and their outlines together if all have one."""
    label = parts[0][0]
    lefts, tops, rights, bottoms = zip(*(box for _, box, _ in parts), strict=True)
    box = (min(lefts), min(tops), max(rights), max(bottoms))
    outlines = [outline for _, _, outline in parts]
    if len(outlines) == 1:
        return Thing(label, box, outlines[0])
    if any(outline is None for outline in outlines):
        return Thing(label, box)
    rings: list[Ring] = []
    for outline in outlines:
        if not isinstance(outline, Polygons):
            whole = np.logical_or.reduce([one.mask(*size) for one in outlines if one is not None])
            return Thing(label, box, RunLengths((size[1], size[0]), compress(run_lengths(whole))))
        rings += outline.rings
    return Thing(label, box, Polygons(tuple(rings)))
