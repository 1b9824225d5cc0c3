"""Weights of 8 and 4 bits: how near they come, that products are products with what `weight` says, and what cannot be rounded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from paligemma.errors import UsageError
from paligemma.model.weight_only import Matrix, WeightOnlyLinear, WeightOnlyTable, quantize
from tests import tiny

STEPS = {"int8": 127, "int4": 8}


def weight(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("inputs", [128, 256, 40, 300])
def test_no_weight_is_off_by_more_than_half_a_step(kind, inputs):
    given = weight(7, inputs)
    error = (Matrix(given, kind).weight - given).abs()
    size = inputs if kind == "int8" else 128
    groups = F.pad(given, (0, -inputs % size)).unflatten(1, (-1, size)).abs().amax(-1)
    steps = (groups / STEPS[kind]).repeat_interleave(size, 1)[:, :inputs]
    # The largest of a group is -8 exactly; a number nearly as large of the other sign has to make do with 7.
    assert (error <= steps * (0.502 if kind == "int8" else 1.002)).all()
    assert error.square().mean().sqrt() < given.square().mean().sqrt() * {"int8": 0.012, "int4": 0.12}[kind]


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("inputs", [256, 40, 300])
def test_products_are_those_with_the_rounded_weights(kind, inputs):
    matrix = WeightOnlyLinear(weight(9, inputs), kind)
    x = weight(6, inputs, seed=1).view(2, 3, inputs)
    torch.testing.assert_close(matrix(x), F.linear(x, matrix.weight), atol=1e-4, rtol=1e-4)
    for rows in (slice(2, 5), torch.tensor([8, 0, 3])):
        torch.testing.assert_close(matrix.product(x, rows), F.linear(x, matrix.weight[rows]), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(matrix.read(rows), matrix.weight[rows])


@pytest.mark.parametrize("kind", STEPS)
def test_a_table_gives_its_rows(kind):
    table = WeightOnlyTable(weight(20, 40), kind)
    ids = torch.tensor([[3, 3, 19], [0, 1, 2]])
    torch.testing.assert_close(table(ids), table.weight[ids])


@pytest.mark.parametrize("kind", STEPS)
def test_zeros_stay_zeros_and_the_type_stays(kind):
    given = weight(4, 128).bfloat16()
    given[2] = 0
    matrix = Matrix(given, kind)
    assert matrix.weight.dtype == torch.bfloat16
    assert not matrix.weight[2].any()
    assert matrix.product(torch.ones(1, 128, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert matrix.product(torch.ones(1, 128, dtype=torch.bfloat16))[0, 2] == 0


@pytest.mark.parametrize("kind", STEPS)
def test_it_takes_as_little_as_it_says(kind):
    matrix = Matrix(weight(64, 256).bfloat16(), kind)
    taken = sum(tensor.numel() * tensor.element_size() for tensor in matrix.buffers())
    assert taken == 64 * 256 * {"int8": 8, "int4": 4}[kind] // 8 + {"int8": 4 * 64, "int4": 2 * 64 * 2}[kind]


@pytest.mark.parametrize(("kind", "apart"), [("int8", 0.05), ("int4", 0.9)])
@pytest.mark.parametrize("name", tiny.TINY)
def test_a_quantized_model_is_near(name, kind, apart):
    """Relative to the spread of the logits; tiny random models forgive less than trained ones."""
    config = tiny.TINY[name]
    exact, near = tiny.random_model(config), tiny.random_model(config)
    assert quantize(near, kind) == 7 * config.text.depth + 1
    ids, mask = torch.tensor([[2, 31, 7, 40]]), torch.tensor([[0, 0, 0, 1]])
    with torch.inference_mode():
        soft = exact.encode_image(tiny.random_pixels(config, 1))
        torch.testing.assert_close(near.encode_image(tiny.random_pixels(config, 1)), soft)
        expected, found = (model(soft, ids, mask) for model in (exact, near))
    assert 0 < (found - expected).abs().mean() / expected.std() < apart


def test_the_table_is_quantized_once_for_both_of_its_uses():
    model = tiny.random_model(tiny.TINY_1)
    quantize(model, "int8")
    tables = [tensor for tensor in model.state_dict().values() if tensor.shape[:1] == (tiny.VOCAB,) and tensor.dim() == 2]
    assert [tensor.dtype for tensor in tables] == [torch.int8]


def test_what_is_not_plain_is_refused():
    model = tiny.random_model(tiny.TINY_1)
    with pytest.raises(UsageError, match="int8 or int4, not 'int3'"):
        quantize(model, "int3")  # pyright: ignore[reportArgumentType]
    quantize(model, "int4")
    with pytest.raises(UsageError, match="WeightOnlyLinear, which cannot be quantized"):
        quantize(model, "int8")
