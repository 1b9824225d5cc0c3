"""The place decides: no state, every record once an epoch, sources by weight."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma.data.mixture import BLOCK, Mixture
from paligemma.data.records import DataSet, Record
from paligemma.errors import UsageError


def data_set(count: int, name: str = "a") -> DataSet:
    records = tuple(Record(f"{name}{i}", "caption", (Path("x.png"),), f"line {i}", "caption en", ("x",)) for i in range(count))
    return DataSet(Path(name), "jsonl", "caption", records)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 3))
def test_each_epoch_holds_each_record_once(count, seed, epoch):
    mixture = Mixture([data_set(count)], seed=seed)
    assert len(mixture) == count
    drawn = [mixture.draw(place) for place in range(epoch * count, (epoch + 1) * count)]
    assert sorted(d.record for d in drawn) == list(range(count))
    assert {d.epoch for d in drawn} == {epoch}


def test_epochs_and_seeds_have_their_own_orders():
    orders = {tuple(Mixture([data_set(50)], seed=s).draw(e * 50 + i).record for i in range(50)) for s in (0, 1) for e in (0, 1)}
    assert len(orders) == 4


def test_a_place_does_not_depend_on_what_was_asked_before():
    sources = [data_set(30, "a"), data_set(70, "b")]
    far = BLOCK * 3 + 17
    straight = Mixture(sources, [1, 3], seed=4)
    through = [straight.draw(place) for place in range(far + 1)]
    assert Mixture(sources, [1, 3], seed=4).draw(far) == through[-1]


def test_sources_come_by_weight_and_each_goes_through_its_own_order():
    sources = [data_set(30, "a"), data_set(70, "b")]
    mixture = Mixture(sources, [1, 3], seed=4)
    drawn = [mixture.draw(place) for place in range(2 * BLOCK)]
    share = Counter(d.source for d in drawn)[1] / len(drawn)
    assert 0.72 < share < 0.78
    for source in (0, 1):
        own = [d for d in drawn if d.source == source]
        size = len(sources[source])
        for start in range(0, len(own) - size, size):
            assert sorted(d.record for d in own[start : start + size]) == list(range(size))
            assert {d.epoch for d in own[start : start + size]} == {start // size}


def test_without_weights_every_record_is_as_likely():
    assert len(Mixture([data_set(30), data_set(70)])) == 100
    assert len(Mixture([data_set(30), data_set(70)], [1, 1])) == 140


@pytest.mark.parametrize(
    ("sources", "weights"),
    [([], None), ([data_set(3)], [1, 2]), ([data_set(0)], None), ([data_set(3)], [0]), ([data_set(3)], [float("nan")])],
)
def test_wrong_mixtures_are_refused(sources, weights):
    with pytest.raises(UsageError):
        Mixture(sources, weights)
