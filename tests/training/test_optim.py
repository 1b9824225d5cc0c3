"""From recipe to optimizer: what decays, what rises slowly, clipping, and parameters that are shared out between processes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from paligemma.model.paligemma import PaliGemma
from paligemma.training.optim import clip_gradients, decays, global_norm, make_groups, make_optimizer, make_schedule
from paligemma.training.optimizer import Adam, GradientDescent
from paligemma.training.recipes import recipe
from paligemma.training.small_adam import SmallAdam
from paligemma.training.strategies import choose, prepare
from tests.parity.big_vision import random_arrays
from tests.tiny import TINY, TINY_1, random_model

SIMPLE = dataclasses.replace(recipe("simple"), weight_decay=1e-6)


@pytest.mark.parametrize("config", TINY.values(), ids=TINY)
def test_the_reference_decays_what_it_calls_a_kernel(config):
    kernels = [key for key in random_arrays(config) if key.endswith("/kernel")]
    stacked = [key for key in kernels if "encoderblock" in key]
    model = PaliGemma(config)
    chosen = {name: p for name, p in model.named_parameters() if decays(name, p, "reference")}
    assert len(chosen) == len(kernels) - len(stacked) + len(stacked) * config.vision.depth
    assert sum(p.numel() for p in chosen.values()) == sum(random_arrays(config)[key].size for key in kernels)
    assert not any(name.startswith("text") for name in chosen)


def test_all_matrices_decay_by_name():
    model = PaliGemma(TINY_1)
    kept = [name for name, p in model.named_parameters() if not decays(name, p, "matrices")]
    assert all(name.endswith(".bias") or "norm" in name for name in kept)


def test_an_adapter_does_not_decay_as_the_reference():
    model = random_model(TINY_1)
    mine = dataclasses.replace(recipe("lora"), weight_decay=1e-3, lora_targets=("vision", "language"))
    groups = make_groups(mine, prepare(model, mine).parameters, 10)
    assert [(group.name, group.decay) for group in groups] == [("rest", 0.0), ("image tower", 0.0)]


def test_groups_hold_every_parameter_once():
    trainable = choose(random_model(TINY_1), "full").parameters
    groups = make_groups(dataclasses.replace(SIMPLE, slow_vision=0.5), trainable, 100)
    names = [name for group in groups for name in group.parameters]
    assert sorted(names) == sorted(trainable)
    assert {group.name: group.decay for group in groups} == {
        "rest, decays": 1e-6,
        "rest": 0.0,
        "image tower, decays": 1e-6,
        "image tower": 0.0,
    }
    assert list(groups[0].parameters) == ["projector.weight"]
    assert [group.schedule(25) / groups[0].schedule(25) for group in groups] == pytest.approx([1, 1, 0.5, 0.5])


def test_the_schedule_of_a_recipe():
    rising = make_schedule(recipe("docvqa"), 200)
    assert [rising(step) for step in (0, 5, 10)] == pytest.approx([0, 0.5, 1])
    assert rising(105) == pytest.approx(0.5)
    stage = make_schedule(recipe("stage2a"), 24414)
    assert stage(0) == pytest.approx((1 + 488281 / 10_000) ** -0.5)


@pytest.mark.parametrize(("name", "kind"), [("adam", Adam), ("adam-small", SmallAdam), ("sgd", GradientDescent)])
def test_a_recipe_names_its_optimizer(name, kind):
    trainable = choose(random_model(TINY_1), "attention-only").parameters
    assert isinstance(make_optimizer(dataclasses.replace(SIMPLE, optimizer=name), trainable, 10), kind)


def test_weights_of_a_model_follow_the_schedule_and_the_mask():
    """Without gradients only decay is left, and only where it belongs."""
    model = random_model(TINY_1)
    trainable = choose(model, "full").parameters
    before = {name: p.detach().clone() for name, p in trainable.items()}
    mine = dataclasses.replace(SIMPLE, weight_decay=0.1, warmup=0.0, schedule="constant", learning_rate=1e-3)
    make_optimizer(mine, trainable, 10).step(0)
    for name, p in trainable.items():
        torch.testing.assert_close(p.detach(), before[name] * (0.9 if decays(name, p, "reference") else 1.0))


def with_gradients(*gradients: torch.Tensor) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    return parameters


def test_clipping_scales_all_gradients_alike():
    parameters = with_gradients(torch.tensor([3.0, 0.0]), torch.tensor([[4.0]]))
    assert clip_gradients([*parameters, nn.Parameter(torch.zeros(2))], 1.0).item() == pytest.approx(5)
    assert [p.grad.tolist() for p in parameters if p.grad is not None] == [pytest.approx([0.6, 0.0]), [pytest.approx([0.8])]]


@pytest.mark.parametrize("largest", [0.0, 5.0, 6.0])
def test_small_gradients_stay_as_they_are(largest):
    parameters = with_gradients(torch.tensor([3.0]), torch.tensor([4.0]))
    assert clip_gradients(parameters, largest).item() == pytest.approx(5)
    assert [p.grad for p in parameters] == [torch.tensor([3.0]), torch.tensor([4.0])]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_no_number_is_told_and_nothing_is_scaled(bad):
    parameters = with_gradients(torch.tensor([3.0, bad]), torch.tensor([4.0]))
    assert not clip_gradients(parameters, 1.0).isfinite()
    assert parameters[1].grad == torch.tensor([4.0])


def test_the_norm_is_summed_in_float32():
    many = torch.full((4096,), 0.01, dtype=torch.bfloat16)
    norm = global_norm([many, many])
    assert norm.dtype == torch.float32
    assert norm.item() == pytest.approx(many.double().norm().item() * 2**0.5, rel=1e-6)
    huge = torch.full((4,), 3e4, dtype=torch.float16)
    assert global_norm([huge]).item() == pytest.approx(huge.double().norm().item(), rel=1e-6), "its square is more than float16 holds"
    assert global_norm([]).item() == 0


@pytest.fixture
def mesh(tmp_path):
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["adam", "adam-small", "sgd"])
def test_parameters_may_be_shared_out(mesh, name, dtype):
    """As FSDP2 does it; here between one process. State and norm are those of plain tensors."""
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    generator = torch.Generator().manual_seed(0)
    weights = {"projector.weight": torch.randn(40, 36, generator=generator), "text.norm.weight": torch.randn(7, generator=generator)}
    gradients = [{key: torch.randn(w.shape, generator=generator) for key, w in weights.items()} for _ in range(3)]
    mine = dataclasses.replace(SIMPLE, optimizer=name, learning_rate=0.01, weight_decay=0.01, warmup=0.0)
    plain = make_optimizer(mine, {key: w.to(dtype) for key, w in weights.items()}, 3)
    shared = make_optimizer(mine, {key: distribute_tensor(w.to(dtype), mesh, [Shard(0)]) for key, w in weights.items()}, 3)
    for step, gradient in enumerate(gradients):
        for key, value in gradient.items():
            plain.parameters[key].grad = value.to(dtype)
            shared.parameters[key].grad = distribute_tensor(value.to(dtype), mesh, [Shard(0)])
        norms = [clip_gradients(optimizer.parameters.values(), 1.0) for optimizer in (plain, shared)]
        assert torch.equal(*norms)
        plain.step(step)
        shared.step(step)
    for key, w in plain.parameters.items():
        here = shared.parameters[key]
        assert isinstance(here, DTensor)
        assert torch.equal(here.full_tensor(), w)
    saved = shared.state_tensors()
    for key, tensor in plain.state_tensors().items():
        here = saved[key]
        assert torch.equal(here.full_tensor() if isinstance(here, DTensor) else here, tensor)
    shared.load_state_tensors({key: tensor.clone() for key, tensor in saved.items()})
