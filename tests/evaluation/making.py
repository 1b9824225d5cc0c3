"""Records with pictures, predictions of them, and a stand-in for the predictor that answers without a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from paligemma.data.outlines import RunLengths
from paligemma.data.records import DataSet, Record, Thing
from paligemma.engine.scores import Calibration
from paligemma.errors import InputError
from paligemma.evaluation.places import Place
from paligemma.evaluation.predictions import Prediction
from paligemma.mask_formats import compress, run_lengths
from paligemma.results import Answer, Box, Detections, Mask, Masks, Text

WIDTH, HEIGHT = 40, 30


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def rle(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": compress(run_lengths(mask))}


def thing(label: str, x0: int, y0: int, x1: int, y1: int) -> Thing:
    """With an outline that fills its box."""
    mask = rectangle(x0, y0, x1, y1)
    return Thing(label, (x0, y0, x1, y1), RunLengths((HEIGHT, WIDTH), compress(run_lengths(mask))))


def picture(folder: Path, name: str = "a.png", colour: str = "teal") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), colour).save(path)
    return path


def question(folder: Path, number: int, answers: tuple[str, ...] = ("1",), **about: Any) -> Record:
    path = picture(folder, f"{number}.png")
    return Record(f"q{number}", "answer", (path,), f"val.jsonl:{number}", f"answer en question {number}", answers, about=about)


def dataset(records: list[Record], path: str = "data/val.jsonl", **more: Any) -> DataSet:
    tasks = {record.task for record in records}
    task = tasks.pop() if len(tasks) == 1 else "mixed"
    return DataSet(Path(path), "jsonl", task, tuple(records), **{"fingerprint": "f", **more})


def answered(id: str, text: str, answers: tuple[str, ...] = ("1",), score: float | None = 0.5, **more: Any) -> Prediction:
    result = Answer(text, score).to_dict()
    return Prediction(
        id, "answer", answers=answers, result=result, **{"pictures": (f"{id}.png",), "tokens": len(text), "seconds": 0.1, **more}
    )


def detected(id: str, truths: list[Place], boxes: list[Box], **more: Any) -> Prediction:
    result = Detections(tuple(boxes), WIDTH, HEIGHT, "raw").to_dict()
    return Prediction(id, "detect", size=(WIDTH, HEIGHT), things=tuple(truths), result=result, **{"pictures": (f"{id}.png",), **more})


def segmented(id: str, truths: list[Place], masks: list[Mask], task: str = "segment", **more: Any) -> Prediction:
    result = Masks(tuple(masks), WIDTH, HEIGHT, "raw").to_dict()
    return Prediction(id, task, size=(WIDTH, HEIGHT), things=tuple(truths), result=result, **{"pictures": (f"{id}.png",), **more})


@dataclass
class StandIn:
    """Answers questions with what `answers` says of a prompt, and finds one box of each name that is asked for.

    Remembers what it was asked: (verb, how many pictures, what). `refuses`: prompts that raise `InputError`; `dies_after`: how many
    questions it answers before it raises `KeyboardInterrupt`.
    """

    answers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, int, Any]] = field(default_factory=list)
    refuses: tuple[str, ...] = ()
    dies_after: int | None = None
    path: Path | None = None
    calibration: Calibration = field(default_factory=Calibration)
    description: str = "a stand-in\nwithout a model"
    options: dict[str, Any] = field(default_factory=dict)

    tokenizer = SimpleNamespace(encode=lambda text: text.split())

    def __post_init__(self) -> None:
        from tests import tiny

        self.config = tiny.TINY_1

    def run(self, pictures: list[Any], prompts: list[str], **how: Any) -> list[Text]:
        self._note("run", pictures, prompts, how)
        return [Text(self.answers.get(prompt, "1") + " ", 0.9, prompt) for prompt in prompts]

    def detect(self, pictures: list[Any], classes: list[list[str]], **how: Any) -> list[Detections]:
        self._note("detect", pictures, classes, how)
        return [
            Detections(tuple(Box(name, 1, 2, 11, 12, 0.8) for name in names), WIDTH, HEIGHT, "raw", f"detect {names[0]}", invalid=1)
            for names in classes
        ]

    def segment(self, pictures: list[Any], classes: list[list[str]], **how: Any) -> list[Masks]:
        self._note("segment", pictures, classes, how)
        return [Masks(tuple(self._mask(name) for name in names), WIDTH, HEIGHT, "raw", "segment") for names in classes]

    def refer(self, pictures: list[Any], sentences: list[str], **how: Any) -> list[Masks]:
        self._note("refer", pictures, sentences, how)
        return [Masks((self._mask(sentence),), WIDTH, HEIGHT, "raw", sentence) for sentence in sentences]

    @staticmethod
    def _mask(name: str) -> Mask:
        return Mask(name, Box(name, 1, 2, 11, 12, 0.8), rectangle(1, 2, 11, 12), 0.7)

    def _note(self, verb: str, pictures: list[Any], what: Any, how: dict[str, Any]) -> None:
        if self.dies_after is not None and len(self.asked) >= self.dies_after:
            raise KeyboardInterrupt
        self.asked.append((verb, len(pictures), what))
        self.options = how
        if any(one in self.refuses for one in what):
            raise InputError("the prompt is too long", code="context_length_exceeded")
