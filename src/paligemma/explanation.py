"""An answer, and what it was made of: how probable each of its tokens was, what else might have stood there, where the model looked.

Frozen values, no torch. `predictor/explaining.py` makes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import drawing
from .errors import UsageError
from .printable import printable
from .results import Result
from .tokenizer import LOCATION_PIECES

if TYPE_CHECKING:
    from PIL import Image

Grid = tuple[tuple[float, ...], ...]
"""A number for each patch of the picture as the model sees it, row by row from the top: the share of attention that went there. What all
of them lack to 1 went to words."""

WORTH_SAYING = 0.01
"""What is less probable is left to `steps`."""
MOST_MAPS = 24
"""More parts of an answer are not drawn."""
_PLACES = frozenset(LOCATION_PIECES)
LEGEND = "attention, least to most in each map; the ring marks the most"


@dataclass(frozen=True)
class Likely:
    """A token that might have stood in a place, and its probability among those allowed there."""

    text: str
    prob: float


@dataclass(frozen=True)
class Step:
    """One token of the answer. `likely`: the most probable ones at its place, the likeliest first, this one among them or not.

    `heat`: empty where nobody asked where the model looked.
    """

    text: str
    prob: float
    likely: tuple[Likely, ...]
    heat: Grid = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        plain = {"text": self.text, "prob": self.prob, "likely": [dataclasses.asdict(one) for one in self.likely]}
        return plain | {"heat": _lists(self.heat)} if self.heat else plain


@dataclass(frozen=True)
class Part:
    """A word of a text, or an object with all of its tokens: `start` to `stop` of the steps. `heat`: their mean.

    `score`: an object's, or the probability of the word's tokens. `box`: an object's: left, top, right, bottom, in pixels of the picture.
    """

    label: str
    start: int
    stop: int
    heat: Grid = field(repr=False)
    score: float | None = None
    box: tuple[float, float, float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        box = None if self.box is None else list(self.box)
        return {"label": self.label, "start": self.start, "stop": self.stop, "score": self.score, "box": box, "heat": _lists(self.heat)}

    @property
    def hottest(self) -> tuple[float, float]:
        """Centre of the hottest patch, x and y as shares of the picture's width and height."""
        row, column = max(
            ((row, column) for row, line in enumerate(self.heat) for column in range(len(line))),
            key=lambda place: self.heat[place[0]][place[1]],
        )
        return (column + 0.5) / len(self.heat[0]), (row + 0.5) / len(self.heat)


@dataclass(frozen=True)
class Explanation(Result):
    """`result`: the answer, as without an explanation. `parts`: words of a text, or the objects of the result, in order.

    `width`, `height`: of the original picture.
    """

    result: Result
    steps: tuple[Step, ...]
    parts: tuple[Part, ...]
    width: int
    height: int

    @property
    def stop(self) -> str:
        """Why the answer ended."""
        return getattr(self.result, "stop", "eos")

    def __str__(self) -> str:
        """The answer, then a line a part: how probable, where the model looked, and what else might have been said there."""
        return "\n".join([str(self.result), *(f"  {self._line(part)}" for part in self.parts)])

    def _line(self, part: Part) -> str:
        x, y = part.hottest
        line = f"{part.label}  {_percent(part.score)}  looked at x {x * self.width:.0f}, y {y * self.height:.0f}"
        others = ", ".join(f"{one.text.strip()} {_percent(one.prob)}" for one in self.others(part) if one.prob >= WORTH_SAYING)
        return printable(f"{line}  or {others}" if others else line)

    def others(self, part: Part) -> tuple[Likely, ...]:
        """What might have begun there instead of that word, or of that object's name, the likeliest first."""
        named = (step for step in self.steps[part.start : part.stop] if step.text not in _PLACES)  # an object's name follows its place
        first = next(named, None)
        return () if first is None else tuple(one for one in first.likely if one.text != first.text)

    def to_dict(self) -> dict[str, Any]:
        """The result's own values, and `"explanation"` beside them."""
        return self.result.to_dict() | self.explained()

    def explained(self) -> dict[str, Any]:
        """`{"explanation": ...}` with the picture's size, `grid` (rows, columns), `tokens` and `parts`, without the result itself."""
        grid = self.steps[0].heat if self.steps else ()
        shape = [len(grid), len(grid[0]) if grid else 0]
        tokens, parts = [step.to_dict() for step in self.steps], [part.to_dict() for part in self.parts]
        return {"explanation": {"width": self.width, "height": self.height, "grid": shape, "tokens": tokens, "parts": parts}}

    @classmethod
    def of(cls, result: Result, told: Mapping[str, Any], picture: Image.Image | None = None) -> Explanation:
        """A result and what `explained` told of it."""
        steps = tuple(
            Step(one["text"], one["prob"], tuple(Likely(other["text"], other["prob"]) for other in one["likely"]), _grid(one["heat"]))
            for one in told["tokens"]
        )
        parts = tuple(
            Part(one["label"], one["start"], one["stop"], _grid(one["heat"]), one["score"], one["box"] and tuple(one["box"]))
            for one in told["parts"]
        )
        return cls(result, steps, parts, told["width"], told["height"], picture=picture)

    def _draw(self, image: Image.Image) -> Image.Image:
        if image.size != (self.width, self.height):
            raise UsageError(
                f"this explanation belongs to a picture of {self.width} x {self.height} pixels, not {image.width} x {image.height}",
                hint="draw on the picture that the model was given",
            )
        if not self.parts:
            return self.result.draw(image)
        maps = [drawing.HeatMap(part.label, part.heat, _percent(part.score), part.box) for part in self.parts[:MOST_MAPS]]
        left = len(self.parts) - len(maps)
        title = getattr(self.result, "prompt", "")
        return drawing.draw_heat(image, maps, title=title, note=f"and {left} more" if left else "", legend=LEGEND)


def mean_grid(grids: Sequence[Grid]) -> Grid:
    """The mean of several, patch by patch; to four digits, as the grids are."""
    return tuple(tuple(rounded(sum(cell) / len(grids)) for cell in zip(*lines, strict=True)) for lines in zip(*grids, strict=True))


def rounded(value: float) -> float:
    """Four digits: all that a share of attention is worth."""
    return float(f"{value:.4g}")


def _grid(lines: Sequence[Sequence[float]]) -> Grid:
    return tuple(map(tuple, lines))


def _percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.0f}%"


def _lists(grid: Grid) -> list[list[float]]:
    return [list(line) for line in grid]
