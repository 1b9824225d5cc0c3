"""Scenes of the small world on disk: PNG files and their truth, for looking at, for trying commands on, and for the demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .. import demo
from ..errors import PaliGemmaError, UsageError
from ..mask_formats import compress, run_lengths
from .lessons import Lesson, Teacher, label
from .names import LANGUAGES, enumerate_names, things
from .world import Placed, Scene, Split, World

if TYPE_CHECKING:
    from ..predictor import Predictor


def write_scenes(out: Path, *, count: int, seed: int, split: str) -> Path:
    """Draw `count` scenes into folder `out`; returns the path of `scenes.jsonl`. Raises `UsageError` for an unknown split."""
    splits = {split.name.lower(): split for split in Split}
    if split not in splits:
        raise UsageError(f"no split is called {split!r}", hint=f"one of: {', '.join(splits)}")
    world = World(splits[split], seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    listing = out / "scenes.jsonl"
    with listing.open("w", encoding="utf-8") as file:
        for index in range(count):
            scene = world.scene(index)
            name = f"scene{index:03d}.png"
            Image.fromarray(scene.pixels).save(out / name)
            file.write(json.dumps({"image": name} | truth(scene), ensure_ascii=False) + "\n")
    return listing


def truth(scene: Scene) -> dict[str, Any]:
    """What is in a scene: boxes in pixels, captions, printed text."""
    teacher = Teacher()
    return {
        "objects": [{"label": label(spot), "box": corners(spot)} for spot in scene.objects],
        "captions": {lang: teacher.caption(scene, lang).suffix for lang in LANGUAGES} if scene.objects else {},
        "text": teacher.ocr(scene).suffix if scene.lines else "",
    }


DEMO = {"objects": 3, "twins": 2, "colours": 1, "words": 2}
"""How many scenes of each kind the demo shows: see `_kind`."""


MOST_SCENES = 5000
"""Looked at before giving up on a demo."""


def write_demo(out: Path, *, seed: int = 7, model: Predictor | None = None) -> Path:
    """The demo's pictures and questions: a few test scenes that between them show every task. Returns `demo.json`.

    With a `model`, scenes that it answers without a mistake, and `README.md` says how many were passed over for that. Raises
    `PaliGemmaError` if it answers too few.
    """
    world = World(Split.TEST, seed=seed)
    teacher = Teacher()
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in DEMO}
    passed_over = 0
    out.mkdir(parents=True, exist_ok=True)
    for index in range(MOST_SCENES):
        if all(len(found[kind]) == wanted for kind, wanted in DEMO.items()):
            break
        scene = world.scene(index)
        kind = _kind(scene)
        if kind not in DEMO or len(found[kind]) == DEMO[kind]:
            continue
        name = f"{kind}{len(found[kind]) + 1}.png"
        items = _items(scene, teacher, np.random.default_rng([seed, index]))
        image = Image.fromarray(scene.pixels)
        if model is not None and not all(answered.right for answered in demo.answer(model, demo.picture(name, image, items))):
            passed_over += 1
            continue
        image.save(out / name)
        found[kind].append({"image": name, "items": items})
    else:
        raise PaliGemmaError(
            f"{MOST_SCENES} scenes do not make a demo: found { ({kind: len(entries) for kind, entries in found.items()}) }"
        )
    listing = out / "demo.json"
    entries = [entry for kind in DEMO for entry in found[kind]]
    listing.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if model is not None:
        (out / "README.md").write_text(
            f"Test scenes, the first of each kind that the bundled model answers without a mistake: {len(entries)} were taken and\n"
            f"{passed_over} passed over. How often it errs on scenes that nobody chose is in its card.\n"
        )
    return listing


def corners(spot: Placed) -> list[int]:
    """Left, top, right, bottom in pixels."""
    return [spot.x0, spot.y0, spot.x1, spot.y1]


def _kind(scene: Scene) -> str:
    """What a scene is good for showing."""
    labels = [label(spot) for spot in scene.objects]
    if scene.lines:
        return "words" if len(scene.lines) > 1 else "word"
    if len(set(labels)) < len(labels):
        return "twins" if len(labels) > 2 else "pair"
    if sum(things()[spot.thing].colour is not None for spot in scene.objects) > 1:
        return "colours"
    return "objects" if len(labels) >= 3 else "few"


def _items(scene: Scene, teacher: Teacher, rng: np.random.Generator) -> list[dict[str, Any]]:
    if scene.lines:
        return [{"task": "ocr", "expect": teacher.ocr(scene).suffix}, _ask(teacher.text_question(scene, rng))]
    items: list[dict[str, Any]] = [{"task": "caption", "lang": lang, "expect": teacher.caption(scene, lang).suffix} for lang in LANGUAGES]
    for ask in (teacher.count, teacher.presence, teacher.colour, teacher.side, teacher.relation):
        item = _ask(ask(scene, rng))
        if item not in items:
            items.append(item)
    boxes: dict[str, list[list[int]]] = {}
    for spot in scene.objects:
        boxes.setdefault(label(spot), []).append(corners(spot))
    items.append({"task": "detect", "classes": list(boxes), "expect": boxes})
    lessons = iter(lambda: teacher.segment(scene, rng), None)
    phrase, target = next((lesson.asked[0], lesson.targets[0]) for lesson in lessons if len(lesson.targets) == 1)
    shape = {"box": corners(scene.objects[target]), "mask": compress(run_lengths(scene.mask(target)))}
    items.append({"task": "segment", "classes": [phrase], "expect": {phrase: [shape]}})
    spot = scene.objects[0]
    items.append({"task": "describe_box", "box": corners(spot), "expect": enumerate_names([label(spot)], "en")})
    return items


def _ask(lesson: Lesson) -> dict[str, Any]:
    return {"task": "ask", "question": lesson.prefix.removeprefix("answer en "), "expect": lesson.suffix}
