"""The cached loop against recomputation, batches against single rows, and what each option promises."""

import pytest
import torch

from paligemma.engine.generate import Options, Token, generate, stream
from paligemma.engine.options import Only
from paligemma.engine.torch_network import prefill
from paligemma.errors import CheckpointError, UsageError
from tests.engine import reference
from tests.engine.reference import LOC


def same(found, ids, logprob, stop):
    assert (list(found.ids), found.stop) == (list(ids), stop)
    assert found.logprob == pytest.approx(logprob, abs=3e-4)


def test_cached_equals_recomputed(case):
    for row in range(len(case.prompts)):
        soft, prompt = case.row(row)
        (found,) = generate(case.network, soft, [prompt], Options(max_tokens=9), **case.ids)
        same(found, *reference.greedy(case.model, soft, prompt, 9, case.eos_id))


def test_batch_of_unequal_prompts_equals_single(case):
    together = generate(case.network, case.soft, case.prompts, Options(max_tokens=9), **case.ids)
    assert len({len(found.ids) for found in together}) > 1, "the rows should end at different steps"
    for row, found in enumerate(together):
        soft, prompt = case.row(row)
        (alone,) = generate(case.network, soft, [prompt], Options(max_tokens=9), **case.ids)
        same(found, alone.ids, alone.logprob, alone.stop)
        assert found.probs == pytest.approx(alone.probs, abs=1e-4)
        assert found.kind_probs == pytest.approx(alone.kind_probs, abs=1e-4)


def test_one_picture_serves_many_prompts(case):
    shared = generate(case.network, case.soft[:1], case.prompts, Options(max_tokens=5), **case.ids)
    repeated = generate(case.network, case.soft[:1].repeat(len(case.prompts), 1, 1), case.prompts, Options(max_tokens=5), **case.ids)
    assert shared == repeated


def test_prompts_of_equal_length_need_no_mask(case):
    _, unmasked = prefill(case.model, case.soft[:2], [[2, 5, 7], [2, 6, 7]], 3)
    _, masked = prefill(case.model, case.soft[:2], [[2, 5, 7], [2, 7]], 3)
    assert unmasked.valid is None
    assert masked.valid is not None


def test_sampled_logprob_equals_rescored(case):
    """Temperature and top-p bend the choice, never the reported probability."""
    options = Options(max_tokens=6, temperature=1.7, top_p=0.9, seed=3)
    for row, found in enumerate(generate(case.network, case.soft, case.prompts, options, **case.ids)):
        soft, prompt = case.row(row)
        tokens = [*found.ids, *([case.eos_id] if found.stop == "eos" else [])]
        assert found.logprob == pytest.approx(reference.logprob(case.model, soft, prompt, tokens), abs=3e-4)


def test_seeded_batch_equals_single_and_seeds_differ(case):
    options = Options(max_tokens=8, temperature=1.5, seed=11)
    together = generate(case.network, case.soft, case.prompts, options, **case.ids)
    for row, found in enumerate(together):
        soft, prompt = case.row(row)
        assert generate(case.network, soft, [prompt], options, **case.ids)[0].ids == found.ids
    other = generate(case.network, case.soft, case.prompts, Options(max_tokens=8, temperature=1.5, seed=12), **case.ids)
    assert [g.ids for g in other] != [g.ids for g in together]


def test_unseeded_follows_the_global_random_state(case):
    def draw():
        torch.manual_seed(5)
        return generate(case.network, case.soft, case.prompts, Options(max_tokens=6, temperature=1.5), **case.ids)

    assert draw() == draw()


def test_best_of_is_the_most_probable_of_the_samples(case):
    """Its copies are the first copy plus others, and the winner's log-probability is its own, end token included."""
    firsts = generate(case.network, case.soft, case.prompts, Options(max_tokens=6, temperature=2.0, seed=4), **case.ids)
    bests = generate(case.network, case.soft, case.prompts, Options(max_tokens=6, temperature=2.0, seed=4, best_of=8), **case.ids)
    assert all(best.logprob >= first.logprob - 1e-4 for best, first in zip(bests, firsts, strict=True))
    assert any(best.ids != first.ids for best, first in zip(bests, firsts, strict=True))
    for row, best in enumerate(bests):
        tokens = [*best.ids, *([case.eos_id] if best.stop == "eos" else [])]
        assert best.logprob == pytest.approx(reference.logprob(case.model, *case.row(row), tokens), abs=3e-4)
    soft, prompt = case.row(1)
    (alone,) = generate(case.network, soft, [prompt], Options(max_tokens=6, temperature=2.0, seed=4, best_of=8), **case.ids)
    assert alone.ids == bests[1].ids


def test_tokens_as_they_come(case):
    seen: list[Token] = []
    answers = generate(case.network, case.soft, case.prompts, Options(max_tokens=7), **case.ids, on_token=seen.append)
    for row, answer in enumerate(answers):
        mine = [token for token in seen if token.prompt == row]
        assert tuple(token.id for token in mine) == answer.ids
        assert tuple(token.prob for token in mine) == answer.probs


def test_a_stream_returns_the_answers(case):
    def drain():
        answers = yield from stream(case.network, case.soft, case.prompts, Options(max_tokens=7), **case.ids)
        returned.extend(answers)

    returned, seen = [], []
    streamed = list(drain())
    assert returned == generate(case.network, case.soft, case.prompts, Options(max_tokens=7), **case.ids, on_token=seen.append)
    assert streamed == seen


def test_stopping_early_costs_nothing(case, monkeypatch):
    """Steps: one forward pass per token after the first; none for a token that is not due."""
    passes = []
    extend = type(case.model).extend
    monkeypatch.setattr(type(case.model), "extend", lambda *a: passes.append(len(a[1])) or extend(*a))
    (found,) = generate(case.network, case.soft[:1], [case.prompts[0]], Options(max_tokens=1), **case.ids)
    assert found.stop in ("length", "eos")
    assert passes == []
    answers = generate(case.network, case.soft, case.prompts, Options(max_tokens=9), **case.ids)
    assert len(passes) == max(len(answer.ids) + (answer.stop == "eos") for answer in answers) - 1
    assert passes[-1] < len(case.prompts), "ended rows leave the batch"


class Script:
    """Allows, at step i, the i-th set of ranges."""

    def __init__(self, *steps):
        self.steps = steps

    def allowed(self, ids):
        step = self.steps[min(len(ids), len(self.steps) - 1)]
        return None if step is None else Only(tuple(step))


def test_restricted_rows_equal_the_full_matrix_masked(case):
    """Wide, narrow, touching and single-token ranges; per-token log-probabilities against a masked forward pass."""
    steps = [[LOC], [range(3, 5), range(20, 120), range(150, 151)], [range(7, 8), range(9, 10)], None, [range(0, 211)], [range(30, 40)]]
    soft, prompt = case.row(1)
    (found,) = generate(case.network, soft, [prompt], Options(max_tokens=6), eos_id=210, loc=LOC, constraints=[Script(*steps)])
    total = 0.0
    for i, step in enumerate(steps[: len(found.ids)]):
        logprobs = reference.next_logprobs(case.model, soft, prompt, list(found.ids[:i]), step)
        assert found.ids[i] == int(logprobs.argmax())
        total += float(logprobs.max())
    assert found.logprob == pytest.approx(total, abs=3e-4)


def test_rows_with_different_limits_share_a_batch(case):
    loc_first, free, narrow = Script([LOC], [range(0, 50)], [range(60, 61)]), None, Script([range(5, 7)], None, [range(8, 90)])
    scripts = [loc_first, free, narrow, Script([LOC, range(1, 2)])]
    options = Options(max_tokens=4)
    together = generate(case.network, case.soft, case.prompts, options, **case.ids, constraints=scripts)
    for row, found in enumerate(together):
        soft, prompt = case.row(row)
        (alone,) = generate(case.network, soft, [prompt], options, **case.ids, constraints=[scripts[row]])
        same(found, alone.ids, alone.logprob, alone.stop)
        assert found.probs == pytest.approx(alone.probs, abs=1e-4)
        assert found.kind_probs == pytest.approx(alone.kind_probs, abs=1e-4)


@pytest.mark.parametrize("last", [[], "end"])
def test_a_constraint_ends_the_answer(case, last):
    soft, prompt = case.row(0)
    script = Script([LOC], [LOC], [range(case.eos_id, case.eos_id + 1)] if last == "end" else [])
    for options in (Options(max_tokens=9), Options(max_tokens=9, beams=2)):
        (found,) = generate(case.network, soft, [prompt], options, **case.ids, constraints=[script])
        assert (len(found.ids), found.stop) == (2, "grammar")
    everything = Script([])
    (empty,) = generate(case.network, soft, [prompt], Options(), **case.ids, constraints=[everything])
    assert (empty.ids, empty.stop, empty.logprob) == ((), "grammar", 0.0)


def test_location_probability_counts_the_neighbours(case):
    soft, prompt = case.row(0)
    eos = 1
    script = Script([range(eos, eos + 1), LOC], [range(130, 164)], [range(20, 60)])
    (found,) = generate(
        case.network, soft, [prompt], Options(max_tokens=3, temperature=3.0, seed=1), eos_id=eos, loc=LOC, constraints=[script]
    )
    assert len(found.ids) == 3
    for i, step in enumerate(script.steps):
        probs = reference.next_logprobs(case.model, soft, prompt, list(found.ids[:i]), step).exp()
        token = found.ids[i]
        if token in LOC:
            near = slice(max(token - 16, LOC.start), min(token + 17, LOC.stop))
            assert found.probs[i] == pytest.approx(float(probs[near].sum()), abs=1e-5)
            assert found.kind_probs[i] == pytest.approx(float(probs[LOC.start : LOC.stop].sum()), abs=1e-5)
        else:
            assert found.probs[i] == pytest.approx(float(probs[token]), abs=1e-5)
            assert found.kind_probs[i] == pytest.approx(1.0)
    assert found.ids[0] in LOC
    assert found.kind_probs[0] < 1


def test_the_end_token_weighs_on_the_first_location(case):
    """The probability of "there is a box" is that of any location against the end."""
    soft, prompt = case.row(0)
    probs = reference.next_logprobs(case.model, soft, prompt, [], [range(5, 6), LOC]).exp()
    seen = []
    generate(
        case.network,
        soft,
        [prompt],
        Options(max_tokens=2),
        eos_id=5,
        loc=LOC,
        constraints=[Script([range(5, 6), LOC], [LOC])],
        on_token=seen.append,
    )
    assert seen[0].kind_prob == pytest.approx(1 - float(probs[5]), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**16}, "max_tokens"),
        ({"beams": 10**6}, "beams"),
        ({"temperature": 1e-40}, "temperature"),
        ({"beams": 0}, "beams"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 1, "top_p": 0}, "top_p"),
        ({"temperature": 1, "top_p": 1.1}, "top_p"),
        ({"top_p": 0.9}, "temperature"),
        ({"best_of": 2}, "temperature"),
        ({"beams": 2, "temperature": 1.0}, "beam"),
        ({"beams": 2, "temperature": 1.0, "best_of": 2}, "beam"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, word):
    with pytest.raises(UsageError, match=word):
        Options(**options)


@pytest.mark.parametrize("options", [Options(), Options(beams=2), Options(temperature=1.0, seed=1)], ids=["greedy", "beams", "sampled"])
@pytest.mark.parametrize("constraint", [None, Script([LOC])], ids=["free", "constrained"])
def test_a_model_that_computes_nan_gives_no_answer(case, options, constraint):
    with pytest.raises(CheckpointError, match="NaN in float32"):
        generate(case.network, case.soft * float("nan"), case.prompts, options, constraints=[constraint] * len(case.prompts), **case.ids)


@pytest.mark.parametrize("options", [Options(beams=2), Options(best_of=2, temperature=1.0)])
def test_answers_known_only_at_the_end_cannot_be_streamed(case, options):
    with pytest.raises(UsageError, match="streamed"):
        stream(case.network, case.soft, case.prompts, options, **case.ids)
    with pytest.raises(UsageError, match="streamed"):
        generate(case.network, case.soft, case.prompts, options, **case.ids, on_token=print)


def test_shapes_that_do_not_fit_are_refused(case):
    with pytest.raises(ValueError, match="2 pictures for 4 prompts"):
        generate(case.network, case.soft[:2], case.prompts, **case.ids)
    with pytest.raises(ValueError, match="at least one id"):
        generate(case.network, case.soft[:1], [[]], **case.ids)


@pytest.mark.parametrize("how", [{}, {"temperature": 1.3, "seed": 5}, {"temperature": 1.3, "seed": 5, "best_of": 3}])
def test_alternatives_are_the_likeliest_and_change_nothing(case, how):
    plain = generate(case.network, case.soft, case.prompts, Options(max_tokens=6, **how), **case.ids)
    found = generate(case.network, case.soft, case.prompts, Options(max_tokens=6, alternatives=4, **how), **case.ids)
    for one, other in zip(found, plain, strict=True):
        assert (one.ids, one.logprobs, other.alternatives) == (other.ids, other.logprobs, ())
        ended = one.logprob - sum(one.logprobs)
        assert (ended < 0) if one.stop == "eos" else (ended == pytest.approx(0, abs=1e-5))
        assert len(one.alternatives) == len(one.ids)
        for id, logprob, beside in zip(one.ids, one.logprobs, one.alternatives, strict=True):
            assert [value for _, value in beside] == sorted((value for _, value in beside), reverse=True)
            assert len({other_id for other_id, _ in beside}) == 4
            if not how:
                assert beside[0] == (id, pytest.approx(logprob, abs=1e-5))
            assert logprob <= beside[0][1] + 1e-5


def test_alternatives_are_among_what_is_allowed(case):
    few = [id for id in range(3, 30, 2) if id != case.eos_id][:3]

    class Few:
        def allowed(self, ids):
            return Only(tuple(range(id, id + 1) for id in few))

    (found,) = generate(
        case.network, case.soft[:1], case.prompts[:1], Options(max_tokens=2, alternatives=20), constraints=[Few()], **case.ids
    )
    assert [sorted(id for id, _ in beside) for beside in found.alternatives] == [few] * 2


@pytest.mark.parametrize("how", [{"alternatives": 21}, {"alternatives": -1}, {"alternatives": 2, "beams": 2}])
def test_alternatives_that_cannot_be(how):
    with pytest.raises(UsageError, match="alternatives"):
        Options(**how)
