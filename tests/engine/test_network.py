"""Generation over an engine that is not PyTorch: a table of which token follows which, small enough to search by hand."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from paligemma.engine.generate import Options, generate
from paligemma.engine.network import Choice, Network, network_of
from paligemma.engine.options import Allowed, Only
from paligemma.engine.torch_network import TorchNetwork
from tests.tiny import tiny_model

WORDS, EOS = 5, 0
TABLE = np.log(np.random.default_rng(3).dirichlet(np.ones(WORDS), WORDS))
"""Log-probability of each token after each."""


class TableOffer:
    def __init__(self, logprobs: np.ndarray):
        self.logprobs = logprobs - np.log(np.exp(logprobs).sum(-1, keepdims=True))

    def choose(self, options: Options, uniform: Sequence[float]) -> list[Choice]:
        if options.temperature == 0:
            return [self._choice(row, int(row.argmax())) for row in self.logprobs]
        places = [int(np.searchsorted(np.exp(row).cumsum(), point, "right")) for row, point in zip(self.logprobs, uniform, strict=True)]
        return [self._choice(row, min(place, WORDS - 1)) for row, place in zip(self.logprobs, places, strict=True)]

    def best(self, count: int, eos_id: int) -> tuple[list[list[Choice]], list[float]]:
        return [[self._choice(row, int(i)) for i in (-row).argsort()[:count]] for row in self.logprobs], self.logprobs[:, eos_id].tolist()

    def given(self, ids: Sequence[int]) -> list[Choice]:
        return [self._choice(row, id) for row, id in zip(self.logprobs, ids, strict=True)]

    @staticmethod
    def _choice(row: np.ndarray, id: int) -> Choice:
        return Choice(id, float(row[id]), math.exp(row[id]), 1.0)


class TableRows:
    numbers = "wood"

    def __init__(self, last: list[int]):
        self.last = last

    def offer(self, places: Sequence[int], allowed: Sequence[Allowed | None], loc: range) -> TableOffer:
        logprobs = TABLE[[self.last[place] for place in places]].copy()
        for row, limits in zip(logprobs, allowed, strict=True):
            if limits is not None:
                row[[id for id in range(WORDS) if not any(id in one for one in limits.ranges)]] = -np.inf
        return TableOffer(logprobs)

    def extend(self, ids: Sequence[int]) -> None:
        self.last = list(ids)

    def select(self, places: Sequence[int]) -> TableRows:
        return TableRows([self.last[place] for place in places])

    def join(self, others: TableRows) -> TableRows:
        return TableRows(self.last + others.last)


class Table:
    def begin(self, soft: Any, prompts: Sequence[Sequence[int]], max_tokens: int) -> TableRows:
        return TableRows([prompt[-1] for prompt in prompts])

    def entropy(self) -> int:
        return 7


def table() -> Network:
    return network_of(Table())  # pyright: ignore[reportArgumentType] - the rest is for pictures


def logprob(first: int, ids: Sequence[int]) -> float:
    return float(sum(TABLE[a, b] for a, b in itertools.pairwise([first, *ids])))


def best_answer(first: int, length: int) -> tuple[tuple[int, ...], float]:
    """Of all answers of at most `length` tokens, the end included."""
    answers = [ids for n in range(length) for ids in itertools.product(range(1, WORDS), repeat=n)]
    return max(((ids, logprob(first, (*ids, EOS))) for ids in answers), key=lambda pair: pair[1])


PROMPTS = [[1], [2, 3], [4], [1, 2]]


def test_greedy_follows_the_table():
    answers = generate(table(), None, PROMPTS, Options(max_tokens=6), eos_id=EOS, loc=range(0))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        last, ids = prompt[-1], []
        while len(ids) < 6 and (last := int(TABLE[last].argmax())) != EOS:
            ids.append(last)
        assert answer.ids == tuple(ids)
        assert answer.logprob == pytest.approx(logprob(prompt[-1], ids if answer.stop == "length" else [*ids, EOS]))


def test_wide_beams_find_the_best_answer_there_is():
    answers = generate(table(), None, PROMPTS, Options(max_tokens=4, beams=64), eos_id=EOS, loc=range(0))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids, score = best_answer(prompt[-1], 4)
        assert answer.ids == ids
        assert answer.logprob == pytest.approx(score)


def test_drawn_answers_are_as_frequent_as_the_table_says():
    drawn = generate(
        table(), None, [[1]] * 4000, Options(max_tokens=1, temperature=1.0), eos_id=-1, loc=range(0)
    )  # one seed for all would draw one answer
    assert len({answer.ids for answer in drawn}) == 1, "the same entropy gives the same answer"
    seeds = [generate(table(), None, [[1]], Options(max_tokens=1, temperature=1.0, seed=i), eos_id=-1, loc=range(0)) for i in range(2000)]
    counts = np.bincount([answer.ids[0] for (answer,) in seeds], minlength=WORDS) / 2000
    assert np.abs(counts - np.exp(TABLE[1])).max() < 0.04


class Even:
    """Only even tokens, or the end."""

    def allowed(self, ids: Sequence[int]) -> Only:
        return Only((range(0, 1), range(2, 3), range(4, 5)))


def test_constraints_hold():
    for options in (Options(max_tokens=5), Options(max_tokens=5, beams=3), Options(max_tokens=5, temperature=2.0, seed=1)):
        answers = generate(table(), None, PROMPTS, options, eos_id=EOS, loc=range(0), constraints=[Even()] * len(PROMPTS))
        assert all(id % 2 == 0 for answer in answers for id in answer.ids)


def test_a_model_of_pytorch_is_taken_as_a_network():
    network = network_of(tiny_model())
    assert isinstance(network, TorchNetwork)
    assert network_of(network) is network


def test_generation_needs_no_torch():
    code = "import sys, paligemma.engine.generate, paligemma.engine.beam, paligemma.engine.streams; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
