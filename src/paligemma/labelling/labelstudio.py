"""Label Studio: tasks with predictions, numbers in percent of the picture; and `labels.xml`, how a project shows them.

A prediction's `score` is how sure the model is of the picture, 1 - doubt, by which Label Studio can order what it hands out; each region
has its own. Pictures are served from this folder (`/data/local-files/`): it is to be named as the root of local files.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..mask_formats import brush
from .labelled import Labelled, Thing

pictures = "images"
masks = True


def write(folder: Path, labelled: Sequence[Labelled], classes: Sequence[str], model: str) -> None:
    """`tasks.json` and `labels.xml`."""
    (folder / "tasks.json").write_text(json.dumps([_task(one, model) for one in labelled], ensure_ascii=False) + "\n", encoding="utf-8")
    outlined = any(thing.rle is not None for one in labelled for thing in one.things)
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    labels = ElementTree.SubElement(view, "BrushLabels" if outlined else "RectangleLabels", name="label", toName="image")
    for label in classes:
        ElementTree.SubElement(labels, "Label", value=label)
    ElementTree.indent(view)
    ElementTree.ElementTree(view).write(folder / "labels.xml", encoding="unicode")


def _task(one: Labelled, model: str) -> dict[str, Any]:
    results = [_region(number, thing, one) for number, thing in enumerate(one.things, 1)]
    data = {"image": f"/data/local-files/?d={quote(f'{pictures}/{one.name}')}", "source": one.id, "doubt": one.doubt}
    return {"data": data, "predictions": [{"model_version": model, "score": 1 - one.doubt, "result": results}]}


def _region(number: int, thing: Thing, one: Labelled) -> dict[str, Any]:
    box = thing.box
    if (mask := thing.mask) is not None:
        kind, value = "brushlabels", {"format": "rle", "rle": brush(mask)}
    else:
        left, top, width, height = box.xywh
        # Divided first: a whole side is then 100, and not the next number above, which Label Studio refuses.
        shares = {"x": left / one.width, "y": top / one.height, "width": width / one.width, "height": height / one.height}
        place = {name: 100 * share for name, share in shares.items()}
        kind, value = "rectanglelabels", {**place, "rotation": 0}
    region: dict[str, Any] = {
        "id": str(number),
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "value": {**value, kind: [box.label]},
    }
    region |= {"original_width": one.width, "original_height": one.height, "image_rotation": 0}
    return region | ({} if box.score is None else {"score": box.score})
