"""Adam with a small state: Adam itself where its second moment can be factored, unbiased rounding, and its size."""

from __future__ import annotations

import pytest
import torch

from paligemma.training.optimizer import Adam, Group
from paligemma.training.schedule import Schedule
from paligemma.training.small_adam import SmallAdam, round_by_chance

CONSTANT = Schedule("constant", 1000)


def one(kind, tensor: torch.Tensor, rate: float = 0.01):
    return kind([Group("all", {"p": torch.nn.Parameter(tensor.clone())}, 0.0, CONSTANT)], rate)


@pytest.mark.parametrize("shape", [(64, 48), (40, 3, 14), (5, 7), (9,), ()], ids=str)
def test_it_is_adam_where_squares_are_a_product_of_rows_and_columns(shape):
    """A first moment in bfloat16 is what is left of a difference."""
    generator = torch.Generator().manual_seed(0)
    sign = torch.randn(shape, generator=generator).sign()
    flat = sign.reshape(shape[0], -1) if len(shape) > 1 else sign
    size = torch.rand(flat.shape[:1], generator=generator).add(0.5) if len(shape) > 1 else torch.tensor(1.0)
    gradient = (sign.reshape(flat.shape) * (size[:, None] if len(shape) > 1 else size)).reshape(shape)
    small, adam = (one(kind, torch.zeros(shape)) for kind in (SmallAdam, Adam))
    for step in range(5):
        for optimizer in (small, adam):
            optimizer.parameters["p"].grad = gradient.clone()
            optimizer.step(step)
    torch.testing.assert_close(small.parameters["p"], adam.parameters["p"], rtol=1e-2, atol=1e-5)


def test_it_learns_what_adam_learns():
    generator = torch.Generator().manual_seed(1)
    inputs, goal = torch.randn(200, 40, generator=generator), torch.randn(40, 36, generator=generator)
    ends = []
    for kind in (SmallAdam, Adam):
        optimizer = one(kind, torch.zeros(40, 36), rate=0.03)
        p = optimizer.parameters["p"]
        for step in range(150):
            (inputs @ p - inputs @ goal).square().mean().backward()
            optimizer.step(step)
            optimizer.clear_gradients()
        ends.append((inputs @ p - inputs @ goal).square().mean().item())
    assert ends[0] < 0.02
    assert ends[0] < 3 * ends[1] + 0.01


def test_rounding_by_chance_is_right_on_average():
    value = torch.full((200_000,), 1 + 0.3 * 2**-7)
    found = round_by_chance(value, torch.Generator().manual_seed(0)).float()
    assert set(found.tolist()) == {1.0, 1 + 2**-7}
    assert found.mean().item() == pytest.approx(1 + 0.3 * 2**-7, abs=5e-5)
    negative = round_by_chance(-value, torch.Generator().manual_seed(0)).float()
    assert torch.equal(negative, -found)


def test_what_bfloat16_holds_is_never_rounded():
    value = torch.randn(5000).bfloat16().float()
    assert torch.equal(round_by_chance(value, torch.Generator()).float(), value)


def test_a_single_huge_number_does_not_blow_up_an_update():
    optimizer = one(SmallAdam, torch.zeros(64, 64), rate=1.0)
    gradient = torch.full((64, 64), 1e-4)
    gradient[3, 5] = 1e4
    optimizer.parameters["p"].grad = gradient
    optimizer.step(0)
    assert optimizer.parameters["p"].square().mean().sqrt() <= 1.01


def test_gradients_of_zero_leave_no_trace():
    optimizer = one(SmallAdam, torch.ones(64, 64))
    optimizer.parameters["p"].grad = torch.zeros(64, 64)
    optimizer.step(0)
    assert torch.equal(optimizer.parameters["p"], torch.ones(64, 64))


def test_its_state_is_two_bytes_a_number():
    state = one(SmallAdam, torch.zeros(400, 300, dtype=torch.bfloat16)).state_tensors()
    assert sum(tensor.nbytes for tensor in state.values()) == 400 * 300 * 2 + (400 + 300) * 4 + 8
