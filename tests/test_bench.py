"""The comparison with transformers runs, on a model that is small everywhere but in what the workers ask of it."""

from __future__ import annotations

import pytest

from bench.__main__ import Row, compare, table
from bench.limits import Limits
from bench.random_checkpoint import write_random_checkpoint
from paligemma.config import PaliGemmaConfig, TextConfig, VisionConfig

SMALL = PaliGemmaConfig(VisionConfig(32, 1, 32, 2, image_size=224), TextConfig(32, 1, 32, 2, 1, 16))


def test_a_ratio_is_the_median_of_pairs():
    assert Row("load", "s", (1.0, 9.0, 2.0), (2.0, 3.0, 4.0)).ratio == 0.5


@pytest.mark.slow
def test_both_engines_are_timed_and_agree(tmp_path):
    rows, facts = compare(write_random_checkpoint(SMALL, tmp_path), repeats=1, tokens=4, batches=[1, 2], warm_up=3)
    names = [row.name for row in rows]
    assert names[0] == "load"
    assert {"first token, batch 1", "decode, batch 2", "peak memory"} <= set(names)
    assert all(value > 0 for row in rows for value in (*row.ours, *row.theirs))
    assert facts["same best token"] == "5 of 5"
    text = table(rows, facts, Limits(1e9, 1e9, 2))
    assert sum(line.startswith("| ") for line in text.splitlines()) == len(rows) + 1
