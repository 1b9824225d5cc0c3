"""A pack's engine: its caches, how near quantized numbers come, and its kernels. Equality: `tests/engine/test_equality.py`."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from paligemma.checkpoint import save_huggingface
from paligemma.edge import native, plain
from paligemma.edge.decoder import Cache
from paligemma.edge.network import EdgeNetwork
from paligemma.edge.pack_file import WEIGHTS, read_in, read_index
from paligemma.edge.packer import pack_model
from paligemma.errors import CheckpointError, UsageError
from tests import tiny

PROMPTS = [[2, 31, 7], [2, 40, 41, 42, 43, 7], [2, 7], [2, 90, 12, 5, 7]]


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


def test_a_pack_says_what_it_is_and_takes_no_adapter(tmp_path):
    model = tiny.random_model(tiny.TINY_1)
    network = EdgeNetwork(pack_model(save_huggingface(model, tmp_path / "model"), tmp_path / "pack", "float32"))
    assert "float32 on cpu" in network.place
    assert network.config == model.config
    with pytest.raises(UsageError, match="no adapter 'birds'"):
        network.use_adapter("birds")
    with pytest.raises(ValueError, match="2 pictures for 3 prompts"):
        network.begin(np.zeros((2, 4, 32), np.float32), [[2], [2], [2]], 4)


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


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("name", tiny.TINY)
def test_a_step_in_one_call_is_that_of_many(tmp_path, name, quantize):
    """Bit for bit, on every instruction set, with rows of unequal length."""
    if not native.available():
        pytest.skip("the kernels are not compiled")
    model = tiny.random_model(tiny.TINY[name])
    folder = pack_model(save_huggingface(model, tmp_path / "model"), tmp_path / "pack", quantize)
    pixels = tiny.random_pixels(model.config, 4).numpy()
    for isa in native.instruction_sets():
        networks = [EdgeNetwork(folder, native.Kernels(2, isa)) for _ in range(2)]
        assert networks[0].decoder.stack is not None
        networks[1].decoder.stack = None
        rows = [network.begin(network.encode(pixels), PROMPTS, 3) for network in networks]
        for ids in ([9, 11, 3, 25], [4, 4, 8, 15], [1, 2, 3, 4]):
            for one in rows:
                one.extend(ids)
            np.testing.assert_array_equal(rows[0].hidden, rows[1].hidden)
        for row, length in enumerate(rows[0].cache.lengths):
            for one, other in zip(*((each.cache.keys, each.cache.values) for each in rows), strict=True):
                np.testing.assert_array_equal(one[:, row, :length], other[:, row, :length])


def test_a_pack_in_memory_outlives_its_file(tmp_path):
    model = tiny.random_model(tiny.TINY_1)
    folder = pack_model(save_huggingface(model, tmp_path / "model"), tmp_path / "pack", "int8")
    pixels = tiny.random_pixels(model.config, 1).numpy()
    mapped, held = EdgeNetwork(folder), EdgeNetwork(read_in(folder, read_index(folder)))
    expected = mapped.begin(mapped.encode(pixels), PROMPTS[:1], 2).hidden
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(100)
    np.testing.assert_array_equal(held.begin(held.encode(pixels), PROMPTS[:1], 2).hidden, expected)
    with pytest.raises(CheckpointError, match="has 100 bytes"):
        read_index(folder)
