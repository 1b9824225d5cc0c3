"""The commands that ask a picture. Each says which method of the predictor answers; `batch` does the rest."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..errors import UsageError
from ..printable import printable
from ..sources import IMAGE_EXTENSIONS
from ..tasks.detect import SEMICOLON
from .batch import ask_all
from .failures import STDIN
from .options import Images, PlaceOptions, TaskOptions, named

DEFAULTS = TaskOptions()
PLACES = PlaceOptions()

Language = Annotated[str, Parameter(help="Two letters: en, de, fr, es, zh, ... A model speaks the languages it was trained on.")]
Length = Literal["short", "normal", "long"]


def caption(images: Images, /, *, lang: Language = "en", length: Length = "normal", options: TaskOptions = DEFAULTS) -> int:
    """Say in one sentence what is there."""
    return ask_all("caption", images, options, lambda model, inputs, **how: model.caption(inputs, lang=lang, length=length, **how))


def ask(
    images: Images,
    question: Annotated[str, named("QUESTION", "In plain words. --lang is the language of the answer.")],
    /,
    *,
    lang: Language = "en",
    choices: Annotated[str, Parameter(help="Answers to choose from, separated by `;`, for models trained on such questions.")] = "",
    options: TaskOptions = DEFAULTS,
) -> int:
    """Answer a question."""
    question = told(images, question)
    return ask_all("ask", images, options, lambda model, inputs, **how: model.ask(inputs, question, lang=lang, choices=choices, **how))


def detect(
    images: Images,
    what: Annotated[str, named("NAMES", "What to find, several names separated by `;`.")],
    /,
    *,
    places: PlaceOptions = PLACES,
    options: TaskOptions = DEFAULTS,
) -> int:
    """Find things and box them."""
    classes = names(told(images, what))
    return ask_all("detect", images, options, lambda model, inputs, **how: model.detect(inputs, classes, **places.how, **how))


def segment(
    images: Images,
    what: Annotated[str, named("NAMES", "What to outline: names or a description, several separated by `;`.")],
    /,
    *,
    places: PlaceOptions = PLACES,
    options: TaskOptions = DEFAULTS,
) -> int:
    """Find things and outline them."""
    classes = names(told(images, what))
    return ask_all("segment", images, options, lambda model, inputs, **how: model.segment(inputs, classes, **places.how, **how))


def refer(
    images: Images,
    sentence: Annotated[str, named("SENTENCE", "What to outline: the one thing that is meant.")],
    /,
    *,
    options: TaskOptions = DEFAULTS,
) -> int:
    """Outline what a sentence means, with a checkpoint trained on RefCOCO. Other checkpoints: segment."""
    sentence = told(images, sentence)
    return ask_all("refer", images, options, lambda model, inputs, **how: model.refer(inputs, sentence, **how))


def ocr(images: Images, /, *, options: TaskOptions = DEFAULTS) -> int:
    """Read the text."""
    return ask_all("ocr", images, options, lambda model, inputs, **how: model.ocr(inputs, **how))


def question(
    images: Images,
    answer: Annotated[str, named("ANSWER", "In English.")],
    /,
    *,
    lang: Language = "en",
    options: TaskOptions = DEFAULTS,
) -> int:
    """Ask a question that has this answer."""
    answer = told(images, answer)
    return ask_all("question", images, options, lambda model, inputs, **how: model.question(inputs, answer, lang=lang, **how))


def describe_box(
    images: Images,
    box: Annotated[str, named("BOX", "Left, top, right, bottom in pixels: 10,20,110,220.", allow_leading_hyphen=True)],
    /,
    *,
    options: TaskOptions = DEFAULTS,
) -> int:
    """Say what a box holds."""
    corners = edges(told(images, box))
    return ask_all("describe-box", images, options, lambda model, inputs, **how: model.describe_box(inputs, corners, **how))


def run(
    images: Images,
    prompt: Annotated[str, named("PROMPT", 'Used as it is; with --task, what that task asks about, "" for nothing.')],
    /,
    *,
    task: Annotated[str | None, Parameter(help="A task by name, which writes the prompt and reads the answer.")] = None,
    options: TaskOptions = DEFAULTS,
) -> int:
    """Any prompt, exactly as the model was trained on it."""
    prompt = told(images, prompt)
    if task is None:
        return ask_all("run", images, options, lambda model, inputs, **how: model.run(inputs, prompt, **how))
    if task.replace("-", "_") == "describe_box":  # needs the picture's size
        return describe_box(images, prompt, options=options)
    asked = [prompt] if prompt else []
    return ask_all(task, images, options, lambda model, inputs, **how: model.task(task, inputs, *asked, **how))


def told(images: list[str], words: str) -> str:
    """The words that stand behind the pictures. Raises `UsageError` where they were forgotten, put first, or not quoted."""
    if words == STDIN:
        return "-"
    if Path(words).suffix.lower() in IMAGE_EXTENSIONS and os.path.isfile(words):
        raise UsageError(f"{printable(words)} is a picture, where the words were expected", hint="pictures first, then the words in quotes")
    strays = [image for image in images if re.fullmatch(r"[^\W_][^./\\:*?\[]*", image) and not os.path.lexists(image)]
    if strays:
        said = printable(" ".join([*strays, words]))
        raise UsageError(f"there is no file or folder {printable(strays[0])!r}", hint=f'if it is one of the words, quote them: "{said}"')
    return words


def names(text: str) -> list[str]:
    """'cat ; dog' -> ['cat', 'dog']"""
    found = [name.strip() for name in text.split(SEMICOLON) if name.strip()]
    if not found:
        raise UsageError("nothing is named to look for", hint="names, separated by `;`: 'cat ; dog'")
    if len(found) == 1 and "," in text:
        print(f"note: {printable(text)!r} is looked for as one name; `;` separates several", file=sys.stderr)
    return found


def edges(text: str) -> tuple[float, float, float, float]:
    """'10, 20, 110, 220' -> left, top, right, bottom."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise UsageError(f"{text!r} is not a box", hint="left, top, right, bottom in pixels, for example 10,20,110,220") from None
    return x0, y0, x1, y1
