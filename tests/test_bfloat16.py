"""All 65,536 patterns of bits, against PyTorch's bfloat16."""

from __future__ import annotations

import numpy as np
import torch

from paligemma.bfloat16 import from_bfloat16, to_bfloat16

ALL = np.arange(2**16, dtype=np.uint16)


def test_bits_are_the_numbers_they_stand_for():
    found, expected = from_bfloat16(ALL), torch.from_numpy(ALL).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(found, expected)
    assert (np.signbit(found) == np.signbit(expected)).all()


def test_there_and_back_is_where_one_was():
    numbers = from_bfloat16(ALL)
    again = to_bfloat16(numbers)
    some = ~np.isnan(numbers)
    assert (again[some] == ALL[some]).all()
    assert np.isnan(from_bfloat16(again[~some])).all()


def test_rounds_as_pytorch_does():
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32)
    halves = (np.arange(2**16, dtype=np.uint32) << 16) + 0x8000  # exactly between two
    numbers = np.concatenate([bits, halves]).view(np.float32)
    numbers = numbers[~np.isnan(numbers)]
    expected = torch.from_numpy(numbers).to(torch.bfloat16).view(torch.uint16).numpy()
    np.testing.assert_array_equal(to_bfloat16(numbers), expected)
