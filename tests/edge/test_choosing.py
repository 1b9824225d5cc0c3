"""Choosing on arrays against choosing in PyTorch: the same tokens, the same probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paligemma.edge import native, plain
from paligemma.edge.choosing import ArrayOffer
from paligemma.engine.candidates import Candidates
from paligemma.engine.options import Options

IDS = np.array([1, 5, 9, *range(100, 150), 200], np.int64)
LOC = range(95, 160)


def offers(seed: int, kernels=plain) -> tuple[ArrayOffer, Candidates]:
    logits = np.random.default_rng(seed).normal(0, 3, (4, len(IDS))).astype(np.float32)
    logits[1, 5:20] = -np.inf
    where = slice(3, 3 + 50)
    return ArrayOffer(kernels, logits, IDS, LOC), Candidates(torch.from_numpy(logits), torch.from_numpy(IDS), where)


KERNELS = {"plain": plain, **({"native": native.Kernels(threads=2)} if native.available() else {})}


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "options", [Options(), Options(temperature=0.7), Options(temperature=1.5, top_p=0.6), Options(temperature=1.0, top_p=0.01)]
)
def test_the_same_choice(seed, options, kernels):
    ours, theirs = offers(seed, kernels)
    uniform = np.random.default_rng(seed).random(4, np.float32).tolist()
    for one, other in zip(ours.choose(options, uniform), theirs.choose(options, uniform), strict=True):
        assert one.id == other.id
        assert one[1:] == pytest.approx(other[1:], abs=1e-5)


@pytest.mark.parametrize("eos_id", [1, 9, 200, 7])
def test_the_same_best_few(eos_id):
    ours, theirs = offers(7)
    (few, ends), (others, other_ends) = ours.best(6, eos_id), theirs.best(6, eos_id)
    assert ends == pytest.approx(other_ends, abs=1e-5)
    for one, other in zip(few, others, strict=True):
        assert [choice.id for choice in one] == [choice.id for choice in other]
        assert np.asarray(one)[:, 1:] == pytest.approx(np.asarray(other)[:, 1:], abs=1e-5)


def test_more_than_there_are_is_all_of_them():
    ours, _ = offers(1)
    assert len(ours.best(999, 1)[0][0]) == len(IDS)


def test_a_token_of_no_probability_is_never_drawn():
    logits = np.full((1, 4), -np.inf, np.float32)
    logits[0, 1] = 0.0
    offer = ArrayOffer(plain, logits, np.arange(4), range(0))
    for uniform in (0.0, 0.5, np.nextafter(np.float32(1), np.float32(0))):
        assert offer.choose(Options(temperature=1.0), [float(uniform)])[0].id == 1
