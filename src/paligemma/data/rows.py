"""A row -> a record: the same fields in JSON lines, CSV, Parquet and Hugging Face's data sets.

image, prefix, suffix            any prompt and its answer, as they are (task `run`; as `detect` its boxes are read)
image, task, target, ...         a task of `paligemma.tasks` with what its prompt needs:
    answer                       question, and optionally lang (null: the bare question), choices
    caption                      optionally lang, length (short, normal, long)
    question                     answer (to ask for), lang          ocr    nothing more
    describe_box                 box [x0, y0, x1, y1] in pixels     run    prefix
    detect, segment              target: list of {label, box, polygon or rle}; optionally classes: what is asked, a list or "a ; b"
    refer                        sentence; target: one such thing
image, question, answer(s)       task `answer`          image, text or caption(s)   task `caption`
image, objects                   task `detect`: {"bbox": [[left, top, width, height], ...], "categories": [...]} as Hugging Face has it

`images` instead of `image`: several pictures for one prompt. `answers`: all that are right. `prompt`: the whole prompt, instead of what it
is made of. `id`: otherwise the row's number. Whatever else a row has stays in `about`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import did_you_mean
from ..tasks import TASKS, answer, caption, describe_box, detect, question
from . import checks
from .collector import Collector, shares
from .layout import Part
from .outlines import Outline
from .pictures import Size
from .records import Flaw, Record, Thing

Row = Mapping[str, Any]
PICTURE = ("image", "images", "file_name", "image_path")
CAPTIONS = ("captions", "caption", "sentences", "text")
WORDS = ("answers", "answer", "target", "suffix")
_USED = {
    *PICTURE, *WORDS, *CAPTIONS, "id", "task", "prefix", "prompt", "question", "choices", "lang", "length", "box", "classes", "sentence",
    "objects", "width", "height",
}  # fmt: skip
MAKERS: dict[str, Callable[[Row], str]] = {
    "caption": lambda row: caption.prompt(row.get("lang") or "en", row.get("length") or "normal"),
    "answer": lambda row: answer.prompt(_needed(row, "question"), row.get("lang", "en"), row.get("choices") or ()),
    "question": lambda row: question.prompt(checks.text(_needed(row, "answer"), "the answer"), row.get("lang") or "en"),
    "ocr": lambda row: "ocr",
    "run": lambda row: _needed(row, "prefix"),
}
"""Task that answers in words -> its prompt from a row."""


def is_row(keys: frozenset[str]) -> bool:
    """Whether something with these fields looks like a row."""
    asked = {"suffix", "task", "target", "objects", *CAPTIONS} & keys or ("question" in keys and {"answer", "answers"} & keys)
    return bool(asked and keys & set(PICTURE))


def add_row(to: Collector, part: Part, row: Any, *, where: str, number: int, names: Sequence[str] | None = None) -> None:
    """Reads one row of a part into `to`. `names`: of classes that it may give as numbers."""
    given = row.get("id") if isinstance(row, Mapping) else None
    usable = isinstance(given, int | str) and not isinstance(given, bool) and given != ""
    id = part.id(given if usable else number)
    shown = next((str(row[key]) for key in PICTURE if isinstance(row.get(key), str)), "") if isinstance(row, Mapping) else ""
    with to.record(where, id, shown):
        if not isinstance(row, Mapping):
            raise Flaw("field", f"a row must be an object of fields, found {type(row).__name__}")
        if given is not None and not usable:
            raise Flaw("field", f"the id must be text or a number, found {given!r:.60}")
        _Reading(to, part, row, where, id, names).add()


class _Reading:
    """One row on its way to a record."""

    def __init__(self, to: Collector, part: Part, row: Row, where: str, id: str, names: Sequence[str] | None):
        self.to, self.part, self.row, self.where, self.id, self.names = to, part, row, where, id, names
        self.folder = part.pictures or part.files[0].parent

    def add(self) -> None:
        task = self.task()
        if task not in TASKS:
            raise Flaw("task", f"no task is called {task!r:.60} ({did_you_mean(task, TASKS, 'tasks: ' + ', '.join(TASKS))})")
        pictures = self.pictures()
        if task in ("detect", "segment", "refer"):
            self.add_places(task, pictures)
            return
        row = self.row
        whole = next((key for key in ("prompt", "prefix") if row.get(key) is not None), None)
        if task == "describe_box" and not whole:
            size = self.size(pictures)
            x0, y0, x1, y1 = checks.numbers(_needed(row, "box"), 4, "the box", "box")
            asked = describe_box.prompt(shares(self.to.box((x0, y0, x1, y1), size), size))
        else:
            asked = checks.prompt(row[whole] if whole else MAKERS[task](row), empty=task == "run")
        for path in pictures:
            self.to.pictures.check(path)
        answers = self.answers(task, empty=task == "run" and asked.split(" ")[0] in ("detect", "segment"))
        self.to.add(Record(self.id, task, pictures, self.where, asked, answers, about=self.about))

    def task(self) -> str:
        """What the row says, what its fields say, or what was asked for."""
        row, asked = self.row, self.to.task
        said = row.get("task")
        if said is not None and said != "":
            if asked and said != asked:
                raise Flaw("task", f"the row is for the task {said!r:.40}, asked for was {asked!r}")
            return str(said)
        if "suffix" in row:
            return "detect" if asked == "detect" else "run"
        if "objects" in row:
            return asked or "detect"
        if asked and any(key in row for key in (*WORDS, *CAPTIONS)):
            return asked
        if "question" in row:
            return "answer"
        if any(key in row for key in CAPTIONS):
            return "caption"
        missing = "suffix" if "prefix" in row else "task" if "target" in row else "suffix (or task and target, question and answer, text)"
        raise _missing(row, missing)

    def pictures(self) -> tuple[Path, ...]:
        row = self.row
        key = next((key for key in PICTURE if row.get(key) is not None), None)
        if key is None:
            raise _missing(row, "image")
        several = row[key] if key == "images" else [row[key]]
        if not isinstance(several, list) or not several:
            raise Flaw("field", "images must be a list of names, with one at least")
        return tuple(map(self.picture, several))

    def picture(self, value: object) -> Path:
        """A name, or what Hugging Face's tables have instead: {"bytes": ..., "path": ...}."""
        if isinstance(value, Mapping) and set(value) <= {"bytes", "path"}:
            value = value["bytes"] if value.get("bytes") is not None else value.get("path")
        if isinstance(value, bytes):
            self.to.notes[f"pictures were unpacked to {self.to.pictures.scratch}"] += 1
            path = self.to.pictures.unpack(value)
            self.to.trace(Path(self.to.root, path.name))
            return path
        return self.to.picture(value, self.folder)

    def size(self, pictures: Sequence[Path]) -> Size:
        if len(pictures) != 1:
            raise Flaw("task", f"places are of one picture, the row has {len(pictures)}")
        says = (self.row.get("width"), self.row.get("height"))
        return self.to.pictures.size(pictures[0], says if all(isinstance(side, int) for side in says) else None)

    @property
    def about(self) -> dict[str, Any]:
        others = {key: value for key, value in self.row.items() if key not in _USED and isinstance(value, str | int | float | bool)}
        return others | self.part.about

    def answers(self, task: str, *, empty: bool) -> tuple[str, ...]:
        row = self.row
        keys = (*WORDS, *CAPTIONS) if task == "caption" else ("suffix", "target", "question") if task == "question" else WORDS
        key = next((key for key in keys if row.get(key) is not None), None)
        if key is None:
            raise Flaw("answer", f"there is no answer: none of {', '.join(keys)}")
        return self.to.answers(row[key], key, TASKS[task].target, empty=empty)

    # Places

    def add_places(self, task: str, pictures: tuple[Path, ...]) -> None:
        size, row = self.size(pictures), self.row
        asked = self.asked(task)
        if "suffix" in row:
            asked, things = self.from_suffix(size)
        elif "objects" in row:
            things = self.from_objects(row["objects"], size)
        else:
            target = _needed(row, "target")
            several = [target] if isinstance(target, Mapping) else target
            if not isinstance(several, list):
                raise Flaw("field", f"the target of {task} must be a list of things, found {type(several).__name__}")
            things = [self.thing(one, size, asked[0] if task == "refer" else None) for one in several]
        if task == "refer" and len(things) != 1:
            raise Flaw("field", f"refer needs one thing, found {len(things)}")
        for thing in things:
            if task != "refer" and asked and thing.label not in asked:
                raise Flaw("category", f"{thing.label!r:.80} is not among the classes: {', '.join(asked)[:120]}")
            if task != "detect" and thing.outline is None:
                raise Flaw("outline", f"{thing.label!r:.80} has a box and no mask, which {task} needs")
        if task != "refer":
            self.to.classes.update(dict.fromkeys((*asked, *(thing.label for thing in things))))
        self.to.add(Record(self.id, task, pictures, self.where, asked=asked, things=self.to.once(things), about=self.about))

    def asked(self, task: str) -> tuple[str, ...]:
        if task == "refer":
            return (checks.prompt(_needed(self.row, "sentence"), "the sentence").strip(),)
        classes = self.row.get("classes")
        if classes in (None, "", []):
            return ()
        names = classes.split(detect.SEMICOLON) if isinstance(classes, str) else classes
        if not isinstance(names, list):
            raise Flaw("field", f"classes must be a list of names, found {type(names).__name__}")
        return tuple(dict.fromkeys(map(checks.label, names)))

    def thing(self, value: Any, size: Size, sentence: str | None) -> Thing:
        if not isinstance(value, Mapping):
            raise Flaw("field", f"a thing must be an object with label and box, found {value!r:.60}")
        label = checks.label(value.get("label")) if sentence is None else sentence
        outline: Outline | None = None
        if value.get("polygon") is not None:
            outline = checks.polygons(value["polygon"])
        elif value.get("rle") is not None:
            if not isinstance(value["rle"], Mapping):
                raise Flaw("outline", "rle must be an object with size and counts")
            outline = checks.run_lengths(value["rle"], size)
        if value.get("box") is None:
            if outline is None:
                raise Flaw("field", "a thing needs a box")
            return Thing(label, checks.around(outline, size), outline)
        x0, y0, x1, y1 = checks.numbers(value["box"], 4, "the box", "box")
        return Thing(label, self.to.box((x0, y0, x1, y1), size), outline)

    def from_objects(self, objects: Any, size: Size) -> list[Thing]:
        """Hugging Face's columns within a column; boxes as in COCO."""
        if isinstance(objects, list):  # one object each instead of one list each
            objects = {key: [one.get(key) for one in objects if isinstance(one, Mapping)] for key in ("bbox", "category", "label")}
        if not isinstance(objects, Mapping) or objects.get("bbox") is None:
            raise Flaw("field", "objects needs bbox, and categories")
        key = next((key for key in ("categories", "category", "labels", "label") if objects.get(key)), "categories")
        boxes, labels = objects["bbox"], objects.get(key) or []
        if len(boxes) != len(labels):
            raise Flaw("field", f"objects has {len(boxes)} boxes and {len(labels)} {key}")
        things = []
        for corners, label in zip(boxes, labels, strict=True):
            x, y, width, height = checks.numbers(corners, 4, "the box", "box")
            things.append(Thing(self.named(label), self.to.box((x, y, x + width, y + height), size)))
        return things

    def named(self, label: object) -> str:
        if self.names is None or not isinstance(label, int):
            return checks.label(label)
        if not 0 <= label < len(self.names):
            raise Flaw("category", f"class {label} of {len(self.names)}")
        return checks.label(self.names[label])

    def from_suffix(self, size: Size) -> tuple[tuple[str, ...], list[Thing]]:
        """Prompt and answer of a detection, as a model reads and writes them."""
        prefix, suffix = checks.prompt(self.row.get("prefix")), checks.text(self.row["suffix"], "the suffix", "answer")
        if not prefix.startswith("detect "):
            raise Flaw("task", f"the prompt asks for no boxes: {prefix[:60]!r}")
        names = detect.class_names(prefix.removeprefix("detect "))
        parsed = detect.parse(suffix, names)
        if parsed.leftover or parsed.invalid:
            raise Flaw("answer", f"not everything in the suffix is a box with a name that was asked for: {parsed.leftover[:80]!r}")
        boxes = [found.box(*size) for found in parsed.objects]
        return names, [Thing(box.label, box.xyxy) for box in boxes]


def _needed(row: Row, key: str) -> Any:
    if row.get(key) is None:
        raise _missing(row, key)
    return row[key]


def _missing(row: Row, key: str) -> Flaw:
    there = [str(other) for other, value in row.items() if value is not None]
    close = did_you_mean(key, there)
    return Flaw("field", f"there is no {key}; found: {', '.join(there)[:120]}{f' ({close})' if close else ''}")
