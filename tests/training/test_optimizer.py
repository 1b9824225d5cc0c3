"""Optimizers: equal to the reference's chain of updates written out in numpy, and to a run that was never interrupted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from paligemma.errors import CheckpointError
from paligemma.training import optimizer as optimizers
from paligemma.training.optimizer import Adam, GradientDescent, Group, Optimizer
from paligemma.training.schedule import Schedule
from paligemma.training.small_adam import SmallAdam

STEPS = 12
RATE, DECAY = 0.03, 0.004
SCHEDULE = Schedule("cosine", STEPS, warmup=3)
KINDS: dict[str, Callable[..., Optimizer]] = {"adam": Adam, "sgd": GradientDescent, "adam-small": SmallAdam}


def values() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "a": rng.standard_normal((5, 3)),
        "b": rng.standard_normal(4),
        "c": rng.standard_normal((40, 36)),
        "d": rng.standard_normal((33, 2, 20)),
    }


def gradients(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([1, step])
    return {name: rng.standard_normal(value.shape) * 10.0 ** rng.integers(-4, 1) for name, value in values().items()}


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {name: torch.nn.Parameter(torch.tensor(value, dtype=dtype)) for name, value in values().items()}


def groups(tensors: dict[str, Tensor]) -> list[Group]:
    """`a` and `c` decay; `b` and `d` do not, and rise more slowly."""
    slow = Schedule("cosine", STEPS, warmup=3, slow_start=6)
    return [
        Group("first", {"a": tensors["a"], "c": tensors["c"]}, DECAY, SCHEDULE),
        Group("second", {"b": tensors["b"], "d": tensors["d"]}, 0.0, slow),
    ]


def run(optimizer: Optimizer, first: int = 0, last: int = STEPS) -> None:
    for step in range(first, last):
        for name, gradient in gradients(step).items():
            p = optimizer.parameters[name]
            p.grad = torch.tensor(gradient, dtype=p.dtype)
        optimizer.step(step)
        optimizer.clear_gradients()


def chain(direction: Callable[[np.ndarray, dict, int], np.ndarray], steps: int = STEPS) -> dict[str, np.ndarray]:
    """The reference's chain: direction * rate, + decay * weight, * schedule, * -1, added to the weight."""
    weights, state = values(), {name: {} for name in values()}
    for step in range(steps):
        for name, gradient in gradients(step).items():
            update = direction(gradient, state[name], step + 1) * RATE
            update = update + (DECAY if name in "ac" else 0.0) * weights[name]
            factor = min(1.0, step / 3) * (0.5 + 0.5 * np.cos(np.pi * max(0, step - 3) / (STEPS - 3)))
            if name in "bd":
                factor *= min(1.0, step / 6)
            weights[name] = weights[name] - factor * update
    return weights


def adam(gradient: np.ndarray, state: dict, count: int) -> np.ndarray:
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * gradient
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * gradient**2
    return (state["m"] / (1 - 0.9**count)) / (np.sqrt(state["v"] / (1 - 0.999**count)) + 1e-8)


def test_adam_is_the_reference_chain():
    optimizer = Adam(groups(parameters()), RATE)
    run(optimizer)
    for name, wanted in chain(adam).items():
        np.testing.assert_allclose(optimizer.parameters[name].detach().numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_weight_decay_is_not_multiplied_by_the_rate():
    """With a gradient of zero a weight shrinks by decay * schedule, and not by rate * decay * schedule."""
    p = torch.nn.Parameter(torch.ones(3))
    for kind in KINDS.values():
        with torch.no_grad():
            p.fill_(1)
        optimizer = kind([Group("all", {"p": p}, 0.25, Schedule("constant", 9))], rate=1e-3)
        optimizer.step(0)
        assert p.tolist() == pytest.approx([0.75] * 3)


def test_adam_is_torchs_where_the_two_mean_the_same():
    optimizer, theirs = Adam(groups(parameters()), RATE), parameters()
    torchs = torch.optim.AdamW([theirs["a"], theirs["c"]], lr=RATE, weight_decay=DECAY / RATE)
    run(optimizer)
    for step in range(STEPS):
        for name in "ac":
            theirs[name].grad = torch.tensor(gradients(step)[name], dtype=torch.float32)
        torchs.param_groups[0]["lr"] = RATE * SCHEDULE(step)
        torchs.step()
    for name in "ac":
        torch.testing.assert_close(optimizer.parameters[name], theirs[name])


def test_gradient_descent_is_the_reference_chain():
    optimizer = GradientDescent(groups(parameters()), RATE)
    run(optimizer)
    for name, wanted in chain(lambda gradient, state, count: gradient).items():
        np.testing.assert_allclose(optimizer.parameters[name].detach().numpy(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("piece", [10, 2**26])
def test_half_precision_weights_follow_a_float32_copy(piece, monkeypatch):
    monkeypatch.setattr(optimizers, "PIECE", piece)
    narrow = {name: p.detach().bfloat16() for name, p in parameters().items()}
    optimizer = Adam(groups({name: p.clone() for name, p in narrow.items()}), RATE)
    wide = Adam(groups({name: p.float() for name, p in narrow.items()}), RATE)
    for step in range(STEPS):
        for name, gradient in gradients(step).items():
            optimizer.parameters[name].grad = torch.tensor(gradient).bfloat16()
            wide.parameters[name].grad = torch.tensor(gradient).bfloat16().float()
        for each in (optimizer, wide):
            each.step(step)
            each.clear_gradients()
    for name, p in wide.parameters.items():
        assert torch.equal(optimizer.state_tensors()[f"copy.{name}"], p)
        assert torch.equal(optimizer.parameters[name], p.bfloat16())
        assert optimizer.parameters[name].grad is None


def test_updates_too_small_for_bfloat16_count():
    p = torch.nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
    for kind in (Adam, SmallAdam):
        with torch.no_grad():
            p.fill_(1)
        optimizer = kind([Group("all", {"p": p}, 0.0, Schedule("constant", 50))], rate=1e-4)
        for step in range(50):
            p.grad = torch.ones_like(p)
            optimizer.step(step)
        assert p.float().mean().item() == pytest.approx(1 - 50 * 1e-4, abs=2e-3), (
            "one update is a fortieth of what bfloat16 tells apart here"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_resumed_is_uninterrupted_bit_for_bit(kind, dtype):
    whole = KINDS[kind](groups(parameters(dtype)), RATE)
    run(whole)
    first = KINDS[kind](groups(parameters(dtype)), RATE)
    run(first, last=5)
    saved = {name: tensor.clone() for name, tensor in first.state_tensors().items()}
    weights = {name: p.detach().clone() for name, p in first.parameters.items()}
    second = KINDS[kind](groups(weights), RATE)
    second.load_state_tensors(saved)
    run(second, first=5)
    for name, p in whole.parameters.items():
        assert torch.equal(second.parameters[name], p)
    for name, tensor in whole.state_tensors().items():
        assert torch.equal(second.state_tensors()[name], tensor)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_flat_finite_tensors_with_names_of_files(kind):
    optimizer = KINDS[kind](groups(parameters(torch.bfloat16)), RATE)
    run(optimizer, last=2)
    state = optimizer.state_tensors()
    assert state["updates"] == 2
    assert all(isinstance(tensor, Tensor) and tensor.isfinite().all() for tensor in state.values())
    assert all("/" not in name for name in state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("first.b"), "first.b is missing"),
        (lambda state: state.update({"first.z": torch.zeros(3)}), "first.z belongs to nothing"),
        (lambda state: state.update({"first.b": torch.zeros(5)}), r"first.b is torch.float32 \(5,\), expected torch.float32 \(4,\)"),
        (lambda state: state.update({"first.b": torch.zeros(4, dtype=torch.float64)}), "first.b is torch.float64"),
        (lambda state: state.clear(), "updates is missing .and 8 more"),
    ],
)
def test_a_state_of_another_run_is_refused_and_changes_nothing(change, words):
    optimizer = Adam(groups(parameters()), RATE)
    run(optimizer, last=3)
    before = {name: tensor.clone() for name, tensor in optimizer.state_tensors().items()}
    state = {name: torch.ones_like(tensor) for name, tensor in before.items()}
    change(state)
    with pytest.raises(CheckpointError, match=words):
        optimizer.load_state_tensors(state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in optimizer.state_tensors().items())


def test_no_gradient_is_a_gradient_of_zero():
    one, two = (Adam(groups(parameters()), RATE) for _ in range(2))
    for step in range(4):
        for optimizer in (one, two):
            for name, gradient in gradients(step).items():
                optimizer.parameters[name].grad = torch.tensor(gradient, dtype=torch.float32)
        one.parameters["a"].grad = None if step % 2 else one.parameters["a"].grad
        two.parameters["a"].grad = torch.zeros(5, 3) if step % 2 else two.parameters["a"].grad
        one.step(step)
        two.step(step)
    assert torch.equal(one.parameters["a"], two.parameters["a"])


def test_rates_for_the_log():
    assert Adam(groups(parameters()), RATE).rates(3) == pytest.approx({"first": RATE, "second": RATE / 2})
