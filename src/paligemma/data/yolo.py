"""YOLO: a `.txt` of normalised numbers for each picture, and `data.yaml` with the names of the classes. Boxes and polygons.

class cx cy width height          a box                    class x y x y x y ...    a polygon (oriented boxes are four corners)

`data.yaml` names folders (or lists of pictures) for train, val, test; without them, `images/` and `labels/` beside it, or such folders in
`train/`, `valid/`, `test/`. Labels lie where `images` in the path becomes `labels`. A picture without a label file has no things, as
Ultralytics has it; how many do is noted. Pictures in other folders than the data set's own are not taken, whatever `path` says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, UsageError
from ..printable import printable
from ..sources import IMAGE_EXTENSIONS, natural_order
from . import checks
from .collector import PLACES, Collector
from .layout import Found, Part, canonical, files_of, in_order, split_folders
from .pictures import Size
from .reading import BOM, decoded, numbered_lines
from .records import Flaw, Thing

name = "yolo"
description = "YOLO text files: boxes, polygons, oriented boxes; data.yaml or classes.txt names the classes"
recognised = "a data.yaml with names, or a folder with images/ and labels/ and a data.yaml or classes.txt"
tasks: tuple[str, ...] = PLACES

NAMES = ("classes.txt", "obj.names", "_darknet.labels")
"""Class names without YAML, one a line."""


def find(path: Path) -> Found | None:
    if path.is_file():
        return _found(path.parent, path) if path.suffix.lower() in (".yaml", ".yml") and _names_classes(path) else None
    described = [file for file in files_of(path, ".yaml", ".yml") if _names_classes(file)]
    if len(described) > 1:
        described = [file for file in described if file.stem.lower() in ("data", "dataset")] or described
    if len(described) > 1:
        raise UsageError(
            f"several files could describe the data set: {', '.join(file.name for file in described)}", hint="name one of them"
        )
    if described:
        return _found(path, described[0])
    named = next((path / known for known in NAMES if (path / known).is_file()), None)
    if named and (((path / "labels").is_dir() and (path / "images").is_dir()) or any(map(_is_label, files_of(path, ".txt")[:20]))):
        return _found(path, named)
    return None


def _is_label(file: Path) -> bool:
    """Whether a text file's first line is of numbers only, as beside the pictures of a darknet folder."""
    with file.open("rb") as opened:
        return is_label(opened.readline(4096))


def _names_classes(file: Path) -> bool:
    """Without reading YAML, which needs a library: a line that begins `names:`."""
    with file.open("rb") as opened:
        return any(line.startswith((b"names:", b"'names':", b'"names":')) for line in opened.read(1 << 20).removeprefix(BOM).splitlines())


def _found(folder: Path, described: Path) -> Found:
    """`files` of a part: what names the classes, then the places of its pictures."""
    why = f"{described.name} names classes"
    said = _description(described)
    base = [Path(said["path"])] if isinstance(said.get("path"), str) else []
    parts = []
    for key, value in said.items():
        split = canonical(key) if isinstance(key, str) else ""
        if split in ("train", "valid", "test") and value:
            named = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
            places = [place for one in named if (place := _place(folder, base, one))]
            if len(places) < len(named) or not named:
                why += f"; its {key} is not in the data set's folder"
            else:
                parts.append(Part((described, *places), None, split))
    if not parts and (folder / "images").is_dir():
        inside = split_folders(folder / "images")
        parts = [Part((described, place), None, split) for split, place in inside.items()] or [Part((described, folder / "images"))]
    if not parts:
        for split, place in split_folders(folder).items():
            parts.append(Part((described, place / "images" if (place / "images").is_dir() else place), None, split))
    if not parts:
        parts = [Part((described, folder))]
    return Found(in_order(parts), printable(why))


def _description(file: Path) -> dict[str, Any]:
    """A YAML file's mapping; of a list of names, those. Raises `InputError` where it is none, `UsageError` where the library is missing."""
    try:
        text = decoded(file.read_bytes().removeprefix(BOM))
    except Flaw as flaw:
        raise InputError(f"{printable(str(file))}: {flaw.detail}", code="bad_encoding") from flaw
    if file.suffix.lower() not in (".yaml", ".yml"):
        return {"names": [line.strip() for line in text.splitlines() if line.strip()]}
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise UsageError("reading data.yaml needs the package PyYAML", hint="pip install 'paligemma[data]'") from error
    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{printable(str(file))}: broken YAML: {str(error)[:200]}", code="bad_annotations") from error
    if not isinstance(found, dict):
        raise InputError(f"{printable(str(file))}: expected names of classes, found {type(found).__name__}", code="bad_annotations")
    return found


def _place(folder: Path, base: Sequence[Path], value: str) -> Path | None:
    """A folder or list of pictures that the description names, inside the data set's folder, also if that once lay elsewhere; or None."""
    top = os.path.realpath(folder)
    tail = value.removeprefix("../").removeprefix("./")  # Roboflow writes ../train/images and means train/images
    for candidate in (*(folder / one / value for one in base), folder / value, folder / tail):
        real = os.path.realpath(candidate)
        if os.path.exists(candidate) and (real == top or real.startswith(top + os.sep)):
            return Path(os.path.normpath(candidate))
    return None


def read(part: Part, to: Collector) -> None:
    """Raises `InputError` where no picture, or no label file, is found at all."""
    described, *places = part.files
    to.bytes_of(described)
    said = _description(described)
    names = _class_names(said.get("names"), described)
    to.classes.update(dict.fromkeys(names.values()))
    if "kpt_shape" in said:
        to.notes["data sets have key points, which were not used"] += 1
    pictures = [path for place in places for path in _pictures(place, described.parent, to)]
    where = ", ".join(to.place(place) for place in places)
    if not pictures:
        raise InputError(f"{where}: there are no pictures here", code="not_found")
    labels = [(path, _label_file(path)) for path in pictures]
    if not any(file.is_file() for _, file in labels):
        raise InputError(
            f"{where}: none of the {len(labels)} pictures has a label file, such as {to.place(labels[0][1])}", code="not_found"
        )
    _orphans(labels, to)
    for path, file in labels:
        id = os.path.relpath(path, to.root)
        if not file.is_file():
            to.notes["pictures have no label file and were taken as empty"] += 1
        with to.record(to.place(file), id, to.place(path)):
            picture = to.picture(path.name, path.parent)
            size = to.pictures.size(picture)
            things = list(_things(file, names, size, to, key_points=said.get("kpt_shape"))) if file.is_file() else []
            to.things(id, to.place(file), picture, size, things, about=part.about)


def _class_names(names: Any, file: Path) -> dict[int, str]:
    """A list, or numbers and names. One broken name makes the file useless."""
    try:
        numbered = names.items() if isinstance(names, Mapping) else enumerate(names)
        return {int(number): checks.label(one) for number, one in numbered}
    except (TypeError, ValueError, Flaw) as error:
        raise InputError(f"{printable(str(file))}: the names of the classes cannot be used: {error}", code="bad_annotations") from error


def _pictures(place: Path, folder: Path, to: Collector) -> Iterator[Path]:
    """Of a folder, those in it and below; of a list, those it names, relative to the list or to the data set."""
    if place.is_dir():
        for base, folders, files in os.walk(place):
            folders.sort(key=natural_order)
            for file in sorted(files, key=natural_order):
                if Path(file).suffix.lower() in IMAGE_EXTENSIONS and not file.startswith("."):
                    yield Path(base, file)
        return
    for number, line in numbered_lines(to.bytes_of(place)):
        with to.record(f"{to.place(place)}:{number}", f"{place.name}:{number}"):
            named = decoded(line).strip()
            base = place.parent if os.path.exists(place.parent / named) else folder
            yield to.pictures.find(named, base)


def _label_file(picture: Path) -> Path:
    """The last `images` of the path becomes `labels`; without one, the file lies beside the picture."""
    parts = list(picture.parts)
    at = next((i for i in range(len(parts) - 2, -1, -1) if parts[i].lower() == "images"), None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


def is_label(line: bytes) -> bool:
    """Whether a line is a class and its numbers."""
    words = line.split()
    return len(words) >= 5 and words[0].isdigit() and all(word.replace(b".", b"", 1).replace(b"-", b"").isalnum() for word in words)


def _orphans(labels: Sequence[tuple[Path, Path]], to: Collector) -> None:
    """Label files whose picture is not there."""
    used = {file for _, file in labels}
    for folder in dict.fromkeys(file.parent for file in used):
        for file in files_of(folder, ".txt"):
            if file not in used and file.name not in NAMES and file.stem.lower() not in ("readme", "train", "val", "valid", "test"):
                to.fault(to.place(file), "missing", "there is no picture for this label file", os.path.relpath(file, to.root))


def _things(file: Path, names: Mapping[int, str], size: Size, to: Collector, *, key_points: Any) -> Iterator[Thing]:
    for number, line in numbered_lines(to.bytes_of(file)):
        try:
            yield _thing(decoded(line).split(), names, size, to, bool(key_points))
        except Flaw as flaw:
            raise Flaw(flaw.code, f"line {number}: {flaw.detail}") from flaw


def _thing(words: Sequence[str], names: Mapping[int, str], size: Size, to: Collector, key_points: bool) -> Thing:
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise Flaw("field", f"expected numbers, found {' '.join(words)[:60]!r}") from None
    if values[0] not in names:
        raise Flaw("category", f"there is no class {words[0]:.20}; there are {len(names)}")
    label, (width, height) = names[int(values[0])], size
    if len(values) == 5 or (key_points and len(values) > 5):
        cx, cy, w, h = values[1:5]
        if w < 0 or h < 0:
            raise Flaw("box", f"the box is inside out: its width is {w}, its height {h}")
        corners = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
        return Thing(label, to.box(corners, size))
    if len(values) < 5 or len(values) % 2 == 0:
        raise Flaw("field", f"expected a class and 4 numbers, or a class and pairs of numbers, found {len(values)} numbers")
    corners = [value * (width, height)[i % 2] for i, value in enumerate(values[1:])]
    outline = checks.within(checks.polygons([corners]), size)
    return Thing(label, checks.around(outline, size), outline)
