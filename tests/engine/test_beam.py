"""Beam search against trying every answer, and against a slow version of the reference's procedure."""

import pytest

from paligemma.engine.generate import Options, generate
from paligemma.engine.options import Only
from tests.engine import reference

WORDS = [20, 50, 51, 120]


class Vocabulary:
    """Only these tokens, always."""

    def __init__(self, ids):
        self.step = Only(tuple(range(id, id + 1) for id in sorted(ids)))

    def allowed(self, ids):
        return self.step


def slow_search(model, soft, prompt, width, max_tokens, eos_id):
    """The reference's procedure on whole sequences, nothing cached: (ids, score) of the best ended answer."""
    live, best = [((), 0.0)], ((), float("-inf"))
    for _ in range(max_tokens):
        grown = []
        for ids, score in live:
            logprobs = reference.next_logprobs(model, soft, prompt, list(ids))
            best = max(best, (ids, score + float(logprobs[eos_id])), key=lambda pair: pair[1])
            top = logprobs.topk(width + 1)
            grown += [((*ids, int(id)), score + float(v)) for v, id in zip(top.values, top.indices, strict=True) if int(id) != eos_id]
        live = sorted(grown, key=lambda pair: pair[1], reverse=True)[:width]
        if live[0][1] < best[1]:
            break
    return best


@pytest.mark.parametrize("width", [2, 3])
def test_equals_the_uncached_procedure(case, width):
    answers = generate(case.network, case.soft, case.prompts, Options(max_tokens=6, beams=width), **case.ids)
    for row, found in enumerate(answers):
        ids, score = slow_search(case.model, *case.row(row), width, 6, case.eos_id)
        assert found.ids == ids
        assert found.logprob == pytest.approx(score, abs=3e-4)


def test_enough_beams_find_the_best_answer_of_all(case):
    """With as many beams as there are beginnings, nothing is lost."""
    eos = 1
    for row in (0, 1):
        soft, prompt = case.row(row)
        ids, score = reference.best_answer(case.model, soft, prompt, WORDS, 4, eos)
        options = Options(max_tokens=4, beams=len(WORDS) ** 3)
        (found,) = generate(case.network, soft, [prompt], options, eos_id=eos, loc=reference.LOC, constraints=[Vocabulary([*WORDS, eos])])
        assert list(found.ids) == ids
        assert found.logprob == pytest.approx(score, abs=3e-4)


def test_beats_greedy(case):
    """The score of the best of many beams is at least that of the greedy answer, where that one ended by itself."""
    greedy = generate(case.network, case.soft, case.prompts, Options(max_tokens=9), **case.ids)
    searched = generate(case.network, case.soft, case.prompts, Options(max_tokens=9, beams=8), **case.ids)
    ended = [(s, g) for s, g in zip(searched, greedy, strict=True) if g.stop == "eos"]
    assert ended
    assert all(s.logprob >= g.logprob - 3e-4 for s, g in ended)


def test_probabilities_belong_to_the_tokens(case):
    """Token by token they multiply to the score: nothing was mixed up between beams."""
    (found,) = generate(case.network, case.soft[:1], [case.prompts[0]], Options(max_tokens=6, beams=3), eos_id=case.eos_id, loc=range(0))
    soft, prompt = case.row(0)
    for i, (id, prob) in enumerate(zip(found.ids, found.probs, strict=True)):
        assert prob == pytest.approx(float(reference.next_logprobs(case.model, soft, prompt, list(found.ids[:i]))[id].exp()), abs=1e-4)


def test_an_answer_that_ended_is_whole_also_where_the_search_was_cut_short(case):
    """At the last step live beams are left, as good as the ended answer or better."""
    (found,) = generate(
        case.network, case.soft[:1], [[2, 7]], Options(max_tokens=2, beams=2), eos_id=1, loc=range(0), constraints=[Vocabulary([1, 20, 50])]
    )
    assert (found.stop, 1 in found.ids) == ("eos", False)


def test_without_an_end_token_the_best_beginning_is_returned(case):
    (found,) = generate(
        case.network, case.soft[:1], [[2, 7]], Options(max_tokens=3, beams=2), eos_id=1, loc=range(0), constraints=[Vocabulary([20, 50])]
    )
    assert (len(found.ids), found.stop) == (3, "length")
    assert set(found.ids) <= {20, 50}
