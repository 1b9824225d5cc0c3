"""Label Studio: its JSON export, a list of tasks. Rectangles, polygons, ellipses and brushes; numbers are percent of the picture.

A task is read as it was annotated: the annotation marked as ground truth, or else the one changed last, without those that were skipped.
Predictions are what a model said: tasks that have only those are counted and left out. Pictures are found by their name in the folder
beside the file or in `images/`, whatever address the server had for them.
An export has no list of classes: a project's configuration beside it, called `labels.xml`, says their order, else they are sorted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ..errors import InputError
from ..mask_formats import compress, from_brush, run_lengths
from . import checks
from .collector import PLACES, Collector
from .layout import Found, Part, annotation_parts, files_of, usual_picture_folders
from .outlines import Outline, RunLengths
from .pictures import Size
from .reading import glance, json_of, xml_of
from .records import Corners, Flaw, Thing

name = "labelstudio"
description = "Label Studio's JSON export: rectangles, polygons, ellipses, brushes"
recognised = "a .json file with a list of tasks that have data and annotations, or a folder with one"
tasks: tuple[str, ...] = PLACES

UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What the server puts before the name of a picture that was uploaded."""
SHAPES = ("rectangle", "polygon", "ellipse", "brush")
"""Regions that cover something; with `labels` behind it in the type of a result."""


def find(path: Path) -> Found | None:
    if path.is_file():
        return Found((Part((path,)),), f"{path.name} has tasks") if _is(path) else None
    files = [file for file in files_of(path, ".json") if _is(file)]
    return Found(annotation_parts(files, "files of tasks"), f"{files[0].name} has tasks") if files else None


def _is(path: Path) -> bool:
    seen = glance(path) if path.suffix.lower() == ".json" else None
    return seen is not None and seen.is_list and bool({"annotations", "predictions"} & seen.inner) and bool({"data", "id"} & seen.inner)


def read(part: Part, to: Collector) -> None:
    """Raises `InputError` for a file that is no list, and where no task was annotated."""
    file = part.files[0]
    data = json_of(to.bytes_of(file), file)
    if not isinstance(data, list):
        raise InputError(f"{file.name}: expected a list of tasks, found {type(data).__name__}", code="bad_annotations")
    usual = [folder for folder in usual_picture_folders(file) if folder.is_relative_to(to.root) and folder.is_dir()]
    folders = [part.pictures] if part.pictures else usual
    annotated = 0
    for number, task in enumerate(data, 1):
        own = task.get("id") if isinstance(task, Mapping) else None
        id = own if isinstance(own, int | str) and not isinstance(own, bool) else number
        with to.record(f"{to.place(file)}: task {id}", part.id(id), _shown(task)):
            results = _annotated(task, to)
            if results is None:
                to.notes["tasks have no annotation and were left out; what a model predicts is not taken"] += 1
                continue
            annotated += 1
            picture = _picture(task, folders, to)
            size = to.pictures.size(picture)
            things = list(_things(results, size, to))
            to.things(part.id(id), f"{to.place(file)}: task {id}", picture, size, things, about=part.about)
    if not annotated:
        hint = "open them in Label Studio, submit what is right, and export as JSON"
        raise InputError(f"{file.name}: none of the {len(data)} tasks has an annotation", hint=hint, code="no_records")
    _classes(file.with_name("labels.xml"), to)
    for label in sorted({thing.label for record in to.records for thing in record.things}):
        to.classes.setdefault(label, None)


def _classes(file: Path, to: Collector) -> None:
    """The labels of a project's configuration, in its order."""
    if not file.is_file():
        return
    try:
        for element in xml_of(to.bytes_of(file)).iter("Label"):
            to.classes[checks.label(element.get("value"))] = None
    except Flaw:
        to.notes["lists of labels could not be read: labels.xml"] += 1


def _shown(task: Any) -> str:
    data = task.get("data") if isinstance(task, Mapping) else None
    return next((value for value in data.values() if isinstance(value, str)), "") if isinstance(data, Mapping) else ""


def _annotated(task: Any, to: Collector) -> list[Any] | None:
    """The results of the annotation that counts."""
    if not isinstance(task, Mapping):
        raise Flaw("field", f"a task must be an object, found {type(task).__name__}")
    several = task.get("annotations") or []
    if not isinstance(several, list) or not all(isinstance(one, Mapping) for one in several):
        raise Flaw("field", "annotations must be a list of objects")
    kept = [one for one in several if not one.get("was_cancelled")]
    if not kept:
        return None
    if len(kept) > 1:
        to.notes["tasks have several annotations: the ground truth was used, or the last"] += 1
    best = max(enumerate(kept), key=lambda one: (bool(one[1].get("ground_truth")), str(one[1].get("updated_at") or ""), one[0]))[1]
    results = best.get("result")
    if not isinstance(results, list):
        raise Flaw("field", "the annotation has no list called result")
    return results


def _picture(task: Mapping[str, Any], folders: Sequence[Path], to: Collector) -> Path:
    """By the longest part of its address that is a file here."""
    data = task.get("data")
    given = (data.get("image") or _shown(task)) if isinstance(data, Mapping) else None
    if not isinstance(given, str) or not given:
        raise Flaw("field", "the task's data have no image")
    try:
        address = urlsplit(given)
    except ValueError as error:
        raise Flaw("field", f"the image's address is none: {given:.80}") from error
    local = parse_qs(address.query).get("d", [""])[0]
    parts = [part for part in PurePosixPath(local or unquote(address.path)).parts if part not in ("/", "..")]
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    uploaded = [UPLOADED.sub("", tail, count=1) for tail in tails[-1:]]
    for name in (given.lstrip("/"), *tails, *uploaded):  # as it stands first: a name may hold what means something in an address
        for folder in folders:
            if os.path.isfile(folder / name):
                return to.picture(name, folder)
    raise Flaw("missing", f"no such file beside the tasks, or in images/: {tails[-1] if tails else given:.200}")


def _things(results: Sequence[Any], size: Size, to: Collector) -> Iterator[Thing]:
    for number, result in enumerate(results, 1):
        try:
            yield from _result(result, results, size, to)
        except Flaw as flaw:
            raise Flaw(flaw.code, f"result {number}: {flaw.detail}") from flaw


def _result(result: Any, results: Sequence[Any], size: Size, to: Collector) -> Iterator[Thing]:
    if not isinstance(result, Mapping) or not isinstance(value := result.get("value"), Mapping):
        raise Flaw("field", "a result must be an object with a value")
    kind = result.get("type")
    shape = kind in SHAPES or kind in [f"{one}labels" for one in SHAPES] or (kind == "labels" and {"x", "points", "rle"} & value.keys())
    if not shape or not isinstance(kind, str):
        to.notes[f"results are {kind!s:.20}, which covers nothing, and were not used"] += 1
        return
    if kind in SHAPES and any(_labels_of(other, result.get("id")) for other in results):
        return  # another result of the same region says what it is
    says = (result.get("original_width"), result.get("original_height"))
    if None not in says and says != size:
        raise Flaw("size", f"the task says {says[0]} x {says[1]} pixels, the picture has {size[0]} x {size[1]}")
    if result.get("image_rotation"):
        raise Flaw("size", f"the picture was turned by {result['image_rotation']} degrees: turn it back, or save it so")
    labels = value.get(kind)
    if not isinstance(labels, list) or not labels:
        raise Flaw("label", "the region has no label")
    box, outline = _place(value, size, to)
    for label in labels:
        yield Thing(checks.label(label), box, outline)


def _labels_of(result: Any, id: object) -> bool:
    return isinstance(result, Mapping) and result.get("id") == id and str(result.get("type")).endswith("labels")


def _place(value: Mapping[str, Any], size: Size, to: Collector) -> tuple[Corners, Outline | None]:
    width, height = size
    if "rle" in value:
        outline = _brush(value["rle"], size)
        return checks.around(outline, size), outline
    if "points" in value:
        points = value["points"]
        if not isinstance(points, list):
            raise Flaw("outline", "the points must be a list")
        corners = [checks.numbers(point, 2, "a point", "outline") for point in points]
        outline = checks.within(checks.polygons([[[x / 100 * width, y / 100 * height] for x, y in corners]]), size)
        return checks.around(outline, size), outline
    sides = ("radiusX", "radiusY") if "radiusX" in value else ("width", "height")
    named = ("x", "y", *sides, "rotation")
    given = [value.get(name, 0 if name == "rotation" else None) for name in named]
    x, y, across, down, turn = checks.numbers(given, 5, ", ".join(named), "box")
    x, y, across, down = x / 100 * width, y / 100 * height, across / 100 * width, down / 100 * height
    if across < 0 or down < 0:
        raise Flaw("box", f"the region is inside out: {sides[0]} {value[sides[0]]}, {sides[1]} {value[sides[1]]}")
    if "radiusX" not in value and not turn:
        return to.box((x, y, x + across, y + down), size), None
    if "radiusX" in value:
        outline = checks.ellipse((x, y), (across, down), turn)
    else:  # turned about its top left corner
        outline = checks.turned([(x, y), (x + across, y), (x + across, y + down), (x, y + down)], (x, y), turn)
    return checks.around(outline, size), outline


def _brush(rle: object, size: Size) -> RunLengths:
    if not isinstance(rle, list) or not all(type(one) is int and 0 <= one < 256 for one in rle):
        raise Flaw("outline", "the brush must be a list of bytes")
    try:
        mask = from_brush(rle, size[1], size[0])
    except ValueError as error:
        raise Flaw("outline", str(error)) from error
    if not mask.any():
        raise Flaw("outline", "the brush is empty")
    return RunLengths((size[1], size[0]), compress(run_lengths(mask)))
