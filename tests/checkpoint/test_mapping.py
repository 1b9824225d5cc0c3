"""Mapped windows: the right bytes, nothing written back, and pages that go with their tensors."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
import torch

from paligemma.checkpoint import mapping
from paligemma.checkpoint.mapping import MappedFile


@pytest.fixture
def numbers(tmp_path, monkeypatch):
    """A file of 0, 1, 2, ... as int64 in five tensors after an odd header, mapped in windows of about two tensors."""
    monkeypatch.setattr(mapping, "WINDOW", 4 * mmap.ALLOCATIONGRANULARITY - 8)
    count = mmap.ALLOCATIONGRANULARITY // 8
    path = tmp_path / "numbers"
    path.write_bytes(b"\x00" * 24 + np.arange(5 * count).tobytes())
    spans = [(24 + 8 * count * number, 8 * count) for number in range(5)]
    return MappedFile(path, reversed(spans)), spans, count


def test_every_tensor_reads_its_own_bytes(numbers):
    file, spans, count = numbers
    for number, (start, _) in enumerate(spans):
        expected = np.arange(number * count, (number + 1) * count)
        np.testing.assert_array_equal(file.flat(start, count, np.int64), expected)
        np.testing.assert_array_equal(file.flat(start + 80, 3, np.int64), expected[10:13])


def test_writing_to_a_tensor_leaves_the_file_alone(numbers):
    file, spans, count = numbers
    before = file.path.read_bytes()
    torch.from_numpy(file.flat(spans[1][0], count, np.int64)).fill_(7)
    assert file.path.read_bytes() == before


def test_a_window_lives_as_long_as_its_tensors(numbers):
    file, spans, count = numbers
    first, second, third = (torch.from_numpy(file.flat(start, count, np.int64)) for start, _ in spans[:3])
    assert len(file._open) == 2, "the first two tensors share a window"
    del first
    assert len(file._open) == 2
    del second
    assert len(file._open) == 1
    assert third[0] == 2 * count


def test_a_file_that_became_short_is_an_error(numbers):
    file, spans, count = numbers
    file.path.write_bytes(file.path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="length"):
        file.flat(spans[4][0], count, np.int64)


def test_a_large_tensor_has_a_window_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "WINDOW", 4 * mmap.ALLOCATIONGRANULARITY)
    small, large = 64, 2 * mmap.ALLOCATIONGRANULARITY
    path = tmp_path / "numbers"
    path.write_bytes(bytes(2 * small + large))
    file = MappedFile(path, [(0, small), (small, large), (small + large, small)])
    tensors = [file.flat(start, 8, np.int64) for start in (0, small, small + large)]
    assert len(file._open) == 3
    del tensors
    assert len(file._open) == 0
