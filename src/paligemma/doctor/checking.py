"""What every check is made of, and the checks that look at no numbers of the model: tokenizer, and how pictures are resized. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ..predictor import Predictor
from .pictures import GOLDEN_PIXELS, resized


@dataclass(frozen=True)
class Check:
    """`detail`: what was found, with numbers. `advice`: what to do about it; empty when `ok`."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


class Examined(Protocol):
    """What is looked at."""

    @property
    def predictor(self) -> Predictor: ...


P = TypeVar("P", bound=Examined)
Look = tuple[str, Callable[[P], str | None], str]
"""A check: its name; a function that says what it found (None: there is nothing to look at) or raises `Different`; advice where it does."""


class Different(Exception):
    """A check found something wrong. `advice` replaces the check's usual one."""

    def __init__(self, detail: str, advice: str = ""):
        super().__init__(detail)
        self.advice = advice


def demand(condition: bool, detail: str, advice: str = "") -> str:
    """`detail`, if the condition holds; else it is what `Different` says."""
    if not condition:
        raise Different(detail, advice)
    return detail


def carry_out(checks: Sequence[Look[P]], patient: P) -> Iterator[Check]:
    """Each check as soon as it is done. One that breaks down counts as failed; nothing is raised."""
    for name, look, advice in checks:
        try:
            detail = look(patient)
        except Different as difference:
            yield Check(name, False, str(difference), difference.advice or advice)
        except Exception as error:  # whatever keeps a check from running is what the user needs to know
            yield Check(name, False, f"could not be checked: {type(error).__name__}: {error}", advice)
        else:
            if detail is not None:
                yield Check(name, True, detail)


def tokenizer(patient: Examined) -> str:
    """What it does with text. Its vocabulary was compared with PaliGemma's when it was loaded."""
    t = patient.predictor.tokenizer
    text = "a Cat, 2 dogs & größer 猫; <bos> <image>"
    corners = t.encode("<loc0000><loc1023><seg127>")
    facts: dict[str, tuple[Any, Any]] = {
        "ids of locations": (corners, [t.loc.start, t.loc.stop - 1, t.seg.stop - 1]),
        "text encoded and decoded": (t.decode(t.encode(text)), text),
        "control tokens made of typed text": (sorted({t.pad_id, t.eos_id, t.bos_id} & set(t.encode("<pad><eos><bos>"))), []),
    }
    wrong = [f"{name}: {found}, expected {expected}" for name, (found, expected) in facts.items() if found != expected]
    demand(not wrong, "; ".join(wrong))
    rows = patient.predictor.config.text.vocab_size
    return demand(t.vocab_size == rows, f"{t.vocab_size} tokens, {rows} rows in the model")


def resize(patient: Examined) -> str:
    levels = {name: int(np.abs(np.subtract(resized(name), golden)).max()) for name, golden in GOLDEN_PIXELS.items()}
    worst = max(levels, key=levels.__getitem__)
    used = patient.predictor.config.resize
    return demand(levels[worst] <= 1, f"{used}; {worst} is at most {levels[worst]} of 255 levels from the stored pixels")


WORDS: Look[Any] = ("tokenizer", tokenizer, "use the tokenizer files that came with the checkpoint")
PIXELS: Look[Any] = ("resize", resize, "Pillow resizes differently here: install the version in constraints.txt")
DAMAGED_TOWER = "the image tower's weights are damaged, or another model's: fetch the checkpoint again"
