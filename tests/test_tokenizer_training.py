"""Training gives a file that sentencepiece and its protocol buffer understand, the same one each time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from paligemma.errors import UsageError
from paligemma.tokenizer import LOCATION_PIECES, Tokenizer
from paligemma.tokenizer_training import append_pieces, train_tokenizer

from .tiny import SENTENCES, TOKENIZER_VOCAB, tiny_tokenizer


def test_the_same_sentences_give_the_same_bytes():
    code = (
        "import sys; from tests.tiny import SENTENCES; from paligemma.tokenizer_training import train_tokenizer as t;"
        f"sys.stdout.buffer.write(t(SENTENCES, {TOKENIZER_VOCAB}))"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert elsewhere == train_tokenizer(iter(SENTENCES), TOKENIZER_VOCAB)


def test_frequent_words_are_one_piece_with_their_space():
    encode = tiny_tokenizer().encode
    assert [len(encode(word)) for word in (" cat", " dogs", "caption", "segment", " the")] == [1] * 5


def test_the_appended_pieces_are_ordinary_protocol_buffer():
    """Parsed by the real library, the file holds what was asked for, and written again it is the same file."""
    model_pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    data = train_tokenizer(SENTENCES, TOKENIZER_VOCAB)
    model = model_pb2.ModelProto()
    model.ParseFromString(data)
    assert [piece.piece for piece in model.pieces][-1152:] == list(LOCATION_PIECES)
    assert {(piece.type, piece.score) for piece in list(model.pieces)[-1152:]} == {(model_pb2.ModelProto.SentencePiece.USER_DEFINED, 0.0)}
    assert len(model.SerializeToString()) == len(data)


@pytest.mark.parametrize("size", [1460, 1500, 1552])
def test_the_vocabulary_size_counts_everything(size: int):
    assert Tokenizer.from_bytes(train_tokenizer(SENTENCES, size)).vocab_size == size


@pytest.mark.parametrize(
    ("sentences", "size", "told"),
    [(SENTENCES, 1413, "too small"), (["a cat"], 5000, "3848 of them text.*too high"), ([], 1552, "400 of them text")],
)
def test_sizes_that_cannot_be(sentences: list[str], size: int, told: str):
    with pytest.raises(UsageError, match=told) as caught:
        train_tokenizer(sentences, size)
    assert "\n" not in caught.value.message


def test_every_character_can_be_covered_or_spelt_in_bytes():
    sentences = [*SENTENCES, "猫と犬", "猫", "犬", "кошка и собака"] * 2
    all_of_them = Tokenizer.from_bytes(train_tokenizer(sentences, 1500))
    assert len(all_of_them.encode("猫")) == 1
    assert len(all_of_them.encode("龍")) == 3


def test_a_piece_that_is_too_long():
    with pytest.raises(UsageError, match="too long"):
        append_pieces(b"", ["x" * 200])
