"""The mask codec's files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from paligemma.checkpoint import find_codec, load_codec, save_codec
from paligemma.checkpoint.codec_layout import codec_shapes
from paligemma.errors import CheckpointError
from paligemma.model.mask_codec import MaskCodec
from tests.parity.golden import codec_arrays
from tests.tiny import random_codec


def same(codec, expected) -> bool:
    state = codec.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)


@pytest.mark.parametrize("name", ["mask_codec.safetensors", "vae-oid.npz", "other.npz"])
def test_there_and_back(tmp_path, name):
    codec = random_codec()
    assert save_codec(codec, tmp_path / name) == tmp_path / name
    loaded = load_codec(tmp_path / name)
    assert same(loaded, codec.state_dict())
    assert not loaded.training


def test_a_folder(tmp_path):
    assert save_codec(random_codec(), tmp_path) == find_codec(tmp_path) == tmp_path / "mask_codec.safetensors"
    assert same(load_codec(tmp_path), random_codec().state_dict())


def test_the_published_file(tmp_path):
    """Sizes are read off the shapes: 128 channels, 128 codes of 512."""
    arrays = codec_arrays()
    np.savez(tmp_path / "vae-oid.npz", **arrays)
    loaded = load_codec(tmp_path)
    assert same(loaded, {name: torch.from_numpy(array) for name, array in arrays.items()})
    assert loaded.codebook.shape == (128, 512)


def test_half_precision_becomes_float32(tmp_path):
    save_codec(random_codec().half(), tmp_path)
    assert same(load_codec(tmp_path), random_codec().half().float().state_dict())


@pytest.mark.parametrize(("width", "depth"), [(16, 8), (128, 512)])
def test_shapes_are_those_of_the_module(width, depth):
    with torch.device("meta"):
        state = MaskCodec(width, depth).state_dict()
    assert codec_shapes(width, depth) == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert list(codec_shapes(width, depth)) == list(state)


def tensors() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in random_codec().state_dict().items()}


BAD = {
    "missing": (lambda t: t.pop("encoder.0.bias"), "encoder.0.bias is missing"),
    "unknown": (lambda t: t.update(extra=torch.ones(1)), "extra is not part of the codec"),
    "misshapen": (lambda t: t.update({"encoder.0.bias": torch.ones(3)}), r"encoder.0.bias has shape \(3,\), expected \(2,\)"),
    "no codebook": (lambda t: t.pop("_vq_vae._embedding"), "not a mask codec"),
    "NaN": (lambda t: t["decoder.0.bias"].fill_(float("nan")), "decoder.0.bias: 16 NaN"),
    "another model": (lambda t: (t.clear(), t.update(a=torch.ones(1))), "not a mask codec"),
    "a huge width": (lambda t: t.update({"decoder.0.weight": torch.ones(8192, 1, 1, 1)}), "not a mask codec"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(tmp_path, case):
    damage, word = BAD[case]
    damage(state := tensors())
    save_file(state, tmp_path / "mask_codec.safetensors")
    with pytest.raises(CheckpointError, match=word):
        load_codec(tmp_path)


@pytest.mark.parametrize("rows", [64, 127, 256])
def test_a_codebook_has_a_row_for_each_mask_token(tmp_path, rows):
    save_codec(MaskCodec(16, 24, rows), tmp_path)
    with pytest.raises(CheckpointError, match=rf"_embedding has shape \({rows}, 24\), expected \(128, 24\)") as caught:
        load_codec(tmp_path)
    assert caught.value.code == "tensors_differ"


def test_models_that_lie_side_by_side_share_one(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    shared, own = save_codec(random_codec(1), tmp_path), save_codec(random_codec(2), tmp_path / "two")
    assert find_codec(tmp_path / "one") == shared
    assert find_codec(tmp_path / "two") == own
    monkeypatch.chdir(tmp_path / "one")
    assert find_codec(".") == shared


def test_nothing_there(tmp_path):
    assert find_codec(tmp_path) is None
    for path in (tmp_path, tmp_path / "vae-oid.npz"):
        with pytest.raises(CheckpointError) as caught:
            load_codec(path)
        assert caught.value.code == "no_codec"


def test_pickles_are_refused(tmp_path):
    torch.save(tensors(), tmp_path / "codec.pt")
    with pytest.raises(CheckpointError, match="pickle"):
        load_codec(tmp_path / "codec.pt")
    np.savez(tmp_path / "vae-oid.npz", a=np.array([{}], dtype=object))
    with pytest.raises(CheckpointError, match="pickle"):
        load_codec(tmp_path)
