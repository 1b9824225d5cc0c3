"""YOLO: `data.yaml`, and a text file of normalised numbers for each picture, of boxes or of polygons. It has no place for scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..mask_formats import joined, polygons
from .labelled import Labelled, Thing

pictures = "images"
masks = True


def write(folder: Path, labelled: Sequence[Labelled], classes: Sequence[str], model: str) -> None:
    """Labels of pictures without things are empty files. `classes.txt` has the names for those who read no YAML."""
    (folder / "labels").mkdir()
    for one in labelled:
        lines = [f"{classes.index(thing.box.label)} {_numbers(thing, one.width, one.height)}\n" for thing in one.things]
        (folder / "labels" / f"{one.stem}.txt").write_text("".join(lines), encoding="utf-8")
    named = json.dumps(list(classes), ensure_ascii=False)  # which is YAML too
    (folder / "data.yaml").write_text(f"train: images\nnc: {len(classes)}\nnames: {named}\n", encoding="utf-8")
    (folder / "classes.txt").write_text("".join(f"{label}\n" for label in classes), encoding="utf-8")


def _numbers(thing: Thing, width: int, height: int) -> str:
    """A box, by its middle; or a ring, in which the parts of a mask are joined."""
    if (mask := thing.mask) is not None:
        values = [(x / width, y / height) for x, y in joined(polygons(mask))]
    else:
        box = thing.box
        middle = (box.x0 + box.x1) / 2 / width, (box.y0 + box.y1) / 2 / height
        values = [middle, (box.width / width, box.height / height)]
    return " ".join(f"{value:.6f}" for pair in values for value in pair)
