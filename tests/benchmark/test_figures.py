"""Shares of the machine's limits, which of them is near, what is steady."""

from __future__ import annotations

import json

import pytest

from paligemma.benchmark.figures import Benchmark, Figure, limiting
from tests.benchmark.making import measured, side_by_side


@pytest.mark.parametrize(
    ("memory", "arithmetic", "weights", "limit"),
    [
        (0.8, 0.1, 2.5e9, "memory"),
        (0.1, 0.7, 2.5e9, "arithmetic"),
        (0.6, 0.55, 2.5e9, "memory"),
        (0.55, 0.6, 2.5e9, "arithmetic"),
        (0.3, 0.2, 2.5e9, "neither"),
        (0.3, 0.2, 3e6, "overhead"),
        (2.0, 0.2, 3e6, "overhead"),  # out of a cache, which is no limit of memory
        (2.0, 0.7, 3e6, "arithmetic"),
    ],
)
def test_what_limits(memory, arithmetic, weights, limit):
    assert limiting(memory, arithmetic, weights) == limit


def test_shares_are_work_by_time_by_limit():
    model = measured(batches=True)
    decode = model.decode_share()
    assert decode.memory == pytest.approx(2.5e9 / 0.125 / 25e9)
    assert decode.arithmetic == pytest.approx(5e9 / 0.125 / 800e9)
    assert decode.limits == "memory"
    assert model.decode_share(2).arithmetic == pytest.approx(2 * 5e9 / 0.150 / 800e9)
    assert model.picture_share.arithmetic == pytest.approx(200e9 / 0.5 / 800e9)
    assert model.prompt_share.arithmetic == pytest.approx(1e12 / 2.0 / 800e9)
    assert model.prompt_share.limits == "arithmetic"
    assert model.batches == [1, 2]


def test_ratios_are_taken_pair_by_pair():
    pair = Benchmark((measured(figures={"first": Figure("s", (1.0, 2.0, 4.0))}), measured(figures={"first": Figure("s", (3.0, 2.0, 8.0))})))
    assert pair.ratio("first", 1) == 2.0
    assert pair.ratio("mask", 1) is None


def test_a_busy_machine_shows():
    assert not Benchmark((measured(spread=0.1),)).unsteady
    assert ("a checkpoint", "first", pytest.approx(0.4)) in side_by_side().unsteady
    short = measured(figures={"decode": Figure("ms", (1.0, 2.0))})
    assert not Benchmark((short,)).unsteady, "a millisecond is no sign of it"


def test_json_has_every_figure_with_its_unit():
    found = json.loads(json.dumps(side_by_side().to_dict()))
    first = found["models"][0]
    assert first["figures"]["decode@2"] == {"unit": "ms", "values": [150.0] * 3, "median": 150.0, "spread": 0.0}
    assert first["shares"]["decode"]["limits"] == "memory"
    assert set(first["shares"]) == {"picture", "prompt", "decode", "decode@2"}
    assert first["work"]["weights"] == 2_500_000_000
