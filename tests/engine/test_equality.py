"""One test for all engines: in float32 their answers are those of the engine in PyTorch, token for token, probability for probability.

The page in the browser is held against Python's answers by `tests/web/test_browser.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from paligemma.checkpoint import save_huggingface
from paligemma.edge import native, plain
from paligemma.edge.network import EdgeNetwork
from paligemma.edge.packer import pack_model
from paligemma.engine.continuous import ContinuousBatch, Job
from paligemma.engine.generate import Generation, Options, generate
from paligemma.engine.network import Network
from paligemma.engine.options import Only
from paligemma.engine.static_network import StaticNetwork
from paligemma.engine.torch_network import TorchNetwork
from paligemma.model.paligemma import PaliGemma
from tests import tiny

LOC = range(100, 164)
PROMPTS = [[2, 31, 7], [2, 40, 41, 42, 43, 7], [2, 7], [2, 90, 12, 5, 7]]


def packed(model: PaliGemma, folder: Path) -> Path:
    return pack_model(save_huggingface(model, folder / "model"), folder / "pack", "float32")


ENGINES: dict[str, Callable[[PaliGemma, Path], Network]] = {
    "pack-numpy": lambda model, folder: EdgeNetwork(packed(model, folder), plain),
    "static": lambda model, folder: StaticNetwork(model),
}
if native.available():
    ENGINES["pack-kernels"] = lambda model, folder: EdgeNetwork(packed(model, folder), native.Kernels(threads=1))


@dataclass(frozen=True)
class Pair:
    """One model in the engine that all must agree with, and in another."""

    reference: Network
    other: Network

    def pixels(self, count: int) -> np.ndarray:
        return tiny.random_pixels(self.reference.config, count).numpy()

    def both(self, options: Options, *, eos_id: int = 3, constraints=None) -> list[list[Generation]]:
        how = {"eos_id": eos_id, "loc": LOC, "constraints": constraints}
        pixels = self.pixels(len(PROMPTS))
        return [generate(each, each.encode(pixels), PROMPTS, options, **how) for each in (self.reference, self.other)]


@pytest.fixture(scope="module", params=[(name, engine) for name in tiny.TINY for engine in ENGINES], ids="-".join)
def pair(request, tmp_path_factory) -> Pair:
    name, engine = request.param
    model = tiny.random_model(tiny.TINY[name])
    return Pair(TorchNetwork(model), ENGINES[engine](model, tmp_path_factory.mktemp("engine")))


def same(found: Generation, expected: Generation) -> None:
    assert found.ids == expected.ids
    assert found.stop == expected.stop
    assert found.logprob == pytest.approx(expected.logprob, abs=1e-3)
    assert found.probs == pytest.approx(expected.probs, abs=1e-4)
    assert found.kind_probs == pytest.approx(expected.kind_probs, abs=1e-4)


def all_same(found: list[Generation], expected: list[Generation]) -> None:
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_image_tokens(pair):
    pixels = pair.pixels(5)
    expected, found = (np.asarray(network.encode(pixels)) for network in (pair.reference, pair.other))
    np.testing.assert_allclose(found, expected, atol=2e-4)


OPTIONS = {
    "greedy": Options(max_tokens=9),
    "beams": Options(max_tokens=5, beams=3),
    "sampled": Options(max_tokens=9, temperature=1.3, seed=5),
    "top-p": Options(max_tokens=9, temperature=1.3, top_p=0.7, seed=5),
    "best-of": Options(max_tokens=5, temperature=1.3, best_of=3, seed=5),
}


class Places:
    """Four locations, of which some are forbidden, then a word or the end."""

    def allowed(self, ids):
        return Only((range(100, 120), range(130, 164))) if len(ids) < 4 else Only((range(1, 2), range(20, 60)))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("limits", [None, [Places(), None, Places(), None]], ids=["free", "limited"])
def test_answers(pair, options, limits):
    expected, found = pair.both(options, eos_id=1, constraints=limits)
    all_same(found, expected)
    if limits and options.beams == 1:
        assert all(id in LOC and not 120 <= id < 130 for id in found[0].ids[:4])


def test_answers_that_end_are_dropped_and_the_others_go_on(pair):
    endless, _ = pair.both(Options(max_tokens=9), eos_id=-1)
    expected, found = pair.both(Options(max_tokens=9), eos_id=endless[1].ids[3])
    assert len({len(answer.ids) for answer in found}) > 1
    all_same(found, expected)


def test_one_picture_under_many_prompts(pair):
    soft = pair.other.encode(pair.pixels(1))
    how = {"eos_id": 3, "loc": LOC}
    together = generate(pair.other, soft, PROMPTS, Options(max_tokens=5), **how)
    all_same(together, [generate(pair.other, soft, [prompt], Options(max_tokens=5), **how)[0] for prompt in PROMPTS])


def test_several_pictures_under_one_prompt(pair):
    answers = []
    for network in (pair.reference, pair.other):
        soft = network.encode(pair.pixels(3))
        answers += generate(network, soft.reshape(1, -1, soft.shape[-1]), [[2, 31, 7]], Options(max_tokens=5), eos_id=3, loc=LOC)
    same(answers[1], answers[0])


def test_rows_that_join_and_leave_answer_as_alone(pair):
    """Questions of unequal length, in a batch of three, against the reference's own answers one by one."""
    pixels = pair.pixels(len(PROMPTS))
    options = [Options(max_tokens=9), Options(max_tokens=3), Options(max_tokens=6, temperature=1.3, seed=5), Options(max_tokens=4, beams=2)]
    jobs = [Job(prompt, how, pixels=one) for prompt, how, one in zip(PROMPTS, options, pixels, strict=True)]
    batch = ContinuousBatch(pair.other, eos_id=3, loc=LOC, rows=3)
    for job in jobs:
        batch.submit(job)
    while batch.busy:
        batch.step()
    for job, one in zip(jobs, pixels, strict=True):
        (expected,) = generate(pair.reference, pair.reference.encode(one[None]), [job.prompt], job.options, eos_id=3, loc=LOC)
        assert isinstance(job.outcome, Generation)
        same(job.outcome, expected)
