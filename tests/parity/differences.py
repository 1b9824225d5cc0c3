"""How far apart two computations of the same numbers are: checked, and remembered for the table of `python -m tests.parity`."""

from __future__ import annotations

import os

import torch

SEEN: dict[str, tuple[float, float, float]] = {}
"""Test -> largest difference found in it, its bound, and the largest number among the expected ones."""


def close(found: torch.Tensor, expected: torch.Tensor, bound: float) -> None:
    """The same shape, and nowhere further apart than `bound`."""
    assert found.shape == expected.shape
    difference, size = float((found - expected).abs().max()), float(expected.abs().max())
    test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
    before = SEEN.get(test, (0.0, bound, 0.0))
    SEEN[test] = (max(difference, before[0]), max(bound, before[1]), max(size, before[2]))
    assert difference < bound
