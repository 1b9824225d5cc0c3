"""Words, pictures, read text and conditions find what they mean; several rankings become one."""

from __future__ import annotations

import math

import pytest
from PIL import Image

from paligemma.errors import CheckpointError, UsageError
from paligemma.index.filters import Has
from paligemma.index.query import DAMPING, Query, part, search
from paligemma.index.store import Index, writing
from paligemma.results import Box
from tests.index.making import COLOURS, ColourEncoder, entry, facts

pytest.importorskip("lancedb")
ENCODER = ColourEncoder()


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Index:
    where = tmp_path_factory.mktemp("query")
    plain = {colour: ENCODER.pictures([Image.new("RGB", (4, 4), value)])[0] for colour, value in COLOURS.items()}
    with writing(where, facts()) as writer:
        writer.add(
            [
                entry(1, plain["red"], captions={"en": "a barn"}),
                entry(2, plain["green"], captions={"en": "a red door"}, text="OPEN DOOR"),
                entry(3, plain["blue"], text="door", objects=(Box("cat", 0, 0, 1, 1), Box("cat", 0, 0, 1, 1))),
                entry(4, plain["yellow"], objects=(Box("cat", 0, 0, 1, 1),)),
            ]
        )
    return Index.open(where)


def found(index: Index, query: Query, top: int = 20) -> list[int]:
    return [hit.entry.modified for hit in search(index, query, ENCODER, top)]


def test_words_by_vectors_and_by_captions(index):
    hits = search(index, Query("red"), ENCODER)
    assert hits[0].entry.modified == 2, "second by its vector or worse, first by its caption: together before what is only like the words"
    by_number = {hit.entry.modified: hit for hit in hits}
    assert by_number[1].ranks == {"words": 1}
    assert by_number[2].ranks.keys() == {"words", "captions"}
    for hit in hits:
        assert hit.score == pytest.approx(sum(1 / (DAMPING + rank) for rank in hit.ranks.values()))
        assert hit.similarity == pytest.approx(float(hit.entry.vector @ ENCODER.texts(["red"])[0]), abs=1e-5)
        assert hit.probability == pytest.approx(1 / (1 + math.exp(-(10 * hit.similarity - 5))), abs=1e-5)


def test_a_picture_and_a_part_of_one(index):
    picture = Image.new("RGB", (20, 10), COLOURS["blue"])
    picture.paste(COLOURS["yellow"], (0, 0, 5, 10))
    assert found(index, Query(picture=picture), 1) == [3]
    assert found(index, Query(picture=part(picture, (0, 0, 5, 10))), 1) == [4]


@pytest.mark.parametrize(
    ("box", "size"),
    [((2, 1, 5, 9), (3, 8)), ((-5, -5, 2.2, 3), (3, 3)), ((18, 0, 99, 99), (2, 10)), ((0, 0, math.inf, math.inf), (20, 10))],
)
def test_a_part_is_cut_to_the_picture(box, size):
    assert part(Image.new("RGB", (20, 10)), box).size == size


@pytest.mark.parametrize("box", [(5, 1, 2, 9), (30, 0, 40, 5), (-9, 0, -2, 5), (3, 3, 3, 3), (0, 0, math.nan, 5)])
def test_a_part_that_holds_nothing(box):
    with pytest.raises(UsageError, match="holds nothing"):
        part(Image.new("RGB", (20, 10)), box)


def test_read_text_alone_and_with_words(index):
    assert set(found(index, Query(text="door"))) == {2, 3}
    assert found(index, Query("blue", text="door"))[0] == 3
    assert found(index, Query("green", text="door"))[0] == 2
    assert found(index, Query(text="nowhere")) == []


def test_conditions_narrow_every_ranking_before_it_is_cut(index):
    assert set(found(index, Query(has=(Has("cat"),)))) == {3, 4}
    assert found(index, Query("red", has=(Has("cat", ">1"),)), 1) == [3]
    assert found(index, Query("red", where="path = '4.png'"), 1) == [4]
    assert found(index, Query(text="door", where="path = '2.png'")) == [2]
    assert found(index, Query("red", has=(Has("dog"),))) == []


def test_as_json(index):
    (hit,) = search(index, Query("yellow", has=(Has("cat", "1"),)), ENCODER)
    facts = hit.to_dict()
    assert (facts["path"], facts["objects"][0]["label"], facts["captions"], facts["ranks"]) == ("4.png", "cat", None, {"words": 1})


@pytest.mark.parametrize("what", [{}, {"words": " "}, {"text": ""}, {"words": "x" * 5000}, {"where": ""}])
def test_what_is_no_query(what):
    with pytest.raises(UsageError):
        Query(**what)


@pytest.mark.parametrize("top", [0, -1, 10**6])
def test_how_many(index, top):
    with pytest.raises(UsageError, match="number of results"):
        search(index, Query("red"), ENCODER, top)


def test_another_encoder_is_refused(index):
    class Other(ColourEncoder):
        name = "colours-2"

    with pytest.raises(CheckpointError, match="made by colours-1, not by colours-2"):
        search(index, Query("red"), Other())
    assert search(index, Query(text="door"), None)
