"""The records shown are rows of a batch: every token, part and mask as `Batches` and `training_example` make them."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from paligemma.data.batch import Batches
from paligemma.data.mixture import Mixture
from paligemma.data.outlines import Polygons
from paligemma.data.records import DataSet, Thing
from paligemma.inspection import samples
from paligemma.inspection.drawn import draw
from paligemma.inspection.samples import show
from paligemma.sequence import training_example
from paligemma.training.recipes import recipe

from ..annotations.world import picture
from ..tiny import tiny_tokenizer
from .making import found, items, ready, told

TRIANGLE = Polygons((((4.0, 4.0), (40.0, 8.0), (20.0, 40.0)),))
BOX = (4.0, 4.0, 40.0, 40.0)


@pytest.fixture
def shown(tmp_path):
    """Shows records of `told` and `found`, which get a picture."""

    def make(*records, text_len=64, why=None):
        path = picture(tmp_path / "p.png", (64, 48))
        records = tuple(
            dataclasses.replace(record, pictures=(path,) if record.pictures[0].name == "a.png" else record.pictures) for record in records
        )
        data = DataSet(tmp_path, "jsonl", "mixed", records, classes=("cat", "dog"))
        chosen = dataclasses.replace(recipe("simple"), text_len=text_len)
        reader = ready().reader(chosen)
        batches = Batches(Mixture([data]), reader, pad_id=tiny_tokenizer().pad_id)
        return show(items(*records, classes=("cat", "dog")), why or {}, reader, batches)

    return make


def test_tokens_and_masks_are_those_of_the_training_example(shown):
    short, long = shown(told(1, "what?", "cat"), told(2, "what is on the left?", "a cat and two dogs"))
    for sample, (prompt, answer) in ((short, ("what?", "cat")), (long, ("what is on the left?", "a cat and two dogs"))):
        example = training_example(tiny_tokenizer(), prompt, answer, 65)
        assert [token.piece for token in sample.tokens] == [
            tiny_tokenizer().piece(id).replace("▁", "␣").replace("\n", "⏎") for id in example.ids
        ]
        assert [token.causal for token in sample.tokens] == [bool(one) for one in example.mask_ar] == [bool(one) for one in sample.mask_ar]
        assert [token.counted for token in sample.tokens] == [bool(one) for one in example.mask_loss]
        parts = [token.part for token in sample.tokens]
        before = len(tiny_tokenizer().encode(prompt))
        after = len(tiny_tokenizer().encode(answer))
        assert parts == ["start", *["prefix"] * before, "separator", *["suffix"] * after, "end"]
        assert (sample.prefix, sample.suffix) == (prompt, answer)
        assert sample.image_tokens == 4
    assert long.padding == 0
    assert short.padding == long.length - short.length


def test_a_cut_answer_is_shown_as_it_is_learnt(shown):
    (sample,) = shown(told(1, "what?", "cat dog " * 20), text_len=19)
    assert sample.truncated
    assert sample.length == 20
    assert sample.tokens[-1].part == "end"


def test_what_cannot_be_read_says_why(shown, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    gone, too_long = shown(told(1, "what?", "cat", picture=str(broken)), told(2, "what? " * 50, "cat"), why={0: ["odd"]})
    assert (gone.tokens, gone.picture, gone.why) == ((), "", ("odd",))
    assert "broken.png" in gone.problem
    assert "no room" in too_long.problem
    assert too_long.picture.startswith("data:image/webp;base64,")


def test_of_a_very_long_text_the_beginning_is_shown(shown, monkeypatch):
    monkeypatch.setattr(samples, "MOST_TOKENS", 5)
    (sample,) = shown(told(1, "what?", "cat dog cat dog cat"))
    assert len(sample.tokens) == 5 < sample.length
    assert len(sample.mask_ar) == sample.length


def test_things_are_drawn_where_the_tokens_say(shown):
    (sample,) = shown(found(1, Thing("cat", BOX, TRIANGLE), Thing("dog", (0.0, 0.0, 9.0, 9.0), TRIANGLE), task="segment"), text_len=128)
    assert "2 things" in sample.caption
    cut = shown(found(1, Thing("cat", BOX, TRIANGLE), Thing("dog", (0.0, 0.0, 9.0, 9.0), TRIANGLE), task="segment"), text_len=28)[0]
    assert "1 thing " in cut.caption  # the second is not in the text that is left


def test_a_box_of_the_prompt_is_drawn_for_describe_box(shown):
    (sample,) = shown(told(1, "caption <loc0100><loc0100><loc0600><loc0700>", "a cat", task="describe_box"))
    assert "1 thing " in sample.caption


def test_the_annotated_outline_is_a_white_line():
    plain = Image.new("RGB", (600, 400), (0, 90, 90))
    outline = Polygons((((100.0, 100.0), (400.0, 100.0), (400.0, 300.0), (100.0, 300.0)),))
    record = found(1, Thing("cat", (100.0, 100.0, 400.0, 300.0), outline), task="segment", asked=("cat",))
    drawn, count = draw(plain, record, (), "", ready().codec)
    pixels = np.asarray(drawn)
    assert count == 0
    assert (pixels[200, 100] == 255).all()
    assert (pixels[200, 250] == (0, 90, 90)).all()


def test_a_detection_shows_no_masks(shown):
    plain = Image.new("RGB", (600, 400), (0, 90, 90))
    record = found(1, Thing("cat", (100.0, 100.0, 400.0, 300.0), TRIANGLE), asked=("cat",))
    drawn, count = draw(plain, record, (), "<loc0256><loc0171><loc0767><loc0682> cat", None)
    assert count == 1
    assert (np.asarray(drawn)[200, 250] == (0, 90, 90)).all()
