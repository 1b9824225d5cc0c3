"""The campaign against the index at its smallest size, and that it can fail."""

from __future__ import annotations

import numpy as np
import pytest

from paligemma.index.store import Index, Writer, writing
from tests.index.campaigns import kills, reader, writer
from tests.index.campaigns.writer import FACTS, Change
from tests.server.campaigns.frame import run_campaign

pytest.importorskip("lancedb")

ADD, REPLACE, DELETE = Change("add", 1, 1, 5), Change("replace", 1, 2, 5), Change("delete", 1, 3, 5)


@pytest.mark.timeout(600)
def test_nothing_is_lost():
    result = run_campaign(kills, "push", 0)  # type: ignore[arg-type]
    assert not result.failures, "\n".join(result.failures.values())
    assert result.cases == 30


@pytest.fixture
def index(tmp_path):
    with writing(tmp_path, FACTS) as own:
        writer.make(own, ADD)
        yield own


def test_what_is_expected(index):
    assert kills.expected({}, [ADD]) == {1: (1, 5)}
    assert kills.expected({}, [ADD, REPLACE]) == {1: (2, 5)}
    assert kills.expected({}, [ADD, REPLACE, DELETE]) == {}
    assert kills.survived(index.where, {1: (1, 5)}, []) == {1: (1, 5)}
    assert kills.survived(index.where, {}, [ADD]) == {1: (1, 5)}


def test_a_loss_is_found_out(index):
    with pytest.raises(AssertionError, match="acknowledged"):
        kills.survived(index.where, {1: (1, 5), 2: (4, 3)}, [])
    index.delete(["1-0"])
    with pytest.raises(AssertionError, match="group 1"):
        kills.survived(index.where, {1: (1, 5)}, [])


def test_a_reader_finds_out_what_is_no_version(index):
    vector = np.ones(FACTS.dimensions, np.float32)
    reader.look(index, vector)
    index.add([writer.entries(ADD)[0]])
    with pytest.raises(AssertionError, match="group 1"):
        reader.look(index, vector)


def test_a_reader_finds_out_that_versions_are_mixed(index, monkeypatch):
    vector = np.ones(FACTS.dimensions, np.float32)
    nearest = Index.nearest

    def meanwhile(self, *asked):
        found = nearest(self, *asked)
        writer.make(index, REPLACE)
        self.refresh()
        return found

    monkeypatch.setattr(Writer, "nearest", meanwhile)
    with pytest.raises((AssertionError, KeyError, ValueError)):  # by what of the two versions is compared first
        reader.look(index, vector)


def test_a_search_that_finds_other_pictures_is_found_out(index, tmp_path, monkeypatch):
    import random

    nearest = Index.nearest
    monkeypatch.setattr(Writer, "nearest", lambda self, vector, count: nearest(self, -vector, count))
    monkeypatch.setattr(kills, "TOP", 2)
    with pytest.raises(AssertionError, match="recall"):
        kills.same_as_anew(index.where, str(tmp_path / "anew"), random.Random(0))
