"""Continuous batches: whatever joins and leaves, and when, each answer is the one that its question gets alone."""

from __future__ import annotations

import random
import weakref
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch

from paligemma.engine import continuous
from paligemma.engine.continuous import COMPANY, PATIENCE, ContinuousBatch, Job
from paligemma.engine.generate import Options, Token, generate
from paligemma.engine.network import Network
from paligemma.engine.options import Only
from paligemma.engine.torch_network import TorchNetwork
from paligemma.errors import CheckpointError, UsageError
from tests import tiny
from tests.engine.reference import LOC


def batch(network: Network, case, **how) -> ContinuousBatch:
    return ContinuousBatch(network, eos_id=case.eos_id, loc=LOC, **how)


def run(going: ContinuousBatch) -> list[Job]:
    """To the end; the jobs in the order they ended."""
    ended = []
    while going.busy:
        ended += going.step()
    return ended


def alone(network: Network, case, job: Job, soft):
    (answer,) = generate(
        network, soft, [job.prompt], job.options, eos_id=case.eos_id, loc=LOC, constraints=[job.constraint]
    )  # fmt: skip
    return answer


def same(found, expected):
    assert not isinstance(found, BaseException), found
    assert (found.ids, found.stop) == (expected.ids, expected.stop)
    assert found.logprob == pytest.approx(expected.logprob, abs=3e-4)
    assert found.probs == pytest.approx(expected.probs, abs=1e-4)
    assert found.kind_probs == pytest.approx(expected.kind_probs, abs=1e-4)


class Places:
    """Two locations, then a word or the end."""

    def allowed(self, ids):
        return Only((LOC,)) if len(ids) < 2 else Only((range(1, 4), range(20, 60)))


class Nothing:
    def allowed(self, ids):
        return Only(())


class Breaks:
    """Fails at its third token."""

    def allowed(self, ids):
        if len(ids) == 2:
            raise RuntimeError("the limits broke")
        return None


def some_job(rng: random.Random, case) -> Job:
    options = rng.choice(
        [
            Options(max_tokens=rng.randint(1, 9)),
            Options(max_tokens=rng.randint(1, 9), temperature=1.3, seed=rng.randint(0, 9)),
            Options(max_tokens=rng.randint(1, 9), temperature=0.8, top_p=0.7, seed=rng.randint(0, 9)),
            Options(max_tokens=rng.randint(1, 5), temperature=1.3, best_of=rng.randint(2, 4), seed=rng.randint(0, 9)),
            Options(max_tokens=rng.randint(1, 5), beams=rng.randint(2, 4)),
        ]
    )
    row = rng.randrange(len(case.prompts))
    prompt = [2, *(rng.randrange(4, 99) for _ in range(rng.randint(0, 6))), 7]
    return Job(prompt, options, soft=case.soft[row : row + 1], constraint=rng.choice([None, None, Places(), Nothing()]))


@pytest.mark.parametrize("seed", range(4))
def test_in_any_order_and_company_answers_are_those_alone(case, network, seed):
    rng = random.Random(seed)
    going = batch(network, case, rows=rng.choice([4, 5, 9]), read=rng.choice([1, 30, 4096]))
    jobs, ended = [], []
    while len(jobs) < 14 or going.busy:
        for _ in range(rng.choice([0, 0, 1, 3])):
            if len(jobs) < 14:
                jobs.append(some_job(rng, case))
                going.submit(jobs[-1])
        ended += going.step()
    assert sorted(map(id, ended)) == sorted(map(id, jobs)), "each job ends once"
    for job in jobs:
        same(job.outcome, alone(TorchNetwork(case.model), case, job, job.soft))


def test_short_answers_do_not_wait_for_long_ones(case, network):
    """Two rows, one long answer: the short ones pass through the other row, one after the other, while it is written."""
    going = ContinuousBatch(network, eos_id=-1, loc=LOC, rows=2)
    long, *short = [Job([2, 7], Options(max_tokens=tokens), soft=case.soft[:1]) for tokens in (9 + 3 * PATIENCE, 2, 2, 2)]
    for job in (long, *short):
        going.submit(job)
    assert run(going) == [*short, long]


def readings(case, arrivals: list[int]) -> list[tuple[int, int]]:
    """(step, jobs that read in it) beside one long answer, where so many jobs come before each step."""
    network, read, step = TorchNetwork(case.model), [], 0
    going = ContinuousBatch(network, eos_id=-1, loc=LOC, rows=99)
    begin = network.begin
    network.begin = lambda soft, prompts, most: read.append((step, len(prompts))) or begin(soft, prompts, most)
    going.submit(Job([2, 7], Options(max_tokens=40), soft=case.soft[:1]))
    going.step()
    for count in [*arrivals, *[0] * (PATIENCE + 1)]:
        step += 1
        for _ in range(count):
            going.submit(Job([2, 7], Options(max_tokens=40), soft=case.soft[:1]))
        going.step()
    return read


def test_jobs_read_in_company(case):
    alone = (0, 1)  # nobody writes: it reads at once
    assert readings(case, [1]) == [alone, (1 + PATIENCE, 1)]
    assert readings(case, [COMPANY]) == [alone, (1, COMPANY)]
    assert readings(case, [1, 1, COMPANY - 2, 1]) == [alone, (3, COMPANY), (4 + PATIENCE, 1)]


def test_ended_rows_linger_and_disturb_nobody(case, network):
    """Four of five answers are still written, so the ended one's row goes on; also where no token is the end."""
    jobs = [Job(case.prompts[number % 4], Options(max_tokens=tokens), soft=case.soft[:1]) for number, tokens in enumerate((2, 6, 6, 8, 8))]
    going = ContinuousBatch(network, eos_id=-1, loc=LOC, rows=5)
    for job in jobs:
        going.submit(job)
    run(going)
    for job in jobs:
        same(job.outcome, generate(network, case.soft[:1], [job.prompt], job.options, eos_id=-1, loc=LOC)[0])


def test_first_come_first_served(case, network):
    """A job that needs many rows is not passed by small ones that would fit."""
    going = ContinuousBatch(network, eos_id=-1, loc=LOC, rows=4)
    first = [Job([2, 7], Options(max_tokens=5), soft=case.soft[:1]) for _ in range(2)]
    wide = Job([2, 7], Options(max_tokens=2, temperature=1.0, best_of=4, seed=1), soft=case.soft[:1])
    late = Job([2, 7], Options(max_tokens=1), soft=case.soft[:1])
    for job in (*first, wide, late):
        going.submit(job)
    assert run(going) == [*first, wide, late]
    assert not going.busy


def test_no_more_rows_than_said_and_no_more_read_than_said(case, network, monkeypatch):
    begun = []
    begin = type(network).begin
    monkeypatch.setattr(
        type(network), "begin", lambda self, soft, prompts, most: begun.append(len(prompts)) or begin(self, soft, prompts, most)
    )
    tokens = case.soft.shape[1] + 2
    going = ContinuousBatch(network, eos_id=-1, loc=LOC, rows=5, read=2 * tokens)
    for _ in range(7):
        going.submit(Job([2, 7], Options(max_tokens=4), soft=case.soft[:1]))
    most = 0
    while going.busy:
        going.step()
        most = max(most, len(going.writing))
    assert most <= 5
    assert sum(begun) == 7
    assert max(begun) == 2


def test_tokens_come_in_order_and_to_whom_they_belong(case, network):
    seen: dict[int, list[Token]] = {}
    jobs = []
    for number, prompt in enumerate(case.prompts):
        jobs.append(Job(prompt, Options(max_tokens=7), soft=case.soft[number : number + 1], on_token=seen.setdefault(number, []).append))
    going = batch(network, case, rows=3)
    for job in jobs:
        going.submit(job)
    run(going)
    for number, job in enumerate(jobs):
        assert tuple(token.id for token in seen[number]) == job.outcome.ids
        assert tuple(token.prob for token in seen[number]) == job.outcome.probs
        assert {token.prompt for token in seen[number]} <= {0}


def raising(after: int):
    seen = []

    def on_token(token):
        seen.append(token)
        if len(seen) == after:
            raise OSError("the listener hung up")

    return on_token


@pytest.mark.parametrize("at_fault", ["limits", "listener", "picture", "copies"])
def test_an_error_ends_its_own_job_only(case, network, at_fault):
    good = [Job(prompt, Options(max_tokens=8), soft=case.soft[row : row + 1]) for row, prompt in enumerate(case.prompts)]
    soft, options = case.soft[:1], Options(max_tokens=8)
    bad, error = {
        "limits": (Job([2, 8], options, soft=soft, constraint=Breaks()), RuntimeError),
        "listener": (Job([2, 8], options, soft=soft, on_token=raising(1)), OSError),
        "picture": (Job([2, 8], options, soft=soft * float("nan")), CheckpointError),
        "copies": (Job([2, 8], Options(max_tokens=8, temperature=2.0, best_of=2, seed=1), soft=soft, constraint=Breaks()), RuntimeError),
    }[at_fault]
    going = batch(network, case, rows=8)
    for job in (*good[:2], bad, *good[2:]):
        going.submit(job)
    run(going)
    assert isinstance(bad.outcome, error)
    for job in good:
        same(job.outcome, alone(TorchNetwork(case.model), case, job, job.soft))
    late = Job(case.prompts[0], Options(max_tokens=8), soft=case.soft[:1])
    going.submit(late)
    run(going)
    same(late.outcome, good[0].outcome)


def test_a_picture_that_does_not_fit_is_found_out_alone(case, network):
    pixels = tiny.random_pixels(case.model.config, 2).numpy()
    jobs = [Job([2, 7], Options(max_tokens=3), pixels=pixels[0]), Job([2, 7], pixels=np.zeros((3, 5, 5), np.float32))]
    jobs.append(Job([2, 7], Options(max_tokens=3), pixels=pixels[1]))
    going = batch(network, case)
    for job in jobs:
        going.submit(job)
    run(going)
    assert isinstance(jobs[1].outcome, ValueError)
    for job, own in ((jobs[0], pixels[:1]), (jobs[2], pixels[1:])):
        same(job.outcome, alone(network, case, job, network.encode(own)))


def test_a_network_that_fails_for_each_loses_what_it_was_writing_and_goes_on(case, network, monkeypatch):
    going = ContinuousBatch(network, eos_id=-1, loc=LOC, rows=2)
    jobs = [Job([2, 7], Options(max_tokens=4), soft=case.soft[:1]) for _ in range(3)]
    for job in jobs:
        going.submit(job)
    with monkeypatch.context() as patch:
        rows = type(network.begin(case.soft[:1], [[2]], 1))

        def fail(self, ids):
            raise torch.OutOfMemoryError("no memory")

        patch.setattr(rows, "extend", fail)
        assert set(going.step()) == set(jobs[:2])
    assert all(isinstance(job.outcome, torch.OutOfMemoryError) for job in jobs[:2])
    assert run(going) == [jobs[2]]
    same(jobs[2].outcome, generate(network, case.soft[:1], [[2, 7]], Options(max_tokens=4), eos_id=-1, loc=LOC)[0])


def _failing(network, case, monkeypatch, fails):
    """`extend` raises where `fails(ids)`, after it has done half of its work: what it wrote must not be used."""
    rows = type(network.begin(case.soft[:1], [[2]], 1))
    extend = rows.extend

    def or_fail(self, ids):
        extend(self, ids)
        if fails(ids):
            raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(rows, "extend", or_fail)


def test_one_whose_step_fails_fails_alone(case, network, monkeypatch):
    """The others' tokens are as without it."""
    how = Options(max_tokens=6)
    alone = [
        generate(network, case.soft[row : row + 1], [prompt], how, eos_id=-1, loc=LOC)[0] for row, prompt in enumerate(case.prompts[:3])
    ]
    elsewhere = {token for one in (alone[0], alone[2]) for token in one.ids}
    poison = next((token for token in alone[1].ids[1:-1] if token not in elsewhere), None)
    if poison is None:
        pytest.skip("these random weights give all three the same tokens")
    going = ContinuousBatch(network, eos_id=-1, loc=LOC, rows=3)
    jobs = [Job(prompt, how, soft=case.soft[row : row + 1]) for row, prompt in enumerate(case.prompts[:3])]
    for job in jobs:
        going.submit(job)
    with monkeypatch.context() as patch:
        _failing(network, case, patch, lambda ids: poison in ids)
        run(going)
    assert isinstance(jobs[1].outcome, torch.OutOfMemoryError)
    same(jobs[0].outcome, alone[0])
    same(jobs[2].outcome, alone[2])


def test_rows_that_failed_are_gone_before_others_are_read(case, network, monkeypatch):
    """Where memory lacked, two caches at a time would lack it again."""
    going = ContinuousBatch(network, eos_id=-1, loc=LOC, rows=2)
    for prompt in case.prompts[:2]:
        going.submit(Job(prompt, Options(max_tokens=4), soft=case.soft[:1]))
    going.step()
    failed, begin, left = weakref.ref(going._rows), network.begin, []
    with monkeypatch.context() as patch:
        _failing(network, case, patch, lambda ids: len(ids) > 1)
        patch.setattr(network, "begin", lambda *how: left.append(failed()) or begin(*how))
        going.step()
    assert left == [None, None]


def test_what_fails_only_together_is_answered(case, network, monkeypatch):
    """Memory that is enough for one, not for three: every answer is as it is alone, sampled ones and the best of some too."""
    drawn = {"temperature": 1.0, "seed": 3}
    hows = [Options(max_tokens=4), Options(max_tokens=6, **drawn), Options(max_tokens=3, best_of=2, **drawn)]
    alone = [generate(network, case.soft[row : row + 1], [case.prompts[row]], how, eos_id=-1, loc=LOC)[0] for row, how in enumerate(hows)]
    going = ContinuousBatch(network, eos_id=-1, loc=LOC, rows=4)
    jobs = [Job(case.prompts[row], how, soft=case.soft[row : row + 1]) for row, how in enumerate(hows)]
    for job in jobs:
        going.submit(job)
    with monkeypatch.context() as patch:
        _failing(network, case, patch, lambda ids: len(ids) > 1)
        run(going)
    for job, right in zip(jobs, alone, strict=True):
        same(job.outcome, right)


def test_a_choice_that_always_fails_ends_all(case, network, monkeypatch):
    """It is tried twice, not for ever."""
    going = ContinuousBatch(network, eos_id=-1, loc=LOC, rows=2)
    jobs = [Job([2, 7], Options(max_tokens=4), soft=case.soft[:1]) for _ in range(2)]
    for job in jobs:
        going.submit(job)
    tried = []

    def fail(*given):
        tried.append(given)
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(continuous, "choose", fail)
        run(going)
    assert all(isinstance(job.outcome, torch.OutOfMemoryError) for job in jobs)
    assert len(tried) == 2
    assert not going.busy


@pytest.mark.parametrize("when", ["waiting", "writing", "searching", "ended"])
def test_cancelled_jobs_leave(case, network, when):
    options = Options(max_tokens=6, beams=2) if when == "searching" else Options(max_tokens=6)
    going = ContinuousBatch(network, eos_id=-1, loc=LOC, rows=2)
    gone, other = (Job(case.prompts[row], options, soft=case.soft[row : row + 1]) for row in (0, 1))
    if when == "waiting":
        going.submit(Job([2], Options(max_tokens=3), soft=case.soft[:1]))
    going.submit(gone)
    if when != "searching":
        going.submit(other)
    for _ in range({"waiting": 0, "ended": 99}.get(when, 2)):
        going.step()
    going.cancel(gone)
    assert isinstance(gone.outcome, CancelledError) == (when != "ended")
    run(going)
    assert not going.busy
    if when != "searching":
        same(other.outcome, generate(network, case.soft[1:2], [other.prompt], options, eos_id=-1, loc=LOC)[0])


def test_jobs_that_make_no_sense_are_refused(case, network):
    soft = case.soft[:1]
    for wrong in ({"prompt": [], "soft": soft}, {"prompt": [2]}, {"prompt": [2], "soft": soft, "pixels": np.zeros((3, 28, 28))}):
        with pytest.raises(ValueError, match="a job needs"):
            Job(**wrong)
    with pytest.raises(UsageError, match="streamed"):
        Job([2], Options(beams=2), soft=soft, on_token=print)
    with pytest.raises(UsageError, match="8 rows does not fit into a batch of 4"):
        batch(network, case, rows=4).submit(Job([2], Options(beams=8), soft=soft))
