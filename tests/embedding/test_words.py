"""Texts become the ids that transformers makes of them, for both families, however odd the text."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import SiglipTokenizer
from transformers.models.siglip2 import Siglip2Tokenizer

from paligemma.config import GEMMA_VOCAB, VOCAB_SIZE
from paligemma.embedding.words import GemmaWords, SentenceWords, canonical, words_of
from paligemma.errors import CheckpointError, InputError
from tests.encoders import with_vocabulary
from tests.tiny import TOKENIZER_VOCAB, tiny_tokenizer, tiny_tokenizer_json

LENGTH = 12
ODD = (
    "",
    " ",
    "\n\t",
    "▁",
    "▁▁cat",
    "...",
    "a-cat!",
    "  Two   DOGS ",
    "don't",
    "İstanbul",
    "ΟΔΟΣ",
    "ＣＡＴ",
    "ﬁsh",
    "猫",
    "🐈\u200d⬛",
    "\x00",
    "a" * 200,
)
texts = st.one_of(
    st.text(max_size=40),
    st.text(st.sampled_from("aAbBcC .,!?-_▁'\n\t ÄÖß猫ΣςİıA<>/"), max_size=40),
    st.lists(st.sampled_from(["two", "Cats", "and", "a", "red", "DOG", "grün", "猫", ".", "▁", "  "]), max_size=20).map(" ".join),
)


def examples(function):
    for text in ODD:
        function = example(text)(function)
    return function


@pytest.fixture(scope="module")
def their_siglip(sentence_model):
    return SiglipTokenizer(vocab_file=str(sentence_model), model_max_length=LENGTH)


@pytest.fixture(scope="module")
def our_siglip(sentence_model) -> SentenceWords:
    return SentenceWords(sentence_model.read_bytes())


def test_siglip_as_transformers(their_siglip, our_siglip):
    @examples
    @given(texts)
    def same(text: str) -> None:
        if "</s>" in text or "<unk>" in text:
            return  # theirs makes control tokens of these
        theirs = their_siglip(text, padding="max_length", truncation=True, max_length=LENGTH)["input_ids"]
        assert our_siglip.ids(text, LENGTH) == theirs

    same()


@pytest.fixture(scope="module")
def their_siglip_2():
    """Gemma's, with what the published tokenizer_config.json says."""
    table = json.loads(tiny_tokenizer_json())["model"]
    merges = [tuple(pair) for pair in table["merges"]]
    return Siglip2Tokenizer(
        vocab=table["vocab"], merges=merges, add_bos_token=False, add_eos_token=True, padding_side="right", model_max_length=LENGTH
    )


def test_siglip_2_as_transformers(their_siglip_2):
    words = GemmaWords(tiny_tokenizer())

    @examples
    @given(texts)
    def same(text: str) -> None:
        if "<" in text or "\n" in text:
            return  # spellings of control tokens; and their vocabulary has no line break that is split off first
        theirs = their_siglip_2(text, padding="max_length", truncation=True, max_length=LENGTH)["input_ids"]
        assert words.ids(text, LENGTH) == theirs

    same()


@pytest.mark.parametrize("text", ["cat", "", "a cat and two dogs on the grass and a fish in a boat on a tree"])
def test_the_end_is_marked_and_padded(our_siglip, text):
    one, two = our_siglip.ids(text, LENGTH), GemmaWords(tiny_tokenizer()).ids(text, LENGTH)
    assert len(one) == len(two) == LENGTH
    assert one[-1] == 1
    assert two[-1] == (tiny_tokenizer().eos_id if len(text) > 10 else tiny_tokenizer().pad_id)
    assert two.count(tiny_tokenizer().eos_id) == 1


@pytest.mark.parametrize(
    ("text", "plain"), [("  A  Cat!\n", "a cat"), ("don't", "dont"), ("...", ""), ("GRÖSSE_1", "größe1".replace("ß", "ss"))]
)
def test_canonical(text, plain):
    assert canonical(text) == plain


def test_typed_control_tokens_stay_text(our_siglip):
    assert our_siglip.ids("</s>", 4)[0] != 1
    words = GemmaWords(tiny_tokenizer())
    for spelling, id in (("<eos>", tiny_tokenizer().eos_id), ("<loc0000>", tiny_tokenizer().loc.start)):
        assert id not in words.ids(spelling, 64)[:-60]


@pytest.mark.parametrize("text", [3, None, b"cat", "\ud800"])
def test_what_is_not_text(our_siglip, text):
    for words in (our_siglip, GemmaWords(tiny_tokenizer())):
        with pytest.raises(InputError):
            words.ids(text, LENGTH)


def test_the_published_vocabulary_has_no_locations():
    class Published:
        vocab_size = VOCAB_SIZE

    assert GemmaWords(Published()).vocab_size == GEMMA_VOCAB  # pyright: ignore[reportArgumentType]


def test_found_in_a_folder(tmp_path, sentence_model):
    tiny_tokenizer().save(tmp_path)
    assert isinstance(words_of(tmp_path, with_vocabulary(TOKENIZER_VOCAB)), GemmaWords)
    size = SentenceWords(sentence_model.read_bytes()).vocab_size
    assert isinstance(words_of(tmp_path, with_vocabulary(size), sentence_model), SentenceWords)
    (tmp_path / "spiece.model").write_bytes(sentence_model.read_bytes())
    assert isinstance(words_of(tmp_path, with_vocabulary(size)), SentenceWords)


def test_what_is_refused(tmp_path, sentence_model):
    config = with_vocabulary(5)
    with pytest.raises(CheckpointError, match=r"no vocabulary for texts, expected spiece\.model"):
        words_of(tmp_path, config)
    with pytest.raises(CheckpointError, match="tokens, the text tower has 5"):
        words_of(tmp_path, config, sentence_model)
    (tmp_path / "spiece.model").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"not a sentencepiece model \(7 bytes\)"):
        words_of(tmp_path, config)
    tiny_tokenizer().save(tmp_path)
    (tmp_path / "spiece.model").write_bytes((tmp_path / "tokenizer.model").read_bytes())
    with pytest.raises(CheckpointError, match="has no </s>"):
        words_of(tmp_path, config)
