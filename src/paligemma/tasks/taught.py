"""What a model was taught, as its configuration says it: the words that prompts begin with -> its tasks, their languages and lengths.

"caption de"   "answer en"   "detect"   "caption <box>": four locations, whichever
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import answer, caption, describe_box, detect, ocr, question, refer, run, segment
from .detect import box_tokens
from .languages import LANGUAGES

_WORDS = "\ue000"
"""Stands for what is asked: no text holds it."""


@dataclass(frozen=True)
class Offer:
    """Codes of the languages and lengths of captions that a task can be asked for, empty where its prompts name none."""

    languages: tuple[str, ...] = ()
    lengths: tuple[str, ...] = ()


def offers(taught: Sequence[str] = ()) -> dict[str, Offer]:
    """Names of tasks -> how they can be asked of a model that was taught prompts with these beginnings; without any: all tasks.

    `run` takes any prompt and is always among them. `refer` has no word to be known by: where there are beginnings, it is not.
    """
    known: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for task, prompt, lang, length in _prompts():
        if not taught or any(f"{prompt} ".startswith(f"{beginning} ") for beginning in taught):
            known[task].append((lang, length))
    found = {}
    for task, ways in known.items():
        langs, lengths = map(set, zip(*ways, strict=True))
        found[task] = Offer(tuple(filter(langs.__contains__, LANGUAGES)), tuple(filter(lengths.__contains__, caption.LENGTHS)))
    return {**found, run.name: Offer()}


def _prompts() -> Iterator[tuple[str, str, str, str]]:
    """(task, one of its prompts, language, length): each task in each of its languages and lengths."""
    box = (0.0, 0.0, 1.0, 1.0)
    for lang in LANGUAGES:
        for length in caption.LENGTHS:
            yield caption.name, caption.prompt(lang, length), lang, length
        yield answer.name, answer.prompt(_WORDS, lang), lang, ""
        yield question.name, question.prompt(_WORDS, lang), lang, ""
    yield detect.name, detect.prompt(_WORDS), "", ""
    yield segment.name, segment.prompt(_WORDS), "", ""
    yield refer.name, refer.prompt(_WORDS), "", ""
    yield ocr.name, ocr.prompt(), "", ""
    yield describe_box.name, describe_box.prompt(box).replace(box_tokens(*box), "<box>"), "", ""
