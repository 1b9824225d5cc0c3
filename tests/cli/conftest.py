"""A stand-in for the predictor: the command line is tested on what it does with answers, not on the answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import paligemma
from paligemma.cli import main
from paligemma.results import Answer, Box, Detections, Result


@dataclass
class StandIn:
    """Answers with the size of each picture; remembers how it was loaded and asked."""

    loaded: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, int, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    raises: BaseException | None = None

    name = "stand-in"

    def __getattr__(self, task: str):
        if task.startswith("_"):
            raise AttributeError(task)

        def method(inputs: Any, *arguments: Any, **options: Any) -> list[Result]:
            if self.raises is not None:
                raise self.raises
            self.asked.append((task, len(inputs) if isinstance(inputs, list) else 1, arguments, options))
            if options.get("stream"):
                return Pieces(self.answer(task, inputs))
            return [self.answer(task, image) for image in inputs]

        return method

    @staticmethod
    def answer(task: str, image: Any) -> Result:
        if not isinstance(image, Image.Image):
            return Answer(f"{len(image.frames)} frames", picture=image.frames[0])
        if task == "detect":
            return Detections(
                (Box("cat", 1, 2, image.width, image.height, 0.5),), image.width, image.height, "<loc0001> cat", picture=image
            )
        return Answer(f"{image.width} x {image.height}", 0.5, picture=image)


class Pieces:
    """A stream: the words of the answer, then the result."""

    def __init__(self, result: Any):
        self.result = result
        self._pieces = iter(result.text.split(" "))

    def __iter__(self):
        return self

    def __next__(self) -> str:
        return next(self._pieces) + "|"


@pytest.fixture
def model(monkeypatch) -> StandIn:
    stand_in = StandIn()

    def load(name: str | None = None, **options: Any) -> StandIn:
        stand_in.loaded = {"model": name, **options}
        return stand_in

    monkeypatch.setitem(vars(paligemma), "load", load)  # not setattr, which would look up, and so import, the real one
    monkeypatch.setitem(vars(paligemma), "CutShort", UserWarning)
    return stand_in


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def call(capsys):
    """Runs one command line in this process: `call("ask", "a.png", "what?")` -> code, out, err."""

    def run(*arguments: object) -> Done:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def picture(tmp_path: Path):
    """Writes a small picture: `picture("a.png", 8, 6)` -> its path."""

    def write(name: str, width: int = 8, height: int = 6) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), "green").save(path)
        return path

    return write
