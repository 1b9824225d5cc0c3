"""The machine's limits: positive numbers of the right kind, for each engine."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from paligemma.benchmark import limits
from paligemma.checkpoint import save_huggingface
from paligemma.edge import native, plain
from paligemma.edge.network import EdgeNetwork
from paligemma.edge.packer import pack_model
from paligemma.engine.network import network_of
from tests import tiny


@pytest.fixture
def small(monkeypatch):
    """Too small to say anything about a machine, and quick."""
    monkeypatch.setattr(limits, "READ_BYTES", 2**20)
    monkeypatch.setattr(limits, "SIDE", {"cpu": 64, "cuda": 64})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = save_huggingface(tiny.tiny_model(), tmp_path_factory.mktemp("limits") / "model")
    tiny.tiny_tokenizer().save(folder)
    return folder


@pytest.mark.parametrize("threads", [1, 3])
def test_memory_is_read_without_kernels_too(small, threads):
    assert limits.memory_read(None, threads=threads, seconds=0.01) > 0


def test_limits_of_pytorch(small):
    network = network_of(tiny.tiny_model())
    assert limits.products_of(network) == "float32"
    found = limits.measure(network, 0.01)
    assert min(found.read, found.peak) > 0
    assert limits.threads_of(network) >= 1


@pytest.mark.parametrize(("quantize", "products"), [("int8", "8-bit"), ("int4", "8-bit"), ("bf16", "float32")])
def test_limits_of_a_pack(small, checkpoint, tmp_path, quantize, products):
    pack = pack_model(checkpoint, tmp_path / "pack", quantize)
    bare = EdgeNetwork(pack, plain)
    assert limits.products_of(bare) == "float32", "numpy multiplies floats"
    assert min(vars(limits.measure(bare, 0.01)).values()) > 0
    if native.available():
        network = EdgeNetwork(pack, native.Kernels(1))
        assert limits.products_of(network) == products
        assert limits.threads_of(network) == 1
        assert min(vars(limits.measure(network, 0.01)).values()) > 0


def test_a_cpu_without_bfloat16_multiplies_float32(monkeypatch):
    import torch

    from paligemma.model import cpu

    network = network_of(tiny.tiny_model().to(torch.bfloat16))
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: False)
    assert limits.products_of(network) == "float32"
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: True)
    assert limits.products_of(network) == "bfloat16"


def test_a_median_is_of_all_runs_but_the_first(monkeypatch):
    clock = iter(np.cumsum([0.0, 1.0, 0.0, 3.0, 0.0, 2.0]).tolist())
    monkeypatch.setattr(limits, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    done = []
    assert limits.median_seconds(lambda: done.append(1), 5.0) == 2.0
    assert len(done) == 4
