"""CVAT: the XML of "CVAT for images 1.1". Boxes, polygons, ellipses and masks; numbers are pixels, (0, 0) the top left corner.

Points, lines and cuboids cover no pixels, and the tracks of videos are of no picture: they are counted and not used. A box that is turned
is a polygon.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ..errors import InputError
from ..mask_formats import compress, from_run_lengths, run_lengths
from . import checks
from .collector import PLACES, Collector
from .layout import Found, Part, annotation_parts, files_of, picture_folder, usual_picture_folders
from .outlines import Outline, RunLengths
from .pictures import Size
from .reading import xml_of
from .records import Corners, Flaw, Thing

name = "cvat"
description = "CVAT for images 1.1: boxes, polygons, ellipses, masks"
recognised = "an .xml file with annotations and their images, or a folder with one (annotations.xml, and images/)"
tasks: tuple[str, ...] = PLACES

SHAPES = ("box", "polygon", "ellipse", "mask")


def find(path: Path) -> Found | None:
    if path.is_file():
        return Found((Part((path,)),), f"{path.name} has annotations of images") if _is(path) else None
    files = [file for file in files_of(path, ".xml")[:50] if _is(file)]
    return Found(annotation_parts(files, "files of CVAT"), f"{files[0].name} has annotations of images") if files else None


def _is(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix.lower() == ".xml" and b"<annotations" in file.read(1024)


def read(part: Part, to: Collector) -> None:
    """Raises `InputError` for XML that is broken, and where it is of no images."""
    file = part.files[0]
    try:
        root = xml_of(to.bytes_of(file))
    except Flaw as flaw:
        raise InputError(f"{file.name}: {flaw.detail}", code="bad_annotations") from flaw
    images = list(root.iter("image"))
    if root.find("track") is not None:
        to.notes["tracks are of videos and were not used"] += sum(1 for _ in root.iter("track"))
    if not images:
        raise InputError(f"{file.name}: there are no images in it", hint="export it as CVAT for images 1.1", code="no_records")
    _classes(root, to)
    usual = [folder for folder in usual_picture_folders(file) if folder.is_relative_to(to.root) and folder.is_dir()]
    folders = [part.pictures] if part.pictures else usual
    folder = picture_folder([image.get("name", "") for image in images], folders)
    for number, image in enumerate(images):
        named = image.get("name")
        own = named or number
        with to.record(f"{to.place(file)}: image {own}", part.id(own), named or ""):
            picture = to.picture(named, folder)
            size = to.pictures.size(picture, _says(image))
            to.things(part.id(own), f"{to.place(file)}: image {own}", picture, size, list(_things(image, size, to)), about=part.about)
    for label in sorted({thing.label for record in to.records for thing in record.things}):
        to.classes.setdefault(label, None)


def _classes(root: Element, to: Collector) -> None:
    """The labels of the task, in its order; a name that cannot be used is one of no shape."""
    for element in root.iterfind("meta//label/name"):
        try:
            to.classes[checks.label(element.text)] = None
        except Flaw:
            to.notes["labels have names that cannot be used"] += 1


def _says(image: Element) -> tuple[int, int] | None:
    if image.get("width") is None or image.get("height") is None:
        return None
    width, height = _numbers(image, "width", "height", code="field")
    return int(width), int(height)


def _things(image: Element, size: Size, to: Collector) -> Iterator[Thing]:
    for number, shape in enumerate(image, 1):
        if shape.tag not in SHAPES:
            if shape.tag != "tag":
                to.notes[f"shapes are {shape.tag:.20}, which covers nothing, and were not used"] += 1
            continue
        try:
            box, outline = _place(shape, size, to)
            yield Thing(checks.label(shape.get("label")), box, outline)
        except Flaw as flaw:
            raise Flaw(flaw.code, f"shape {number}: {flaw.detail}") from flaw


def _place(shape: Element, size: Size, to: Collector) -> tuple[Corners, Outline | None]:
    turn = _numbers(shape, "rotation", code="box")[0] if shape.get("rotation") else 0.0
    if shape.tag == "box":
        x0, y0, x1, y1 = _numbers(shape, "xtl", "ytl", "xbr", "ybr", code="box")
        if x1 < x0 or y1 < y0:
            raise Flaw("box", f"the box is inside out: {x0:g}, {y0:g}, {x1:g}, {y1:g}")
        if not turn:
            return to.box((x0, y0, x1, y1), size), None
        outline: Outline = checks.turned([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], ((x0 + x1) / 2, (y0 + y1) / 2), turn)
    elif shape.tag == "ellipse":
        cx, cy, rx, ry = _numbers(shape, "cx", "cy", "rx", "ry", code="outline")
        outline = checks.ellipse((cx, cy), (rx, ry), turn)
    elif shape.tag == "mask":
        outline = _mask(shape, size)
    else:
        outline = checks.within(checks.polygons([_points(shape.get("points") or "")]), size)
    return checks.around(outline, size), outline


def _points(text: str) -> list[list[float]]:
    try:
        return [[float(value) for value in pair.split(",")] for pair in text.split(";") if pair]
    except ValueError:
        raise Flaw("outline", f"the points must be numbers, found {text[:60]!r}") from None


def _mask(shape: Element, size: Size) -> RunLengths:
    left, top, width, height = (int(value) for value in _numbers(shape, "left", "top", "width", "height", code="outline"))
    try:
        counts = [int(count) for count in (shape.get("rle") or "").split(",")]
    except ValueError:
        raise Flaw("outline", "the run lengths must be numbers") from None
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[0] or top + height > size[1]:
        raise Flaw("outline", f"the mask reaches out of a picture of {size[0]} x {size[1]}")
    try:
        inner = from_run_lengths(counts, width, height).T  # along the rows
    except ValueError as error:
        raise Flaw("outline", str(error)) from error
    if not inner.any():
        raise Flaw("outline", "the mask is empty")
    whole = np.zeros((size[1], size[0]), bool)
    whole[top : top + height, left : left + width] = inner
    return RunLengths((size[1], size[0]), compress(run_lengths(whole)))


def _numbers(element: Element, *names: str, code: str) -> list[float]:
    given = [element.get(name) for name in names]
    try:
        values = [float(value or "") for value in given]
    except ValueError:
        raise Flaw(code, f"{', '.join(names)} must be numbers, found {given!r:.80}") from None
    return list(checks.numbers(values, len(names), ", ".join(names), code))
