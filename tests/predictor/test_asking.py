"""Batches by size, text in whole characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.engine.options import Generation, Token
from paligemma.predictor.asking import BATCH_TOKENS, MAX_BATCH, Stream, batches
from tests import tiny


@pytest.mark.parametrize(
    ("tokens", "batch_size", "sizes"),
    [
        ([], None, []),
        ([256] * 20, None, [16, 4]),
        ([1024] * 5, None, [4, 1]),
        ([4096] * 3, None, [1, 1, 1]),
        ([9000, 64], None, [1, 1]),
        ([1] * 100, None, [64, 36]),
        ([4096] * 5, 2, [2, 2, 1]),
        ([256, 4096, 256, 256], None, [1, 1, 2]),
    ],
)
def test_batches_by_hand(tokens, batch_size, sizes):
    assert [len(batch) for batch in batches(tokens, batch_size)] == sizes


@given(st.lists(st.integers(1, 5000), max_size=50), st.none() | st.integers(1, 9))
def test_batches_cover_everything_in_order_within_the_limits(tokens, batch_size):
    found = list(batches(tokens, batch_size))
    assert [place for batch in found for place in batch] == list(range(len(tokens)))
    for batch in found:
        assert len(batch) <= (batch_size or MAX_BATCH)
        assert batch_size or len(batch) == 1 or sum(tokens[place] for place in batch) <= BATCH_TOKENS


@given(st.text(max_size=20))
def test_pieces_are_whole_characters_and_join_to_the_text(text):
    """The tiny vocabulary writes most characters as several bytes."""
    tokenizer = tiny.tiny_tokenizer()
    ids = tokenizer.encode(text)
    stream = object.__new__(Stream)
    stream._tokenizer = tokenizer
    stream._read = lambda generation: generation.stop
    stream._tokens = written(ids)
    stream._result, stream._pieces = [], stream._run()
    pieces = list(stream)
    assert "".join(pieces) == tokenizer.decode(ids)
    assert all(pieces)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)
    assert stream.result == "eos"


def written(ids):
    for id in ids:
        yield Token(0, id, 1.0, 1.0)
    return [Generation(tuple(ids), (), (), 0.0, "eos")]
