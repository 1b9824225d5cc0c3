"""The notation against einsum, and back again."""

from __future__ import annotations

import pytest
import torch

from paligemma.checkpoint.axes import Axes
from paligemma.checkpoint.weight_maps import COMMON, NORMS_1, NORMS_2

SIZES = {letter: size for size, letter in enumerate("dlnhftpqcWVLNKHF", 2)}


@pytest.mark.parametrize("text", sorted({f"{' '.join(r.axes.left)} -> {' '.join(r.axes.right)}" for r in COMMON + NORMS_1 + NORMS_2}))
def test_forward_is_an_einsum_and_backward_undoes_it(text: str):
    axes = Axes.parse(text)
    theirs = torch.randn(axes.left_shape(SIZES))
    equation = "".join(axes.left).replace("1", "z") + "->" + "".join(axes.right)
    expected = torch.einsum(equation, theirs).reshape(axes.right_shape(SIZES))
    ours = axes.forward(theirs)
    assert ours.shape == axes.right_shape(SIZES)
    assert torch.equal(ours, expected)
    assert torch.equal(axes.backward(ours, SIZES), theirs)
    assert axes.identity == torch.equal(ours.reshape(-1), theirs.reshape(-1))
    assert axes.solve(tuple(theirs.shape)) == {letter: SIZES[letter] for letter in "".join(axes.left) if letter != "1"}


def test_a_shape_with_another_number_of_axes_tells_nothing():
    assert Axes.parse("N W H -> NH W").solve((2, 3)) == {}
