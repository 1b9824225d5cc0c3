"""Answers that are told come out as probable as they were when they were chosen, in every engine."""

from __future__ import annotations

import pytest

from paligemma.engine.forced import logprobs
from paligemma.engine.generate import Generation, Options, generate
from paligemma.engine.options import Only
from paligemma.engine.torch_network import TorchNetwork
from tests import tiny
from tests.engine.reference import LOC
from tests.engine.test_equality import ENGINES, PROMPTS


def told(answer: Generation, eos_id: int) -> list[int]:
    return [*answer.ids, eos_id] if answer.stop == "eos" else list(answer.ids)


def test_told_answers_are_as_probable_as_chosen_ones(case):
    lengths = set[int]()
    for options in (Options(max_tokens=9), Options(max_tokens=9, temperature=1.0, seed=3)):
        answers = generate(case.network, case.soft, case.prompts, options, **case.ids)
        lengths |= {len(told(one, case.eos_id)) for one in answers}
        found = logprobs(case.network, case.soft, case.prompts, [told(one, case.eos_id) for one in answers], loc=LOC)
        for one, own in zip(answers, found, strict=True):
            assert sum(own) == pytest.approx(one.logprob, abs=1e-4)
            assert own[: len(one.ids)] == pytest.approx(one.logprobs, abs=1e-4)
    assert len(lengths) > 1, "answers of one length would not show a row that leaves"


def test_one_picture_under_several_prompts(case):
    answers = [[5, 6], [9], [5, 6, 7], [8, 8]]
    shared = logprobs(case.network, case.soft[:1], case.prompts, answers, loc=LOC)
    alone = [logprobs(case.network, case.soft[:1], [p], [a], loc=LOC)[0] for p, a in zip(case.prompts, answers, strict=True)]
    for one, other in zip(shared, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_all_engines_agree(engine, tmp_path):
    model = tiny.random_model(tiny.TINY_2)
    reference, other = TorchNetwork(model), ENGINES[engine](model, tmp_path)
    pixels = tiny.random_pixels(model.config, len(PROMPTS)).numpy()
    answers = [[5, 6, 101], [9], [163, 6, 7, 210], [0, 8]]
    ours, theirs = (logprobs(each, each.encode(pixels), PROMPTS, answers, loc=LOC) for each in (other, reference))
    for one, another in zip(ours, theirs, strict=True):
        assert one == pytest.approx(another, abs=1e-3)


def test_among_a_few_that_are_allowed(case):
    """`given` counts what the row may choose, as `choose` does."""
    few = [Only((range(5, 8), range(120, 123)))] * len(case.prompts)
    rows = case.network.begin(case.soft, case.prompts, 1)
    chosen = rows.offer(range(len(few)), few, LOC).choose(Options(), [])
    assert rows.offer(range(len(few)), few, LOC).given([one.id for one in chosen]) == chosen


def test_what_is_no_answer_is_refused(case):
    for answers in ([[5]], [[5], [], [6], [7]]):
        with pytest.raises(ValueError, match="expected an answer"):
            logprobs(case.network, case.soft, case.prompts, answers, loc=LOC)
