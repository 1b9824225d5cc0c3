"""What is looked at: the records of all sources in one row, each with the class names its prompt may hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.lessons import MOST_CLASSES
from ..data.records import DataSet, Record
from ..tasks.detect import tidy


@dataclass(frozen=True)
class Item:
    """A record and its place among all. `classes`: of its data set."""

    number: int
    record: Record
    classes: tuple[str, ...]

    def rng(self, seed: int = 0) -> np.random.Generator:
        """What draws its answer and its classes, always in the same way."""
        return np.random.default_rng([seed, self.number])

    @property
    def names_are_drawn(self) -> bool:
        """Whether its prompt names only some of the classes, others each time."""
        return self.record.task in ("detect", "segment") and not self.record.asked and len(set(map(tidy, self.classes))) > MOST_CLASSES


def items_of(sources: Sequence[DataSet]) -> list[Item]:
    pairs = ((record, source.classes) for source in sources for record in source.records)
    return [Item(number, record, classes) for number, (record, classes) in enumerate(pairs)]
