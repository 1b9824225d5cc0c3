"""Asking about records: what reaches the predictor, in which batches and groups, and what becomes of records that cannot be asked."""

import dataclasses

import numpy as np
import pytest

from paligemma.data.outlines import RunLengths
from paligemma.data.records import Record
from paligemma.errors import UsageError
from paligemma.evaluation.places import Place
from paligemma.evaluation.predict import predict
from paligemma.predictor import Predictor
from paligemma.results import Answer, Detections, Masks
from tests import tiny
from tests.evaluation.making import HEIGHT, WIDTH, StandIn, picture, question, rectangle, rle, thing


def run(predictor, records, **how):
    return [one for batch in predict(predictor, records, **how) for one in batch]


def test_questions_go_in_batches_with_their_whole_prompt(tmp_path):
    model = StandIn({"answer en question 1": "two"})
    found = run(model, [question(tmp_path, n, type="count") for n in range(5)], batch_size=2, beams=2)
    assert [(verb, count) for verb, count, _ in model.asked] == [("run", 2), ("run", 2), ("run", 1)]
    assert model.options == {"max_tokens": 128, "batch_size": 2, "beams": 2}
    assert [one.id for one in found] == [f"q{n}" for n in range(5)]
    assert found[1].answer() == Answer("two", 0.9, "answer en question 1"), "parsed by the task: without the blank"
    assert (found[1].size, found[1].about, found[1].answers) == ((WIDTH, HEIGHT), {"type": "count"}, ("1",))
    assert found[1].tokens == 1
    assert found[1].seconds > 0


def test_objects_are_asked_for_by_name(tmp_path):
    things = (thing("cat", 1, 2, 11, 12), thing("owl", 5, 5, 9, 9))
    model = StandIn()
    asked = Record(
        "a", "detect", (picture(tmp_path),), "a", asked=("cat", " black  dog"), things=things, ignored=(thing("cat", 0, 0, 9, 9),)
    )
    open_ended = dataclasses.replace(asked, id="b", asked=())
    found = run(model, [asked, open_ended], classes=["cat", "owl", "dog"])
    assert model.asked == [("detect", 2, [["cat", "black dog"], ["cat", "owl", "dog"]])]
    mask = rle(rectangle(1, 2, 11, 12))
    assert found[0].things == (Place("cat", (1, 2, 11, 12), mask), Place("cat", (0, 0, 9, 9), rle(rectangle(0, 0, 9, 9)), ignored=True))
    assert [one.label for one in found[1].things] == ["cat", "owl", "cat"], "nothing that was not asked for has to be found"
    assert found[1].asked == ("cat", "owl", "dog")
    assert [place.label for place in found[0].found] == ["cat", "black dog"]


def test_many_classes_are_asked_in_several_prompts_and_joined(tmp_path):
    names = [f"class {n}" for n in range(40)]
    model = StandIn()
    record = Record("a", "detect", (picture(tmp_path),), "a", things=(thing("class 39", 1, 2, 11, 12),))
    (one,) = run(model, [record], classes=names)
    assert [len(group) for group in model.asked[0][2]] == [16, 16, 8]
    answer = one.answer()
    assert isinstance(answer, Detections)
    assert [box.label for box in answer] == names
    assert (answer.invalid, answer.prompt) == (3, "detect class 0\ndetect class 16\ndetect class 32")
    (one,) = run(model, [dataclasses.replace(record, task="segment")], classes=names, names_per_prompt=39)
    assert [len(group) for group in model.asked[1][2]] == [39, 1]
    assert isinstance(one.answer(), Masks)


def test_the_worst_reason_to_stop_is_kept(tmp_path, monkeypatch):
    stops = iter(["eos", "length", "grammar"])
    plain = StandIn.detect

    def detect(self, pictures, classes, **how):
        return [dataclasses.replace(one, stop=next(stops)) for one in plain(self, pictures, classes, **how)]

    monkeypatch.setattr(StandIn, "detect", detect)
    record = Record("a", "detect", (picture(tmp_path),), "a")
    (one,) = run(StandIn(), [record], classes=["a", "b", "c"], names_per_prompt=1)
    assert one.answer().stop == "length"  # type: ignore[attr-defined]


def test_sentences(tmp_path):
    model = StandIn()
    record = Record("a", "refer", (picture(tmp_path),), "a", asked=("the cat",), things=(thing("the cat", 1, 2, 11, 12),))
    (one,) = run(model, [record])
    assert model.asked == [("refer", 1, ["the cat"])]
    assert isinstance(one.answer(), Masks)
    assert one.asked == ("the cat",)


def test_tasks_may_be_mixed_and_keep_their_order(tmp_path):
    path = picture(tmp_path)
    records = [
        question(tmp_path, 1),
        Record("d", "detect", (path,), "d", asked=("cat",)),
        question(tmp_path, 2),
        Record("o", "ocr", (path,), "o", "ocr", ("x",)),
    ]
    found = run(StandIn(), records)
    assert [one.id for one in found] == ["q1", "d", "q2", "o"]
    assert [type(one.answer()).__name__ for one in found] == ["Answer", "Detections", "Answer", "Reading"]


def test_several_pictures_are_one_clip(tmp_path):
    seen = []

    class Watching(StandIn):
        def run(self, pictures, prompts, **how):
            seen.extend(pictures)
            return super().run(pictures, prompts, **how)

    paths = (picture(tmp_path, "a.png", "red"), picture(tmp_path, "b.png", "blue"))
    (one,) = run(Watching(), [Record("a", "answer", paths, "a", "same?", ("no",))])
    assert [frame.getpixel((0, 0)) for frame in seen[0].frames] == [(255, 0, 0), (0, 0, 255)]
    assert len(one.pictures) == 2


def test_what_cannot_be_asked_becomes_an_error_and_the_rest_goes_on(tmp_path):
    path = picture(tmp_path)
    (tmp_path / "torn.png").write_bytes(path.read_bytes()[:40])
    small = dataclasses.replace(thing("cat", 1, 2, 3, 4), outline=RunLengths((3, 3), (9,)))
    records = [
        question(tmp_path, 1),
        dataclasses.replace(question(tmp_path, 2), id="missing", pictures=(tmp_path / "none.png",)),
        dataclasses.replace(question(tmp_path, 3), id="torn", pictures=(tmp_path / "torn.png",)),
        dataclasses.replace(question(tmp_path, 4), id="long", prompt="too long"),
        Record("outline", "segment", (path,), "a", asked=("cat",), things=(small,)),
        dataclasses.replace(question(tmp_path, 6), id="pattern", pictures=(tmp_path / "[1].png",)),
        question(tmp_path, 5),
    ]
    found = {one.id: one for one in run(StandIn(refuses=("too long",)), records)}
    assert {id: one.error["code"] for id, one in found.items() if one.error} == {
        "missing": "not_found",
        "torn": found["torn"].error["code"],  # type: ignore[index]
        "long": "context_length_exceeded",
        "outline": "outline",
        "pattern": "not_found",  # not 1.png
    }
    assert "none.png" in found["missing"].error["message"]  # type: ignore[index]
    assert "cat" in found["outline"].error["message"]  # type: ignore[index]
    assert [id for id, one in found.items() if one.result] == ["q1", "q5"]
    assert list(found) == [record.id for record in records]


def test_nothing_to_look_for(tmp_path):
    found = run(StandIn(), [Record("nothing", "detect", (picture(tmp_path),), "a")])
    assert found[0].error is not None
    assert found[0].error["code"] == "nothing_asked"


def test_without_a_list_of_classes_every_record_is_asked_for_all_that_any_has(tmp_path):
    path = picture(tmp_path)
    records = [Record(label, "detect", (path,), "a", things=(thing(label, 1, 2, 11, 12),)) for label in ("cat", "dog")]
    model = StandIn()
    run(model, records)
    assert model.asked[0][2] == [["cat", "dog"]] * 2, "what is there must not be told"


def test_one_picture_is_opened_once_a_batch(tmp_path):
    seen = []

    class Watching(StandIn):
        def run(self, pictures, prompts, **how):
            seen.extend(map(id, pictures))
            return super().run(pictures, prompts, **how)

    same = [dataclasses.replace(question(tmp_path, 1), id=f"q{n}", prompt=f"{n}?") for n in range(3)]
    run(Watching(), [*same, question(tmp_path, 2)])
    assert len(seen) == 4
    assert len(set(seen)) == 2


@pytest.mark.parametrize("how", [{"batch_size": 0}, {"names_per_prompt": 0}])
def test_options_out_of_range(tmp_path, how):
    with pytest.raises(UsageError, match="at least 1"):
        run(StandIn(), [question(tmp_path, 1)], **how)


@pytest.mark.filterwarnings("error")
def test_a_real_predictor_is_asked_the_same_as_by_hand(tmp_path):
    model = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer(), tiny.random_codec())
    path = picture(tmp_path)
    rng = np.random.default_rng(0)
    from PIL import Image

    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(path)
    records = [
        Record("a", "answer", (path,), "a", "answer en cat", ("1",)),
        Record("d", "detect", (path,), "d", asked=("cat",), things=(thing("cat", 1, 2, 3, 4),)),
        Record("s", "segment", (path,), "s", asked=("cat", "dog")),
    ]
    found = run(model, records, max_tokens=9)  # too few for most answers: that is no warning here
    with pytest.warns(UserWarning, match="cut off"):
        expected = [
            model.ask(path, "cat", max_tokens=9),
            model.detect(path, "cat", max_tokens=9),
            model.segment(path, "cat;dog", max_tokens=9),
        ]
    assert [one.result for one in found] == [one.to_dict() for one in expected]


def test_a_model_that_cannot_do_the_task_at_all(tmp_path):
    model = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer())
    with pytest.raises(UsageError, match="mask codec"):
        run(model, [Record("s", "segment", (picture(tmp_path),), "s", asked=("cat",))])
