"""What verbs would ask: planned with a picture's size alone, asked by hand, the same answers."""

from __future__ import annotations

import pytest

import paligemma
from paligemma.checkpoint.finding import BUNDLED
from paligemma.engine.generate import generate
from paligemma.errors import InputError, UsageError
from paligemma.predictor.pictures import Prepared, prepare
from paligemma.predictor.planning import Planner
from paligemma.sequence import prompt_ids
from paligemma.tasks import VERBS

PICTURE = BUNDLED / "demo" / "objects1.png"
ASKED = {
    "caption": ("de",),
    "ask": ("what color is the heart?",),
    "question": ("green",),
    "ocr": (),
    "describe_box": ((1, 23, 18, 43),),
    "run": ("caption en",),
    "detect": (["owl", "fish"],),
    "segment": ("owl",),
    "refer": ("the owl",),
}


@pytest.fixture(scope="module")
def model():
    return paligemma.load("nano-112", device="cpu")


def test_every_verb_is_asked_here():
    assert set(ASKED) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_plans_come_to_the_predictors_answers(model, verb):
    seen = prepare(model.config, PICTURE)
    planned = Planner(model).plan(verb, seen, *ASKED[verb], max_tokens=40)
    tokenizer = model.tokenizer
    (generation,) = generate(
        model.network,
        model.network.encode(seen.pixels),
        [prompt_ids(tokenizer, planned.query.prompt)],
        planned.options,
        eos_id=tokenizer.eos_id,
        loc=tokenizer.loc,
        constraints=[planned.query.constraint],
    )
    assert planned.options.max_tokens == 40
    assert planned.query.read(generation) == getattr(model, verb)(PICTURE, *ASKED[verb], max_tokens=40)


def test_what_is_wrong_is_said_before_anything_is_asked(model):
    planner, seen = Planner(model), Prepared(pixels=None, width=10, height=10)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="no verb 'dance'"):
        planner.plan("dance", seen)
    with pytest.raises(UsageError):
        planner.plan("caption", seen, "xx")
    with pytest.raises(UsageError, match="no option 'tempature'"):
        planner.plan("caption", seen, tempature=1)
    with pytest.raises(InputError):
        planner.plan("describe_box", seen, (20, 20, 30, 30))


def test_prepared_pictures_are_pictures(model):
    prepared = prepare(model.config, PICTURE)
    assert (prepared.width, prepared.height, prepared.pixels.shape) == (112, 112, (1, 3, 112, 112))
    assert prepare(model.config, prepared) is prepared
    assert model.caption(prepared) == model.caption(PICTURE)
    clip = prepare(model.config, paligemma.Clip([prepared.picture, prepared.picture]))
    assert clip.pixels.shape == (2, 3, 112, 112)
    assert model.encode(clip).soft.shape[1] == 2 * model.config.vision.num_tokens
