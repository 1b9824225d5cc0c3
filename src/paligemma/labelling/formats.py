"""The formats that labels are written in, each a module of this folder. To add one, write what `Format` lists and add it to the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from . import coco, cvat, fiftyone, labelstudio, voc, yolo
from .labelled import Labelled

FormatName = Literal["coco", "yolo", "voc", "labelstudio", "cvat", "fiftyone"]


class Format(Protocol):
    """What the module of a format has."""

    @property
    def pictures(self) -> str:
        """The folder for pictures, within that of the labels."""
        ...

    @property
    def masks(self) -> bool:
        """Whether it has a place for masks, which tools read."""
        ...

    def write(self, folder: Path, labelled: Sequence[Labelled], classes: Sequence[str], model: str) -> None:
        """Everything but the pictures, into a folder that has only those. `classes`: every label is one; `model`: what found them."""
        ...


FORMATS: Mapping[FormatName, Format] = {
    "coco": coco, "yolo": yolo, "voc": voc, "labelstudio": labelstudio, "cvat": cvat, "fiftyone": fiftyone,
}  # fmt: skip
