"""How unsure a model is of a picture, in one number: what to look at first."""

from __future__ import annotations

from collections.abc import Iterable

NOTHING = 0.5
"""Doubt where nothing was found: that says neither that the model is sure nor that it is not."""


def doubt(scores: Iterable[float | None]) -> float:
    """0 to 1, from the box whose score is nearest to an even chance: 1 where it is 0.5, 0 where every box is certain, or certainly wrong.

    `scores`: of the boxes, probabilities, so best calibrated ones; a box without a score counts as an even chance. Of no boxes: `NOTHING`.
    """
    return max((1.0 if score is None else 1 - abs(2 * score - 1) for score in scores), default=NOTHING)
