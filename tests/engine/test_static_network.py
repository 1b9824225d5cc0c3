"""The static engine against the one that all must agree with: the same tokens and probabilities, in any row, in any company."""

from __future__ import annotations

import gc

import pytest
import torch

from paligemma.engine import static_network
from paligemma.engine.cuda_graphs import Graphs
from paligemma.engine.generate import Options, generate, stream
from paligemma.engine.static_network import STEPS, StaticNetwork
from paligemma.engine.static_pool import BLOCK
from paligemma.engine.torch_network import TorchNetwork
from paligemma.errors import CheckpointError
from paligemma.model import weight_only
from paligemma.model.lora import LoraConfig, adapter_parameters, add_adapter
from tests import tiny
from tests.engine.reference import LOC

OPTIONS = {
    "greedy": Options(max_tokens=9),
    "beams": Options(max_tokens=5, beams=3),
    "sampled": Options(max_tokens=9, temperature=1.3, seed=5),
    "top-p": Options(max_tokens=9, temperature=1.3, top_p=0.7, seed=5),
    "best-of": Options(max_tokens=5, temperature=1.3, best_of=3, seed=5),
}


def same(found, expected):
    assert (found.ids, found.stop) == (expected.ids, expected.stop)
    assert found.logprob == pytest.approx(expected.logprob, abs=3e-4)
    assert found.probs == pytest.approx(expected.probs, abs=1e-4)
    assert found.kind_probs == pytest.approx(expected.kind_probs, abs=1e-4)


@pytest.fixture
def static(case) -> StaticNetwork:
    return StaticNetwork(case.model)


@pytest.mark.slow
@pytest.mark.parametrize("config", [tiny.TINY_1, tiny.TINY_2], ids=lambda config: config.name)
def test_compiled_and_fused_it_answers_the_same(config):
    """What runs on a GPU, compiled for this CPU: `flex_attention` with lengths, and with the soft-cap. Then the same again, recompiling
    nothing."""
    model = tiny.random_model(config)
    prompts = [[2, 31, 7], [2, 40, 41, 42, 43, 7], [2, 7], [2, 90, 12, 5, 7]]
    pixels = tiny.random_pixels(config, len(prompts)).numpy()
    reference, static = TorchNetwork(model), StaticNetwork(model, compiled=True, rows=4, slots=BLOCK)
    options, ids = Options(max_tokens=6), {"eos_id": -1, "loc": LOC}
    expected = generate(reference, reference.encode(pixels), prompts, options, **ids)
    for _ in range(2):
        found = generate(static, static.encode(pixels), prompts, options, **ids)
        compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    generate(static, static.encode(pixels), prompts[::-1], options, **ids)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled


def test_pictures_in_pieces_are_the_same_pictures(case, static):
    pixels = tiny.random_pixels(case.model.config, 23, seed=1)
    with torch.inference_mode():
        torch.testing.assert_close(static.encode(pixels.numpy()), case.model.encode_image(pixels), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 16, 21])
def test_any_number_of_rows(case, static, count):
    """On either side of the sizes of steps and pieces."""
    prompts = [[2, *range(20, 20 + number % 5), 7] for number in range(count)]
    soft = case.network.encode(tiny.random_pixels(case.model.config, count, seed=2).numpy())
    options = Options(max_tokens=4)
    expected = generate(case.network, soft, prompts, options, **case.ids)
    for one, other in zip(generate(static, soft, prompts, options, **case.ids), expected, strict=True):
        same(one, other)


@pytest.mark.parametrize("words", [15, 16, 17, 64, 65])
def test_prompts_around_the_lengths_they_are_filled_up_to(case, static, words):
    prompts = [[2, *((7 * number) % 90 + 4 for number in range(words - 1))], [2, 7]]
    options = Options(max_tokens=4)
    expected = generate(case.network, case.soft[:2], prompts, options, **case.ids)
    for one, other in zip(generate(static, case.soft[:2], prompts, options, **case.ids), expected, strict=True):
        same(one, other)


def test_answers_across_the_blocks_of_slots(case):
    """A prompt that ends one token before a block does, and an answer that begins the next."""
    static = StaticNetwork(case.model, slots=2 * BLOCK)
    prompt = [2, *((5 * number) % 90 + 4 for number in range(BLOCK - case.soft.shape[1] - 2))]
    options = Options(max_tokens=6)
    (expected,) = generate(case.network, case.soft[:1], [prompt], options, eos_id=-1, loc=LOC)
    (found,) = generate(static, case.soft[:1], [prompt], options, eos_id=-1, loc=LOC)
    same(found, expected)


def test_the_pool_grows_while_answers_are_written(case, static):
    assert static.pool.rows == 1
    slow = stream(static, case.soft[:1], [case.prompts[1]], Options(max_tokens=9), **case.ids)
    first = next(slow)
    generate(static, case.soft, case.prompts, Options(max_tokens=3), **case.ids)
    generate(static, case.soft[:1], [case.prompts[0]], Options(max_tokens=2 * BLOCK * 4), **case.ids)
    assert static.pool.rows == 16
    assert static.pool.slots > 512
    (expected,) = generate(case.network, case.soft[:1], [case.prompts[1]], Options(max_tokens=9), **case.ids)
    assert [first.id, *(token.id for token in slow)] == list(expected.ids)


def test_rows_are_given_back(case, static):
    for options in OPTIONS.values():
        generate(static, case.soft, case.prompts, options, **case.ids)
    halfway = stream(static, case.soft, case.prompts, Options(max_tokens=9), **case.ids)
    next(halfway)
    del halfway
    gc.collect()
    static.reserve(0, 0)
    assert static.pool.free == static.pool.rows
    assert static.pool.rows <= 16


def test_steps_become_small_again(case, static, monkeypatch):
    """Rows that are left move down once that makes a step smaller."""
    sizes = []
    run = StaticNetwork._run
    monkeypatch.setattr(StaticNetwork, "_run", lambda self, name, *a: sizes.append(name) or run(self, name, *a))
    prompts = [[2, 31, 7]] * 4 + [case.prompts[1]]
    rows = static.begin(case.soft[:1], prompts, 9)
    expected = static.begin(case.soft[:1], [case.prompts[1]], 9)
    rows.extend([9] * 5)
    expected.extend([9])
    rows = rows.select([4])
    del expected
    rows.extend([11])
    assert [name[1] for name in sizes if name[0] == "extend"] == [16, 16, 1]
    again = case.network.begin(case.soft[:1], [case.prompts[1]], 9)
    again.extend([9])
    again.extend([11])
    torch.testing.assert_close(static.pool.hidden[rows.rows], again.hidden, atol=1e-4, rtol=1e-4)


def test_a_broken_sequence_leaves_nothing_behind(case, static):
    expected = generate(static, case.soft[:1], [case.prompts[0]], Options(max_tokens=6), **case.ids)
    with pytest.raises(CheckpointError, match="NaN"):
        generate(static, case.soft[:1] * float("nan"), [case.prompts[1]], Options(max_tokens=6), **case.ids)
    assert generate(static, case.soft[:1], [case.prompts[0]], Options(max_tokens=6), **case.ids) == expected


def test_several_pictures_and_one_for_all(case, static):
    both = case.soft[:2].reshape(1, -1, case.soft.shape[-1])
    for soft in (both, case.soft[:1]):
        expected = generate(case.network, soft, case.prompts, Options(max_tokens=5), **case.ids)
        for one, other in zip(generate(static, soft, case.prompts, Options(max_tokens=5), **case.ids), expected, strict=True):
            same(one, other)


def test_shapes_that_do_not_fit_are_refused(case, static):
    with pytest.raises(ValueError, match="2 pictures for 4 prompts"):
        static.begin(case.soft[:2], case.prompts, 3)
    with pytest.raises(ValueError, match="at least one id"):
        static.begin(case.soft[:1], [[]], 3)
    rows = static.begin(case.soft[:1], [[2]], 1)
    static.pool.lengths[rows.rows[0]] = static.pool.slots
    with pytest.raises(ValueError, match="slots a row"):
        rows.extend([4])
    static.reserve(0, 0)


def with_adapter(model):
    add_adapter(model, LoraConfig(rank=2, targets=("text.blocks.*.attn.q", "text.blocks.*.mlp.*")), "birds")
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter_parameters(model, "birds"):
        torch.nn.init.normal_(parameter.requires_grad_(False), std=0.3, generator=generator)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantized_weights_go_through(case, kind):
    model = tiny.random_model(case.model.config)
    weight_only.quantize(model, kind)
    expected = generate(TorchNetwork(model), case.soft, case.prompts, Options(max_tokens=5), **case.ids)
    found = generate(StaticNetwork(model), case.soft, case.prompts, Options(max_tokens=5), **case.ids)
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_adapters_come_and_go(case):
    model = tiny.random_model(case.model.config)
    with_adapter(model)
    static, reference = StaticNetwork(model), TorchNetwork(model)
    answers = []
    for name in ("birds", None, "birds"):
        static.use_adapter(name)
        answers.append(generate(static, case.soft, case.prompts, Options(max_tokens=5), **case.ids))
        for one, other in zip(answers[-1], generate(reference, case.soft, case.prompts, Options(max_tokens=5), **case.ids), strict=True):
            same(one, other)
    assert answers[0] == answers[2] != answers[1]


def test_the_model_itself_stays_what_it_was(case):
    model = tiny.random_model(case.model.config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    StaticNetwork(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    q, k = model.text.blocks[0].attn.q.weight, model.text.blocks[0].attn.k.weight
    assert q.untyped_storage().data_ptr() == k.untyped_storage().data_ptr(), "one matrix, of which no copy is kept"


def test_sizes():
    assert [static_network._up(number, STEPS) for number in (1, 2, 4, 5, 64, 65, 257, 600)] == [1, 4, 4, 16, 64, 256, 512, 768]
    assert static_network._pieces(23, 10) == [16, 4, 1, 1, 1]
    assert static_network._pieces(5, 4096) == [1] * 5
    assert static_network._pieces(5, 2048) == [4, 1]


def test_without_a_gpu_work_is_just_done():
    graphs = Graphs(torch.device("cpu"))
    assert graphs("double", lambda x: 2 * x, torch.ones(3)).tolist() == [2, 2, 2]
    assert len(graphs) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: CUDA graphs can only be recorded on one")
def test_what_is_recorded_is_what_is_done(case):
    """On a GPU, eager and compiled: the same answers from recordings as from the reference on the same device."""
    model = tiny.random_model(case.model.config).cuda()
    soft, options = case.soft.cuda(), Options(max_tokens=9)
    expected = generate(TorchNetwork(model), soft, case.prompts, options, **case.ids)
    for compiled in (False, True):
        static = StaticNetwork(model, compiled=compiled)
        for _ in range(2):  # the second time all is replayed
            for one, other in zip(generate(static, soft, case.prompts, options, **case.ids), expected, strict=True):
                same(one, other)
        assert len(static.graphs) > 0
