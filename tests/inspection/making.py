"""Records and findings for these tests, without files where none are needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from paligemma.data.records import DataSet, Record, Thing
from paligemma.inspection.costs import Costs, Memory
from paligemma.inspection.counts import Tally, count
from paligemma.inspection.findings import Findings, SourceFound
from paligemma.inspection.items import Item, items_of
from paligemma.inspection.lengths import Lengths
from paligemma.inspection.ready import Ready
from paligemma.inspection.repeats import Repeats, SameFiles
from paligemma.inspection.sampled import Sampled

from ..tiny import random_codec, tiny_config, tiny_tokenizer


def told(number: int, prompt: str, *answers: str, picture: str = "a.png", task: str = "run") -> Record:
    """A record that answers in words."""
    return Record(str(number), task, (Path(picture),), f"line {number}", prompt, answers)


def found(number: int, *things: Thing, picture: str = "a.png", task: str = "detect", asked: tuple[str, ...] = ()) -> Record:
    """A record that answers in places."""
    return Record(str(number), task, (Path(picture),), f"line {number}", asked=asked, things=things)


def items(*records: Record, classes: tuple[str, ...] = ()) -> list[Item]:
    return items_of([DataSet(Path("data"), "jsonl", "mixed", records, classes=classes)])


def ready(*, codec: bool = True) -> Ready:
    return Ready(tiny_config(), tiny_tokenizer(), random_codec() if codec else None, Path("tiny"))


def source(**changes: Any) -> SourceFound:
    return dataclasses.replace(SourceFound("data", "jsonl", "run", "", 2, 0.0, {}, (), {}), **changes)


MEMORY = Memory(8, 10, 10, 20, 50, 10, 100, 0, 10**9, "tiny; 8 examples", "all at once")


def findings(**changes: Any) -> Findings:
    """Of two records with which all is well."""
    counted = count(items(told(1, "caption en", "a cat"), told(2, "caption en", "a dog")))
    plain = Findings(
        sources=(source(),),
        model="tiny",
        image_size=28,
        recipe="simple",
        counts=counted,
        prompts=Tally(2, 1, (("caption en", 2),)),
        lengths=Lengths(129, 6.0, 6, 6, "line 1", ((6, 6, 2),)),
        repeats=Repeats(SameFiles(), 0, (), 0, (), ()),
        sampled=Sampled(2, 2, seconds=0.001, frames=((1, 2),)),
        limit=2000,
        held_out=source(path="valid"),
        costs=Costs("full", 1, 100, 100, 50.0, MEMORY),
    )
    return dataclasses.replace(plain, **changes)
