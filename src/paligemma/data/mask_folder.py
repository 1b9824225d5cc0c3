"""Pictures and masks whose pixels say the class: `images/` and `masks/` with the same names, or `x.jpg` and `x_mask.png`, and a class list.

Such a mask does not know one object from the next, so a class is one thing of its picture, with all its pixels; with `connected`, each
connected part of it is one (parts under a ten-thousandth of the picture are specks, counted and not used). The background, 255 where it
is no class, and 0 where it is none, are nothing. Of a list with a single name everything that is not 0 is it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..mask_formats import polygons
from ..sources import IMAGE_EXTENSIONS
from . import checks
from .class_lists import FILES, Value, class_list, is_background
from .collector import Collector
from .layout import Found, Part, files_of, split_folders
from .outlines import Bitmap, Polygons, bitmap
from .pictures import Size
from .records import Flaw, Thing

name = "mask-folder"
description = "pictures and masks (PNG, the value or colour of a pixel is its class) with a list of classes"
recognised = f"images/ and masks/ (or x.jpg and x_mask.png) and a list of classes: {', '.join(FILES[:6])}, ..."
tasks: tuple[str, ...] = ("segment", "detect", "refer", "describe_box")

PICTURES = ("images", "image", "imgs", "img", "JPEGImages")
MASKS = ("masks", "mask", "labels", "annotations", "SegmentationClassPNG", "SegmentationClass", "gt")
MASK_FILES = (".png", ".bmp", ".gif", ".tif", ".tiff")
NOTHING = 255
SPECK = 1e-4
"""Share of the picture under which a connected part is one."""


def find(path: Path) -> Found | None:
    """`files` of a part: the class list, then the folder of masks."""
    if path.is_file():
        return None
    listed = _list(path)
    if listed and (part := _part(path, listed, "")):
        return Found((part,), f"{part.files[1].name}/ and {listed.name}")
    parts = []
    for split, folder in split_folders(path).items():
        own = _list(folder) or listed
        if own and (part := _part(folder, own, split)):
            parts.append(part)
    if not parts and listed:  # images/train and masks/train
        pairs = [(a, b) for a in PICTURES for b in MASKS if (path / a).is_dir() and (path / b).is_dir()]
        for a, b in pairs[:1]:
            masks = split_folders(path / b)
            parts = [Part((listed, masks[split]), own, split) for split, own in split_folders(path / a).items() if split in masks]
    return Found(tuple(parts), f"masks and {parts[0].files[0].name}") if parts else None


def _list(folder: Path) -> Path | None:
    return next((folder / known for known in FILES if (folder / known).is_file()), None)


def _part(folder: Path, listed: Path, split: str) -> Part | None:
    for pictures in (folder / known for known in PICTURES):
        for masks in (folder / known for known in MASKS):
            if files_of(pictures, *IMAGE_EXTENSIONS) and files_of(masks, *MASK_FILES):
                return Part((listed, masks), pictures, split)
    beside = any(file.stem.endswith("_mask") for file in files_of(folder, *MASK_FILES))
    return Part((listed, folder), folder, split) if beside else None


def read(part: Part, to: Collector) -> None:
    """Raises `InputError` for a class list that is none, and where no picture has a mask."""
    listed, masks = part.files
    to.task = to.task or tasks[0]
    assert part.pictures is not None
    classes = class_list(to.bytes_of(listed), listed)
    labels = [label for label in classes.values() if not is_background(label)]
    to.classes.update(dict.fromkeys(labels))
    single = len(classes) == 1
    if not single and isinstance(next(iter(classes)), int) and not is_background(classes.get(0, "background")):
        to.notes[f"lists of classes say that pixels of value 0 are {classes[0]!r}, and not background"] += 1
    by_stem = {file.stem.removesuffix("_mask"): file for file in files_of(masks, *MASK_FILES) if masks != part.pictures or _is_mask(file)}
    pictures = [file for file in files_of(part.pictures, *IMAGE_EXTENSIONS) if masks != part.pictures or not _is_mask(file)]
    if not any(file.stem in by_stem for file in pictures):
        raise InputError(f"{to.place(masks)}: no mask has the name of a picture in {to.place(part.pictures)}", code="not_found")
    for file in pictures:
        id, mask = os.path.relpath(file, to.root), by_stem.pop(file.stem, None)
        with to.record(to.place(mask or file), id, to.place(file)):
            if mask is None:
                raise Flaw("missing", f"there is no mask for it in {to.place(masks)}")
            picture = to.picture(file.name, part.pictures)
            size = to.pictures.size(picture)
            mask = to.picture(mask.name, masks)
            things = list(_things(mask, size, classes, single, to))
            to.things(id, to.place(mask), picture, size, things, about=part.about)
    for mask in by_stem.values():
        to.fault(to.place(mask), "missing", "there is no picture for this mask", os.path.relpath(mask, to.root))


def _is_mask(file: Path) -> bool:
    return file.stem.endswith("_mask")


def _things(mask: Path, size: Size, classes: Mapping[Value, str], single: bool, to: Collector) -> Iterator[Thing]:
    colours = not isinstance(next(iter(classes)), int)
    try:
        pixels = bitmap(mask, *size, colours=colours)
    except ValueError as error:
        raise Flaw("outline", str(error)) from error
    if single and not colours:
        found = [value for value in np.unique(pixels).tolist() if value]
        if len(found) > 1:
            raise Flaw("outline", f"one class is listed, the mask has the values {', '.join(map(str, found[:6]))}")
        classes = dict.fromkeys(found, next(iter(classes.values())))
    yield from _of_classes(mask, pixels, classes, size, to)


def _of_classes(mask: Path, pixels: np.ndarray, classes: Mapping[Value, str], size: Size, to: Collector) -> Iterator[Thing]:
    for value in _values(pixels):
        label = classes.get(value)
        if label is None:
            if value in (0, NOTHING, (0, 0, 0), (NOTHING,) * 3):
                continue
            last = max(key for key in classes if isinstance(key, int)) if isinstance(value, int) else None
            hint = "; the list counts from 0, so the background comes first" if last is not None and value == last + 1 else ""
            raise Flaw("category", f"a pixel has the value {value}, which no class has{hint}")
        if is_background(label):
            continue
        covered = (pixels == value) if isinstance(value, int) else (pixels == np.array(value)).all(-1)
        if to.connected:
            yield from _parts(covered, label, size, to)
        else:
            box = checks.corners(covered)
            assert box is not None
            yield Thing(label, box, Bitmap(mask, value))


def _values(pixels: np.ndarray) -> list[Value]:
    if pixels.ndim == 2:
        return np.unique(pixels).tolist()
    packed = np.unique(pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)).tolist()
    return [(one >> 16, one >> 8 & 255, one & 255) for one in packed]


def _parts(covered: np.ndarray, label: str, size: Size, to: Collector) -> Iterator[Thing]:
    for ring in polygons(covered):
        outline = Polygons((tuple((float(x), float(y)) for x, y in ring),))
        if outline.mask(*size).sum() < SPECK * covered.size:
            to.notes["parts of masks are specks and were not used"] += 1
        else:
            yield Thing(label, checks.around(outline, size), outline)
