"""Sentences -> a small tokenizer file (sentencepiece) with the structure of PaliGemma's: Gemma's settings, location and mask pieces last.

    0 <pad>  1 <eos>  2 <bos>  3 <unk>  4 "\\n"  5..260 bytes  261.. learnt pieces  ...  <loc0000>..<loc1023>  <seg000>..<seg127>

The trainer of sentencepiece places user-defined pieces right after the control pieces, but PaliGemma has them at the end, where a base
Gemma vocabulary can be extended without moving anything. So the 1152 pieces are appended to the finished file: a serialized protocol
buffer followed by another is their merge, and merging appends repeated fields. That needs twelve lines and no protobuf package.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable

import sentencepiece

from .errors import UsageError
from .tokenizer import LOCATION_PIECES

_BYTES = 256
_SMALLEST = 5 + _BYTES + 1 + len(LOCATION_PIECES)


def train_tokenizer(sentences: Iterable[str], vocab_size: int) -> bytes:
    """Learn byte-pair pieces from `sentences`; returns the bytes of a `tokenizer.model`. The same sentences give the same bytes.

    `vocab_size` counts everything (control, newline, 256 bytes, learnt pieces, 1024 + 128 location and mask pieces): it is the number of
    rows the embedding table needs. Words that are frequent in the sentences become one piece ("▁cat"). Characters that no sentence
    has are spelled in bytes, so every text can be encoded.
    Raises `UsageError` when `vocab_size` is too small or the sentences are too few for it.
    """
    if vocab_size < _SMALLEST:
        raise UsageError(f"a vocabulary of {vocab_size} pieces is too small: {_SMALLEST} is the least with bytes and location pieces")
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=written,
            model_type="bpe",
            vocab_size=vocab_size - len(LOCATION_PIECES),
            pad_id=0, eos_id=1, bos_id=2, unk_id=3,
            pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>",
            user_defined_symbols=["\n"],
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            character_coverage=1.0,
            max_sentence_length=1 << 20,
            num_threads=1,
            minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        reason = " ".join(str(error).rpartition("] ")[2].split())
        raise UsageError(
            f"no vocabulary of {vocab_size} pieces, {vocab_size - len(LOCATION_PIECES)} of them text, can be learnt here: {reason}",
            hint="more sentences allow a larger vocabulary; fewer different characters a smaller one",
        ) from error
    return append_pieces(written.getvalue(), LOCATION_PIECES)


def append_pieces(model: bytes, pieces: Iterable[str]) -> bytes:
    """A serialized sentencepiece model with user-defined `pieces` added after its own, in order."""
    return model + b"".join(_field(_PIECES, _user_defined(piece)) for piece in pieces)


# Field numbers of sentencepiece_model.proto: ModelProto.pieces, and in SentencePiece: piece, score, type.
_PIECES, _PIECE, _SCORE, _TYPE, _USER_DEFINED = 1, 1, 2, 3, 4


def _user_defined(piece: str) -> bytes:
    score = bytes([_SCORE << 3 | 5]) + struct.pack("<f", 0.0)
    return _field(_PIECE, piece.encode()) + score + bytes([_TYPE << 3, _USER_DEFINED])


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field; one byte of length is enough for pieces of up to 100 bytes."""
    if len(payload) > 127:
        raise UsageError(f"a piece of {len(payload)} bytes is too long to append")
    return bytes([number << 3 | 2, len(payload)]) + payload
