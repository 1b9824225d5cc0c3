"""What is given to Ray, and what comes back. Ray itself is in tests/slow."""

from __future__ import annotations

import pickle

import pytest

from paligemma.errors import CheckpointError
from paligemma.jobs.ray_engine import Answering, lots
from paligemma.jobs.work import Order


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


def refuse():
    raise CheckpointError("this is no model", hint="take another", code="not_a_model")


def test_what_a_worker_cannot_do_comes_back_in_place_of_what_is_done():
    came = Answering(refuse, Order(()), 4)({"start": 8, "opened": pickle.dumps([])})
    error = pickle.loads(came["done"])
    assert (came["start"], type(error), str(error.hint), error.code) == (8, CheckpointError, "take another", "not_a_model")
