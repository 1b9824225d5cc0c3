"""`doctor` on packs and on checkpoints without PyTorch: a healthy one passes, each kind of damage is found by the check that is for it."""

from __future__ import annotations

import numpy as np
import pytest

from paligemma import doctor, load
from paligemma.checkpoint import save_codec, save_huggingface
from paligemma.cli import main
from paligemma.doctor import pack_checks
from paligemma.edge import native
from paligemma.edge.decoder import Decoder
from paligemma.edge.pack_file import WEIGHTS, read_index
from paligemma.edge.packer import pack_model
from paligemma.predictor.packs import open_small
from tests import tiny

NAMES = ["files", "tokenizer", "resize", "image tower", "finite numbers", "kernels", "cache", "batch", "grammar"]


@pytest.fixture(scope="module", params=[1, 2])
def source(request, tmp_path_factory):
    folder = save_huggingface(tiny.tiny_model(version=request.param), tmp_path_factory.mktemp("source") / "model")
    tiny.tiny_tokenizer().save(folder)
    save_codec(tiny.random_codec(), folder / "mask_codec.safetensors")
    return folder


@pytest.fixture
def pack(source, tmp_path):
    return pack_model(source, tmp_path / "pack", "float32")


def failed(predictor) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.check(predictor) if not check.ok}


@pytest.mark.parametrize("quantize", ["float32", "bf16", "int8", "int4"])
def test_a_healthy_pack_passes(source, tmp_path, quantize):
    checks = doctor.check(load(pack_model(source, tmp_path / "pack", quantize)))
    assert [check for check in checks if not check.ok] == []
    assert [check.name for check in checks] == NAMES
    assert all(check.detail and not check.advice for check in checks)


def test_a_checkpoint_in_memory_passes(source):
    checks = doctor.check(open_small(source))
    assert [check.name for check in checks if check.ok] == NAMES[1:], "it has no files of its own to compare"


def test_damaged_bytes_are_found(pack):
    entry = read_index(pack).entries["text.blocks.1.mlp.down.weight"]
    data = bytearray((pack / WEIGHTS).read_bytes())
    data[entry.at + 5] ^= 1
    (pack / WEIGHTS).write_bytes(data)
    assert "text.blocks.1.mlp.down.weight" in failed(load(pack))["files"].detail


def test_numbers_that_are_not_finite_are_found(pack):
    entry = read_index(pack).entries["text.norm.weight"]
    data = bytearray((pack / WEIGHTS).read_bytes())
    data[entry.at : entry.at + 4] = np.float32("nan").tobytes()
    (pack / WEIGHTS).write_bytes(data)
    assert {"files", "finite numbers"} <= failed(load(pack)).keys()


@pytest.mark.skipif(not native.available(), reason="the kernels are not compiled")
def test_kernels_that_compute_something_else_are_found(pack, monkeypatch):
    rms_norm = native.Kernels.rms_norm
    monkeypatch.setattr(native.Kernels, "rms_norm", lambda self, x, weight, eps: rms_norm(self, x, weight, eps) * np.float32(1.01))
    found = failed(load(pack))
    assert set(found) == {"kernels"}
    assert found["kernels"].advice


def test_a_broken_cache_is_found(pack, monkeypatch):
    extend = Decoder.extend

    def forgetful(self, ids, cache):
        cache.values[:, :, :8] = 0
        return extend(self, ids, cache)

    monkeypatch.setattr(Decoder, "extend", forgetful)
    monkeypatch.setattr(pack_checks, "ANSWER_TOKENS", 12)
    assert set(failed(load(pack))) == {"cache"}


def test_forgotten_padding_is_found(pack, monkeypatch):
    read = Decoder.read
    monkeypatch.setattr(Decoder, "read", lambda self, x, lengths, cache: read(self, x, np.full_like(lengths, x.shape[1]), cache))
    assert set(failed(load(pack))) == {"batch"}


def test_the_command(pack, capsys):
    assert main(["doctor", "--model", str(pack)]) == 0
    out = capsys.readouterr().out
    assert "ok    files" in out
    assert out.endswith("all is well\n")
