"""What annotation tools make of our files, by their own code: run by the Python of an environment that has the tool, without ours.

    TOOL/bin/python tests/labelling/loaders.py labelstudio|datumaro|cvat|fiftyone FOLDER...

A FOLDER is one that `paligemma label --out FOLDER` wrote. Every picture, label, score, and box or mask that the tool has read is compared
with `job/results.jsonl`, which is what the model said. One line a folder, or an error.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Thing(NamedTuple):
    """`box`: left, top, right, bottom in pixels. `mask`: bool (height, width)."""

    label: str
    box: tuple[float, ...]
    score: float
    mask: np.ndarray | None


class Picture(NamedTuple):
    width: int
    height: int
    things: list[Thing]


def said(folder: Path, tool: str) -> dict[str, Picture]:
    """By the name of a picture's file. What covers nothing is left out of labels."""
    lines = (folder / tool / "doubtful.jsonl").read_text(encoding="utf-8").splitlines()
    names = {row["id"]: row["file"] for row in map(json.loads, lines)}
    found = {}
    for row in map(json.loads, (folder / "job" / "results.jsonl").read_text(encoding="utf-8").splitlines()):
        result, things = row["result"], []
        for one in result.get("boxes", result.get("masks")):
            box, mask = one.get("box", one), decoded(one["rle"]) if "rle" in one else None
            place = (box["x0"], box["y0"], box["x1"], box["y1"])
            if place[0] < place[2] and place[1] < place[3] and (mask is None or mask.any()):
                things.append(Thing(box["label"], place, box["score"], mask))
        found[names[row["id"]]] = Picture(result["width"], result["height"], things)
    return found


def decoded(rle: dict[str, Any]) -> np.ndarray:
    """COCO's compressed run lengths: five bits a letter, from the third run on the difference to the last but one, column by column."""
    runs: list[int] = []
    place, text = 0, rle["counts"]
    while place < len(text):
        value = shift = 0
        while True:
            letter = ord(text[place]) - 48
            place += 1
            value |= (letter & 31) << shift
            shift += 5
            if not letter & 32:
                break
        value -= (1 << shift) if letter & 16 else 0
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    height, width = rle["size"]
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def compare(expected: Picture, things: list[Thing], pixels: float, scores: float) -> None:
    assert len(things) == len(expected.things), f"{len(things)} things, expected {len(expected.things)}"
    for thing, own in zip(things, expected.things, strict=True):
        assert thing.label == own.label, (thing.label, own.label)
        assert abs(thing.score - own.score) <= scores, (thing.score, own.score)
        if own.mask is not None:
            assert thing.mask is not None
            assert thing.mask.shape == own.mask.shape
            assert (thing.mask == own.mask).all(), "another mask"
        else:
            assert max(abs(a - b) for a, b in zip(thing.box, own.box, strict=True)) <= pixels, (thing.box, own.box)


def labelstudio(folder: Path) -> Iterator[tuple[str, list[Thing]]]:
    """Its SDK: the labelling interface is valid, takes every task and prediction, decodes the brushes, and converts the boxes to COCO."""
    from label_studio_sdk.converter.brush import decode_rle
    from label_studio_sdk.label_interface import LabelInterface
    from label_studio_sdk.label_interface.objects import PredictionValue

    interface = LabelInterface((folder / "labels.xml").read_text(encoding="utf-8"))
    interface.validate()
    for task in json.loads((folder / "tasks.json").read_text(encoding="utf-8")):
        assert interface.validate_task({"data": task["data"]})
        (prediction,) = task["predictions"]
        assert not (refused := interface.validate_prediction(prediction, return_errors=True)), refused
        things = []
        for region in PredictionValue(**prediction).model_dump()["result"]:
            value, width, height = region["value"], region["original_width"], region["original_height"]
            (label,) = value[region["type"]]
            if "rle" in value:
                mask = decode_rle(value["rle"]).reshape(height, width, 4)[:, :, 3] > 0
                things.append(Thing(label, (), region["score"], mask))
            else:
                x, y = value["x"] * width / 100, value["y"] * height / 100
                box = (x, y, x + value["width"] * width / 100, y + value["height"] * height / 100)
                things.append(Thing(label, box, region["score"], None))
        yield file_of(task["data"]["image"]), things


def file_of(address: str) -> str:
    """The last name in an address of pictures."""
    from urllib.parse import unquote

    return unquote(address).rpartition("/")[2]


def datumaro(folder: Path) -> Iterator[tuple[str, list[Thing]]]:
    """By the authors of CVAT. It says that this is CVAT's format, knows the classes in their order, and opens the pictures."""
    import datumaro as dm  # pyright: ignore[reportMissingImports]

    assert dm.Dataset.detect(str(folder)) == "cvat"
    found = dm.Dataset.import_from(str(folder), "cvat")
    labels = [one.name for one in found.categories()[dm.AnnotationType.label]]
    assert labels == [one["name"] for one in json.loads((folder / "labels.json").read_text(encoding="utf-8"))]
    for item in found:
        assert item.media.data is not None
        things = []
        for one in item.annotations:
            mask = np.asarray(one.image).astype(bool) if hasattr(one, "image") else None
            things.append(Thing(labels[one.label], tuple(one.points) if mask is None else (), float(one.attributes["score"]), mask))
        yield Path(item.media.path).name, things


def cvat(folder: Path) -> Iterator[tuple[str, list[Thing]]]:
    """CVAT's SDK reads no XML; what its server takes of a mask is what it encodes, the runs and the edges, the last ones included."""
    from cvat_sdk.masks import decode_mask, encode_mask  # pyright: ignore[reportMissingImports]

    for image in ElementTree.parse(folder / "annotations.xml").getroot().iter("image"):
        size = {"image_width": int(image.attrib["width"]), "image_height": int(image.attrib["height"])}
        things = []
        for one in image.iter("mask"):
            left, top, width, height = (int(one.attrib[name]) for name in ("left", "top", "width", "height"))
            runs = [*map(float, one.attrib["rle"].split(",")), left, top, left + width - 1, top + height - 1]
            mask = np.asarray(decode_mask(runs, **size), bool)
            assert list(map(float, encode_mask(mask))) == runs
            score = next(float(attribute.text or "nan") for attribute in one.iter("attribute"))
            things.append(Thing(one.attrib["label"], (), score, mask))
        yield image.attrib["name"], things


def fiftyone(folder: Path) -> Iterator[tuple[str, list[Thing]]]:
    """Its importer, which needs no database. It gives pictures in the order of their names."""
    from fiftyone.utils.data.importers import FiftyOneImageDetectionDatasetImporter  # pyright: ignore[reportMissingImports]

    with FiftyOneImageDetectionDatasetImporter(str(folder), compute_metadata=True) as importer:
        for path, metadata, found in importer:
            things = []
            for one in found.detections if found is not None else ():
                x, y, width, height = one.bounding_box
                edges = (x * metadata.width, y * metadata.height, (x + width) * metadata.width, (y + height) * metadata.height)
                things.append(Thing(one.label, edges, one.confidence, None))
            yield Path(path).name, things


TOOLS: dict[str, tuple[Callable[[Path], Iterator[tuple[str, list[Thing]]]], str, float, float]] = {
    "labelstudio": (labelstudio, "labelstudio", 1e-9, 1e-9),
    "datumaro": (datumaro, "cvat", 0.006, 6e-5),
    "cvat": (cvat, "cvat", 0.0, 6e-5),
    "fiftyone": (fiftyone, "fiftyone", 1e-9, 1e-9),
}
"""Tool -> its reader, whose files, by how many pixels numbers may be off, and scores: some of our files have two or four decimals."""


def main(tool: str, folders: list[str]) -> None:
    read, form, pixels, scores = TOOLS[tool]
    for name in folders:
        expected, seen, things = said(Path(name), form), set[str](), 0
        for file, found in read((Path(name) / form).resolve()):
            compare(expected[file], found, pixels, scores)
            seen.add(file)
            things += len(found)
        assert seen == expected.keys(), f"not read: {sorted(expected.keys() - seen)}"
        masks = sum(thing.mask is not None for one in expected.values() for thing in one.things)
        print(f"{tool}: {name}: {len(seen)} pictures, {things} things, {masks} masks, all as they were said")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
