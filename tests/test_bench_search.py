"""The benchmark of searches asks what it says it asks."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("lancedb")
from bench import search


@pytest.mark.parametrize("uniform", [False, True])
def test_the_truth_is_what_an_exact_search_finds(uniform, monkeypatch):
    monkeypatch.setattr(search, "PIECE", 100)
    rows = np.concatenate([some for _, some in search.pieces(250, 32, uniform)])
    asked = search.questions(5, 32, uniform)
    exact = np.argsort(-asked @ rows.T, axis=1)[:, : search.TOP]
    assert search.truth(250, asked, uniform) == [{str(number) for number in row} for row in exact]
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_every_vector_is_found_where_all_are_looked_at(tmp_path):
    built = search.build(tmp_path / "index", 300, 32, False)
    asked = search.questions(25, 32, False)
    found = search.ask(tmp_path / "index", asked, search.truth(300, asked, False))
    assert found["recall@10"] == 1
    assert min(*built.values(), *found.values()) > 0
    assert {"words, p50 ms", "words and a cat, p50 ms", "words and a dog, pictures that meet it"} <= found.keys()
    assert set(search.TARGETS) <= found.keys()
