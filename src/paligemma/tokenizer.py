"""Text <-> token ids, for `tokenizer.model` (sentencepiece) and `tokenizer.json` (tokenizers) alike. No torch, no chat templates.

The library that owns the format splits plain text into pieces. What is special is decided here, the same for both formats:

    <loc0000>..<loc1023>, <seg000>..<seg127>    become ids when asked for, else stay text
    <bos> <eos> <pad> <image> <unused7> ...     always stay text: a user cannot type a control token
    ids of control tokens, ids past the table   vanish when decoding

Published ids: <pad> 0, <eos> 1, <bos> 2, <unk> 3, "\\n" 108, <loc0000> 256000, <seg000> 257024 (big_vision `pp/tokenizer.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from .config import GEMMA_VOCAB, NUM_LOC, NUM_SEG, VOCAB_SIZE
from .errors import CheckpointError, InputError

FILE_NAMES = ("tokenizer.model", "tokenizer.json")
"""Looked for in a folder, in this order: sentencepiece opens the same vocabulary ten times faster."""
MAX_FILE_BYTES = 64 << 20

LOCATION_PIECES = tuple(f"<loc{i:04d}>" for i in range(NUM_LOC)) + tuple(f"<seg{i:03d}>" for i in range(NUM_SEG))
"""All location pieces, then all mask pieces, in the order of their ids."""

_NEWLINE = "\\n"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_LOCATION = re.compile(r"<loc(?:0\d{3}|10[01]\d|102[0-3])>|<seg(?:0\d{2}|1[01]\d|12[0-7])>", re.ASCII)
_RESERVED_PIECES = (
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<2mass>", "[@BOS@]", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
    "<end_of_image>", "<image>", *(f"<unused{i}>" for i in range(100)),
)  # fmt: skip
"""Pieces of Gemma's vocabulary, and of Hugging Face's additions to it, that no typed text turns into."""
_RESERVED = re.compile("|".join(map(re.escape, _RESERVED_PIECES)))
_SAMPLE = " Two  cats, 3 Äpfel 猫\n"
_HINT = "use the tokenizer.model of Gemma 1 or 2, or the tokenizer files of a PaliGemma checkpoint"


class Pieces(Protocol):
    """A vocabulary and the way its library splits text: what `Tokenizer` needs of a file format."""

    file_name: str
    data: bytes
    size: int

    def encode(self, text: str) -> list[int]: ...
    def piece(self, id: int) -> str: ...
    def id(self, piece: str) -> int | None: ...
    def added(self) -> dict[int, str]:
        """Spellings that the library recognises before it splits, beyond those of the vocabulary itself."""
        ...


class SentencePieces:
    """`tokenizer.model`."""

    file_name = "tokenizer.model"

    def __init__(self, data: bytes):
        import sentencepiece

        self.data = data
        self._processor = sentencepiece.SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(data)
        self.size = self._processor.vocab_size()

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def piece(self, id: int) -> str:
        try:
            return self._processor.id_to_piece(id)
        except UnicodeDecodeError as error:
            raise CheckpointError(f"piece {id} of the {self.file_name} is not valid UTF-8", hint=_HINT) from error

    def id(self, piece: str) -> int | None:
        id = self._processor.piece_to_id(piece)  # an unknown piece gets the id of <unk>
        return id if self.size and self.piece(id) == piece else None

    def added(self) -> dict[int, str]:
        return {}


class TokenizerJson:
    """`tokenizer.json`. Only its splitting is used: no post-processor, truncation, padding or template."""

    file_name = "tokenizer.json"

    def __init__(self, data: bytes):
        import tokenizers

        self.data = data
        self._tokenizer = tokenizers.Tokenizer.from_buffer(data)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def piece(self, id: int) -> str:
        return self._tokenizer.id_to_token(id) or ""

    def id(self, piece: str) -> int | None:
        return self._tokenizer.token_to_id(piece)

    def added(self) -> dict[int, str]:
        return {id: token.content for id, token in self._tokenizer.get_added_tokens_decoder().items() if token.content}


class Tokenizer:
    """`loc` and `seg` are the id ranges of the location and mask pieces; `vocab_size` is the number of rows the embedding table needs.

    Gemma's own `tokenizer.model` (256,000 pieces) serves as well as PaliGemma's (257,152): the missing pieces follow its last one.
    Hugging Face's `<image>` (257152) and what follows it is no part of the vocabulary.
    """

    def __init__(self, pieces: Pieces, name: str = "the tokenizer"):
        """From an opened format; `load` is the usual door. Raises `CheckpointError` unless the vocabulary has PaliGemma's structure."""
        self._pieces = pieces
        self._name = name
        ids = _canaries(pieces, name)
        self.pad_id, self.eos_id, self.bos_id, self.newline_id = (ids[piece] for piece in ("<pad>", "<eos>", "<bos>", _NEWLINE))
        self.loc = range(ids["<loc0000>"], ids["<loc0000>"] + NUM_LOC)
        self.seg = range(ids["<seg000>"], ids["<seg000>"] + NUM_SEG)
        image = pieces.id("<image>")
        self.vocab_size = VOCAB_SIZE if pieces.size >= GEMMA_VOCAB else pieces.size if image is None else image
        foreign = tuple(piece for id, piece in pieces.added().items() if id >= self.vocab_size)
        self.reserved: tuple[str, ...] = (*_RESERVED_PIECES, *foreign)
        """Spellings that stay text: no typed text turns into their tokens."""
        self._special = re.compile("|".join([_LOCATION.pattern, *map(re.escape, self.reserved)]), re.ASCII)
        self._unreachable = {pieces.id(piece) for piece in _RESERVED_PIECES}
        if self.decode(self.encode(_SAMPLE)) != _SAMPLE:
            raise CheckpointError(
                f"{name}: {_SAMPLE!r} becomes {self.decode(self.encode(_SAMPLE))!r} when encoded and decoded; Gemma changes no text",
                hint=_HINT,
            )

    @classmethod
    def load(cls, folder_or_file: str | Path) -> Tokenizer:
        """Open `tokenizer.model` or `tokenizer.json`, or the first of them in a folder.

        Raises `CheckpointError` for a missing, oversized or damaged file, and for a vocabulary that is not PaliGemma's.
        """
        path = _find(Path(folder_or_file))
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise CheckpointError(f"{path}: {size:,} bytes, a tokenizer has at most {MAX_FILE_BYTES:,}", hint=_HINT)
        return cls.from_bytes(path.read_bytes(), str(path))

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "the tokenizer") -> Tokenizer:
        """As `load`, from the contents of either file; `name` is what errors call it."""
        kind = TokenizerJson if data.startswith(b"{") else SentencePieces
        try:
            pieces = kind(data)
        except Exception as error:  # sentencepiece raises RuntimeError, tokenizers bare Exception
            reason = " ".join(str(error).split())[:200]
            if kind is SentencePieces:  # its words are about its own source files
                reason = f"sentencepiece refuses it ({len(data):,} bytes)"
            pointer = data.startswith(b"version https://git-lfs")
            hint = "this is a Git LFS pointer, not the file: run `git lfs pull`" if pointer else _HINT
            raise CheckpointError(f"{name}: not a readable {kind.file_name}: {reason}", hint=hint) from error
        return cls(pieces, name)

    def save(self, folder: str | Path) -> None:
        """Write the file this tokenizer was read from, byte for byte, under its usual name."""
        (Path(folder) / self._pieces.file_name).write_bytes(self._pieces.data)

    def encode(self, text: str, *, locations: bool = True) -> list[int]:
        """Ids of `text`, without <bos> and <eos>. `<loc0512>` and `<seg007>` become their ids if `locations`, else they stay text.

        Raises `InputError` for what is not text: other types, and halves of surrogate pairs.
        """
        check_text(text)
        ids: list[int] = []
        start = 0
        for match in self._special.finditer(text):
            if locations and _LOCATION.fullmatch(match[0]):
                ids += self._plain(text[start : match.start()])
                ids.append(self._location_id(match[0]))
                start = match.end()
            else:
                # Cut after the first character: neither library then sees the spelling in one piece.
                ids += self._plain(text[start : match.start() + 1])
                start = match.start() + 1
        return ids + self._plain(text[start:])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`: location and mask tokens as they are written, control tokens and ids outside the vocabulary left out.

        Bytes that are not UTF-8 become U+FFFD.
        """
        out = bytearray()
        for id in ids:
            piece = self.piece(id)
            if byte := _BYTE.fullmatch(piece):
                out.append(int(byte[1], 16))
            elif not _RESERVED.fullmatch(piece):
                out += piece.replace("▁", " ").encode()
        return out.decode("utf-8", errors="replace")

    def piece(self, id: int) -> str:
        """How a token is written in the vocabulary ("▁cat", "<0x0A>", "<loc0000>"); empty for an id outside of it."""
        if id in self.loc:
            return f"<loc{id - self.loc.start:04d}>"
        if id in self.seg:
            return f"<seg{id - self.seg.start:03d}>"
        return self._pieces.piece(id) if 0 <= id < self.vocab_size else ""

    def _location_id(self, spelling: str) -> int:
        return (self.loc if spelling.startswith("<loc") else self.seg)[int(spelling[4:-1])]

    def _plain(self, text: str) -> list[int]:
        ids = self._pieces.encode(text) if text else []
        if not self._unreachable.isdisjoint(ids) or any(id >= self.vocab_size for id in ids):
            raise CheckpointError(f"{self._name} turns the plain text {text[:40]!r} into a control token", hint=_HINT)
        return ids


def _canaries(pieces: Pieces, name: str) -> dict[str, int]:
    """Ids of the pieces that everything else relies on; `CheckpointError` naming every row that differs from PaliGemma's.

    A vocabulary of Gemma's size must have the published ids. A smaller one may start its location and mask pieces anywhere.
    """
    found = {piece: pieces.id(piece) for piece in ("<pad>", "<eos>", "<bos>", *LOCATION_PIECES)}
    newline = pieces.id("\n")
    found[_NEWLINE] = newline if newline is not None and pieces.encode("\n") == [newline] else None
    if pieces.size == GEMMA_VOCAB and found["<loc0000>"] is None:
        found |= {piece: GEMMA_VOCAB + i for i, piece in enumerate(LOCATION_PIECES)}
    if pieces.size >= GEMMA_VOCAB:
        starts = {"<pad>": 0, "<eos>": 1, "<bos>": 2, _NEWLINE: 108, "<loc0000>": GEMMA_VOCAB, "<seg000>": GEMMA_VOCAB + NUM_LOC}
    else:
        starts = {piece: found[piece] for piece in ("<pad>", "<eos>", "<bos>", _NEWLINE, "<loc0000>", "<seg000>")}
    expected = dict(starts)
    for first, following in (("<loc0000>", LOCATION_PIECES[:NUM_LOC]), ("<seg000>", LOCATION_PIECES[NUM_LOC:])):
        start = starts[first]
        if start is not None:
            expected |= {piece: start + i for i, piece in enumerate(following)}
    rows = [_row(piece, id, found[piece]) for piece, id in expected.items() if id is None or id != found[piece]]
    if rows:
        listed = "; ".join(rows[:8]) + (f"; and {len(rows) - 8} more" if len(rows) > 8 else "")
        raise CheckpointError(f"{name} is not PaliGemma's tokenizer: {listed}", hint=_HINT)
    return {piece: id for piece, id in found.items() if id is not None}


def _row(piece: str, expected: int | None, found: int | None) -> str:
    return f"{piece} expected {'an id' if expected is None else expected}, found {'none' if found is None else found}"


def _find(path: Path) -> Path:
    if path.is_dir():
        for file_name in FILE_NAMES:
            if (path / file_name).is_file():
                return path / file_name
        raise CheckpointError(f"{path}: no tokenizer in this folder, expected {' or '.join(FILE_NAMES)}", hint=_HINT)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such tokenizer file", hint=_HINT)
    return path


def check_text(text: str) -> None:
    """Raise `InputError` for what is not text: other types, and halves of surrogate pairs."""
    if not isinstance(text, str):
        raise InputError(f"expected text, found {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"character {error.start} of the text is U+{ord(text[error.start]):04X}, half of a surrogate pair, which is not a character",
            hint="the text was decoded wrongly on its way here",
        ) from error
