"""Vocabularies of both families, small, and folders of encoders that go with them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import sentencepiece

from paligemma.checkpoint.dual_load import save_dual_encoder
from tests.encoders import our_encoder, with_vocabulary
from tests.tiny import SENTENCES, TOKENIZER_VOCAB, tiny_tokenizer

MORE = (
    "the quick brown fox jumps over the lazy dog", "größe und straße", "ένα μήλο", "два красных автомобиля", "一只猫和两只狗",
    "hello world, what's up? 3.14 & 42%", "a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9",
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """No checked file is remembered from one test to the next."""
    monkeypatch.setenv("PALIGEMMA_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session", params=["unigram", "bpe"])
def sentence_model(request, tmp_path_factory) -> Path:
    """`spiece.model` as T5's are made: <pad> 0, </s> 1, <unk> 2, a blank before the first word, NFKC."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((*SENTENCES, *MORE) * 4), model_writer=written, model_type=request.param, vocab_size=180,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=0.98, minloglevel=2, num_threads=1, hard_vocab_limit=False,
    )  # fmt: skip
    path = tmp_path_factory.mktemp(request.param) / "spiece.model"
    path.write_bytes(written.getvalue())
    return path


@pytest.fixture(scope="session")
def siglip_2(tmp_path_factory) -> Path:
    """A folder of a tiny encoder with Gemma's kind of tokenizer."""
    folder = tmp_path_factory.mktemp("siglip2")
    save_dual_encoder(our_encoder(with_vocabulary(TOKENIZER_VOCAB)), folder)
    tiny_tokenizer().save(folder)
    return folder


@pytest.fixture(scope="session")
def siglip_1(tmp_path_factory, sentence_model) -> Path:
    """A folder of a tiny encoder with SigLIP's own vocabulary."""
    folder = tmp_path_factory.mktemp("siglip1")
    size = sentencepiece.SentencePieceProcessor(model_file=str(sentence_model)).vocab_size()
    save_dual_encoder(our_encoder(with_vocabulary(size)), folder)
    (folder / "spiece.model").write_bytes(sentence_model.read_bytes())
    return folder
