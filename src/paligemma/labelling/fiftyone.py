"""FiftyOne: `labels.json` of a FiftyOneImageDetectionDataset, boxes as shares of the picture, scores as `confidence`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .labelled import Labelled, Thing

pictures = "data"
masks = False


def write(folder: Path, labelled: Sequence[Labelled], classes: Sequence[str], model: str) -> None:
    """Pictures are known by their names without endings."""
    labels = {one.stem: [_detection(thing, one.width, one.height) for thing in one.things] for one in labelled}
    whole = {"classes": list(classes), "labels": labels}
    (folder / "labels.json").write_text(json.dumps(whole, ensure_ascii=False) + "\n", encoding="utf-8")


def _detection(thing: Thing, width: int, height: int) -> dict[str, Any]:
    box = thing.box
    shares = [box.x0 / width, box.y0 / height, box.width / width, box.height / height]
    return {"label": box.label, "bounding_box": shares} | ({} if box.score is None else {"confidence": box.score})
