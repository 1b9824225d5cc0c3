"""Items -> rows with a real, tiny model: opened once, encoded once, the answers those of the predictor's verbs."""

from __future__ import annotations

import pickle
import warnings

import pytest
from PIL import Image

from paligemma.errors import InputError, UsageError
from paligemma.jobs.asked import all_asked
from paligemma.jobs.items import items
from paligemma.jobs.work import Order, answer, open_item
from paligemma.predictor import Predictor

from .. import tiny
from .making import album, lines


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(tiny.tiny_model(), tiny.tiny_tokenizer(), tiny.random_codec())


ORDER = Order(
    all_asked(["caption", "detect:cat;dog", "segment:cat", "ask:how many dogs?", "ocr"]), {"max_tokens": 12}, {"max_objects": 2}, draw=True
)


def opened(source, predictor, draw=True):
    return [open_item(item, predictor.config, Order(ORDER.tasks, draw=draw)) for item in items(source)]


def test_answers_are_those_of_the_verbs(predictor, tmp_path):
    folder = album(tmp_path / "a", 4, broken=(2,))
    done = answer(predictor, ORDER, opened(folder, predictor))
    good = [folder / f"{number}.png" for number in (0, 1, 3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = {
            "caption": predictor.caption(good, max_tokens=12),
            "detect:cat;dog": predictor.detect(good, ["cat", "dog"], max_tokens=12, max_objects=2),
            "segment:cat": predictor.segment(good, ["cat"], max_tokens=12, max_objects=2),
            "ask:how many dogs?": predictor.ask(good, "how many dogs?", max_tokens=12),
            "ocr": predictor.ocr(good, max_tokens=12),
        }
    assert [one.id for one in done] == ["0.png", "1.png", "2.png", "3.png"]
    found = [one for one in done if one.rows]
    for place, one in enumerate(found):
        assert [row["task"] for row in one.rows] == list(wanted)
        assert [row["result"] for row in one.rows] == [results[place].to_dict() for results in wanted.values()]
        assert one.cut == sum(results[place].stop == "length" for results in wanted.values())
        assert [task for task, _ in one.drawings] == list(wanted)
    assert sum(one.cut for one in found) > 0
    (error,) = done[2].errors
    assert (done[2].rows, error["task"], error["error"]["code"]) == ((), None, "image_unknown_format")


def test_the_image_tower_sees_a_batch_once(predictor, tmp_path, monkeypatch):
    seen: list[int] = []
    encode = predictor.network.encode
    monkeypatch.setattr(predictor.network, "encode", lambda pixels: seen.append(len(pixels)) or encode(pixels))
    answer(predictor, ORDER, opened(album(tmp_path / "a", 3), predictor))
    assert seen == [3]


def test_nothing_large_is_kept_unless_it_is_drawn_on(predictor, tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (2000, 1500)).save(tmp_path / "a" / "large.png")
    (one,) = opened(tmp_path / "a", predictor, draw=False)
    assert one.picture is None
    assert one.pixels.nbytes == 3 * predictor.config.vision.image_size**2
    assert len(pickle.dumps(one)) < 20_000
    (done,) = answer(predictor, Order(ORDER.tasks, ORDER.how, ORDER.places), [one])
    assert done.rows[1]["result"]["width"] == 2000
    assert done.drawings == ()


def test_what_does_not_suit_one_picture_fails_for_it_alone(predictor, tmp_path, monkeypatch):
    caption = predictor.caption

    def picky(images, *asked, **how):
        if any(image.width == 9 for image in images):
            raise InputError("not this one", code="picky")
        return caption(images, *asked, **how)

    monkeypatch.setattr(predictor, "caption", picky)
    order = Order(all_asked(["caption", "ocr"]), {"max_tokens": 3})
    first, second, third = answer(predictor, order, opened(album(tmp_path / "a", 3), predictor, draw=False))
    assert [row["task"] for row in second.rows] == ["ocr"]
    assert [(row["task"], row["error"]["code"]) for row in second.errors] == [("caption", "picky")]
    assert len(first.rows) == len(third.rows) == 2


def test_several_frames_are_one_prompt(predictor, tmp_path):
    folder = album(tmp_path / "a", 3)
    table = lines(folder / "t.jsonl", {"images": ["0.png", "1.png"], "x": 1}, {"image": "2.png"})
    first, second = answer(predictor, Order(all_asked(["caption"]), {"max_tokens": 3}), opened(table, predictor, draw=False))
    assert (first.rows[0]["kept"], second.rows[0]["kept"]) == ({"x": 1}, {})


def test_what_the_model_cannot_do_at_all_ends_the_job(tmp_path):
    blind = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer())
    with pytest.raises(UsageError, match="mask codec"):
        answer(blind, ORDER, opened(album(tmp_path / "a", 1), blind))


def test_only_broken_pictures_need_no_model(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(predictor.network, "encode", None)
    (one,) = answer(predictor, ORDER, opened(album(tmp_path / "a", 1, broken=(0,)), predictor))
    assert one.errors
