"""Rows to Arrow and back, and what is no row."""

from __future__ import annotations

import numpy as np
import pytest

from paligemma.index.entries import at_least, facts_of, from_table, schema, to_table
from paligemma.results import Box
from tests.index.making import entry, facts

pyarrow = pytest.importorskip("pyarrow")

SAID = entry(1, model="m", captions={"en": "a cat", "de": "eine Katze"}, text="", classes=("cat",), objects=(Box("cat", 1, 2, 3, 4, 0.5),))


def test_there_and_back():
    form = schema(facts())
    given = [entry(0), SAID, entry(2, captions={}, objects=())]
    for one, back in zip(given, from_table(to_table(given, form)), strict=True):
        np.testing.assert_array_equal(one.vector, back.vector)
        assert {name: value for name, value in vars(one).items() if name != "vector"} == {
            name: value for name, value in vars(back).items() if name != "vector"
        }
    assert from_table(to_table(given, form).slice(1, 1))[0].vector.tolist() == SAID.vector.tolist()
    assert from_table(to_table([], form)) == []


def test_what_filters_and_full_text_look_at():
    table = to_table([entry(0), SAID], schema(facts()))
    assert table.column("labels").to_pylist() == [None, ["cat"]]
    assert table.column("words").to_pylist() == [None, "a cat\neine Katze"]
    assert table.column("holds").to_pylist() == [None, [at_least("cat", 0), at_least("cat", 1)]]


@pytest.mark.parametrize("vector", [np.full(8, np.nan), np.zeros(8), np.ones(8), np.array([1.0]), np.eye(9)[0]])
def test_a_vector_that_is_none_is_refused(vector):
    with pytest.raises(ValueError, match="expected vectors of 8 numbers and length 1"):
        to_table([entry(0, vector)], schema(facts()))


def test_facts_are_read_back_and_foreign_tables_are_not():
    form = schema(facts())
    assert facts_of(form) == facts()
    assert facts_of(form.with_metadata({**form.metadata, b"format": b"0"})) is None
    assert facts_of(form.remove(0)) is None
    assert facts_of(pyarrow.schema([("a", pyarrow.int8())])) is None
