"""Every training text is accepted token by token; whatever the grammar lets through parses without a fault and ends."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma.errors import UsageError
from paligemma.tasks import detect, refer, segment
from paligemma.tasks.grammar import AllowedTokens, ObjectGrammar
from tests.tiny import tiny_tokenizer

LABELS = ["cat", "dog", "the cat on the left", "person's hat", "t-shirt/pants", "3.5mm jack", "Äpfel", "猫", "catfish", "cat dog"]

coordinate = st.integers(0, 1023)
bins = st.tuples(coordinate, coordinate, coordinate, coordinate).filter(lambda b: b[0] < b[2] and b[1] < b[3])
codes = st.tuples(*[st.integers(0, 127)] * 16)
objects = st.lists(st.tuples(st.sampled_from(LABELS), bins, codes), max_size=5, unique_by=lambda o: o[:2])


def ids_of(text: str) -> list[int]:
    return tiny_tokenizer().encode(text)


def accepts(grammar: ObjectGrammar, text: str) -> bool:
    """Whether the whole answer, its end included, may be generated."""
    tokenizer, state = tiny_tokenizer(), grammar.start()
    for id in [*ids_of(text), tokenizer.eos_id]:
        if id not in state.allowed():
            return False
        state = state.advance(id)
    return len(state.allowed()) == 0


def walk(grammar: ObjectGrammar, seed: int, limit: int = 4000) -> list[int]:
    """A random answer, its end left out. Ranges are as likely as each other, so that ends and separators do come up."""
    rng, ids, state = random.Random(seed), [], grammar.start()
    for _ in range(limit):
        allowed = state.allowed()
        id = rng.choice(rng.choice(allowed.ranges))
        if id == tiny_tokenizer().eos_id:
            return ids
        ids.append(id)
        state = state.advance(id)
    raise AssertionError("the answer does not end")


@given(objects)
def test_every_detection_target_is_accepted(items):
    text = detect.target((label, bins) for label, bins, _ in items)
    assert accepts(ObjectGrammar(tiny_tokenizer(), LABELS), text)
    assert accepts(ObjectGrammar(tiny_tokenizer(), " ; ".join(LABELS)), text)


@given(objects)
@settings(max_examples=40)
def test_every_segmentation_target_is_accepted(items):
    text = segment.target(items)
    assert accepts(ObjectGrammar(tiny_tokenizer(), LABELS, masks=True), text)
    assert accepts(ObjectGrammar(tiny_tokenizer(), LABELS), text) == (not items)


@given(st.lists(st.tuples(st.sampled_from(LABELS), bins), max_size=4, unique_by=lambda o: o[1]))
def test_free_labels_accept_every_detection_target(items):
    assert accepts(ObjectGrammar(tiny_tokenizer(), None), detect.target(items))


@given(bins, codes)
def test_refer_targets_are_accepted(box, code):
    grammar = ObjectGrammar(tiny_tokenizer(), (), masks=True, max_objects=1, allow_none=False)
    assert accepts(grammar, refer.target(box, code))
    assert not accepts(grammar, "")
    assert not accepts(grammar, segment.target([("", box, code), ("", (0, 0, 9, 9), code)]))


@pytest.mark.parametrize("classes", [LABELS, ["cat"], ["cat", "catfish", "cat dog", "dog"], None, ()], ids=str)
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_random_walks_parse_without_a_fault(classes, masks, seed):
    tokenizer = tiny_tokenizer()
    ids = walk(ObjectGrammar(tokenizer, classes, masks=masks, max_objects=5), seed)
    read = segment.parse_ids if masks else detect.parse_ids
    parsed = read(ids, tokenizer)
    assert parsed.invalid == 0
    assert len(parsed.objects) <= 5
    assert len({(o.bins, o.label) for o in parsed.objects}) == len(parsed.objects)
    if classes is not None:
        assert not parsed.leftover
        assert {o.label for o in parsed.objects} <= set(classes or [""])
        text = tokenizer.decode(ids)
        assert (segment.parse if masks else detect.parse)(text) == parsed
        assert ids_of(text) == ids


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<loc0010><loc0010><loc0010><loc0020> cat", "y1 = y0"),
        ("<loc0010><loc0030><loc0020><loc0020> cat", "x1 < x0"),
        ("<loc1023><loc0000>", "nothing is below the last bin"),
        ("<loc0010><loc0010><loc0020><loc0020>", "a label is due"),
        ("<loc0010><loc0010><loc0020><loc0020> bird", "not an asked class"),
        ("<loc0010><loc0010><loc0020><loc0020> cat ; ", "an object is due after the separator"),
        ("<loc0010><loc0010><loc0020><loc0020><seg000> cat", "no mask was asked for"),
        ("<loc0010><loc0010><loc0020><loc0020> cat ; <loc0010><loc0010><loc0020><loc0020> cat", "the same object again"),
        ("cat", "a box comes first"),
        ("<loc0010><loc0010> cat", "half a box"),
    ],
)
def test_what_is_refused(text, reason):
    assert not accepts(ObjectGrammar(tiny_tokenizer(), ["cat", "dog"]), text), reason


def test_the_same_box_may_have_another_label():
    box = "<loc0010><loc0010><loc0020><loc0020>"
    assert accepts(ObjectGrammar(tiny_tokenizer(), ["cat", "dog"]), f"{box} cat ; {box} dog")
    assert not accepts(ObjectGrammar(tiny_tokenizer(), ["cat", "dog"]), f"{box} cat ; {box} dog ; {box} cat")


def test_a_box_that_is_used_up_is_not_begun():
    """The only box that starts at (1022, 1022) is used, so x0 = 1022 may not follow y0 = 1022 any more."""
    tokenizer = tiny_tokenizer()
    state = ObjectGrammar(tokenizer, ["cat"]).start()
    for id in ids_of("<loc1022><loc1022><loc1023><loc1023> cat ; <loc1022>"):
        state = state.advance(id)
    assert state.allowed() == AllowedTokens((range(tokenizer.loc[0], tokenizer.loc[1022]),))


def test_after_max_objects_the_answer_ends():
    tokenizer = tiny_tokenizer()
    grammar = ObjectGrammar(tokenizer, ["cat"], max_objects=2)
    text = "<loc0010><loc0010><loc0020><loc0020> cat ; <loc0010><loc0010><loc0020><loc0021> cat"
    assert list(grammar.allowed(ids_of(text))) == [tokenizer.eos_id]
    with pytest.raises(UsageError, match="max_objects"):
        ObjectGrammar(tokenizer, ["cat"], max_objects=0)


def test_only_location_rows_are_needed_for_coordinates():
    tokenizer = tiny_tokenizer()
    grammar, loc = ObjectGrammar(tokenizer, ["cat"], masks=True), tokenizer.loc
    answer = ids_of("<loc0010><loc0020><loc0030><loc0040>")
    eos = range(tokenizer.eos_id, tokenizer.eos_id + 1)
    assert grammar.allowed([]).ranges == (eos, range(loc[0], loc[1023]))
    assert grammar.allowed(answer[:1]).ranges == (range(loc[0], loc[1023]),)
    assert grammar.allowed(answer[:2]).ranges == (range(loc[11], loc[1023] + 1),)
    assert grammar.allowed(answer[:3]).ranges == (range(loc[21], loc[1023] + 1),)
    assert grammar.allowed(answer).ranges == (tokenizer.seg,)


@pytest.mark.parametrize("seed", range(3))
def test_replaying_equals_stepping(seed):
    grammar = ObjectGrammar(tiny_tokenizer(), LABELS, masks=True, max_objects=3)
    ids, state = walk(grammar, seed), grammar.start()
    for i, id in enumerate(ids):
        assert grammar.allowed(ids[:i]) == state.allowed()
        state = state.advance(id)
    fresh = ObjectGrammar(tiny_tokenizer(), LABELS, masks=True, max_objects=3)
    assert fresh.allowed(ids) == state.allowed()
    with pytest.raises(ValueError, match="not allowed"):
        fresh.allowed([*ids, tiny_tokenizer().pad_id])


def test_a_state_is_not_changed_by_advancing():
    grammar = ObjectGrammar(tiny_tokenizer(), ["cat"])
    start = grammar.start()
    before = start.allowed()
    start.advance(tiny_tokenizer().loc[5]).advance(tiny_tokenizer().loc[6])
    assert start.allowed() == before == grammar.allowed([])


@given(st.lists(st.integers(0, 60)), st.integers(0, 40), st.integers(0, 40))
def test_allowed_tokens_is_a_set_of_ids(ids, start, size):
    allowed = AllowedTokens.of(ids, range(start, start + size))
    assert list(allowed) == sorted({*ids, *range(start, start + size)})
    assert len(allowed) == len(list(allowed))
    assert all(i in allowed for i in ids)
    assert 99 not in allowed
    assert all(a.stop < b.start for a, b in zip(allowed.ranges, allowed.ranges[1:], strict=False))
