"""COCO JSON. Masks are polygons along the edges of pixels, exact; each annotation has its `score`, each image its `doubt`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..mask_formats import polygons
from .labelled import Labelled

pictures = "images"
masks = True


def write(folder: Path, labelled: Sequence[Labelled], classes: Sequence[str], model: str) -> None:
    """`annotations/instances_default.json`, categories numbered from 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, one in enumerate(labelled, 1):
        size = {"width": one.width, "height": one.height}
        images.append({"id": number, "file_name": one.name, **size, "doubt": one.doubt})
        for thing in one.things:
            mask, box = thing.mask, thing.box
            annotation: dict[str, Any] = {"id": len(annotations) + 1, "image_id": number, "category_id": classes.index(box.label) + 1}
            annotation |= {"bbox": list(box.xywh), "area": box.area, "iscrowd": 0, "segmentation": []}
            if mask is not None:
                rings = [[value for point in ring for value in point] for ring in polygons(mask)]
                annotation |= {"area": int(mask.sum()), "segmentation": rings}
            annotations.append(annotation | ({} if box.score is None else {"score": box.score}))
    categories = [{"id": number, "name": label, "supercategory": ""} for number, label in enumerate(classes, 1)]
    whole = {"info": {"description": f"labelled by {model}"}, "licenses": [], "categories": categories}
    file = folder / "annotations" / "instances_default.json"
    file.parent.mkdir()
    file.write_text(json.dumps(whole | {"images": images, "annotations": annotations}, ensure_ascii=False) + "\n", encoding="utf-8")
