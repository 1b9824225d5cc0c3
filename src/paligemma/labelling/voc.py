"""Pascal VOC: an XML file for each picture. Pixels are whole numbers from 1 on, and the last one belongs to the box."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from ..results import Box
from .labelled import Labelled

pictures = "JPEGImages"
masks = False


def write(folder: Path, labelled: Sequence[Labelled], classes: Sequence[str], model: str) -> None:
    """`Annotations/`; in `ImageSets/Main/default.txt` the names in order; `labelmap.txt`, the classes for those who know VOC's 20 only.

    A `score` stands beside the usual fields of an object.
    """
    (folder / "Annotations").mkdir()
    for one in labelled:
        root = ElementTree.Element("annotation")
        for name, text in (("folder", pictures), ("filename", one.name), ("segmented", "0")):
            ElementTree.SubElement(root, name).text = text
        size = ElementTree.SubElement(root, "size")
        for name, number in (("width", one.width), ("height", one.height), ("depth", 3)):
            ElementTree.SubElement(size, name).text = str(number)
        for thing in one.things:
            found = ElementTree.SubElement(root, "object")
            fields = {"name": thing.box.label, "pose": "Unspecified", "truncated": "0", "difficult": "0", "occluded": "0"}
            for name, text in (fields | ({} if thing.box.score is None else {"score": f"{thing.box.score:.6f}"})).items():
                ElementTree.SubElement(found, name).text = text
            corners = ElementTree.SubElement(found, "bndbox")
            for name, number in zip(("xmin", "ymin", "xmax", "ymax"), _pixels(thing.box, one.width, one.height), strict=True):
                ElementTree.SubElement(corners, name).text = str(number)
        ElementTree.indent(root)
        ElementTree.ElementTree(root).write(folder / "Annotations" / f"{one.stem}.xml", encoding="utf-8")
    named = "".join(f"{label}:::\n" for label in classes)
    (folder / "labelmap.txt").write_text(f"# label:color_rgb:parts:actions\n{named}", encoding="utf-8")
    listing = folder / "ImageSets" / "Main" / "default.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("".join(f"{one.stem}\n" for one in labelled), encoding="utf-8")


def _pixels(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The first and last pixel each way, a pixel at least."""
    x0, y0 = min(round(box.x0), width - 1), min(round(box.y0), height - 1)
    return x0 + 1, y0 + 1, max(round(box.x1), x0 + 1), max(round(box.y1), y0 + 1)
