"""Explanations: the same answers, steps that are the model's own, parts that belong together, and a thing that is found where it is."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import paligemma
from paligemma.checkpoint.finding import BUNDLED
from paligemma.errors import ResourceError, UsageError
from paligemma.image import Clip
from paligemma.predictor.explaining import LIKELY
from paligemma.sequence import prompt_ids
from paligemma.tasks import VERBS
from tests.engine import reference
from tests.predictor.test_planning import ASKED

PICTURE = BUNDLED / "demo" / "objects1.png"
THINGS = {"owl": (1, 23, 18, 43), "green heart": (41, 56, 66, 82), "fish": (69, 28, 111, 64)}
"""In that picture: left, top, right, bottom."""


@pytest.fixture(scope="module")
def bundled():
    return paligemma.load("nano-112", device="cpu")


@pytest.mark.parametrize("verb", VERBS)
def test_the_answer_is_the_verbs(bundled, verb):
    explanation = bundled.explain(verb, PICTURE, *ASKED[verb], max_tokens=40)
    answer = getattr(bundled, verb)(PICTURE, *ASKED[verb], max_tokens=40)
    assert explanation.result == answer
    assert explanation.stop == answer.stop
    plain = json.loads(explanation.to_json())
    assert plain.pop("explanation")["grid"] == [8, 8]
    assert plain == answer.to_dict()


def test_steps_are_the_models_own(model, picture):
    """Probabilities and the likeliest tokens, from a forward pass for each, without cache or grammar."""
    explanation = model.explain("run", picture, "a cat", max_tokens=5)
    seen, tokenizer = model.encode(picture), model.tokenizer
    prompt, told = prompt_ids(tokenizer, "a cat"), []
    assert 0 < len(explanation.steps) <= 5
    for step in explanation.steps:
        logprobs = reference.next_logprobs(model.model, seen.soft, prompt, told)
        told.append(int(logprobs.argmax()))
        assert step.prob == pytest.approx(math.exp(logprobs.max()), abs=1e-5)
        best = logprobs.topk(LIKELY).values.exp().tolist()
        assert [one.prob for one in step.likely] == pytest.approx(best, abs=1e-5)
        assert step.likely[0].text == step.text


def test_the_grammar_says_what_else_there_was(bundled):
    for step in bundled.explain("detect", PICTURE, ["owl"]).steps[:4]:
        assert all(one.text.startswith("<loc") or one.text == "<eos>" for one in step.likely)


def test_several_are_as_each_alone(model, pictures):
    together = model.explain("caption", pictures, max_tokens=6)
    for one, picture in zip(together, pictures, strict=True):
        alone = model.explain("caption", picture, max_tokens=6)
        assert one.result.text == alone.result.text
        assert len(one.steps) == len(alone.steps)
        for a, b in zip(one.steps, alone.steps, strict=True):
            np.testing.assert_allclose(a.heat, b.heat, atol=2e-4)
            assert a.prob == pytest.approx(b.prob, abs=1e-4)


def test_words_are_parts_of_a_text(bundled):
    explanation = bundled.explain("caption", PICTURE)
    assert [part.label for part in explanation.parts] == ["an", "owl", "a", "green", "heart", "and", "a", "fish"]
    for part in explanation.parts:
        own = explanation.steps[part.start : part.stop]
        assert "".join(step.text for step in own).strip() == part.label
        assert part.score == pytest.approx(math.prod(step.prob for step in own))
        np.testing.assert_allclose(part.heat, np.mean([step.heat for step in own], 0), rtol=1e-3)


def test_chinese_has_no_blanks_and_still_has_parts(bundled):
    explanation = bundled.explain("caption", PICTURE, "zh")
    assert len(explanation.parts) >= 3
    assert "".join(part.label for part in explanation.parts) == explanation.result.text.replace("、", "")


def test_objects_are_parts_of_boxes_and_masks(bundled):
    for verb in ("detect", "segment"):
        explanation = bundled.explain(verb, PICTURE, ["owl", "fish"])
        items = list(explanation.result)
        boxes = [getattr(item, "box", item) for item in items]
        assert [(part.label, part.box, part.score) for part in explanation.parts] == [
            (item.label, box.xyxy, item.score) for item, box in zip(items, boxes, strict=True)
        ]
        for part in explanation.parts:
            text = "".join(step.text for step in explanation.steps[part.start : part.stop])
            assert text.startswith("<loc")
            assert text.endswith(part.label)


def test_objects_that_were_left_out_do_not_shift_the_others(bundled):
    whole = bundled.explain("detect", PICTURE, ["owl", "fish"])
    worst = min(whole.parts, key=lambda part: part.score)
    kept = bundled.explain("detect", PICTURE, ["owl", "fish"], min_score=worst.score + 1e-6)
    assert kept.parts == tuple(part for part in whole.parts if part is not worst)


def test_things_are_looked_at_where_they_are(bundled):
    """The hottest patch of a name, of an object and of an answer is in the thing that it is about."""
    caption = bundled.explain("caption", PICTURE)
    heat = {part.label: part for part in caption.parts}
    found = {"owl": heat["owl"], "green heart": heat["heart"], "fish": heat["fish"]}
    pairs = list(found.items())
    pairs += [(part.label, part) for part in bundled.explain("detect", PICTURE, list(THINGS)).parts]
    pairs += [("green heart", bundled.explain("ask", PICTURE, "what color is the heart?").parts[0])]
    assert len(pairs) == 7
    for name, part in pairs:
        (x, y), (left, top, right, bottom) = part.hottest, THINGS[name]
        assert left <= 112 * x <= right, name
        assert top <= 112 * y <= bottom, name


def test_a_thing_moved_to_another_patch_is_followed(bundled):
    """The same picture, pushed sideways in a circle."""
    from PIL import Image, ImageChops

    with Image.open(PICTURE) as opened:
        picture = opened.convert("RGB")
    places = []
    for push in (0, 28, -28):
        (part,) = bundled.explain("detect", ImageChops.offset(picture, push, 0), ["green heart"]).parts
        places.append(112 * part.hottest[0] - push)
    assert all(41 <= place <= 66 for place in places), places


def test_nothing_found_has_nothing_to_show(bundled):
    explanation = bundled.explain("detect", PICTURE, ["crab"])
    assert explanation.parts == ()
    assert explanation.draw().size == explanation.result.draw().size
    assert explanation.to_dict()["explanation"]["parts"] == []


def test_what_cannot_be_explained(model, picture, pictures, tmp_path):
    with pytest.raises(UsageError, match="no verb 'dance'"):
        model.explain("dance", picture)
    with pytest.raises(UsageError, match="streamed"):
        model.explain("caption", picture, stream=True)
    with pytest.raises(UsageError, match="beam"):
        model.explain("caption", picture, beams=2)
    with pytest.raises(UsageError, match="one picture"):
        model.explain("caption", Clip((pictures[0], pictures[1])))


def test_a_pack_cannot_explain(tmp_path, bundled):
    from paligemma.edge.packer import pack_model

    pack = paligemma.load(pack_model(BUNDLED / "nano-112", tmp_path / "pack", "int8"))
    with pytest.raises(ResourceError, match="needs the model in PyTorch") as refused:
        pack.explain("caption", PICTURE)
    assert (refused.value.exit_code, refused.value.code) == (5, "no_torch")
