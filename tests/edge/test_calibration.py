"""What is kept of a model's inputs is what an independent count of them gives, and rounding by it keeps more of the model."""

from __future__ import annotations

import numpy as np
import pytest

from paligemma.checkpoint import save_huggingface
from paligemma.edge.calibration import BLOCK, observed
from paligemma.edge.layers import Plain
from paligemma.edge.network import EdgeNetwork
from paligemma.edge.packer import pack_model
from paligemma.engine.generate import generate
from paligemma.engine.options import Options
from tests import tiny

LOC = range(0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_huggingface(tiny.tiny_model(), tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(scope="module")
def network(model, tmp_path_factory):
    return EdgeNetwork(pack_model(model, tmp_path_factory.mktemp("pack") / "pack", "float32"))


def pictures(network: EdgeNetwork, count: int) -> np.ndarray:
    size = network.config.vision.image_size
    return np.random.default_rng(0).random((count, 3, size, size), np.float32) * 2 - 1


def answer(network: EdgeNetwork, pixels: np.ndarray, tokens: int = 3):
    soft = network.encode(pixels)
    return generate(network, soft, [[2, 7, 9 + i] for i in range(len(pixels))], Options(max_tokens=tokens), eos_id=-1, loc=LOC)


def test_moments_are_sums_over_all_inputs(network, monkeypatch):
    seen: dict[int, list[np.ndarray]] = {}
    linear = Plain.linear

    def watched(self, x, *rest, **more):
        seen.setdefault(id(self), []).append(x.copy())
        return linear(self, x, *rest, **more)

    monkeypatch.setattr(Plain, "linear", watched)
    named = {
        f"text.blocks.{i}.{name}.weight": block[name] for i, block in enumerate(network.decoder.blocks) for name in ("attn.q", "mlp.down")
    }
    with observed(network) as moments:
        answer(network, pictures(network, 2))
    for name, matrix in named.items():
        x = np.concatenate(seen[id(matrix)])
        assert len(moments[name]) == -(-x.shape[1] // BLOCK)
        np.testing.assert_allclose(moments[name][0], x.T @ x, rtol=1e-4, atol=1e-4)


def test_a_network_is_as_before_afterwards(network):
    before = [dict(block) for block in network.decoder.blocks], network.decoder.table
    with pytest.raises(KeyError), observed(network):
        raise KeyError
    assert ([dict(block) for block in network.decoder.blocks], network.decoder.table) == before


def test_rounding_by_data_keeps_more_of_each_product(model, network, tmp_path, monkeypatch):
    """Of all matrices with 4 bits, on the inputs that they were rounded by."""
    inputs: dict[int, list[np.ndarray]] = {}
    linear = Plain.linear
    with monkeypatch.context() as patch:

        def watched(self, x, *rest, **more):
            inputs.setdefault(id(self), []).append(x.copy())
            return linear(self, x, *rest, **more)

        patch.setattr(Plain, "linear", watched)
        with observed(network) as moments:
            answer(network, pictures(network, 6))
    packs = [EdgeNetwork(pack_model(model, tmp_path / str(n), "int4", moments=m)) for n, m in enumerate((None, moments))]
    for number, block in enumerate(network.decoder.blocks):
        for name in ("mlp.gate", "mlp.up", "mlp.down"):
            x = np.concatenate(inputs[id(block[name])])
            exact = linear(block[name], x)
            nearest, by_data = (float(np.square(pack.decoder.blocks[number][name].linear(x) - exact).mean()) for pack in packs)
            assert by_data < 0.9 * nearest, f"{name} of layer {number}"
