"""Pascal VOC: an XML file for each picture, `ImageSets` for the splits, `SegmentationObject` for masks.

Numbers in `bndbox` count pixels from 1 and the last one belongs to the box, as in the development kit: (1, 1, W, H) is the whole picture.
A `polygon` beside the box counts from 1 too. Of a picture in `SegmentationObject`, value i is the i-th object of the XML. Objects marked
`difficult` are kept as `Record.ignored` and counted, as its metric ignores them. XML files may also lie beside the pictures.
The format itself has no list of classes: `labelmap.txt`, which CVAT and `paligemma label` write, says their order, else they are sorted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ..errors import InputError
from ..sources import IMAGE_EXTENSIONS
from . import checks
from .class_lists import is_background
from .collector import PLACES, Collector
from .layout import Found, Part, canonical, files_of, in_order, split_folders, sub_folders
from .outlines import Bitmap, Outline, bitmap
from .pictures import Size
from .reading import BOM, decoded, numbered_lines, xml_of
from .records import Flaw, Thing

name = "voc"
description = "Pascal VOC XML: boxes, polygons, masks in SegmentationObject"
recognised = "a folder with Annotations/*.xml (and JPEGImages, ImageSets), or XML files beside the pictures"
tasks: tuple[str, ...] = PLACES
NO_OBJECT = frozenset({"0,0,0", "224,224,192"})
"""Colours of the background and of what is left undecided at borders, in the development kit's colour map."""


def find(path: Path) -> Found | None:
    if path.is_file():
        return None
    for folder in (path, *sub_folders(path)[:50]):
        for top in (folder, *(sub_folders(folder) if folder.name == "VOCdevkit" else ())):
            if files_of(top / "Annotations", ".xml"):
                return _kit(top)
    if _is_voc(files_of(path, ".xml")):
        return Found((Part((path,), path),), "XML files lie beside the pictures")
    parts = [Part((folder,), folder, split) for split, folder in split_folders(path).items() if _is_voc(files_of(folder, ".xml"))]
    return Found(tuple(parts), f"XML files lie beside the pictures in {parts[0].files[0].name}/") if parts else None


def _is_voc(files: list[Path]) -> bool:
    return bool(files) and re.search(rb"<annotation[\s>]", files[0].read_bytes()[:1024]) is not None  # `<annotations` is CVAT's


def _kit(top: Path) -> Found:
    """`files` of a part: the folder of annotations, then the list of the split."""
    pictures = next((top / known for known in ("JPEGImages", "images", "Images") if (top / known).is_dir()), top)
    lists = {}
    for kind in ("Main", "Layout", "Segmentation", ""):
        for file in files_of(top / "ImageSets" / kind, ".txt"):
            if canonical(file.stem) in ("train", "valid", "test", "trainval"):  # cat_train.txt and so on say which pictures have cats
                lists.setdefault(canonical(file.stem), file)
    parts = [Part((top / "Annotations", file), pictures, split) for split, file in lists.items()]
    return Found(in_order(parts) or (Part((top / "Annotations",), pictures),), f"{top.name}/Annotations holds XML files")


def read(part: Part, to: Collector) -> None:
    """Raises `InputError` where a split names no file at all."""
    folder, *lists = part.files
    assert part.pictures is not None
    files = [file for listed in lists for file in _listed(listed, folder, to)] if lists else files_of(folder, ".xml")
    if not files:
        raise InputError(f"{to.place(lists[0] if lists else folder)}: there are no annotations", code="no_records")
    for file in files:
        id = part.id(os.path.relpath(file.with_suffix(""), folder))
        with to.record(to.place(file), id, file.stem):
            if not os.path.isfile(file):
                raise Flaw("missing", f"no such file: {to.place(file)}")
            _File(to, file, part.pictures, id).add(xml_of(to.bytes_of(file)), part)
    _classes((folder.parent if folder.name == "Annotations" else folder) / "labelmap.txt", to)
    for label in sorted({thing.label for record in to.records for thing in record.things}):
        to.classes.setdefault(label, None)


def _classes(file: Path, to: Collector) -> None:
    """Those of a list of `label:color_rgb:parts:actions`, in its order; a name that cannot be used is one of no object.

    The first line says so, as a comment; in others a name may begin with `#`. What VOC's own masks have no object of is left out.
    """
    if not file.is_file():
        return
    for number, line in numbered_lines(to.bytes_of(file)):
        try:
            label, *rest = decoded(line).rsplit(":", 3)
            comment = number == 1 and label.startswith("#")
            if len(rest) == 3 and not comment and not (rest[0] in NO_OBJECT and is_background(label)):
                to.classes[checks.label(label)] = None
        except Flaw:
            to.notes["labels have names that cannot be used"] += 1


def _listed(file: Path, folder: Path, to: Collector) -> Iterator[Path]:
    for number, line in numbered_lines(to.bytes_of(file)):
        with to.record(f"{to.place(file)}:{number}", f"{file.stem}:{number}"):
            stem = decoded(line.removeprefix(BOM)).split()[0]
            if Path(stem).name != stem:
                raise Flaw("path", f"{stem!r:.80} is no name of a picture")
            yield folder / f"{stem}.xml"


class _File:
    """One XML file."""

    def __init__(self, to: Collector, file: Path, pictures: Path, id: str):
        self.to, self.file, self.pictures, self.id = to, file, pictures, id

    def add(self, root: Element, part: Part) -> None:
        if root.tag != "annotation":
            raise Flaw("field", f"expected <annotation>, found <{root.tag:.40}>")
        picture = self.picture(root.findtext("filename"))
        size = self.to.pictures.size(picture, self.says(root))
        things: list[Thing] = []
        ignored: list[Thing] = []
        for number, element in enumerate(root.iter("object"), 1):
            try:
                thing = self.thing(element, number, size)
            except Flaw as flaw:
                raise Flaw(flaw.code, f"object {number}: {flaw.detail}") from flaw
            (ignored if (element.findtext("difficult") or "").strip() == "1" else things).append(thing)
        self.to.notes["objects are marked as difficult and were not used"] += len(ignored)
        self.to.things(self.id, self.to.place(self.file), picture, size, things, ignored=ignored, about=part.about)

    def picture(self, named: str | None) -> Path:
        """The file that the XML names; where it says none, or forgot the ending, the one of the XML's own name."""
        if named and (self.pictures / Path(named).name).suffix.lower() in IMAGE_EXTENSIONS:
            return self.to.picture(named, self.pictures)
        for ending in (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".bmp", ".webp"):
            if (self.pictures / f"{self.file.stem}{ending}").is_file():
                return self.to.picture(f"{self.file.stem}{ending}", self.pictures)
        raise Flaw("missing" if named else "field", f"there is no picture {named or 'named'}")

    def says(self, root: Element) -> tuple[int, int] | None:
        """The picture's size, unless it is 0 x 0, as some tools write it."""
        if root.find("size") is None:
            return None
        width, height = (int(_number(root, f"size/{side}", "field")) for side in ("width", "height"))
        return (width, height) if width or height else None

    def thing(self, element: Element, number: int, size: Size) -> Thing:
        label = checks.label(element.findtext("name"))
        x0, y0, x1, y1 = (_number(element, f"bndbox/{side}", "box") for side in ("xmin", "ymin", "xmax", "ymax"))
        if x1 < x0 or y1 < y0:
            raise Flaw("box", f"the box is inside out: {x0:g}, {y0:g}, {x1:g}, {y1:g}")
        outline = self.polygon(element) or self.mask(number, size)
        return Thing(label, self.to.box((x0 - 1, y0 - 1, x1, y1), size), outline)

    def polygon(self, element: Element) -> Outline | None:
        rings = []
        for polygon in element.findall("polygon"):
            count = sum(child.tag.startswith("x") for child in polygon)
            places = [(f"x{i}", f"y{i}") for i in range(1, count + 1)]
            rings.append([_number(polygon, place, "outline") - 1 for pair in places for place in pair])
        return checks.polygons(rings) if rings else None

    def mask(self, number: int, size: Size) -> Outline | None:
        """Where masks are asked for they are looked into, so that a number without pixels is found now."""
        file = self.file.parent.parent / "SegmentationObject" / f"{self.file.stem}.png"
        if self.file.parent == self.pictures or not file.is_file():
            return None
        file = self.to.picture(file.name, file.parent)
        if self.to.task in ("segment", "refer"):
            try:
                values = bitmap(file, *size)
            except ValueError as error:
                raise Flaw("outline", str(error)) from error
            if not np.any(values == number):
                raise Flaw("outline", f"{file.name} has no pixel of object {number}")
        return Bitmap(file, number)


def _number(element: Element, place: str, code: str) -> float:
    found = element.findtext(place)
    try:
        value = float(found or "")
    except ValueError:
        raise Flaw(
            "field" if found is None else code, f"{place} must be a number, found {'nothing' if found is None else found[:40]!r}"
        ) from None
    return checks.numbers([value], 1, place, code)[0]
