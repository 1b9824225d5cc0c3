"""Four small pictures with things on them, and how to write them down: the same truth for every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from paligemma.data.outlines import Outline
from paligemma.data.records import DataSet, Record

SIZE = (64, 48)
"""Width, height."""
CLASSES = ["cat", "dog"]
TRUTH = {
    "a.png": [("cat", (4, 6, 20, 30))],
    "b.png": [("cat", (0, 0, 64, 48)), ("dog", (30, 10, 50, 40))],
    "c.png": [("dog", (5, 5, 25, 20)), ("dog", (33, 22, 63, 47))],
    "d.png": [],
}
"""Name -> label and left, top, right, bottom of each thing."""


def picture(path: Path, size: tuple[int, int] = SIZE, colour: str = "teal", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def turned(path: Path, size: tuple[int, int] = SIZE) -> Path:
    """A picture that its EXIF data turns on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(path, size, exif=exif)


def pictures(folder: Path) -> Path:
    for name in TRUTH:
        picture(folder / name)
    return folder


def ellipse(box: tuple[float, float, float, float], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Mask of the ellipse in a box."""
    y, x = np.mgrid[: size[1], : size[0]] + 0.5
    x0, y0, x1, y1 = box
    return ((x - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2 + ((y - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** 2 <= 1


def supervised(folder: Path, *, masks: bool = False):
    """The truth as `supervision` holds it; its own writers make the fixtures."""
    import supervision as sv

    paths = [str(picture(folder / name)) for name in TRUTH]
    found = {}
    for path, things in zip(paths, TRUTH.values(), strict=True):
        boxes = np.array([box for _, box in things], float).reshape(-1, 4)
        drawn = np.array([ellipse(box) for _, box in things], bool).reshape(-1, SIZE[1], SIZE[0]) if masks else None
        found[path] = sv.Detections(xyxy=boxes, class_id=np.array([CLASSES.index(label) for label, _ in things], int), mask=drawn)
    return sv.DetectionDataset(classes=CLASSES, images=paths, annotations=found)


def things(data: DataSet) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """What was read, as `TRUTH` is written."""
    return {record.pictures[0].name: [(thing.label, thing.box) for thing in record.things] for record in data.records}


def codes(data: DataSet) -> dict[str, str]:
    """Id -> code of each fault; an id with two faults is an error of the reader."""
    assert len({fault.id for fault in data.faults}) == len(data.faults)
    return {fault.id: fault.code for fault in data.faults}


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def outline(record: Record, number: int = 0) -> Outline:
    found = record.things[number].outline
    assert found is not None
    return found
