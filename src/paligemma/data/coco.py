"""COCO: one JSON file with images, annotations, categories. Boxes, polygons, run lengths of both kinds, captions.

Pictures are looked for beside the file, in `images/`, in a folder named like its split (`annotations/instances_val2017.json` ->
`val2017/`). Regions marked as crowds are kept as `Record.ignored` and counted. Captions of a picture are the answers of one record.
An annotation may have a sentence of its own (`caption`, `sentence` or `sentences` beside its box), for `refer` and `describe_box`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..tasks import caption
from . import checks
from .collector import PLACES, Collector
from .layout import Found, Part, annotation_parts, files_of, in_order, picture_folder, split_folders, split_named, usual_picture_folders
from .pictures import Size
from .reading import Glance, glance, json_of
from .records import Flaw, Record, Thing

name = "coco"
description = "COCO JSON: boxes, polygons, run lengths, captions"
recognised = "a .json file with images, annotations, categories; or a folder with annotations/*.json or train/_annotations.coco.json"
tasks: tuple[str, ...] = (*PLACES, "caption")

SENTENCES = ("sentences", "sentence", "caption", "phrase")
"""Where an annotation with a box may say what means it."""


def find(path: Path) -> Found | None:
    """`files` of a part: the annotations of things, then a file of captions beside it."""
    if path.is_file():
        return Found((Part((path,)),), f"{path.name} has images and annotations") if _is(path) else None
    for folder in (path, path / "annotations", path / "labels"):
        if parts := _parts(folder):
            return Found(parts, f"{parts[0].files[0].relative_to(path)} has images and annotations")
    parts = [Part(part.files, folder, split) for split, folder in split_folders(path).items() for part in _parts(folder)]
    return Found(in_order(parts), f"{parts[0].files[0].relative_to(path)} has images and annotations") if parts else None


def _parts(folder: Path) -> tuple[Part, ...]:
    """Of COCO's own files the instances, with the captions of their split; key points are read by naming the file."""
    files = [file for file in files_of(folder, ".json") if _is(file)]
    captions = {split_named(file.stem): file for file in files if file.name.startswith("captions")}
    instances = [file for file in files if file.name.startswith("instances")] or [file for file in files if file not in captions.values()]
    found = annotation_parts(instances or captions.values(), f"COCO files in {folder.name}/")
    own = {part.split: captions.get(part.split) for part in found}
    return tuple(Part((*part.files, *filter(None, [own[part.split]])), None, part.split) for part in found)


def _is(path: Path) -> bool:
    seen = glance(path) if path.suffix.lower() == ".json" else None
    return seen is not None and _looks_like(seen)


def _looks_like(seen: Glance) -> bool:
    images = "images" in seen.keys and "file_name" in seen.inner
    annotations = "annotations" in seen.keys and "image_id" in seen.inner and "question_id" not in seen.inner
    return images or annotations or ("categories" in seen.keys and "supercategory" in seen.inner)


def read(part: Part, to: Collector) -> None:
    """Raises `InputError` for a file without its three lists."""
    file = part.files[-1 if to.task == "caption" else 0]
    data = json_of(to.bytes_of(file), file)
    images, annotations = _list(data, "images", file), _list(data, "annotations", file)
    place, by_image = to.place(file), defaultdict(list)
    for annotation in annotations:
        id = annotation.get("image_id") if isinstance(annotation, Mapping) else None
        by_image[id if isinstance(id, int | str) else None].append(annotation)
    captions = to.task == "caption" or (to.task is None and _only_captions(annotations))
    reading = _Reading(to, part, {} if captions else _categories(_list(data, "categories", file), annotations, to, file))
    known = _Images(to, part, place, by_image).kept(images)
    if part.pictures is None:
        folder = picture_folder([image["file_name"] for image in known], _folders(file, to))
        to.pictures.allow(folder)
    else:
        folder = part.pictures
    for image in known:
        where = f"{place}: image {image['id']}"
        with to.record(where, part.id(image["id"]), image["file_name"]):
            path = to.picture(image["file_name"], folder)
            size = to.pictures.size(path, (image.get("width"), image.get("height")))
            if captions:
                reading.captions(image, by_image[image["id"]], path, where)
            else:
                reading.things(image, by_image[image["id"]], path, size, where)


def _list(data: Any, key: str, file: Path) -> list[Any]:
    found = data.get(key) if isinstance(data, Mapping) else None
    if not isinstance(found, list):
        what = f"found {', '.join(map(str, data))[:80] or 'none'}" if isinstance(data, Mapping) else f"found {type(data).__name__}"
        raise InputError(f"{file.name}: no COCO: a list called {key} is missing, {what}", code="bad_annotations")
    return found


def _only_captions(annotations: list[Any]) -> bool:
    first = next((one for one in annotations if isinstance(one, Mapping)), {})
    return "caption" in first and "bbox" not in first and "segmentation" not in first


def _categories(categories: list[Any], annotations: list[Any], to: Collector, file: Path) -> dict[Any, str]:
    """Number -> name. A file whose categories are broken is broken as a whole.

    A category without annotations that others have as their supercategory is no class of things: Roboflow writes one for the whole set.
    """
    names: dict[Any, str] = {}
    for category in categories:
        try:
            number, label = category["id"], checks.label(category["name"])
            repeated = number in names
        except (TypeError, KeyError, Flaw) as error:
            raise InputError(f"{file.name}: a category cannot be used: {str(category)[:80]} ({error})", code="bad_annotations") from error
        if repeated:
            raise InputError(f"{file.name}: two categories have the id {number}: {names[number]}, {label}", code="bad_annotations")
        names[number] = label
    parents = {category.get("supercategory") for category in categories if category.get("supercategory") != category["name"]}
    used = {str(one.get("category_id")) for one in annotations if isinstance(one, Mapping)}
    to.classes.update(dict.fromkeys(name for number, name in names.items() if str(number) in used or name not in parents))
    return names


def _folders(file: Path, to: Collector) -> list[Path]:
    """Where its pictures may lie: inside the data set's folder, or beside a folder called annotations."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", file.stem) if split_named(word)]
    top = file.parent.parent if file.parent.name in ("annotations", "labels") else file.parent
    inside = [folder for folder in usual_picture_folders(file, words) if folder.is_relative_to(top) or folder.is_relative_to(to.root)]
    return [folder for folder in inside if folder.is_dir()]


class _Images:
    """The list of images, checked: what is wrong with one is a fault, and so are annotations of images that are not there."""

    def __init__(self, to: Collector, part: Part, place: str, by_image: Mapping[Any, list[Any]]):
        self.to, self.part, self.by_image, self.place = to, part, by_image, place

    def kept(self, images: list[Any]) -> list[dict[str, Any]]:
        by_id: dict[Any, dict[str, Any]] = {}
        unclear: dict[Any, None] = {}
        for number, image in enumerate(images):
            id, name = (image.get("id"), image.get("file_name")) if isinstance(image, Mapping) else (None, None)
            shown = "" if id is None else self.part.id(id)
            with self.to.record(f"{self.place}: images[{number}]", shown, name or ""):
                if isinstance(id, bool) or not isinstance(id, int | str):
                    raise Flaw(
                        "field", "the image has no id" if id is None else f"the image's id must be a number or text, found {id!r:.60}"
                    )
                if not isinstance(name, str) or not name:
                    unclear[id] = None  # its annotations go with it
                    raise Flaw("field", "the image has no file_name")
                if id in by_id:
                    if by_id[id]["file_name"] != name:
                        unclear[id] = None
                    raise Flaw("duplicate", f"the image id {id!r:.80} was there before")
                by_id[id] = dict(image)
        self.orphans(set(by_id) | set(unclear))
        for id in unclear:
            if image := by_id.pop(id, None):
                detail = "another picture has the same id, so nobody knows whose the annotations are"
                self.to.fault(f"{self.place}: image {id}", "duplicate", detail, self.part.id(id), image["file_name"])
        return list(by_id.values())

    def orphans(self, known: set[Any]) -> None:
        for id, lost in self.by_image.items():
            for annotation in lost if id not in known else ():
                own = annotation.get("id") if isinstance(annotation, Mapping) else None
                detail = "the annotation has no image_id" if id is None else f"there is no image with the id {id!r:.60}"
                self.to.fault(f"{self.place}: annotation {own}", "field", detail, self.part.id(f"annotation {own}"))


class _Reading:
    def __init__(self, to: Collector, part: Part, names: Mapping[Any, str]):
        self.to, self.part, self.names = to, part, names

    def captions(self, image: Mapping[str, Any], annotations: list[Any], path: Path, where: str) -> None:
        texts = [caption.target(checks.answer(one.get("caption"), "the caption")) for one in annotations]
        if not texts:
            raise Flaw("answer", "the picture has no caption")
        about = {"image_id": image["id"], **self.part.about}
        self.to.add(Record(self.part.id(image["id"]), "caption", (path,), where, caption.prompt(), tuple(texts), about=about))

    def things(self, image: Mapping[str, Any], annotations: list[Any], path: Path, size: Size, where: str) -> None:
        things: list[Thing] = []
        texts: list[tuple[str, ...]] = []
        ignored: list[Thing] = []
        for annotation in annotations:
            try:
                thing = self.thing(annotation, size)
                sentences = self.sentences(annotation)
            except Flaw as flaw:
                raise Flaw(flaw.code, f"annotation {annotation.get('id')}: {flaw.detail}") from flaw
            if annotation.get("iscrowd"):
                ignored.append(thing)
                self.to.notes["regions are crowds and were not used"] += 1
            else:
                things.append(thing)
                texts.append(sentences)
        about = {"image_id": image["id"], **self.part.about}
        self.to.things(self.part.id(image["id"]), where, path, size, things, texts=texts, ignored=ignored, about=about)

    def thing(self, annotation: Mapping[str, Any], size: Size) -> Thing:
        category = annotation.get("category_id")
        try:
            label = self.names[category]
        except (KeyError, TypeError):
            raise Flaw("category", f"there is no category {category!r:.60}") from None
        outline = checks.outline(annotation.get("segmentation"), size)
        if annotation.get("bbox") is None:
            if outline is None:
                raise Flaw("field", "there is no bbox and no segmentation")
            return Thing(label, checks.around(outline, size), outline)
        x, y, width, height = checks.numbers(annotation["bbox"], 4, "the bbox", "box")
        if width < 0 or height < 0:
            raise Flaw("box", f"the box is inside out: its width is {width}, its height {height}")
        return Thing(label, self.to.box((x, y, x + width, y + height), size), outline)

    def sentences(self, annotation: Mapping[str, Any]) -> tuple[str, ...]:
        given = next((annotation[key] for key in SENTENCES if annotation.get(key)), ())
        several = given if isinstance(given, list | tuple) else [given]
        texts = (one.get("sent") or one.get("raw") if isinstance(one, Mapping) else one for one in several)
        return tuple(checks.prompt(one, "the sentence").strip() for one in texts)
