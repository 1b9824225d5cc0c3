"""Chance goes on where it was, for every generator, through JSON; what cannot is an error."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
import pytest
import torch

from paligemma.errors import CheckpointError
from paligemma.training.random_state import capture, restore, seed_all


def generators(seed: int = 1) -> dict:
    return {
        "torch": torch.Generator().manual_seed(seed),
        "pcg": np.random.default_rng(seed),
        "twister": np.random.Generator(np.random.MT19937(seed)),
        "philox": np.random.Generator(np.random.Philox(seed)),
        "python": random.Random(seed),
    }


def draw(own: dict) -> list:
    """Of all, an odd number of normals: the second of a pair may be waiting."""
    return [
        random.gauss(0, 1), random.random(), np.random.randn(3).tolist(), torch.randn(3).tolist(), torch.rand(1).item(),
        torch.randn(3, generator=own["torch"]).tolist(), own["python"].gauss(0, 1),
        *(own[name].standard_normal(3).tolist() for name in ("pcg", "twister", "philox")),
        *(own[name].integers(0, 7, 3, dtype=np.int8).tolist() for name in ("pcg", "twister", "philox")),
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def _put_back():
    """The global generators, for the tests after these."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])


def test_everything_goes_on_where_it_was():
    own = generators()
    draw(own)
    saved = json.loads(json.dumps(capture(own), allow_nan=False))
    expected = [draw(own), draw(own)]
    other = generators(2)
    draw(other)
    assert restore(saved, other) == []
    assert [draw(other), draw(other)] == expected


def test_one_seed_is_one_beginning():
    draws = []
    for seed in (3, 3, 4, 2**40):
        seed_all(seed)
        draws.append([random.random(), np.random.rand(), torch.rand(1).item()])
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], draws[2], strict=True))


def test_capturing_draws_nothing():
    own = generators()
    assert capture(own) == capture(own)


def spoil(saved: dict, *path: str | int, value: object = None) -> dict:
    spoilt = copy.deepcopy(saved)
    place = spoilt
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return spoilt


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("torch",), None, "torch: not saved"),
        (("torch",), "00ff", "torch: "),
        (("torch",), "zz", "torch: "),
        (("python",), [3, [1]], "python: "),
        (("python", 1), [1, 2], "python: "),
        (("numpy", 1), [1, 2], "numpy: "),
        (("numpy", 0), "PCG64", "numpy: "),
        (("own",), None, "generator 'pcg'"),
        (("own", "pcg"), None, "generator 'pcg': not saved"),
        (("own", "pcg", "numpy", "bit_generator"), "MT19937", "generator 'pcg': "),
        (("own", "torch", "device"), "cuda:0", "saved on cuda:0, it is now on cpu"),
        (("own", "extra"), {"python": []}, "generator 'extra'"),
        (("own", "python"), {"torch": ""}, "generator 'python': "),
        (("cuda",), ["00"], "cuda: no such device here"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="the table is for a machine without a GPU")
def test_what_cannot_be_restored_is_an_error_and_named(path, value, named):
    saved = spoil(json.loads(json.dumps(capture(generators()))), *path, value=value)
    with pytest.raises(CheckpointError, match="cannot be restored") as caught:
        restore(saved, generators())
    assert named in caught.value.message
    problems = restore(saved, generators(), allow_inexact=True)
    assert any(named in problem for problem in problems)


def test_a_state_that_does_not_stick_is_noticed():
    """Accepted, and then not what was saved."""
    own = generators()
    saved = json.loads(json.dumps(capture(own)))
    saved["own"]["philox"]["numpy"]["uinteger"] += 2**40
    with pytest.raises(CheckpointError, match="philox"):
        restore(saved, own)
