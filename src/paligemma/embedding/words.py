"""A text -> the token ids of SigLIP's text tower: always as many as it has positions, the end marked, the rest padded. No torch.

    SigLIP      lower case, no punctuation, one blank between words; sentencepiece; "</s>" ends the text and pads it
    SigLIP 2    lower case; Gemma's tokenizer; <eos> ends the text, <pad> pads it

A text that is too long is cut, and keeps its end mark: the last position is the one that is pooled.
Source: transformers `SiglipTokenizer` and `Siglip2Tokenizer`; big_vision `evaluators/proj/image_text/prompt_engineering.py` and
`configs/proj/image_text/*_demo.ipynb`. One thing is ours: the spelling of a control token ("</s>", "<eos>") stays text.
"""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Protocol

from ..config import GEMMA_VOCAB, VOCAB_SIZE, DualEncoderConfig
from ..errors import CheckpointError
from ..tokenizer import FILE_NAMES, MAX_FILE_BYTES, Tokenizer, check_text

SENTENCE_FILES = ("spiece.model", "sentencepiece.model")
"""SigLIP's vocabulary, as Hugging Face and as big_vision call it."""
END = "</s>"
UNKNOWN = "<unk>"
_HINT = "SigLIP's is spiece.model, SigLIP 2's is Gemma's tokenizer.json or tokenizer.model: fetch it from the model's page"
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_BLANKS = re.compile(r"\s+")


class Words(Protocol):
    """One way from a text to ids. `vocab_size`: rows of the table that the ids are of."""

    vocab_size: int

    def ids(self, text: str, length: int) -> list[int]:
        """`length` ids. Raises `InputError` for what is not text."""
        ...


class SentenceWords:
    """SigLIP's."""

    def __init__(self, data: bytes, name: str = "the vocabulary"):
        """From the contents of a sentencepiece file. Raises `CheckpointError` for a file that is none, or has no end mark."""
        import sentencepiece

        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(data)
        except RuntimeError as error:
            raise CheckpointError(f"{name}: not a sentencepiece model ({len(data):,} bytes)", hint=_HINT, code="no_tokenizer") from error
        self.vocab_size: int = self._pieces.vocab_size()
        self._end: int = self._pieces.piece_to_id(END)
        if self._pieces.id_to_piece(self._end) != END:
            raise CheckpointError(f"{name} has no {END}, which ends SigLIP's texts", hint=_HINT, code="no_tokenizer")
        # A text is encoded behind a word that is then cut off: the library strips blanks at the very beginning, and the original did not.
        self._before: int = len(self._pieces.encode(UNKNOWN))

    def ids(self, text: str, length: int) -> list[int]:
        check_text(text)
        ids = self._pieces.encode(UNKNOWN + canonical("▁" + text.replace("▁", " ")))[self._before :]
        return _ended(ids, length, self._end, self._end)


class GemmaWords:
    """SigLIP 2's. No text becomes a location, which Gemma's vocabulary does not have."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.vocab_size = GEMMA_VOCAB if tokenizer.vocab_size == VOCAB_SIZE else tokenizer.vocab_size

    def ids(self, text: str, length: int) -> list[int]:
        check_text(text)
        # Character by character, as the tokenizers library does it: Python knows that a sigma at the end of a word is another one.
        ids = self._tokenizer.encode("".join(map(str.lower, text)), locations=False)
        return _ended(ids, length, self._tokenizer.eos_id, self._tokenizer.pad_id)


def canonical(text: str) -> str:
    """Lower case, ASCII punctuation removed, blanks of all kinds made one, none at the ends."""
    return _BLANKS.sub(" ", text.lower().translate(_PUNCTUATION)).strip()


def _ended(ids: list[int], length: int, end: int, pad: int) -> list[int]:
    ids = [*ids[: length - 1], end]
    return ids + [pad] * (length - len(ids))


def words_of(folder: Path, config: DualEncoderConfig, tokenizer: str | Path | None = None) -> Words:
    """The vocabulary in the folder, or the file that is named. Raises `CheckpointError` where there is none, or another model's."""
    path = _find(folder if tokenizer is None else Path(tokenizer).expanduser())
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise CheckpointError(f"{path}: {size:,} bytes, a vocabulary has at most {MAX_FILE_BYTES:,}", hint=_HINT, code="no_tokenizer")
    words = SentenceWords(path.read_bytes(), str(path)) if path.name in SENTENCE_FILES else GemmaWords(Tokenizer.load(path))
    if words.vocab_size != config.text.vocab_size:
        raise CheckpointError(
            f"{path}: {words.vocab_size:,} tokens, the text tower has {config.text.vocab_size:,}",
            hint="use the one that came with the checkpoint",
            code="no_tokenizer",
        )
    return words


def _find(place: Path) -> Path:
    if place.is_file():
        return place
    names = (*SENTENCE_FILES, *FILE_NAMES)
    for name in names:
        if (place / name).is_file():
            return place / name
    raise CheckpointError(f"{place}: no vocabulary for texts, expected {' or '.join(names)}", hint=_HINT, code="no_tokenizer")
