"""What is named becomes an encoder, or one sentence says why not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch

from paligemma.checkpoint import finding
from paligemma.checkpoint.dual_load import save_dual_encoder
from paligemma.embedding import load_encoder, loading
from paligemma.errors import CheckpointError, ResourceError, UsageError
from tests.checkpoint.making import hf_folder
from tests.encoders import big_vision_arrays, our_encoder, their_encoder, with_vocabulary
from tests.tiny import TOKENIZER_VOCAB, tiny_tokenizer


def test_a_folder(siglip_2):
    encoder = load_encoder(siglip_2)
    assert encoder.model.logit_scale.dtype == torch.float32
    assert not any(p.requires_grad for p in encoder.model.parameters())


def test_small_ones_compute_in_float32_on_a_cpu(tmp_path, monkeypatch):
    save_dual_encoder(our_encoder(with_vocabulary(TOKENIZER_VOCAB)), tmp_path, dtype="bfloat16")
    tiny_tokenizer().save(tmp_path)
    assert load_encoder(tmp_path, device="cpu").model.logit_scale.dtype == torch.float32
    assert load_encoder(tmp_path, device="cpu", dtype="bfloat16").model.logit_scale.dtype == torch.bfloat16
    monkeypatch.setattr(loading, "SMALL", 1)
    assert load_encoder(tmp_path, device="cpu").model.logit_scale.dtype == torch.bfloat16


def test_in_bfloat16_vectors_are_nearly_the_same(siglip_2):
    exact, rounded = (load_encoder(siglip_2, device="cpu", dtype=dtype).texts(["a cat", "two dogs"]) for dtype in ("float32", "bfloat16"))
    assert rounded.dtype == np.float32
    assert (exact * rounded).sum(1).min() > 0.99


def test_an_archive_with_its_vocabulary(tmp_path):
    config = with_vocabulary(TOKENIZER_VOCAB)
    np.savez(tmp_path / "siglip2.npz", **big_vision_arrays(their_encoder(config), scanned=True))
    with pytest.raises(CheckpointError, match="no vocabulary for texts"):
        load_encoder(tmp_path / "siglip2.npz")
    tiny_tokenizer().save(tmp_path)
    assert load_encoder(tmp_path / "siglip2.npz").texts(["a cat"]).shape == (1, config.dimensions)


def test_a_paligemma(tmp_path):
    with pytest.raises(CheckpointError, match="is no SigLIP") as error:
        load_encoder(hf_folder(tmp_path / "paligemma"))
    assert error.value.code == "no_encoder"


def test_without_a_name_the_bundled_one(siglip_2, tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "BUNDLED", tmp_path)
    with pytest.raises(CheckpointError, match="no bundled model nano-siglip"):
        load_encoder()
    (tmp_path / "nano-siglip").symlink_to(siglip_2)
    assert load_encoder().name == load_encoder(siglip_2).name == load_encoder("nano-siglip").name
    assert (finding.bundled_encoders(), finding.bundled_models()) == (["nano-siglip"], [])


def test_without_torch(siglip_2, monkeypatch):
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == "torch" else importlib.util.find_spec(name))
    with pytest.raises(ResourceError, match="search needs PyTorch"):
        load_encoder(siglip_2)


@pytest.mark.parametrize(("how", "told"), [({"device": "moon"}, "not the name of a device"), ({"dtype": "int7"}, "no number type")])
def test_what_does_not_exist(siglip_2, how, told):
    with pytest.raises(UsageError, match=told):
        load_encoder(siglip_2, **how)


def test_importing_is_light():
    """What says which vectors an index holds must not wait for PyTorch."""
    code = "import sys, paligemma.embedding.loading, paligemma.embedding.words; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
