"""Results of a job by hand: pictures with boxes or masks on them, as `paligemma batch` writes them down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from paligemma.jobs.rows import Row
from paligemma.results import Box, Detections, Mask, Masks

CLASSES = ("cat", "a red & blue <dog>")
SIZES = {"a.png": (64, 48), "holiday/a 1.jpg": (37, 53), "c.gif": (40, 30), "none.png": (20, 20)}
"""Id -> width, height."""


def album(folder: Path) -> Path:
    """Its pictures."""
    for id, size in SIZES.items():
        (folder / id).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "teal").save(folder / id)
    return folder


def boxes() -> dict[str, tuple[Box, ...]]:
    """Of each picture: floats that no form writes as they are, at the edges too; nothing in the last."""
    rng = np.random.default_rng(3)
    found = {}
    for id, (width, height) in SIZES.items():
        corners = rng.random((4, 2, 2)) * (width, height)
        corners[0] = (0, 0), (width, height)
        spots = [(*pair.min(0).tolist(), *pair.max(0).tolist()) for pair in corners]
        labelled = [Box(CLASSES[i % 2], *spot, score=float(rng.random())) for i, spot in enumerate(spots)]
        found[id] = tuple(box for box in labelled if min(box.width, box.height) > 2)
    return {**found, "none.png": ()}


def masks() -> dict[str, tuple[Mask, ...]]:
    """In the boxes: scattered pixels, so parts, holes, single pixels."""
    rng = np.random.default_rng(4)
    found = {}
    for id, several in boxes().items():
        drawn = []
        for box in several:
            mask = np.zeros(SIZES[id][::-1], bool)
            x0, y0, x1, y1 = map(int, box.xyxy)
            mask[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < 0.7
            mask[y0, x0] = True
            drawn.append(Mask(box.label, box, mask, 0.3))
        found[id] = tuple(drawn)
    return found


def results(path: Path, *, masked: bool = False) -> Path:
    """`results.jsonl`."""
    rows: list[dict[str, Any]] = []
    for id, (width, height) in SIZES.items():
        answer = Masks(masks()[id], width, height) if masked else Detections(boxes()[id], width, height)
        rows.append(Row(id, f"album/{id}", "detect:x", {}, answer).to_dict())
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
