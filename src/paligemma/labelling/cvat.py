"""CVAT for images 1.1: one XML file; and `labels.json`, a task's labels as CVAT's editor takes them, with an attribute for the score."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from ..mask_formats import cvat_runs
from .labelled import Labelled, Thing

pictures = "images"
masks = True

SCORE = {"name": "score", "mutable": False, "input_type": "text", "default_value": "", "values": [""]}


def write(folder: Path, labelled: Sequence[Labelled], classes: Sequence[str], model: str) -> None:
    """`annotations.xml` and `labels.json`."""
    root = Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for label in classes:
        _add_label(labels, label)
    for number, one in enumerate(labelled):
        image = ElementTree.SubElement(root, "image", id=str(number), name=one.name, width=str(one.width), height=str(one.height))
        for thing in one.things:
            shape = _shape(image, thing)
            if thing.box.score is not None:
                ElementTree.SubElement(shape, "attribute", name="score").text = f"{thing.box.score:.4f}"
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(folder / "annotations.xml", encoding="utf-8", xml_declaration=True)
    described = [{"name": label, "attributes": [SCORE]} for label in classes]
    (folder / "labels.json").write_text(json.dumps(described, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _add_label(labels: Element, label: str) -> None:
    described = ElementTree.SubElement(labels, "label")
    ElementTree.SubElement(described, "name").text = label
    attribute = ElementTree.SubElement(ElementTree.SubElement(described, "attributes"), "attribute")
    for name in ("name", "input_type", "default_value"):
        ElementTree.SubElement(attribute, name).text = str(SCORE[name])
    ElementTree.SubElement(attribute, "mutable").text = str(SCORE["mutable"])
    ElementTree.SubElement(attribute, "values").text = ""


def _shape(image: Element, thing: Thing) -> Element:
    common = {"label": thing.box.label, "source": "auto", "occluded": "0", "z_order": "0"}
    if (mask := thing.mask) is None:
        corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{value:.2f}" for value in thing.box.xyxy), strict=True))
        return ElementTree.SubElement(image, "box", common | corners)
    counts, *place = cvat_runs(mask)
    where = dict(zip(("left", "top", "width", "height"), map(str, place), strict=True))
    return ElementTree.SubElement(image, "mask", common | {"rle": ", ".join(map(str, counts))} | where)
