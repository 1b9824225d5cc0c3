"""The best few in the order of the words' likelihood."""

from __future__ import annotations

from paligemma.index.query import Hit
from paligemma.index.reranking import rerank
from paligemma.predictor import Predictor
from paligemma.predictor.likelihood import caption_likelihoods
from tests import tiny
from tests.index.making import entry, paint


def test_the_best_are_sorted_by_likelihood_and_the_rest_stay(tmp_path):
    predictor = Predictor(tiny.tiny_model(version=1), tiny.tiny_tokenizer())
    names = ["red", "green", "blue", "yellow", "white", "black"]
    for number, colour in enumerate(names):
        paint(tmp_path / f"{number}.png", colour)
    (tmp_path / "1.png").write_bytes(b"broken")
    hits = [Hit(entry(number), 1 / (number + 1), {"words": number + 1}) for number in range(6)]
    failed = []
    found = rerank(predictor, hits, "a cat", tmp_path, best=5, failed=failed.append)
    assert [hit.entry.modified for hit in found[4:]] == [1, 5], "what cannot be opened comes last of the best, the rest after it"
    assert len(failed) == 1
    for hit in found[:4]:
        assert hit.likelihood is not None
        assert abs(hit.likelihood - caption_likelihoods(predictor, [tmp_path / hit.entry.path], "a cat")[0]) < 1e-4
    assert [hit.likelihood for hit in found[:4]] == sorted((hit.likelihood for hit in found[:4]), reverse=True)
    assert rerank(predictor, [], "a cat", tmp_path) == []
