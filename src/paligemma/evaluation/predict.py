"""Records -> predictions: ask a model about every record, a batch at a time, and go on past what cannot be used.

A record that answers in words is asked its whole prompt. Where objects are asked for and the record does not say which, all classes of
the data set are; more than fit well into one prompt are asked in several, whose answers are joined.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..data.lessons import MOST_CLASSES
from ..data.records import Record, Thing
from ..errors import InputError, UsageError
from ..image import Clip, open_image
from ..mask_formats import compress, run_lengths
from ..results import Detections, Masks, Result
from ..tasks import TASKS
from ..tasks.detect import tidy
from ..video import DEFAULT_FRAMES, sample_frames
from ..video import EXTENSIONS as VIDEOS
from .places import Place
from .predictions import Prediction

if TYPE_CHECKING:
    from ..predictor import Predictor

Picture = Image.Image | Clip


def predict(
    predictor: Predictor,
    records: Sequence[Record],
    *,
    classes: Sequence[str] = (),
    batch_size: int | None = None,
    names_per_prompt: int = MOST_CLASSES,
    frames: int = DEFAULT_FRAMES,
    **how: Any,
) -> Iterator[list[Prediction]]:
    """Predictions of all records, in their order, a batch at a time.

    `classes`: all names of the data set, by default those of these records; `names_per_prompt`: more of them are asked in several prompts;
    `frames`: of a video; `how`: options of the predictor, such as `beams`. A picture that cannot be opened, an outline that does not fit it
    and a prompt that is too long become predictions with an `error`. Raises `UsageError` for options that are none, and what the predictor
    raises for a model that cannot do the task at all (`UsageError`: masks without a codec).
    """
    if names_per_prompt < 1 or (batch_size is not None and batch_size < 1):
        raise UsageError(f"batch_size and names_per_prompt are at least 1, got {batch_size} and {names_per_prompt}")
    size = batch_size or _pictures_at_a_time(predictor)
    classes = classes or class_names(records)
    for start in range(0, len(records), size):
        opened: dict[Sequence[Path], Picture] = {}  # what is asked about one picture shares it, and so the image tower's pass
        asked = [_open(record, classes, names_per_prompt, frames, opened) for record in records[start : start + size]]
        answers: dict[int, Prediction] = {}
        for task in dict.fromkeys(one.record.task for one in asked):
            rows = [row for row, one in enumerate(asked) if one.record.task == task]
            answers |= zip(rows, _answer(predictor, task, [asked[row] for row in rows], batch_size, how), strict=True)
        yield [answers[row] for row in range(len(asked))]


def class_names(records: Sequence[Record]) -> tuple[str, ...]:
    """Everything that is to be found anywhere, in order of appearance."""
    return tuple(dict.fromkeys(tidy(thing.label) for record in records for thing in record.things))


def _pictures_at_a_time(predictor: Predictor) -> int:
    from ..predictor.asking import BATCH_TOKENS, MAX_BATCH

    return min(max(BATCH_TOKENS // predictor.config.vision.num_tokens, 1), MAX_BATCH)


@dataclass(frozen=True)
class _Asked:
    """A record with its picture open and its truths as places, or why it cannot be asked; `prompts`: names a prompt, of objects."""

    record: Record
    picture: Picture | None
    things: tuple[Place, ...]
    prompts: tuple[tuple[str, ...], ...]
    error: InputError | None
    seconds: float

    @property
    def size(self) -> tuple[int, int]:
        first = self.picture.frames[0] if isinstance(self.picture, Clip) else self.picture
        assert first is not None, "only what was opened has a size"
        return first.size


def _open(record: Record, classes: Sequence[str], names_per_prompt: int, frames: int, opened: dict[Sequence[Path], Picture]) -> _Asked:
    start = time.perf_counter()
    try:
        if record.pictures not in opened:
            opened[record.pictures] = open_pictures(record.pictures, frames)
        picture = opened[record.pictures]
        first = picture.frames[0] if isinstance(picture, Clip) else picture
        names = tuple(dict.fromkeys(map(tidy, record.asked or classes)))
        named = record.task in ("detect", "segment")
        if named and not names:
            raise InputError(f"{record.where}: nothing says which objects are to be found", code="nothing_asked")
        wanted = [(thing, ignored) for ignored, things in enumerate((record.things, record.ignored)) for thing in things]
        things = [_place(thing, first.size, bool(ignored)) for thing, ignored in wanted if not named or tidy(thing.label) in names]
    except InputError as error:
        return _Asked(record, None, (), (), error, time.perf_counter() - start)
    prompts = tuple(names[i : i + names_per_prompt] for i in range(0, len(names), names_per_prompt))
    return _Asked(record, picture, tuple(things), prompts, None, time.perf_counter() - start)


def open_pictures(paths: Sequence[Path], frames: int) -> Picture:
    """What a prompt is about: a picture, or a clip of several pictures and of `frames` from each video. Raises `InputError`."""
    opened: list[Image.Image] = []
    for path in paths:
        opened += sample_frames(path, frames) if path.suffix.lower() in VIDEOS else [open_image(path)]
    return opened[0] if len(opened) == 1 else Clip(tuple(opened))


def _place(thing: Thing, size: tuple[int, int], ignored: bool) -> Place:
    rle = None
    if thing.outline is not None:
        try:
            mask = thing.outline.mask(*size)
        except (ValueError, OSError) as error:
            raise InputError(f"the mask of {thing.label or 'the thing'}: {error}", code="outline") from error
        rle = {"size": list(mask.shape), "counts": compress(run_lengths(mask))}
    return Place(tidy(thing.label), thing.box, rle, ignored=ignored)


def _answer(predictor: Predictor, task: str, asked: Sequence[_Asked], batch_size: int | None, how: dict[str, Any]) -> list[Prediction]:
    """Records of one task. Where the batch as a whole is refused, each by itself, so that only the one that is at fault fails."""
    ask: Callable[..., list[Result]] = _objects if task in ("detect", "segment") else _sentences if task == "refer" else _words
    good = [one for one in asked if one.error is None]
    start = time.perf_counter()
    answers: list[Result | InputError]
    try:
        answers = [*_quietly(ask, predictor, task, good, batch_size, how)] if good else []
    except InputError:
        answers = [_attempt(ask, predictor, task, one, batch_size, how) for one in good]
    each = (time.perf_counter() - start) / max(len(good), 1)
    results = iter(answers)
    return [_prediction(predictor, one, one.error or next(results), one.seconds + (0.0 if one.error else each)) for one in asked]


def _attempt(ask: Callable[..., list[Result]], predictor: Predictor, task: str, one: _Asked, *how: Any) -> Result | InputError:
    try:
        return _quietly(ask, predictor, task, [one], *how)[0]
    except InputError as error:
        return error


def _quietly(ask: Callable[..., list[Result]], *arguments: Any) -> list[Result]:
    """Without the predictor's warnings of answers that were cut off: they are counted in the scores."""
    from ..predictor import CutShort

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutShort)
        return ask(*arguments)


def _words(predictor: Predictor, name: str, asked: Sequence[_Asked], batch_size: int | None, how: dict[str, Any]) -> list[Result]:
    task: Any = TASKS[name]
    options = {"max_tokens": task.max_tokens, "batch_size": batch_size} | how
    answers = predictor.run([one.picture for one in asked], [one.record.prompt for one in asked], **options)
    return [task.result(task.parse(raw.text), raw.score, raw.prompt, raw.stop) for raw in answers]


def _sentences(predictor: Predictor, name: str, asked: Sequence[_Asked], batch_size: int | None, how: dict[str, Any]) -> list[Result]:
    sentences = [one.record.asked[0] for one in asked]
    return list(predictor.refer([one.picture for one in asked], sentences, batch_size=batch_size, **how))


def _objects(predictor: Predictor, name: str, asked: Sequence[_Asked], batch_size: int | None, how: dict[str, Any]) -> list[Result]:
    """The same picture object several times in a list is encoded once a batch."""
    pictures = [one.picture for one in asked for _ in one.prompts]
    prompts = [list(names) for one in asked for names in one.prompts]
    verb = predictor.segment if name == "segment" else predictor.detect
    answers = iter(verb(pictures, prompts, batch_size=batch_size, **how))
    return [_joined([next(answers) for _ in one.prompts]) for one in asked]


_STOPS = ("eos", "grammar", "length")
"""From the best to the worst reason to end."""


def _joined(parts: Sequence[Any]) -> Detections | Masks:
    """One result of several about the same picture; it stopped as the worst of them did."""
    first = parts[0]
    if len(parts) == 1:
        return first
    common: dict[str, Any] = {
        name: "\n".join(filter(None, (getattr(part, name) for part in parts))) for name in ("text", "prompt", "leftover")
    }
    common |= {"width": first.width, "height": first.height, "invalid": sum(part.invalid for part in parts)}
    common |= {"stop": max((part.stop for part in parts), key=_STOPS.index)}
    if isinstance(first, Masks):
        return Masks(tuple(mask for part in parts for mask in part), **common)
    return Detections(tuple(box for part in parts for box in part), **common)


def _prediction(predictor: Predictor, one: _Asked, answer: Result | InputError, seconds: float) -> Prediction:
    record = one.record
    pictures = tuple(os.path.abspath(path) for path in record.pictures)
    if isinstance(answer, InputError):
        error = {"code": answer.code, "message": answer.message}
        return Prediction(record.id, record.task, record.where, pictures, error=error, seconds=seconds)
    result = answer.to_dict()
    return Prediction(
        record.id,
        record.task,
        record.where,
        pictures,
        one.size,
        result.get("prompt", record.prompt),
        record.answers,
        record.asked or (tuple(name for names in one.prompts for name in names) if record.in_places else ()),
        one.things,
        record.about,
        result,
        len(predictor.tokenizer.encode(result["text"])),
        seconds,
    )
