"""Positions on another grid: as an independent interpolation has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paligemma.nano.resolution import resize_positions


@pytest.mark.parametrize(("old", "new"), [(2, 4), (8, 16), (16, 32), (4, 3)])
def test_positions_are_stretched_corner_on_corner(old, new):
    table = torch.randn(old * old, 5, generator=torch.Generator().manual_seed(0))
    square = table.unflatten(0, (old, old)).numpy()
    places = np.linspace(0, old - 1, new)
    rows = np.apply_along_axis(lambda values: np.interp(places, np.arange(old), values), 0, square)
    wanted = np.apply_along_axis(lambda values: np.interp(places, np.arange(old), values), 1, rows)
    found = resize_positions(table, new)
    assert found.shape == (new * new, 5)
    assert np.allclose(found.numpy(), wanted.reshape(new * new, 5), atol=1e-5)


def test_the_same_grid_changes_nothing():
    table = torch.randn(64, 3).bfloat16()
    found = resize_positions(table, 8)
    assert torch.equal(found, table)
    assert found.data_ptr() != table.data_ptr()
    assert resize_positions(table, 16).dtype == torch.bfloat16
