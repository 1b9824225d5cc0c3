"""Every verb on tiny random models: types, prompts, batches against single pictures, options, refusals."""

import io
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from paligemma.engine.scores import Calibration
from paligemma.errors import InputError, UsageError
from paligemma.image import Clip
from paligemma.predictor import CutShort, EncodedImage, Predictor, asking
from paligemma.results import Answer, Box, Caption, Detections, Masks, Question, Reading, Text
from paligemma.tasks import TASKS, detect
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore::paligemma.predictor.CutShort")

SHORT = {"max_tokens": 12}

VERBS = {
    "caption": (lambda m, i, **how: m.caption(i, **how), Caption, "caption en"),
    "caption de": (lambda m, i, **how: m.caption(i, "de", "short", **how), Caption, "cap de"),
    "ask": (lambda m, i, **how: m.ask(i, "how many dogs?", **how), Answer, "answer en how many dogs?"),
    "ask to choose": (
        lambda m, i, **how: m.ask(i, "which?", choices=["red", "green"], **how),
        Answer,
        "answer en  which? choose from: red \t green",
    ),
    "ask bare": (lambda m, i, **how: m.ask(i, "how many dogs?", lang=None, **how), Answer, "how many dogs?"),
    "question": (lambda m, i, **how: m.question(i, "two", **how), Question, "question en two"),
    "ocr": (lambda m, i, **how: m.ocr(i, **how), Reading, "ocr"),
    "run": (lambda m, i, **how: m.run(i, " any thing ", **how), Text, " any thing "),
    "describe_box": (lambda m, i, **how: m.describe_box(i, (0, 0, 5, 9), **how), Caption, None),
    "detect": (lambda m, i, **how: m.detect(i, "cat ; dog", max_objects=2, **how), Detections, "detect cat ; dog"),
    "detect free": (lambda m, i, **how: m.detect(i, ["cat"], free_labels=True, max_objects=2, **how), Detections, "detect cat"),
    "detect raw": (lambda m, i, **how: m.detect(i, ["cat"], constrained=False, **how), Detections, "detect cat"),
    "segment": (lambda m, i, **how: m.segment(i, ["cat"], max_objects=1, **how | {"max_tokens": 40}), Masks, "segment cat"),
    "task": (lambda m, i, **how: m.task("question", i, "two", **how), Question, "question en two"),
    "task refer": (lambda m, i, **how: m.task("refer", i, "the cat", **how | {"max_tokens": 40}), Masks, "the cat"),
    "refer": (lambda m, i, **how: m.refer(i, "the cat", **how | {"max_tokens": 40}), Masks, "the cat"),
}


@pytest.fixture(params=list(VERBS))
def verb(request):
    return VERBS[request.param]


def same(a, b):
    """Equal but for rounding: scores may differ in their last digits between batch sizes."""
    a, b = a.to_dict(), b.to_dict()

    def close(x, y):
        if isinstance(x, dict):
            assert x.keys() == y.keys()
            return all(close(x[key], y[key]) for key in x)
        if isinstance(x, list):
            return len(x) == len(y) and all(close(*pair) for pair in zip(x, y, strict=True))
        return x == pytest.approx(y, abs=1e-4) if isinstance(x, float) else x == y

    assert close(a, b), (a, b)


def test_every_verb_returns_its_type_and_says_its_prompt(model, pictures, verb):
    call, kind, prompt = verb
    result = call(model, pictures[0], **SHORT)
    assert type(result) is kind
    assert prompt is None or result.prompt == prompt
    assert result.picture is pictures[0]
    assert result.stop in ("eos", "length", "grammar")
    if isinstance(result, Text):
        assert 0 <= result.score <= 1
    result.draw()


def test_a_list_equals_one_by_one(model, pictures, verb):
    call, *_ = verb
    together = call(model, pictures, **SHORT)
    assert isinstance(together, list)
    for result, picture in zip(together, pictures, strict=True):
        same(result, call(model, picture, **SHORT))
        assert result.picture is picture
    for result, again in zip(together, call(model, tuple(pictures), **SHORT, batch_size=2), strict=True):
        same(result, again)


def test_encoding_once_equals_encoding_each_time(model, pictures, verb):
    call, *_ = verb
    encoded = model.encode(pictures[0])
    assert isinstance(encoded, EncodedImage)
    same(call(model, encoded, **SHORT), call(model, pictures[0], **SHORT))
    same(call(model, [encoded, pictures[1]], **SHORT)[0], call(model, pictures[0], **SHORT))


def test_streaming_ends_in_the_same_result(model, pictures, verb):
    call, *_ = verb
    stream = call(model, pictures[0], stream=True, **SHORT)
    pieces = list(stream)
    whole = call(model, pictures[0], **SHORT)
    same(stream.result, whole)
    raw = whole.text if not isinstance(whole, Text) else None
    joined = "".join(pieces)
    assert joined == raw if raw is not None else joined.strip() == whole.text.strip()
    same(call(model, pictures[0], stream=True, **SHORT).result, whole)


def test_pictures_of_every_kind(model, pictures, tmp_path):
    picture = pictures[0]
    path = tmp_path / "picture.png"
    picture.save(path)
    written = io.BytesIO()
    picture.save(written, "png")
    expected = model.caption(picture, **SHORT)
    for form in (path, str(path), written.getvalue(), np.asarray(picture), model.encode(path), Clip((picture,))):
        same(model.caption(form, **SHORT), expected)


def test_several_pictures_for_one_prompt(model, pictures):
    clip = Clip(tuple(pictures[:3]))
    assert model.encode(clip).soft.shape[1] == 3 * model.model.config.vision.num_tokens
    alone = model.caption(clip, **SHORT)
    assert alone.picture is pictures[0]
    mixed = model.caption([pictures[3], clip, pictures[4]], **SHORT)
    same(mixed[1], alone)
    same(mixed[0], model.caption(pictures[3], **SHORT))


def test_many_questions_about_one_picture_encode_it_once(model, pictures, monkeypatch):
    passes = []
    encode = type(model.model).encode_image
    monkeypatch.setattr(type(model.model), "encode_image", lambda self, pixels: passes.append(len(pixels)) or encode(self, pixels))
    questions = ["how many dogs?", "is there a cat?", "what?"]
    answers = model.ask(pictures[0], questions, **SHORT)
    assert passes == [1]
    for question, result in zip(questions, answers, strict=True):
        assert result.prompt == f"answer en {question}"
        same(result, model.ask(pictures[0], question, **SHORT))


def test_prompts_of_a_batch_may_differ(model, pictures):
    results = model.run(pictures[:3], ["ocr", "caption en", "a much longer prompt than the others"], **SHORT)
    for picture, result in zip(pictures, results, strict=False):
        same(result, model.run(picture, result.prompt, **SHORT))
    found = model.detect(pictures[:2], [["cat"], ["dog", "tree"]], max_objects=1)
    assert [r.prompt for r in found] == ["detect cat", "detect dog ; tree"]
    for picture, result, names in zip(pictures, found, (["cat"], ["dog", "tree"]), strict=False):
        same(result, model.detect(picture, names, max_objects=1))


def test_pairs_that_do_not_match_are_refused(model, pictures):
    with pytest.raises(UsageError, match="2 prompts for 3 pictures"):
        model.run(pictures[:3], ["ocr", "ocr"])
    with pytest.raises(UsageError, match="1 lists of names for 2 pictures"):
        model.detect(pictures[:2], [["cat"]])


def test_constrained_objects_obey(model, pictures):
    """Labels among the asked, right way round, inside the picture, none twice, no more than asked for; every box has a score."""
    for picture, result in zip(pictures, model.detect(pictures, ["cat", "two dogs"], max_objects=3), strict=True):
        assert len(result) <= 3
        assert result.invalid == 0
        assert result.leftover == ""
        assert set(result.labels) <= {"cat", "two dogs"}
        assert len({(box.label, box.xyxy) for box in result}) == len(result)
        for box in result:
            assert 0 <= box.x0 < box.x1 <= picture.width
            assert 0 <= box.y0 < box.y1 <= picture.height
            assert 0 < box.score <= 1
        # What was parsed from ids is what the text says.
        assert [box.label for box in result] == [found.label for found in detect.parse(result.text).objects]


def test_masks_have_the_size_of_the_picture(model, pictures):
    found = [r for r in model.segment(pictures, "cat ; dog", max_objects=2) if r.masks]
    assert found
    for result in found:
        for mask in result:
            assert mask.mask.shape == (result.height, result.width)
            assert len(mask.codes) == 16
            assert 0 < mask.score <= mask.box.score


def test_refer_gives_one_mask_with_the_sentence_as_its_label(model, pictures):
    for result in model.refer(pictures, "the cat on the left", max_tokens=40):
        assert result.labels == ("the cat on the left",)
        assert len(result) == 1


def test_min_score_and_calibration(pictures):
    plain = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer())
    result = plain.detect(pictures[0], ["cat", "dog"], max_objects=3)
    assert len(result) > 1
    limit = sorted(box.score for box in result)[-1]
    assert [box.score for box in plain.detect(pictures[0], ["cat", "dog"], max_objects=3, min_score=limit)] == [limit]
    bent = Predictor(plain.model, plain.tokenizer, calibration=Calibration({"box": (0.5, 3.0)}))
    again = bent.detect(pictures[0], ["cat", "dog"], max_objects=3)
    assert [box.xyxy for box in again] == [box.xyxy for box in result]
    assert [box.score for box in again] == [bent.calibration("box", box.score) for box in result]


def test_describe_box_takes_pixels_of_the_original(model, pictures):
    wide, tall = pictures[0], pictures[3]
    assert model.describe_box(wide, (10, 0, 20, 15), **SHORT).prompt == "caption <loc0000><loc0256><loc0512><loc0512>"
    assert model.describe_box(wide, Box("", 10, 0, 20, 15), **SHORT).prompt == "caption <loc0000><loc0256><loc0512><loc0512>"
    prompts = [r.prompt for r in model.describe_box([wide, tall], (-5, -5, 9, 30), **SHORT)]
    assert prompts == ["caption <loc0000><loc0000><loc1023><loc0230>", "caption <loc0000><loc0000><loc0614><loc1023>"]
    for wrong in [(50, 0, 60, 10), (5, 5, 5, 9), (0, 0, 1), (0, 0, float("nan"), 1)]:
        with pytest.raises(InputError, match="box"):
            model.describe_box(wide, wrong)


def test_locations_typed_by_a_user_are_locations(model, pictures):
    assert model.run(pictures[0], "caption <loc0000><loc0256><loc0512><loc0512>", **SHORT).text == (
        model.describe_box(pictures[0], (10, 0, 20, 15), **SHORT).text
    )


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda m, i: m.caption(i, "klingon"), "klingon"),
        (lambda m, i: m.caption(i, length="huge"), "huge"),
        (lambda m, i: m.ask(i, "  "), "empty"),
        (lambda m, i: m.ask(i, None), "the question must be text, found NoneType"),
        (lambda m, i: m.ask(i, b"what?"), "the question must be text, found bytes"),
        (lambda m, i: m.run(i, 5), "the prompt must be text, found int"),
        (lambda m, i: m.detect(i, 3), "names to look for must be text or a list of texts, found int"),
        (lambda m, i: m.segment(i, None), "names to look for must be text or a list of texts, found NoneType"),
        (lambda m, i: m.detect(i, ["cat", 3]), "a name to look for must be text, found int"),
        (lambda m, i: m.ask(i, "which?", choices="red ; "), "answers to choose from is empty"),
        (lambda m, i: m.detect(i, []), "what to look for"),
        (lambda m, i: m.task("answr", i, "what?"), "answr"),
        (lambda m, i: m.task("describe_box", i, "1,2,3,4"), "what a box holds"),
        (lambda m, i: m.task("ocr", i, "what?"), r"'ocr' is asked with the picture alone, found \('what\?',\)"),
        (lambda m, i: m.task("detect", i), r"'detect' is asked with classes"),
        (lambda m, i: m.detect(i, "cat", min_score=2), "min_score"),
        (lambda m, i: m.detect(i, "cat", max_objects=0), "max_objects"),
        (lambda m, i: m.detect(i, "cat", max_object=1), "max_object"),
        (lambda m, i: m.caption(i, temprature=1), "temprature"),
        (lambda m, i: m.caption(i, min_score=0.5), "min_score"),
        (lambda m, i: m.caption(i, batch_size=0), "batch_size"),
        (lambda m, i: m.caption(i, max_tokens=0), "max_tokens"),
        (lambda m, i: m.caption([i], stream=True), "streamed"),
        (lambda m, i: m.caption(i, stream=True, beams=2), "streamed"),
    ],
)
def test_calls_that_make_no_sense_are_refused(model, pictures, call, word):
    with pytest.raises(UsageError, match=word):
        call(model, pictures[0])


ASKED = {"caption": ("de",), "ocr": (), "describe_box": None}
"""What tasks are asked with, where it is not one text."""


@pytest.mark.parametrize("name", [name for name in TASKS if ASKED.get(name, ()) is not None])
def test_a_task_by_name_is_its_verb(model, pictures, name):
    """The same answer, and the same length of one."""
    asked = ASKED.get(name, ("cat",))
    how: dict[str, Any] = {"min_score": 0.0, "max_tokens": 40} if TASKS[name].result in (Detections, Masks) else {"max_tokens": 5}
    same(model.task(name, pictures[0], *asked, **how), getattr(model, VERB_OF.get(name, name))(pictures[0], *asked, **how))


VERB_OF = {"answer": "ask"}


def test_an_answer_may_be_as_long_by_name_as_by_verb(model, pictures, monkeypatch):
    longest = []
    monkeypatch.setattr(asking, "ask", lambda *arguments: longest.append(arguments[4].max_tokens) or [None])
    for ask in (lambda m, i: m.ocr(i), lambda m, i: m.task("ocr", i), lambda m, i: m.run(i, "x"), lambda m, i: m.task("run", i, "x")):
        ask(model, pictures[0])
    assert longest == [512] * 4


@pytest.mark.filterwarnings("default::paligemma.predictor.CutShort")
def test_the_warning_of_a_cut_answer_points_at_the_call(model, pictures):
    calls = (
        lambda: model.run(pictures[0], "x", max_tokens=1),
        lambda: model.task("run", pictures[0], "x", max_tokens=1),
        lambda: model.task("detect", pictures[0], "cat", max_tokens=3),
    )
    for call in calls:
        with pytest.warns(CutShort) as caught:
            call()
        assert caught[0].filename == __file__


def test_a_model_in_training_stays_so():
    network = tiny.tiny_model().train().requires_grad_(True)
    Predictor(network, tiny.tiny_tokenizer())
    assert network.training
    assert all(p.requires_grad for p in network.parameters())


def test_a_misspelt_option_gets_a_suggestion(model, pictures):
    with pytest.raises(UsageError) as caught:
        model.caption(pictures[0], temprature=1)
    assert "'temperature'" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        model.detect(pictures[0], "cat", max_object=1)
    assert "'max_objects'" in caught.value.hint


def test_masks_need_a_codec(pictures):
    model = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer())
    for call in (lambda: model.segment(pictures[0], "cat"), lambda: model.refer(pictures[0], "the cat")):
        with pytest.raises(UsageError, match="codec") as caught:
            call()
        assert "vae-oid.npz" in caught.value.hint
        assert "codec=" in caught.value.hint


def test_an_encoded_picture_belongs_to_its_model(pictures):
    one, other = (Predictor(tiny.tiny_model(seed), tiny.tiny_tokenizer()) for seed in (0, 1))
    with pytest.raises(UsageError, match="another model"):
        one.caption(other.encode(pictures[0]))
    again = Predictor(one.model, one.tokenizer)
    assert again.run(one.encode(pictures[0]), "cat", max_tokens=3).text == one.run(pictures[0], "cat", max_tokens=3).text


def test_names_may_come_from_anything_that_gives_them_once(model, pictures):
    assert model.detect(pictures[0], (name for name in ["cat", "dog"])) == model.detect(pictures[0], ["cat", "dog"])


@pytest.mark.parametrize("box", [None, "1234", (1, 2, 3), ("a", 1, 2, 3), (0, 0, float("nan"), 1), 5])
def test_what_is_no_box(box, model, pictures):
    with pytest.raises(InputError, match="a box has four edges"):
        model.describe_box(pictures[0], box)


def test_answers_to_choose_from_are_texts(model, pictures):
    with pytest.raises(UsageError, match="found int"):
        model.ask(pictures[0], "what?", choices=5)


def test_sentences_and_pictures_are_as_many(model, pictures):
    with pytest.raises(UsageError, match="2 sentences for 1 pictures"):
        model.refer(pictures[0], ["the cat", "the dog"])


def test_a_picture_in_a_list_is_named_in_errors(model, pictures, tmp_path):
    with pytest.raises(InputError, match="image 2"):
        model.caption([pictures[0], pictures[1], b"not a picture"])
    with pytest.raises(InputError, match=r"missing\.png"):
        model.caption([pictures[0], tmp_path / "missing.png"])


def test_an_empty_list_of_pictures_gives_an_empty_list(model):
    assert model.caption([]) == []


def test_long_lists_do_not_keep_their_pictures(model, pictures):
    results = model.caption([pictures[1]] * 65, max_tokens=1)
    assert all(result.picture is None for result in results)
    assert results[0].draw(pictures[1]).size[0] > 0


@pytest.mark.filterwarnings("default::paligemma.predictor.CutShort")
def test_an_answer_cut_by_length_says_so_where_it_was_asked_for(model, pictures):
    with pytest.warns(CutShort, match="cut off after 1 token") as caught:
        model.caption(pictures[0], max_tokens=1)
    assert caught[0].filename == __file__
    with pytest.warns(CutShort, match="2 of 2 answers") as caught:
        model.detect(pictures[:2], "cat", constrained=False, max_tokens=1)
    assert caught[0].filename == __file__


def test_answers_that_end_by_themselves_warn_of_nothing(model, pictures):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.detect(pictures[0], "cat", max_objects=1)


def test_sampling_options_reach_the_engine(model, pictures):
    def once(**how):
        return model.caption(pictures[0], **SHORT, **how).text

    assert once(temperature=2.0, seed=1) == once(temperature=2.0, seed=1)
    assert len({once(temperature=2.0, seed=seed) for seed in range(4)}) > 1
    assert model.caption(pictures[0], **SHORT, beams=3).score is not None
    assert model.caption(pictures[0], **SHORT, temperature=1.0, best_of=3, top_p=0.9, seed=2).text


def test_description_says_what_was_loaded(model):
    text = model.description
    for part in ("28 px", "float32 on cpu", "4 tokens a picture", "bicubic", "mask codec found"):
        assert part in text
    assert "no mask codec" in Predictor(tiny.tiny_model(), tiny.tiny_tokenizer()).description


def test_pictures_are_not_changed(model, pictures):
    before = [picture.tobytes() for picture in pictures]
    model.detect(pictures, "cat", max_objects=1)
    assert [picture.tobytes() for picture in pictures] == before
    assert isinstance(pictures[0], Image.Image)
