"""What is given to Ray, and what comes back of its wrappings. Ray itself is in tests/slow."""

from __future__ import annotations

import pickle

import pytest

from paligemma.errors import UsageError
from paligemma.jobs.ray_engine import _within, lots


@pytest.mark.parametrize(("most", "sizes"), [(10**6, [5]), (1, [1] * 5), (0, [1] * 5)])
def test_every_span_is_in_one_lot(most, sizes):
    found = list(lots(iter(["a" * 100] * 5), most))  # type: ignore[arg-type]
    assert [len(lot) for lot in found] == sizes
    assert [pickle.loads(one) for lot in found for one in lot] == ["a" * 100] * 5


def test_a_lot_is_as_large_as_may_be_and_read_as_it_is_wanted():
    size = len(pickle.dumps("a" * 100))
    read: list[int] = []

    def spans():
        for place in range(7):
            read.append(place)
            yield "a" * 100

    waiting = lots(spans(), 3 * size)  # type: ignore[arg-type]
    assert len(next(waiting)) == 3
    assert len(read) == 4, "one is read to see that it is too much"
    assert [len(lot) for lot in waiting] == [3, 1]
    assert list(lots(iter(()), 9)) == []


def test_our_errors_come_out_of_their_wrappings():
    ours = UsageError("no mask codec")
    wrapped = RuntimeError("a task failed")
    wrapped.cause = RuntimeError("user code")  # type: ignore[attr-defined]
    wrapped.cause.__cause__ = ours  # type: ignore[attr-defined]
    assert _within(wrapped) is ours
    assert _within(RuntimeError("a worker died")) is None
