"""Order, masks, truncation and padding of token sequences, drawn as in the module's picture."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma.errors import InputError
from paligemma.sequence import Example, pad, parts, prompt_ids, training_example

from .tiny import tiny_tokenizer

T = tiny_tokenizer()
BOS, EOS, NEWLINE = T.bos_id, T.eos_id, T.newline_id


def test_prompt():
    assert prompt_ids(T, "detect cat") == [BOS, *T.encode("detect cat"), NEWLINE]
    assert prompt_ids(T, "") == [BOS, NEWLINE]


def test_parts_never_merge():
    """The separator is its own token after a prefix that ends in one, and typed control tokens add none."""
    assert prompt_ids(T, "ocr\n") == [BOS, *T.encode("ocr"), NEWLINE, NEWLINE]
    ids = prompt_ids(T, "<bos><eos><image>\n<pad>")
    assert ids.count(BOS) == 1
    assert EOS not in ids
    assert T.pad_id not in ids


def test_locations_in_a_prompt_may_be_words():
    assert T.loc[1] in prompt_ids(T, "<loc0001>")
    assert T.loc[1] not in prompt_ids(T, "<loc0001>", locations=False)


def test_prompt_length_limit():
    length = len(prompt_ids(T, "the cat"))
    assert len(prompt_ids(T, "the cat", max_len=length)) == length
    with pytest.raises(InputError, match=f"has {length} tokens, at most {length - 1}") as caught:
        prompt_ids(T, "the cat", max_len=length - 1)
    assert caught.value.code == "context_length_exceeded"


def test_training_example():
    prefix, suffix = T.encode("segment the cat"), T.encode("<loc0001><seg002> cat")
    #                   bos + prefix + newline   suffix + eos
    example = training_example(T, "segment the cat", "<loc0001><seg002> cat", 64)
    assert example.ids == [BOS, *prefix, NEWLINE, *suffix, EOS]
    assert example.mask_ar == [0, *[0] * len(prefix), 0, *[1] * len(suffix), 1]
    assert example.mask_loss == example.mask_ar
    assert not example.truncated


def test_eos_survives_truncation():
    whole = training_example(T, "caption en", "a cat and two dogs", 64)
    for length in range(len(prompt_ids(T, "caption en")) + 2, len(whole.ids)):
        short = training_example(T, "caption en", "a cat and two dogs", length)
        assert short.ids == [*whole.ids[: length - 1], EOS]
        assert short.truncated
    assert not training_example(T, "caption en", "a cat and two dogs", len(whole.ids)).truncated


def test_a_prompt_that_leaves_no_room():
    prompt = len(prompt_ids(T, "caption en"))
    with pytest.raises(InputError, match=f"has {prompt} tokens, .* within {prompt + 1}"):
        training_example(T, "caption en", "a cat", prompt + 1)
    assert training_example(T, "caption en", "", prompt + 1).ids[-1] == EOS  # an empty answer needs the eos only
    with pytest.raises(InputError):
        training_example(T, "caption en", "", prompt)


@settings(max_examples=100, deadline=None)
@given(prefix=st.text(max_size=20), suffix=st.text(max_size=20), length=st.integers(0, 60))
def test_any_example(prefix: str, suffix: str, length: int):
    try:
        example = training_example(T, prefix, suffix, length)
    except InputError:
        assert len(prompt_ids(T, prefix)) + 1 + min(len(suffix), 1) > length
        return
    assert len(example.ids) == len(example.mask_ar) == len(example.mask_loss) <= length
    assert (example.ids[0], example.ids[-1]) == (BOS, EOS)
    assert example.ids.count(BOS) == example.ids.count(EOS) == 1
    assert example.mask_ar == sorted(example.mask_ar)
    prompt = prompt_ids(T, prefix)
    assert example.ids[: len(prompt)] == prompt
    assert sum(example.mask_loss) == len(example.ids) - len(prompt)


def test_padding():
    examples = [Example([2, 7, 4, 1], [0, 0, 0, 1], [0, 0, 0, 1]), Example([2, 4], [0, 0], [0, 0])]
    assert pad([example.ids for example in examples], 0) == [[2, 7, 4, 1], [2, 4, 0, 0]]
    assert pad([example.mask_ar for example in examples], 1) == [[0, 0, 0, 1], [0, 0, 1, 1]]
    assert examples[1].ids == [2, 4]
    assert pad([], 0) == []
    assert pad([[], []], 0) == [[], []]


@pytest.mark.parametrize(("prefix", "suffix", "limit"), [("the cat", "a dog", 99), ("", "", 99), ("cat", "a cat and two dogs", 6)])
def test_parts_are_named_in_the_order_of_the_tokens(prefix, suffix, limit):
    example = training_example(T, prefix, suffix, limit)
    before = len(T.encode(prefix))
    after = len(example.ids) - before - 3
    assert parts(example) == ["start", *["prefix"] * before, "separator", *["suffix"] * after, "end"]
