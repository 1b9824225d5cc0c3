"""The demonstration: every task on the bundled pictures, answers beside what was expected, drawings and one page to look at.

The pictures and questions are listed in `bundled/demo/demo.json`, which the training pipeline writes:

    [{"image": "scene1.png", "items": [
        {"task": "caption", "lang": "de", "expect": "eine Katze"},
        {"task": "ask", "question": "how many cats are there?", "expect": "1"},
        {"task": "detect", "classes": ["cat", "dog"], "expect": {"cat": [[12, 30, 80, 96]]}},        left, top, right, bottom in pixels
        {"task": "segment", "classes": ["cat"], "expect": {"cat": [{"box": [12, 30, 80, 96], "mask": "COCO's run lengths"}]}},
        {"task": "describe_box", "box": [12, 30, 80, 96], "expect": "a cat"},
        {"task": "ocr", "expect": "HELLO"}]}, ...]
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .drawing import data_url
from .errors import CheckpointError, InputError
from .image import open_image
from .mask_formats import decompress, from_run_lengths
from .results import Box, Detections, Masks, Result

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from .predictor import Predictor

RIGHT_IOU = 0.5
"""A box or a mask is right when it overlaps the true one at least this much (intersection over union)."""

HONEST = (
    "The bundled model knows only its small drawn world: scenes of emoji and printed words, made by code.",
    "It was trained from scratch on nothing else, so it cannot say anything about photographs.",
    "The pictures here are among those that it answers right; how often it errs on others is in its card, bundled/nano-112/README.md.",
)
REAL_CHECKPOINT = "For photographs: paligemma caption photo.jpg --model FOLDER, with any published PaliGemma (`paligemma models`)."


@dataclass(frozen=True)
class Item:
    """One question about a picture and what the answer should be."""

    task: str
    arguments: dict[str, Any]
    expect: Any

    def ask(self, model: Predictor, image: Any) -> Result:
        return getattr(model, self.task)(image, **self.arguments)

    @property
    def title(self) -> str:
        """What was asked, for people."""
        match self.task:
            case "caption":
                return f"caption, {self.arguments.get('lang', 'en')}"
            case "ask":
                return self.arguments["question"]
            case "detect" | "segment":
                return f"{self.task} {' ; '.join(self.arguments['classes'])}"
            case "describe_box":
                return f"what is in {', '.join(f'{edge:.0f}' for edge in self.arguments['box'])}?"
            case task:
                return task

    def command(self, image: str) -> str:
        """The command line that asks the same."""
        words = ["paligemma", self.task.replace("_", "-"), image]
        for name, value in self.arguments.items():
            match name:
                case "lang":
                    words += ["--lang", value]
                case "classes":
                    words.append(" ; ".join(value))
                case "box":
                    words.append(",".join(f"{edge:g}" for edge in value))
                case _:
                    words.append(value)
        return shlex.join(words)


@dataclass(frozen=True)
class Answered:
    """An item, the model's answer, and how long it took in seconds."""

    item: Item
    result: Result
    seconds: float

    @property
    def right(self) -> bool:
        return agrees(self.result, self.item.expect)

    @property
    def expected(self) -> str:
        """What was expected, for people."""
        if not isinstance(self.item.expect, Mapping):
            return str(self.item.expect)
        return "\n".join(str(box) for box, _ in expected_places(self.item.expect)) or "nothing"


@dataclass(frozen=True)
class Picture:
    """A bundled picture and everything that is asked about it."""

    name: str
    image: Image
    items: tuple[Item, ...]


def bundled_pictures() -> list[Picture]:
    """The pictures that came with the package."""
    folder = resources.files("paligemma") / "bundled" / "demo"
    if not (folder / "demo.json").is_file():
        raise CheckpointError(
            "this installation has no demo pictures (bundled/demo/demo.json)", hint="reinstall the package", code="incomplete"
        )
    with resources.as_file(folder) as path:
        return pictures(path)


def pictures(folder: Path) -> list[Picture]:
    """Read `demo.json` and the pictures beside it. Raises `InputError` if it is not of the form described above."""
    listing = folder / "demo.json"
    try:
        entries = json.loads(listing.read_text(encoding="utf-8"))
        if not isinstance(entries, list) or not entries:
            raise TypeError("expected a list with at least one entry")
        return [picture(entry["image"], open_image(folder / entry["image"]), entry["items"]) for entry in entries]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{listing} is not a list of pictures with items: {error!r}") from error


def picture(name: str, image: Image, items: Sequence[Mapping[str, Any]]) -> Picture:
    """`items` as in `demo.json`."""
    return Picture(name, image, tuple(map(_item, items)))


def _item(entry: Mapping[str, Any]) -> Item:
    arguments = {name: value for name, value in entry.items() if name not in ("task", "expect")}
    return Item(entry["task"], arguments, entry["expect"])


def answer(model: Predictor, picture: Picture) -> Iterator[Answered]:
    """Ask everything about one picture, which is encoded once."""
    encoded = model.encode(picture.image)
    for item in picture.items:
        start = time.perf_counter()
        result = item.ask(model, encoded)
        yield Answered(item, result, time.perf_counter() - start)


def agrees(result: Result, expect: Any) -> bool:
    """Whether an answer is what was expected: the same text, or for each expected box one of the same label that overlaps it enough, and
    so does its mask where one is expected."""
    if not isinstance(expect, Mapping):
        return getattr(result, "text", None) == expect
    found = list(_places(result))
    for box, runs in expected_places(expect):
        same = [place for place, (other, _) in enumerate(found) if other.label == box.label]
        best = max(same, key=lambda place: box.iou(found[place][0]), default=None)
        if best is None:
            return False
        other, mask = found.pop(best)
        if box.iou(other) < RIGHT_IOU or (runs is not None and (mask is None or _overlap(mask, runs) < RIGHT_IOU)):
            return False
    return not found


def expected_places(expect: Mapping[str, Sequence[Any]]) -> Iterator[tuple[Box, str | None]]:
    """Boxes, and the run lengths of masks where masks are expected."""
    for label, places in expect.items():
        for place in places:
            edges, runs = (place["box"], place["mask"]) if isinstance(place, Mapping) else (place, None)
            yield Box(label, *edges), runs


def _places(result: Result) -> Iterator[tuple[Box, np.ndarray | None]]:
    if isinstance(result, Detections):
        yield from ((box, None) for box in result.boxes)
    elif isinstance(result, Masks):
        yield from ((mask.box, mask.mask) for mask in result.masks)


def _overlap(mask: np.ndarray, runs: str) -> float:
    """Intersection over union."""
    true = from_run_lengths(decompress(runs), *mask.shape)
    return float((mask & true).sum() / max(1, (mask | true).sum()))


@dataclass(frozen=True)
class Shown:
    """One answered question on its way to the page: the drawing is written already."""

    title: str
    task: str
    lang: str
    text: str
    right: bool
    expected: str
    command: str
    milliseconds: int
    drawing: str | None
    """File name, for boxes and masks."""
    data: str | None
    """The same picture as a data URL."""


class Album:
    """The folder that the demonstration writes: pictures, drawings, and `index.html`, which holds them all and needs no other file."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._pages: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, picture: Picture, answers: Sequence[Answered]) -> None:
        """Write one picture, and a drawing of each answer that has a place in it."""
        picture.image.save(self.folder / picture.name)
        shown = [self._show(picture, number, answered) for number, answered in enumerate(answers, 1)]
        self._pages.append({"name": picture.name, "data": data_url(picture.image), "size": picture.image.size, "answers": shown})

    def _show(self, picture: Picture, number: int, answered: Answered) -> Shown:
        item, result = answered.item, answered.result
        name = data = None
        if isinstance(result, Detections | Masks):
            drawn = result.draw(picture.image)
            name = f"{Path(picture.name).stem}-{number}-{item.task}.png"
            drawn.save(self.folder / name)
            data = data_url(drawn)
        return Shown(
            title=item.title,
            task=item.task,
            lang=item.arguments.get("lang", "en"),
            text=str(result),
            right=answered.right,
            expected=answered.expected,
            command=item.command(str(self.folder / picture.name)),
            milliseconds=round(1000 * answered.seconds),
            drawing=name,
            data=data,
        )

    def finish(self, model: str, caveats: Sequence[str] = ()) -> Path:
        """Write the page. `model` says what answered, in a few lines; `caveats` what to know about it."""
        from .pages.templates import templates

        answers = [shown for page in self._pages for shown in page["answers"]]
        text = (
            templates(".")
            .get_template("demo.html")
            .render(
                model=model.splitlines(),
                honest=caveats,
                pictures=self._pages,
                right=sum(shown.right for shown in answers),
                total=len(answers),
            )
        )
        path = self.folder / "index.html"
        path.write_text(text, encoding="utf-8")
        return path
