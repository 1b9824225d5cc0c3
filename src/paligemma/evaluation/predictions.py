"""What a model answered, one line of JSON a record: everything that scores and the report need, so that neither needs the model again.

    {"id": "7", "task": "answer", "where": "val.jsonl:7", "pictures": ["/data/7.png"], "size": [640, 480],
     "prompt": "answer en how many dogs?", "answers": ["2"], "about": {"type": "count"},
     "result": {"type": "answer", "text": "2", "score": 0.9, ...}, "tokens": 1, "seconds": 0.1}
    {"id": "8", "task": "detect", ..., "asked": ["cat", "dog"], "things": [{"label": "cat", "box": [12, 30, 80, 96]}], "result": {...}}
    {"id": "9", "task": "answer", ..., "error": {"code": "not_found", "message": "9.png: no such file"}}

Boxes are left, top, right, bottom in pixels; a mask is "rle", COCO's run lengths at the picture's size. Lines are only ever added: of two
with one id the later counts, so that a failed record can be asked again. A line that was not finished is cut off when the file is opened.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, UsageError
from ..results import Result
from ..tasks import task_named
from .places import Place, area_of


@dataclass(frozen=True)
class Prediction:
    """One record, what is right and what was answered: `result` as `Result.to_dict` writes it, or None and an `error` (code, message).

    `size`: width and height of the (first) picture; `tokens`: length of the answer; `seconds`: its share of its batch's time, with the
    opening of its pictures. The other fields are the record's.
    """

    id: str
    task: str
    where: str = ""
    pictures: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    prompt: str = ""
    answers: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    things: tuple[Place, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None
    tokens: int = 0
    seconds: float = 0.0
    error: Mapping[str, str] | None = None

    @property
    def text(self) -> str:
        """The answer in words; of boxes and masks the raw one."""
        return str((self.result or {}).get("text", ""))

    @property
    def score(self) -> float | None:
        """The model's own score of an answer in words."""
        return (self.result or {}).get("score")

    @property
    def found(self) -> list[Place]:
        """Boxes or masks of the answer."""
        result = self.result or {}
        if "masks" in result:
            return [Place(mask["label"], _corners(mask["box"]), mask["rle"], mask["score"]) for mask in result["masks"]]
        return [Place(box["label"], _corners(box), None, box["score"]) for box in result.get("boxes", ())]

    @property
    def boxes(self) -> list[Place]:
        """Boxes of the answer, also those around its masks, which have a score of their own."""
        result = self.result or {}
        if "masks" in result:
            return [Place(mask["label"], _corners(mask["box"]), None, mask["box"]["score"]) for mask in result["masks"]]
        return self.found

    def answer(self) -> Result:
        """The result itself, fit to be drawn. Raises `InputError` where there is none, or it is broken."""
        if self.result is None:
            raise InputError(f"record {self.id} was not answered: {(self.error or {}).get('message', 'no result')}")
        kind: Any = task_named(self.task).result
        return kind.from_dict(self.result)

    def to_dict(self) -> dict[str, Any]:
        """As in the file; what is empty is left out."""
        plain: dict[str, Any] = {"id": self.id, "task": self.task, "where": self.where, "pictures": list(self.pictures)}
        plain |= {"size": self.size and list(self.size), "prompt": self.prompt, "answers": list(self.answers), "asked": list(self.asked)}
        plain |= {"things": [_plain(thing) for thing in self.things], "about": dict(self.about), "result": self.result}
        plain |= {"tokens": self.tokens, "seconds": round(self.seconds, 6), "error": self.error}
        kept = ("result", "tokens", "seconds") if self.error is None else ()
        return {name: value for name, value in plain.items() if name in kept or value not in (None, "", [], {}, 0, 0.0)}

    def to_line(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, default=str)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Prediction:
        """The inverse of `to_dict`. Raises `KeyError`, `TypeError` or `ValueError` for what is not of its form."""
        if data.get("error") is None and not isinstance(data.get("result"), Mapping):
            raise ValueError("neither a result nor an error")
        size = data.get("size")
        made = cls(
            id=str(data["id"]),
            task=task_named(data["task"]).name,
            where=data.get("where", ""),
            pictures=tuple(data.get("pictures", ())),
            size=None if size is None else (int(size[0]), int(size[1])),
            prompt=data.get("prompt", ""),
            answers=tuple(data.get("answers", ())),
            asked=tuple(data.get("asked", ())),
            things=tuple(_place(thing) for thing in data.get("things", ())),
            about=data.get("about", {}),
            result=data.get("result"),
            tokens=int(data.get("tokens", 0)),
            seconds=float(data.get("seconds", 0.0)),
            error=data.get("error"),
        )
        made._check()
        return made

    def _check(self) -> None:
        """Everything that metrics take for granted, since a file may have been written by anybody."""
        if self.result is not None and not isinstance(self.result.get("text"), str):
            raise ValueError("the result has no text")
        for place in (*self.things, *self.found):
            if not all(map(math.isfinite, place.box)):
                raise ValueError(f"a box is no box: {place.box}")
            if place.rle is not None and (tuple(place.rle["size"]) != (self.size or (0, 0))[::-1] or area_of(place.rle) < 0):
                raise ValueError(f"a mask has the size {place.rle['size']}, the picture {self.size}")
        scores = [self.score, *(place.score for place in (*self.found, *self.boxes))]
        if not all(score is None or 0 <= score <= 1 for score in scores):
            raise ValueError("a score is not from 0 to 1")


def _plain(thing: Place) -> dict[str, Any]:
    more = ({"rle": dict(thing.rle)} if thing.rle else {}) | ({"ignored": True} if thing.ignored else {})
    return {"label": thing.label, "box": list(thing.box)} | more


def _place(thing: Mapping[str, Any]) -> Place:
    x0, y0, x1, y1 = map(float, thing["box"])
    return Place(thing["label"], (x0, y0, x1, y1), thing.get("rle"), ignored=bool(thing.get("ignored")))


def _corners(box: Mapping[str, Any]) -> tuple[float, float, float, float]:
    return box["x0"], box["y0"], box["x1"], box["y1"]


def read_predictions(path: Path) -> list[Prediction]:
    """All of a file, the last of each id, in the order in which ids first appear; a last line that is not finished is passed over.

    Raises `InputError` for a file that is not there, and for a line that is no prediction, with its number.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", hint="it is written by `paligemma eval`", code="not_found") from None
    found: dict[str, Prediction] = {}
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            prediction = Prediction.from_dict(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}: not a prediction ({type(error).__name__}: {str(error)[:200]})",
                hint="delete that line: its record is then asked again",
            ) from error
        found[prediction.id] = prediction
    return list(found.values())


@contextlib.contextmanager
def appending(path: Path) -> Iterator[Callable[[Sequence[Prediction]], None]]:
    """Gives a function that adds lines to the file; what it wrote survives the end of this process, however it comes.

    A line that was not finished is cut off first. Raises `UsageError` while another process adds to the file.
    """
    with path.open("a+b", buffering=0) as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows: nothing keeps two processes apart
            pass
        except BlockingIOError:
            raise UsageError(f"{path} is being written by another process", hint="wait for it, or choose another folder") from None
        file.seek(0)
        data = file.read()
        if not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)

        def add(predictions: Sequence[Prediction]) -> None:
            # A lone surrogate becomes its JSON escape, which is read back as itself.
            lines = "".join(prediction.to_line() + "\n" for prediction in predictions).encode(errors="backslashreplace")
            while lines:
                lines = lines[file.write(lines) or 0 :]

        yield add
