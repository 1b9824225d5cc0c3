"""Data sets of the small world in the formats people annotate in, about what the bundled model has not learnt: to say it in other words.

Boxes and outlines are named after kinds (it says "cat", they say "animal"), questions are new ones, descriptions are lists. They are for
trying `paligemma train` and `paligemma eval`: scenes of things only, divided into train, val and test, whose test scenes come from another
stream of seeds. Boxes and outlines are written by the package `supervision`.
"""

from __future__ import annotations

import functools
import json
import shlex
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError, UsageError, did_you_mean
from ..printable import printable
from ..tasks import caption
from .lessons import label
from .names import things
from .world import Placed, Scene, Split, World

KINDS = {
    "animal": "🐈🐕🐎🐖🐘🐇🐻🦊🐼🐧🦉🦆🐢🐟🐙🦀🦋🐌",
    "shape": "❤💛💚💙💜🔴🟡🟢🔵🟣",
    "other": "🌵🌻🍄🍌🍇🍓🍕🍔🥕🚲✈🚀🎸☂🏠🔑✂🔔📗📘📙",
}
"""Kind -> the things that are one."""
SETTINGS = "--lr 3e-4 --batch 16 --steps 120"
"""With which the bundled model learns them in a minute or two: it sees well enough, and only has to say it in other words."""
TASKS = {"labelme": "segment"}
"""Format -> what it is read for here, where that is not what is usual for it."""
OUTLINES = "--lr 5e-4 --batch 16 --steps 500 --flip 0.5 --colour 0.3"
"""The same for outlines, whose 16 codes a thing take longer, and are learnt by heart where pictures stay as they are."""
PEOPLE = 10
"""Answers to each question, as in VQAv2; here all are of one mind."""


@dataclass(frozen=True)
class Drawn:
    """A scene on disk. `number` is unique in its data set."""

    number: int
    path: Path
    scene: Scene
    rng: np.random.Generator


@functools.cache
def _kinds() -> tuple[str, ...]:
    """Of each thing of the world."""
    of = {character: kind for kind, characters in KINDS.items() for character in characters}
    return tuple(of[thing.character] for thing in things())


def kind(spot: Placed) -> str:
    """What kind of thing was placed."""
    return _kinds()[spot.thing]


def inventory(scene: Scene) -> str:
    """ "cat, cat, red heart": what there is from left to right."""
    return ", ".join(map(label, scene.objects))


def questions(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """(type of question, question, answer): how many things there are, and what is at one side."""
    side = ("left", "right")[int(rng.integers(2))]
    return [
        ("how many", "how many in all?", str(len(scene.objects))),
        ("what", f"what is furthest to the {side}?", label(scene.objects[0 if side == "left" else -1])),
    ]


def write_data(out: Path, *, format: str, count: int, held_out: int, seed: int) -> Path:
    """Draw `count` scenes to train on, `held_out` to measure on and a quarter of that to choose by into folder `out`; returns it.

    Raises `UsageError` for an unknown format or a missing package, `InputError` where the folder is not empty.
    """
    if format not in FORMATS:
        raise UsageError(f"no data set is written as {format!r}", hint=did_you_mean(format, FORMATS, f"one of: {', '.join(FORMATS)}"))
    if count < 1 or held_out < 1:
        raise UsageError(f"a data set needs at least one scene to train on and one to measure on, got {count} and {held_out}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{printable(str(out))} is there already", hint="name a folder that is new or empty")
    folder, write = FORMATS[format]
    first = 0
    for name, split, start, size in (
        ("train", Split.TRAIN, 0, count),
        ("val", Split.TRAIN, count, max(held_out // 4, 1)),
        ("test", Split.TEST, 0, held_out),
    ):
        world = World(split, seed=seed, text_share=0.0)
        pictures = out / folder.format(split=name)
        pictures.mkdir(parents=True, exist_ok=True)
        drawn = []
        for index in range(size):
            number = first + index
            scene = world.scene(start + index)
            path = pictures / f"{number:06d}.png"
            Image.fromarray(scene.pixels).save(path)
            drawn.append(Drawn(number, path, scene, np.random.default_rng([seed, number, 0xDA7A])))
        write(out, name, drawn)
        first += size
    return out


def next_steps(folder: Path, format: str) -> list[str]:
    """Commands that measure, train and measure again."""
    data, before, run, after = (shlex.quote(f"{folder}{end}") for end in ("", "-before", "-run", "-after"))
    source = f"--data {data}" + (f" --task {TASKS[format]}" if format in TASKS else "")
    return [
        f"paligemma eval {source} --out {before}",
        f"paligemma train {source} --out {run} {OUTLINES if TASKS.get(format) == 'segment' else SETTINGS}",
        f"paligemma eval {source} --model {run}/best --out {after} --against {before}",
    ]


def _supervised(drawn: list[Drawn], *, outlines: bool) -> Any:
    """Things by their kind, as `supervision` holds them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it works without OpenCV, only slower
            import supervision as sv
    except ModuleNotFoundError as error:
        raise UsageError("writing this format needs the package supervision", hint="pip install 'paligemma[vision]'") from error
    names, found = list(KINDS), {}
    for one in drawn:
        spots = one.scene.objects
        found[str(one.path)] = sv.Detections(
            xyxy=np.array([[spot.x0, spot.y0, spot.x1, spot.y1] for spot in spots], float),
            class_id=np.array([names.index(kind(spot)) for spot in spots]),
            mask=np.stack([one.scene.mask(i) for i in range(len(spots))]) if outlines else None,
        )
    return sv.DetectionDataset(classes=names, images=list(found), annotations=found)


def _coco(out: Path, split: str, drawn: list[Drawn]) -> None:
    """supervision calls an outline of several parts a crowd, which nobody is asked for: here it is one thing."""
    file = out / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(exist_ok=True)
    _supervised(drawn, outlines=True).as_coco(annotations_path=str(file))
    data = json.loads(file.read_text(encoding="utf-8"))
    for annotation in data["annotations"]:
        annotation["iscrowd"] = 0
    _json(file, data)


def _yolo(out: Path, split: str, drawn: list[Drawn]) -> None:
    labels = out / "labels" / split
    _supervised(drawn, outlines=False).as_yolo(annotations_directory_path=str(labels), data_yaml_path=str(out / "data.yaml"))


def _voc(out: Path, split: str, drawn: list[Drawn]) -> None:
    _supervised(drawn, outlines=False).as_pascal_voc(annotations_directory_path=str(out / "Annotations"))
    listing = out / "ImageSets" / "Main" / f"{split}.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{one.path.stem}\n" for one in drawn))


def _labelme(out: Path, split: str, drawn: list[Drawn]) -> None:
    _supervised(drawn, outlines=True).as_labelme(annotations_directory_path=str(out / split))


def _vqa(out: Path, split: str, drawn: list[Drawn]) -> None:
    """VQAv2's two files; the number of a picture is in its name."""
    asked: list[dict[str, Any]] = []
    known: list[dict[str, Any]] = []
    for one in drawn:
        for place, (sort, question, answer) in enumerate(questions(one.scene, one.rng)):
            ids = {"image_id": one.number, "question_id": 10 * one.number + place}
            asked.append({**ids, "question": question})
            said = [{"answer": answer, "answer_confidence": "yes", "answer_id": person + 1} for person in range(PEOPLE)]
            head = {"question_type": sort, "answer_type": "number" if sort == "how many" else "other", "multiple_choice_answer": answer}
            known.append({**ids, **head, "answers": said})
    head = {"info": {}, "license": {}, "data_type": "scenes", "data_subtype": split}
    _json(out / f"questions_{split}.json", {**head, "task_type": "Open-Ended", "questions": asked})
    _json(out / f"annotations_{split}.json", {**head, "annotations": known})


def _jsonl(out: Path, split: str, drawn: list[Drawn]) -> None:
    with (out / f"{split}.jsonl").open("w", encoding="utf-8") as file:
        for one in drawn:
            row = {"image": str(one.path.relative_to(out)), "prefix": caption.prompt("en"), "suffix": inventory(one.scene)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")


FORMATS: Mapping[str, tuple[str, Callable[[Path, str, list[Drawn]], None]]] = {
    "coco": ("{split}", _coco),
    "yolo": ("images/{split}", _yolo),
    "voc": ("JPEGImages", _voc),
    "labelme": ("{split}", _labelme),
    "vqa": ("{split}", _vqa),
    "jsonl": ("images", _jsonl),
}
"""Name -> where its pictures lie, and what writes the annotations of a split beside them."""
