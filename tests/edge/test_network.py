"""A pack's engine against the one in PyTorch: the same tokens and probabilities from float32 packs; and how near quantized ones come."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from paligemma.checkpoint import save_huggingface
from paligemma.edge import native, plain
from paligemma.edge.decoder import Cache
from paligemma.edge.network import EdgeNetwork
from paligemma.edge.packer import pack_model
from paligemma.engine.continuous import ContinuousBatch, Job
from paligemma.engine.generate import Options, generate
from paligemma.engine.options import Only
from paligemma.engine.torch_network import TorchNetwork
from paligemma.errors import UsageError
from paligemma.model.paligemma import PaliGemma
from tests import tiny

LOC = range(100, 164)
PROMPTS = [[2, 31, 7], [2, 40, 41, 42, 43, 7], [2, 7], [2, 90, 12, 5, 7]]
KERNELS = {"plain": plain, **({"native": native.Kernels(threads=1)} if native.available() else {})}


@dataclass(frozen=True)
class Pair:
    """One model in both engines. `soft`: of `PROMPTS`' pictures, in each engine's kind."""

    model: PaliGemma
    folder: Path
    edge: EdgeNetwork

    @property
    def torch(self) -> TorchNetwork:
        return TorchNetwork(self.model)

    def both(self, prompts=PROMPTS, options: Options | None = None, **how):
        pixels = tiny.random_pixels(self.model.config, len(prompts)).numpy()
        return [generate(each, each.encode(pixels), prompts, options or Options(max_tokens=9), **how) for each in (self.torch, self.edge)]


@pytest.fixture(scope="module", params=[(name, kernels) for name in tiny.TINY for kernels in KERNELS], ids="-".join)
def pair(request, tmp_path_factory) -> Pair:
    name, kernels = request.param
    model = tiny.random_model(tiny.TINY[name])
    folder = tmp_path_factory.mktemp("pack")
    pack_model(save_huggingface(model, folder / "model"), folder / "pack", "float32")
    return Pair(model, folder, EdgeNetwork(folder / "pack", KERNELS[kernels]))


def same(found, expected):
    assert found.ids == expected.ids
    assert found.stop == expected.stop
    assert found.logprob == pytest.approx(expected.logprob, abs=1e-3)
    assert found.probs == pytest.approx(expected.probs, abs=1e-4)
    assert found.kind_probs == pytest.approx(expected.kind_probs, abs=1e-4)


def test_image_tokens_are_those_of_the_model(pair):
    pixels = tiny.random_pixels(pair.model.config, 5)
    with torch.inference_mode():
        expected = pair.model.encode_image(pixels)
    np.testing.assert_allclose(pair.edge.encode(pixels.numpy()), expected.numpy(), atol=2e-4)


OPTIONS = {
    "greedy": Options(max_tokens=9),
    "beams": Options(max_tokens=5, beams=3),
    "sampled": Options(max_tokens=9, temperature=1.3, seed=5),
    "top-p": Options(max_tokens=9, temperature=1.3, top_p=0.7, seed=5),
    "best-of": Options(max_tokens=5, temperature=1.3, best_of=3, seed=5),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_answers_are_those_of_the_model(pair, options):
    expected, found = pair.both(options=options, eos_id=3, loc=LOC)
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_answers_that_end_are_dropped_and_the_others_go_on(pair):
    endless, _ = pair.both(eos_id=-1, loc=LOC)
    eos_id = endless[1].ids[3]
    expected, found = pair.both(eos_id=eos_id, loc=LOC)
    assert len({len(answer.ids) for answer in found}) > 1
    for one, other in zip(found, expected, strict=True):
        same(one, other)


class Places:
    """Four locations, of which some are forbidden, then a word or the end."""

    def allowed(self, ids):
        return Only((range(100, 120), range(130, 164))) if len(ids) < 4 else Only((range(1, 2), range(20, 60)))


def test_limits_hold_and_give_the_same_probabilities(pair):
    limits = [Places(), None, Places(), Places()]
    expected, found = pair.both(options=Options(max_tokens=6), eos_id=1, loc=LOC, constraints=limits)
    for one, other in zip(found, expected, strict=True):
        same(one, other)
    assert all(id in LOC and not 120 <= id < 130 for id in found[0].ids[:4])


def test_one_picture_under_many_prompts(pair):
    pixels = tiny.random_pixels(pair.model.config, 1).numpy()
    soft = pair.edge.encode(pixels)
    together = generate(pair.edge, soft, PROMPTS, Options(max_tokens=5), eos_id=3, loc=LOC)
    for prompt, found in zip(PROMPTS, together, strict=True):
        (alone,) = generate(pair.edge, soft, [prompt], Options(max_tokens=5), eos_id=3, loc=LOC)
        same(found, alone)


def test_several_pictures_under_one_prompt(pair):
    pixels = tiny.random_pixels(pair.model.config, 3).numpy()
    answers = []
    for network in (pair.torch, pair.edge):
        soft = network.encode(pixels)
        answers += generate(network, soft.reshape(1, -1, soft.shape[-1]), [[2, 31, 7]], Options(max_tokens=5), eos_id=3, loc=LOC)
    same(answers[1], answers[0])


def test_rows_that_join_and_leave_answer_as_alone(pair):
    """Questions of unequal length, in a batch of two, against the model's own answers one by one."""
    pixels = tiny.random_pixels(pair.model.config, len(PROMPTS)).numpy()
    options = [Options(max_tokens=9), Options(max_tokens=3), Options(max_tokens=6, temperature=1.3, seed=5), Options(max_tokens=4, beams=2)]
    jobs = [Job(prompt, how, pixels=one) for prompt, how, one in zip(PROMPTS, options, pixels, strict=True)]
    batch = ContinuousBatch(pair.edge, eos_id=3, loc=LOC, rows=3)
    for job in jobs:
        batch.submit(job)
    while batch.busy:
        batch.step()
    for job, one in zip(jobs, pixels, strict=True):
        (expected,) = generate(pair.torch, pair.torch.encode(one[None]), [job.prompt], job.options, eos_id=3, loc=LOC)
        same(job.outcome, expected)


@pytest.mark.parametrize("lengths", [([3, 9], [5]), ([2], [9, 4, 4]), ([6], [6])])
def test_caches_side_by_side(lengths):
    generator = np.random.default_rng(0)
    caches = []
    for own in lengths:
        cache = Cache(tiny.GEMMA_2, len(own), max(own) + 4, np.float32)
        cache.keys[:], cache.values[:] = generator.normal(size=cache.keys.shape), generator.normal(size=cache.values.shape)
        cache.lengths[:] = own
        caches.append(cache)
    joined = caches[0].join(caches[1])
    rows = [(cache, row) for cache in caches for row in range(len(cache.lengths))]
    assert joined.lengths.tolist() == [length for own in lengths for length in own]
    for place, (cache, row) in enumerate(rows):
        filled = slice(cache.lengths[row])
        np.testing.assert_array_equal(joined.keys[:, place, filled], cache.keys[:, row, filled])
        np.testing.assert_array_equal(joined.values[:, place, filled], cache.values[:, row, filled])
        assert joined.keys.shape[2] >= cache.keys.shape[2], "there is room for as long an answer as before"


def test_a_pack_says_what_it_is_and_takes_no_adapter(pair):
    assert "float32 on cpu" in pair.edge.place
    assert pair.edge.config == pair.model.config
    with pytest.raises(UsageError, match="no adapter 'birds'"):
        pair.edge.use_adapter("birds")
    with pytest.raises(ValueError, match="2 pictures for 3 prompts"):
        pair.edge.begin(np.zeros((2, 4, 32), np.float32), [[2], [2], [2]], 4)


@pytest.mark.parametrize(("quantize", "apart"), [("bf16", 0.03), ("int8", 0.12), ("int4", 0.9)])
@pytest.mark.parametrize("name", tiny.TINY)
def test_quantized_logits_are_near(tmp_path, name, quantize, apart):
    """Relative to the spread of the logits. Tiny random models forgive less than trained ones."""
    model = tiny.random_model(tiny.TINY[name])
    source = save_huggingface(model, tmp_path / "model")
    exact, near = (EdgeNetwork(pack_model(source, tmp_path / kind, kind)) for kind in ("float32", quantize))
    pixels = tiny.random_pixels(model.config, 2).numpy()
    logits = []
    for network in (exact, near):
        rows = network.begin(network.encode(pixels), PROMPTS[:2], 2)
        logits.append(network.decoder.logits(rows.hidden))
        rows.extend([9, 11])
        logits.append(network.decoder.logits(rows.hidden))
    for one, other in zip(logits[:2], logits[2:], strict=True):
        assert 0 < np.abs(one - other).mean() / one.std() < apart


def test_instruction_sets_agree(tmp_path):
    if not native.available():
        pytest.skip("the kernels are not compiled")
    model = tiny.random_model(tiny.TINY_2)
    folder = pack_model(save_huggingface(model, tmp_path / "model"), tmp_path / "pack", "int8")
    pixels = tiny.random_pixels(model.config, 2).numpy()
    networks = [EdgeNetwork(folder, kernels) for kernels in (plain, *(native.Kernels(2, isa) for isa in native.instruction_sets()))]
    hidden = [network.begin(network.encode(pixels), PROMPTS[:2], 2).hidden for network in networks]
    for one in hidden[1:]:
        np.testing.assert_allclose(one, hidden[0], atol=0.05)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no compiler")
def test_where_there_is_a_compiler_there_are_kernels():
    assert native.problem() is None
