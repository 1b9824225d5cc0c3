"""A picture and what a model found in it: a row of a job's results, as those who write files of annotations want it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..mask_formats import decompress, from_run_lengths
from ..results import Box
from .doubt import doubt


@dataclass(frozen=True)
class Thing:
    """A box with its score, and where masks were asked for its mask as COCO's run lengths, unpacked when it is looked at."""

    box: Box
    rle: Mapping[str, Any] | None = None

    @property
    def mask(self) -> np.ndarray | None:
        """Boolean (H, W)."""
        if self.rle is None:
            return None
        height, width = self.rle["size"]
        return from_run_lengths(decompress(self.rle["counts"]), height, width)


@dataclass(frozen=True)
class Labelled:
    """`id`, `where`: of the item; `name`: of its file here, unique even without its ending; `width`, `height`: of the picture, in pixels.

    `things`: in the model's order, without those that cover nothing, which no tool has a place for.
    """

    id: str
    where: str
    name: str
    width: int
    height: int
    things: tuple[Thing, ...] = field(repr=False)

    @classmethod
    def of(cls, row: Mapping[str, Any], name: str, min_score: float = 0.0) -> Labelled:
        """A row of results. `min_score`: things that score less, masks by their own score, are left out."""
        answer = row["result"]
        given = answer["boxes"] if "boxes" in answer else answer["masks"]
        enough = [one for one in given if not min_score or (one["score"] or 0) >= min_score]
        found = [Thing(Box.from_dict(one["box"]), one["rle"]) if "rle" in one else Thing(Box.from_dict(one)) for one in enough]
        things = tuple(thing for thing in found if thing.box.area and (thing.rle is None or any(decompress(thing.rle["counts"])[1::2])))
        return cls(row["id"], row["where"], name, answer["width"], answer["height"], things)

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0]

    @cached_property
    def doubt(self) -> float:
        return doubt(thing.box.score for thing in self.things)
