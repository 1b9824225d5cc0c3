"""Location tokens <-> coordinates, and the parser: a table of strings with reasons, and random token streams."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paligemma.results import Box
from paligemma.tasks import detect, refer, segment
from paligemma.tasks.detect import Found, box_bins, from_bin, parse, parse_ids, pixel_bins, to_bin
from tests.tiny import tiny_tokenizer

A = "<loc0010><loc0020><loc0300><loc0400>"
B = "<loc0000><loc0000><loc1023><loc1023>"
BOX_A, BOX_B = (10, 20, 300, 400), (0, 0, 1023, 1023)
SEG = "".join(f"<seg{i:03d}>" for i in range(16))
CODES = tuple(range(16))


@pytest.mark.parametrize(
    ("text", "objects", "leftover", "invalid"),
    [
        ("", [], "", 0),
        (f"{A} cat", [("cat", BOX_A, None)], "", 0),
        (f"{A} cat ; {B} dog", [("cat", BOX_A, None), ("dog", BOX_B, None)], "", 0),
        (f"{A} cat;{B}dog", [("cat", BOX_A, None), ("dog", BOX_B, None)], "", 0),
        (f"{A} cat {B} dog", [("cat", BOX_A, None), ("dog", BOX_B, None)], "", 0),  # the separator is missing
        (f"{A}{SEG} cat", [("cat", BOX_A, CODES)], "", 0),
        (f"{A}{SEG}", [("", BOX_A, CODES)], "", 0),
        (f"{A}", [("", BOX_A, None)], "", 0),
        (f"{A}{B} cat", [("", BOX_A, None), ("cat", BOX_B, None)], "", 0),  # the first label is missing
        (f"{A}{SEG}<seg001> cat", [("cat", BOX_A, CODES)], "<seg001>", 0),  # a code too many
        (f"{A}<seg001><seg002> cat", [("cat", BOX_A, None)], "<seg001> <seg002>", 0),  # codes cut off
        (f"{A} person's hat", [("person's hat", BOX_A, None)], "", 0),
        (f"{A} t-shirt/pants ; {A} 3.5mm jack", [("t-shirt/pants", BOX_A, None), ("3.5mm jack", BOX_A, None)], "", 0),
        (f"{A} Käfig ; {B} 猫 (klein)", [("Käfig", BOX_A, None), ("猫 (klein)", BOX_B, None)], "", 0),
        (f"{A} <script>alert(1)</script>", [("<script>alert(1)</script>", BOX_A, None)], "", 0),  # untrusted, but text
        (f"{A}  the \n big\tcat ", [("the big cat", BOX_A, None)], "", 0),
        ("<loc0010> <loc0020>\n<loc0300> <loc0400> cat", [("cat", BOX_A, None)], "", 0),
        ("two cats on a mat", [], "two cats on a mat", 0),
        (f"here it is: {A} cat ; and more", [("cat", BOX_A, None)], "here it is: and more", 0),
        ("<loc0010><loc0020><loc0300> cat", [], "<loc0010> <loc0020> <loc0300> cat", 1),
        (f"{A} cat ; <loc0010><loc00", [("cat", BOX_A, None)], "<loc0010> <loc00", 1),  # cut off by length
        ("<loc0300><loc0020><loc0010><loc0400> cat", [], "<loc0300> <loc0020> <loc0010> <loc0400> cat", 1),  # upside down
        ("<loc0010><loc0020><loc0300><loc0020> cat", [], "<loc0010> <loc0020> <loc0300> <loc0020> cat", 1),  # no width
        ("<loc1024><loc0020><loc0300><loc0400>", [], "<loc1024> <loc0020> <loc0300> <loc0400>", 1),  # no such token
        ("<loc1><seg999><LOC0001>", [], "<loc1><seg999><LOC0001>", 0),
        ("<loc٠٠١٠><loc0020>", [], "<loc٠٠١٠> <loc0020>", 1),  # other digits are no token
        (" ; ; ;", [], "", 0),
    ],
)
def test_parser(text, objects, leftover, invalid):
    parsed = parse(text)
    assert [(o.label, o.bins, o.codes) for o in parsed.objects] == objects
    assert parsed.leftover == leftover
    assert parsed.invalid == invalid


@pytest.mark.parametrize(
    ("text", "classes", "labels", "leftover"),
    [
        (f"{A} cat ; {B} dog", ["dog"], ["dog"], "<loc0010><loc0020><loc0300><loc0400> cat"),
        (f"{A} CAT", ["Cat"], ["Cat"], ""),
        (f"{A}", ["cat"], ["cat"], ""),  # one class was asked, so this is it
        (f"{A}", ["cat", "dog"], [], A),
    ],
)
def test_only_asked_classes(text, classes, labels, leftover):
    parsed = parse(text, classes)
    assert [o.label for o in parsed.objects] == labels
    assert parsed.leftover.strip() == leftover


def test_a_mask_is_due_where_one_is_parsed():
    parsed = segment.parse(f"{A}{SEG} cat ; {B} dog")
    assert [o.label for o in parsed.objects] == ["cat"]
    assert (parsed.invalid, parsed.leftover) == (1, f"{B} dog")
    assert refer.parse(f"{A}{SEG}<loc0001> and more", "x").objects == (Found("x", BOX_A, CODES),)


def test_at_most_256_objects():
    parsed = parse(" ; ".join([f"{A} cat"] * 300))
    assert len(parsed.objects) == 256
    assert parsed.leftover.count("cat") == 44


@pytest.mark.parametrize("text", [f"{A}{SEG} the big cat ; {B} dog ", f" x {A} cat;{B}", f"{A}{B} person's hat;"])
def test_spans(text):
    """Characters and token positions both point at the object, and ids and text give the same objects."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode(text)
    by_text, by_ids = parse(text), parse_ids(ids, tokenizer)
    assert by_text == by_ids
    assert by_text.objects
    for o, p in zip(by_text.objects, by_ids.objects, strict=True):
        assert text[o.start : o.end].startswith(detect.loc_tokens(o.bins))
        assert text[o.label_start : o.end] == o.label
        assert tokenizer.decode(ids[p.start : p.start + 4]) == detect.loc_tokens(o.bins)
        assert tokenizer.decode(ids[p.label_start : p.end]).strip() == o.label


def test_text_that_spells_a_location_is_no_location():
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode(f"{A} cat", locations=False)
    assert parse(tokenizer.decode(ids)).objects
    assert not parse_ids(ids, tokenizer).objects


def check(parsed: detect.Parsed) -> None:
    assert len(parsed.objects) <= 256
    assert parsed.invalid >= 0
    for o in parsed.objects:
        assert 0 <= o.bins[0] < o.bins[2] <= 1023
        assert 0 <= o.bins[1] < o.bins[3] <= 1023
        assert o.codes is None or (len(o.codes) == 16 and all(0 <= c < 128 for c in o.codes))
        assert o.start + 4 <= o.label_start <= o.end
        box = o.box(640, 480)
        assert 0 <= box.x0 < box.x1 <= 640
        assert 0 <= box.y0 < box.y1 <= 480


fragments = st.sampled_from(
    [A, B, SEG, "<loc", "<loc0001>", "<loc1023>", "<seg000>", "<seg128>", ";", " ; ", " ", "\x1b[2J", "é", "cat", "\n"]
)


@given(st.lists(fragments | st.text(max_size=4), max_size=40).map("".join))
@example("<loc0000>" * 2000)
def test_any_text_parses(text):
    check(parse(text))
    check(parse(text, ["cat"]))
    check(segment.parse(text))
    check(refer.parse(text))


def test_random_token_streams_parse():
    """Location and mask tokens are as likely as text, so that nearly whole objects are frequent."""
    tokenizer, rng = tiny_tokenizer(), random.Random(0)
    valid = 0
    for _ in range(1500):
        ids: list[int] = []
        while rng.random() < 0.9:
            kind = rng.randrange(4)
            pool, most = ((tokenizer.loc, 5), (tokenizer.seg, 17), (range(tokenizer.vocab_size), 4), (range(-3, 2**20), 2))[kind]
            ids += [rng.choice(pool) for _ in range(rng.randint(1, most))]
        parsed = parse_ids(ids, tokenizer)
        check(parsed)
        assert all(o.end <= len(ids) for o in parsed.objects)
        valid += len(parsed.objects)
        check(parse(tokenizer.decode(ids)))
    assert valid > 200


def test_bins_round_as_the_reference():
    assert [to_bin(v) for v in (-0.1, 0.0, 0.5 / 1023, 1.5 / 1023, 0.5, 1.0, 7.0)] == [0, 0, 0, 2, 512, 1023, 1023]
    assert from_bin(1023) == 1.0
    assert all(to_bin(from_bin(b)) == b for b in range(1024))
    # numpy and TensorFlow round halves to even too
    shares = np.linspace(0, 1, 4097)
    assert [to_bin(float(v)) for v in shares] == np.clip(np.round(shares * 1023), 0, 1023).astype(int).tolist()


def test_y_comes_before_x_and_pixels_come_back():
    box = Box("cat", x0=64.0, y0=0.0, x1=640.0, y1=240.0)
    bins = pixel_bins(box, width=640, height=480)
    assert bins == (0, 102, 512, 1023)
    back = Found("cat", bins).box(640, 480, 0.5)
    assert (back.label, back.score, back.y0, back.x1) == ("cat", 0.5, 0.0, 640.0)
    assert back.xyxy == pytest.approx(box.xyxy, abs=0.5 * 640 / 1023)


@pytest.mark.parametrize(
    ("box", "expected"),
    [((0.5, 0.5, 0.5, 0.5), (512, 512, 513, 513)), ((1, 1, 1, 1), (1022, 1022, 1023, 1023)), ((0, 0.2, 0, 0.4), (0, 205, 1, 409))],
)
def test_a_box_thinner_than_a_bin_stays_a_box(box, expected):
    assert box_bins(*box) == expected
