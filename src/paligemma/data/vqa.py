"""Questions and answers in JSON: VQAv2's pair of files (also OK-VQA), and the single files of other data sets.

{"questions": [...]} + {"annotations": [...]}     VQAv2, OK-VQA, TDIUC: joined by question_id
{"data": [...]}, [...], {"id": {...}, ...}        TextVQA, DocVQA, InfoVQA, ST-VQA, A-OKVQA, TallyQA, VizWiz, GQA, ChartQA

All answers are kept, in order and as often as given, because the metric counts them. Pictures are found by name, or by a number in their
name (`COCO_train2014_000000000042.jpg` for 42). Prompts are `answer en {question}`; for DocVQA, ChartQA and the task `run` the bare
question, as the original was transferred.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, UsageError
from ..printable import printable
from ..sources import IMAGE_EXTENSIONS
from ..tasks import answer
from . import checks
from .collector import Collector
from .layout import Found, Part, annotation_parts, files_of, in_order, split_folders, split_named, usual_picture_folders
from .reading import Glance, glance, json_of
from .records import Flaw, Record

name = "vqa"
description = "questions and answers in JSON: VQAv2's pairs, TextVQA, DocVQA, ChartQA, A-OKVQA, VizWiz, GQA and their like"
recognised = "a .json file with questions (and one with annotations beside it), with data, or a list of questions and answers"
tasks: tuple[str, ...] = ("answer", "run")

QUESTION = ("question", "query", "sent")
ANSWERS = ("answers", "direct_answers", "answer", "label", "multiple_choice_answer", "valid_answers")
PICTURE = ("image", "image_path", "file_path", "imgname", "image_name", "image_local_name", "image_id", "imageId", "img_id")
ID = ("question_id", "questionId", "id", "qid")
ABOUT = ("question_type", "answer_type", "question_types", "image_id", "dataset", "dataset_name", "data_source", "docId", "answerable")
BARE = ("docvqa", "chartqa")
"""Data sets whose checkpoints read the question without `answer en` (big_vision `transfers/docvqa.py`, `chartqa.py`)."""


def find(path: Path) -> Found | None:
    if path.is_file():
        part = _part(path, path.parent)
        return Found((part,), f"{path.name} has questions") if part else None
    for folder in (path, path / "annotations"):
        if parts := _parts(folder, path):
            return Found(parts, f"{parts[0].files[0].relative_to(path)} has questions")
    parts = []
    for split, folder in split_folders(path).items():
        parts += [Part(part.files, folder, split) for part in _parts(folder, folder)]
    return Found(in_order(parts), f"{parts[0].files[0].relative_to(path)} has questions") if parts else None


def _parts(folder: Path, top: Path) -> tuple[Part, ...]:
    """A part for each file of questions, with its partner."""
    parts = [part for file in files_of(folder, ".json") if _kind(file) in ("questions", "both") and (part := _part(file, top))]
    split = annotation_parts([part.files[0] for part in parts], "files of questions", top)
    files = {part.files[0]: part.files for part in parts}
    return tuple(Part(files[part.files[0]], top, part.split) for part in split)


def _part(file: Path, pictures: Path) -> Part | None:
    kind = _kind(file)
    if kind == "both":
        return Part((file,), pictures, "")
    if kind is None:
        return None
    wanted = "annotations" if kind == "questions" else "questions"
    partners = [other for other in files_of(file.parent, ".json") if other != file and _kind(other) == wanted]
    partners = [other for other in partners if _words(other) & _words(file) or len(partners) == 1]
    if len(partners) > 1:  # train2014 of questions goes with train2014 of annotations
        most = max(len(_words(other) & _words(file)) for other in partners)
        partners = [other for other in partners if len(_words(other) & _words(file)) == most]
    if len(partners) > 1:
        names = ", ".join(printable(other.name) for other in partners)
        raise UsageError(
            f"several files could hold the {wanted} for {printable(file.name)}: {names}", hint="keep only the right one beside it"
        )
    if not partners and kind == "annotations":
        return None
    pair = (file, *partners) if kind == "questions" else (*partners, file)
    return Part(pair, pictures)


def _words(file: Path) -> set[str]:
    return set(re.split(r"[^A-Za-z0-9]+", file.stem.lower())) - {"questions", "annotations", "question", "annotation"}


def _kind(path: Path) -> str | None:
    """ "questions" or "annotations" of a pair, or "both" in one file."""
    seen = glance(path) if path.suffix.lower() == ".json" else None
    if seen is None:
        return None
    if "annotations" in seen.keys and "question_id" in seen.inner:
        return "annotations"
    asks, answered = set(QUESTION) & seen.inner, {*ANSWERS, "correct_choice_idx"} & seen.inner
    if "questions" in seen.keys and asks:
        return "both" if answered else "questions"
    return "both" if asks and _is_list_of_questions(seen) and (answered or "data" in seen.keys) else None


def _is_list_of_questions(seen: Glance) -> bool:
    """Not rows of JSON lines, and not a description of a table with such columns."""
    listed = seen.is_list or "data" in seen.keys or all(key.isdecimal() for key in seen.keys)
    return listed and bool(set(PICTURE) & seen.inner) and not {"prefix", "task"} & seen.inner


def read(part: Part, to: Collector) -> None:
    """Raises `InputError` for questions without answers: nothing can be learnt from them or measured."""
    file, *partner = part.files
    data = json_of(to.bytes_of(file), file)
    items = _items(data, file)
    if not partner and isinstance(data, Mapping) and "questions" in data and not any(set(ANSWERS) & set(item) for item in items[:100]):
        raise InputError(
            f"{to.place(file)}: questions, but no answers", hint="put the file with the annotations beside it", code="no_answers"
        )
    answers: dict[str, Mapping[str, Any]] = {}
    if partner:
        found = json_of(to.bytes_of(partner[0]), partner[0])
        answers = {str(item.get("question_id")): item for item in _items(found, partner[0])}
    bare = to.task == "run" or _is_bare(data, file, items)
    pictures = _Finder(to, file, part.pictures or file.parent, str(data.get("data_subtype", "")) if isinstance(data, Mapping) else "")
    place = to.place(file)
    for number, item in enumerate(items):
        own = next((item[key] for key in ID if item.get(key) not in (None, "")), number)
        where = f"{place}: question {own}"
        shown = next((str(item[key]) for key in PICTURE if item.get(key) is not None), "")
        with to.record(where, part.id(own), shown):
            if partner and str(own) not in answers:
                raise Flaw("answer", f"{partner[0].name} has no answer to it")
            _add(to, part, {**item, **answers.pop(str(own), {})}, part.id(own), where, pictures, bare)
    for own in answers:
        to.fault(f"{to.place(partner[0])}: question {own}", "field", "there is no question with this id", part.id(f"answer {own}"))


def _items(data: Any, file: Path) -> list[dict[str, Any]]:
    """The list of objects in a file; GQA's have their ids outside."""
    found = data
    if isinstance(data, Mapping):
        found = next((data[key] for key in ("questions", "annotations", "data") if isinstance(data.get(key), list)), None)
        if found is None and all(isinstance(value, Mapping) for value in data.values()):
            found = [{"question_id": key, **value} for key, value in data.items()]
    if not isinstance(found, list):
        raise InputError(f"{printable(str(file))}: no list of questions in it", code="bad_annotations")
    return [dict(item) if isinstance(item, Mapping) else {} for item in found]


def _is_bare(data: Any, file: Path, items: list[dict[str, Any]]) -> bool:
    said = str(data.get("dataset_name", "")) if isinstance(data, Mapping) else ""
    named = re.sub("[-_ ]", "", f"{said} {file.stem}".lower())
    return any(known in named for known in BARE) or "imgname" in (items or [{}])[0]


def _add(to: Collector, part: Part, item: Mapping[str, Any], id: str, where: str, pictures: _Finder, bare: bool) -> None:
    asked = checks.prompt(next((item[key] for key in QUESTION if item.get(key) is not None), None), "the question").strip()
    key = next((key for key in ANSWERS if item.get(key) not in (None, [], "")), None)
    choices = item.get("choices") or ()
    given: Any = None if key is None else item[key]
    if key is None and choices:
        given = item.get("correct_choice_idx")
    if choices and key in (None, "answer", "label") and isinstance(given, int) and 0 <= given < len(choices):
        given = choices[given]  # the number of the right one
    elif key is None:
        raise Flaw("answer", "there is no answer")
    else:
        choices = ()
    answers = to.answers(given, "the answer", answer.target)
    path = pictures.find(item)
    to.pictures.check(path)
    task = to.task or "answer"
    whole = answer.prompt(asked, None if bare else "en", choices)
    about = {key: item[key] for key in ABOUT if item.get(key) is not None} | part.about
    to.add(Record(id, task, (path,), where, whole, answers, about=about))


class _Finder:
    """Names or numbers of pictures -> files."""

    def __init__(self, to: Collector, file: Path, top: Path, subtype: str):
        self.to = to
        words = [subtype, *(word for word in re.split(r"[^A-Za-z0-9]+", file.stem) if split_named(word))]
        words += [f"{word}_images" for word in words if word] + ["documents", "png", "train_images", "test_images"]
        inside = [folder for folder in usual_picture_folders(file, [word for word in words if word]) if folder.is_dir()]
        self.folders = list(dict.fromkeys([top, *(folder for folder in inside if folder.is_relative_to(top))]))
        self._stems: dict[str, Path] | None = None

    def find(self, item: Mapping[str, Any]) -> Path:
        key = next((key for key in PICTURE if item.get(key) not in (None, "")), None)
        if key is None:
            raise Flaw("field", "the question names no picture")
        name = checks.text(item[key], "the picture's name")
        for folder in self.folders:
            try:
                found = self.to.picture(name, folder)
                if found.is_file():
                    return found
            except Flaw as flaw:
                if flaw.code != "missing":
                    raise
        stem = Path(name).name
        path = self.stems.get(_number(stem) if stem.isdecimal() else stem)
        if path is None:
            raise Flaw("missing", f"no picture is called {name:.100}, in {', '.join(self.to.place(folder) for folder in self.folders[:4])}")
        return self.to.picture(path.name, path.parent)

    @property
    def stems(self) -> dict[str, Path]:
        """Names without ending, and numbers at their end, of all pictures in the folders. Two of a number: neither is meant."""
        if self._stems is None:
            self._stems = {}
            numbers: dict[str, list[Path]] = {}
            for folder in self.folders:
                for path in files_of(folder, *IMAGE_EXTENSIONS):
                    self._stems.setdefault(path.stem, path)
                    if digits := re.search(r"(?:^|[^0-9])([0-9]+)$", path.stem):
                        numbers.setdefault(_number(digits[1]), []).append(path)
            for number, paths in numbers.items():
                if len(set(paths)) == 1:
                    self._stems[number] = paths[0]
        return self._stems


def _number(digits: str) -> str:
    """Without leading zeros, so marked that it is no name."""
    return f"#{digits.lstrip('0') or '0'}"
