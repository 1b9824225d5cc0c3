"""Both file formats give the same ids, a user cannot type control tokens, and a vocabulary that is not PaliGemma's is refused."""

from __future__ import annotations

import functools
import json

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma.config import VOCAB_SIZE
from paligemma.errors import CheckpointError, InputError
from paligemma.sequence import prompt_ids
from paligemma.tokenizer import LOCATION_PIECES, MAX_FILE_BYTES, Tokenizer

from .tiny import SENTENCES, TOKENIZER_VOCAB, tiny_tokenizer, tiny_tokenizer_json, tokenizer_json

TYPED = ("<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<image>", "<unused0>", "<unused98>", "<start_of_turn>", "<end_of_turn>", "[@BOS@]")
NEARLY = ("<loc1024>", "<loc12>", "<loc00012>", "<seg128>", "<seg7>", "<loc٠٠٠١>", "<0x0A>", "<loc", "<LOC0001>")
LOCATED = ("<loc0000>", "<loc0999>", "<loc1000>", "<loc1019>", "<loc1023>", "<seg000>", "<seg099>", "<seg119>", "<seg127>")
FRAGMENTS = st.sampled_from(
    (*TYPED, *NEARLY, *LOCATED, "\n", "\n\n", " ", "  ", "cat", "dogs", "猫", "\x00", "é", "e\u0301", "🙂", "<", ">")
)
TEXTS = st.lists(FRAGMENTS | st.text(max_size=6), max_size=8).map("".join)


@functools.cache
def from_json() -> Tokenizer:
    return Tokenizer.from_bytes(tiny_tokenizer_json())


@pytest.fixture(scope="module", params=["tokenizer.model", "tokenizer.json"])
def tokenizer(request) -> Tokenizer:
    return tiny_tokenizer() if request.param == "tokenizer.model" else from_json()


def test_layout(tokenizer: Tokenizer):
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.newline_id) == (0, 1, 2, 4)
    assert (tokenizer.loc, tokenizer.seg, tokenizer.vocab_size) == (range(400, 1424), range(1424, 1552), TOKENIZER_VOCAB)
    assert tokenizer.encode("\n") == [tokenizer.newline_id]
    assert tokenizer.encode("") == []


def test_pieces_are_gemmas_way(tokenizer: Tokenizer):
    """No space is put in front, words carry the space before them, digits stand alone, unknown characters are bytes."""
    pieces = [tokenizer.piece(id) for id in tokenizer.encode("cat dog  12 猫")]
    assert "".join(pieces[:-9]) == "cat"
    assert pieces[-9:] == ["▁dog", "▁", "▁", "1", "<0x32>", "▁", "<0xE7>", "<0x8C>", "<0xAB>"]


@pytest.mark.parametrize("text", LOCATED)
def test_locations_become_ids_when_asked(tokenizer: Tokenizer, text: str):
    id = tokenizer.loc.start + LOCATION_PIECES.index(text)
    assert tokenizer.encode(f"cat{text}cat") == [*tokenizer.encode("cat"), id, *tokenizer.encode("cat")]
    literal = tokenizer.encode(text, locations=False)
    assert id not in literal
    assert tokenizer.decode(literal) == text == tokenizer.decode([id]) == tokenizer.piece(id)


@pytest.mark.parametrize("text", TYPED + NEARLY)
def test_everything_else_in_brackets_stays_text(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text)
    assert len(ids) > 1
    assert all(4 < id < tokenizer.loc.start for id in ids)
    assert tokenizer.decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(text=TEXTS, locations=st.booleans())
def test_any_text(text: str, locations: bool):
    """Same ids from both formats, nothing but text (and locations when asked), and the text comes back."""
    a, b = tiny_tokenizer(), from_json()
    ids = a.encode(text, locations=locations)
    assert ids == b.encode(text, locations=locations)
    assert all(3 < id < (a.vocab_size if locations else a.loc.start) for id in ids)
    assert a.decode(ids) == b.decode(ids) == text.replace("▁", " ")


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(-5, 1600) | st.integers(0, 300), max_size=12))
def test_any_ids_decode(ids: list[int]):
    """Never an exception, the same from both formats; what has no meaning as text leaves nothing behind."""
    a, b = tiny_tokenizer(), from_json()
    text = a.decode(ids)
    assert text == b.decode(ids) == a.decode([id for id in ids if 3 < id < a.vocab_size])


def test_equals_the_library_on_plain_text():
    processor = sentencepiece.SentencePieceProcessor(model_proto=tiny_tokenizer()._pieces.data)
    for text in (*SENTENCES, "two <loc0003><loc0004> cats\n<seg001>", "\x00 🙂  x"):
        assert tiny_tokenizer().encode(text) == processor.encode(text)
        assert tiny_tokenizer().decode(processor.encode(text)) == processor.decode(processor.encode(text)) == text


def test_broken_utf8_and_control_tokens_when_decoding(tokenizer: Tokenizer):
    byte = {tokenizer.piece(id): id for id in range(300)}
    assert tokenizer.decode([byte["<0xE7>"], tokenizer.loc[3], byte["<0x8C>"]]) == "\ufffd<loc0003>\ufffd"
    assert tokenizer.decode([2, 0, 1, 3, tokenizer.vocab_size, 257152, -1]) == ""
    assert tokenizer.piece(tokenizer.vocab_size) == tokenizer.piece(-1) == ""


@pytest.mark.parametrize(
    ("text", "told"), [("a\ud800b", "character 1 of the text is U\\+D800"), (5, "found int"), (b"cat", "found bytes"), (None, "NoneType")]
)
def test_what_is_not_text_is_refused(tokenizer: Tokenizer, text, told: str):
    with pytest.raises(InputError, match=told):
        tokenizer.encode(text)


def test_files_are_found_and_written_back(tmp_path):
    for original, name in ((tiny_tokenizer(), "tokenizer.model"), (Tokenizer.from_bytes(tiny_tokenizer_json()), "tokenizer.json")):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        original.save(folder)
        again = Tokenizer.load(folder)
        assert (folder / name).read_bytes() == original._pieces.data
        assert again.encode("two cats <loc0001>") == Tokenizer.load(str(folder / name)).encode("two cats <loc0001>")


def test_settings_of_a_json_file_change_nothing():
    """Truncation, padding, a post-processor that adds <bos>, and extra tokens past the vocabulary are all without effect."""
    plain = json.loads(tiny_tokenizer_json())
    assert plain["post_processor"]
    assert plain["truncation"]
    assert plain["padding"]
    plain["added_tokens"].append({**plain["added_tokens"][-1], "id": 1600, "content": "<extra>"})
    tokenizer = Tokenizer.from_bytes(json.dumps(plain).encode())
    text = "<extra> how many dogs are there? " * 3
    ids = tokenizer.encode(text)
    assert max(ids) < tokenizer.loc.start
    assert tokenizer.decode(ids) == text


# A vocabulary of Gemma's size, made of Gemma's first rows, the tiny tokenizer's pieces and fillers.


def gemma_pieces(newline: int = 108) -> list[tuple[str, int]]:
    """256,000 (piece, sentencepiece type); `newline` moves the rows from "\\n" on."""
    control, user, byte, normal = 3, 4, 6, 1
    rows = [
        ("<pad>", control),
        ("<eos>", control),
        ("<bos>", control),
        ("<unk>", 2),
        ("<mask>", user),
        ("<2mass>", user),
        ("[@BOS@]", user),
    ]
    rows += [(f"<unused{i}>", user) for i in range(newline - 9)] + [("<start_of_turn>", user), ("<end_of_turn>", user)]
    rows += [("\n" * i, user) for i in range(1, 32)] + [("<table>", user)] + [(f"<0x{i:02X}>", byte) for i in range(256)]
    rows += [(tiny_tokenizer().piece(id), normal) for id in range(261, 400)]
    return rows + [(chr(0x20000 + i), normal) for i in range(256_000 - len(rows))]


def model_file(rows: list[tuple[str, int]]) -> bytes:
    model_pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    model = model_pb2.ModelProto()
    model.ParseFromString(tiny_tokenizer()._pieces.data)
    del model.pieces[:]
    for rank, (piece, type) in enumerate(rows):
        model.pieces.add(piece=piece, type=type, score=-rank)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def gemma_rows() -> list[tuple[str, int]]:
    return gemma_pieces()


@pytest.fixture(scope="module")
def gemma(gemma_rows) -> Tokenizer:
    return Tokenizer.from_bytes(model_file(gemma_rows))


def test_gemmas_own_file_gets_the_locations_appended(gemma: Tokenizer, gemma_rows):
    whole = Tokenizer.from_bytes(model_file(gemma_rows + [(piece, 4) for piece in LOCATION_PIECES]))
    for tokenizer in (gemma, whole):
        assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.newline_id, tokenizer.vocab_size) == (
            0,
            1,
            2,
            108,
            VOCAB_SIZE,
        )
        assert (tokenizer.loc[0], tokenizer.loc[1023], tokenizer.seg[0], tokenizer.seg[127]) == (256000, 257023, 257024, 257151)
        assert [tokenizer.piece(i) for i in (108, 256000, 257151, 257152)] == ["\n", "<loc0000>", "<seg127>", ""]
    for text in ("two cats <loc0001><seg003> dog", "<table>\n\n<start_of_turn> <unused5><bos>[@BOS@]", "<loc1024>"):
        ids = gemma.encode(text)
        assert ids == whole.encode(text)
        assert gemma.decode(ids) == whole.decode(ids) == text
        assert not set(range(108)) & set(ids)
    assert gemma.encode("<table>\n\n") == [139, 109]  # Gemma's markup and line breaks are text, as in the reference


def test_the_newline_after_a_prompt_does_not_melt_into_gemmas_line_breaks(gemma: Tokenizer):
    """Encoded together, "ocr" and two newlines would end in the piece of two newlines."""
    assert gemma.encode("ocr\n\n")[-1] == 109
    assert prompt_ids(gemma, "ocr\n")[-2:] == [108, 108]


def test_hugging_faces_image_token_is_none_of_ours(gemma: Tokenizer, gemma_rows):
    pieces = {piece: id for id, (piece, _) in enumerate(gemma_rows)}
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *LOCATION_PIECES, "<image>"]
    added = [piece for piece, type in gemma_rows[:200] if type == 4] + special
    tokenizer = Tokenizer.from_bytes(tokenizer_json(pieces, added))
    assert tokenizer.vocab_size == VOCAB_SIZE
    assert tokenizer._pieces.id("<image>") == VOCAB_SIZE
    for text in ("<image> two cats <loc0001><loc1024>", "<image>" * 3, "<start_of_turn><table>\n\n x"):
        ids = tokenizer.encode(text)
        assert ids == gemma.encode(text)
        assert max(ids) < VOCAB_SIZE
    assert tokenizer.decode([VOCAB_SIZE, *tokenizer.encode("cat"), VOCAB_SIZE + 63]) == "cat"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: gemma_pieces(newline=100), "\\\\n expected 108, found 100$"),
        (lambda rows: [rows[1], rows[0], *rows[2:]], "<pad> expected 0, found 1; <eos> expected 1, found 0$"),
        (lambda rows: [*rows[:-1], ("<loc0000>", 4)], "<loc0000> expected 256000, found 255999; .*and 1144 more"),
        (lambda rows: rows + [(f"\ue001{i}", 1) for i in range(6144)], "<loc0000> expected 256000, found none"),
        (lambda rows: rows + [(piece, 4) for piece in LOCATION_PIECES[:1024]], "<seg000> expected 257024, found none"),
        (lambda rows: [rows[0], rows[1], ("<s>", 3), *rows[3:]], "<bos> expected 2, found none$"),
    ],
    ids=["newline moved", "pad and eos swapped", "locations shifted", "Gemma 3 has no locations", "no mask pieces", "other names"],
)
def test_canaries_of_gemmas_size(gemma_rows, change, told: str):
    with pytest.raises(CheckpointError, match=f"(?m){told}"):
        Tokenizer.from_bytes(model_file(change(gemma_rows)))


def small_rows() -> list[tuple[str, int]]:
    types = dict.fromkeys((0, 1, 2), 3) | {3: 2, 4: 4} | dict.fromkeys(range(5, 261), 6) | dict.fromkeys(range(400, 1552), 4)
    return [(tiny_tokenizer().piece(id), types.get(id, 1)) for id in range(TOKENIZER_VOCAB)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[:400], "<loc0000> expected an id, found none; <seg000> expected an id, found none"),
        (lambda rows: [*rows[:700], ("x y", 1), *rows[700:]], "<loc0300> expected 700, found 701"),
        (lambda rows: [*rows[:400], rows[401], rows[400], *rows[402:]], "<loc0001> expected 402, found 400"),
        (lambda rows: [*rows[:4], ("cat\n", 4), *rows[5:]], "\\\\n expected an id, found none"),
        (lambda rows: rows[:-1], "<seg127> expected 1551, found none"),
    ],
    ids=["no locations", "hole", "order", "no newline piece", "one short"],
)
def test_canaries_of_a_small_vocabulary(change, told: str):
    assert Tokenizer.from_bytes(model_file(small_rows())).encode("two cats") == tiny_tokenizer().encode("two cats")
    with pytest.raises(CheckpointError, match=told):
        Tokenizer.from_bytes(model_file(change(small_rows())))


@pytest.mark.parametrize("setting", ["add_dummy_prefix", "remove_extra_whitespaces"])
def test_a_model_that_adds_or_removes_spaces_is_refused(setting: str):
    model_pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    model = model_pb2.ModelProto()
    model.ParseFromString(tiny_tokenizer()._pieces.data)
    setattr(model.normalizer_spec, setting, True)
    with pytest.raises(CheckpointError, match=r"expected an id, found none|Gemma changes no text"):
        Tokenizer.from_bytes(model.SerializeToString())


def test_a_tokenizer_that_changes_text_is_refused():
    lower = json.loads(tiny_tokenizer_json())
    lower["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, lower["normalizer"]]}
    with pytest.raises(CheckpointError, match="Gemma changes no text"):
        Tokenizer.from_bytes(json.dumps(lower).encode())


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "tokenizer.model"),
        (b"\x00" * 50, "not a readable tokenizer.model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", "not a readable tokenizer.model"),
        (b"<!DOCTYPE html><html></html>", "not a readable tokenizer.model"),
        (b"{", "not a readable tokenizer.json"),
        (b'{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}', "tokenizer"),
        (b'{"chat_template": "{% for x in y %}"}', "not a readable tokenizer.json"),
    ],
)
def test_damaged_files(tmp_path, data: bytes, told: str):
    path = tmp_path / ("tokenizer.json" if data.startswith(b"{") else "tokenizer.model")
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=told) as caught:
        Tokenizer.load(tmp_path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert ("git lfs" in caught.value.hint) == data.startswith(b"version")


def test_cut_and_flipped_files_are_refused_or_work():
    """Whatever happens to the bytes, the answer is a tokenizer or a `CheckpointError`."""
    data = tiny_tokenizer()._pieces.data
    refused = 0
    for position in range(0, len(data), len(data) // 60):
        flipped = bytearray(data)
        flipped[position] ^= 0x41
        for damaged in (data[:position], bytes(flipped)):
            try:
                tokenizer = Tokenizer.from_bytes(damaged)
            except CheckpointError:
                refused += 1
                continue
            assert (len(tokenizer.loc), len(tokenizer.seg)) == (1024, 128)
            assert tokenizer.decode(tokenizer.loc) == "".join(LOCATION_PIECES[:1024])
    assert refused > 60  # every cut is


def test_a_piece_that_is_not_utf8():
    """The library finds out late, when the piece is looked at."""
    damaged = bytearray(tiny_tokenizer()._pieces.data)
    damaged[damaged.index("▁Katze".encode())] = 0xFF
    tokenizer = Tokenizer.from_bytes(bytes(damaged))
    with pytest.raises(CheckpointError, match=r"piece 3[0-9][0-9] of the tokenizer\.model is not valid UTF-8"):
        tokenizer.decode(range(400))


def test_missing_and_oversized_files(tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer in this folder, expected tokenizer\.model or tokenizer\.json"):
        Tokenizer.load(tmp_path)
    with pytest.raises(CheckpointError, match="no such tokenizer file"):
        Tokenizer.load(tmp_path / "tokenizer.model")
    with (tmp_path / "tokenizer.model").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(CheckpointError, match="67,108,865 bytes, a tokenizer has at most 67,108,864"):
        Tokenizer.load(tmp_path)
