"""A healthy model passes; each kind of damage is found by the check that is for it, and said in words."""

import json

import pytest
import torch

from paligemma import checkpoint, doctor
from paligemma.doctor import checks, pictures, reference
from paligemma.errors import CheckpointError
from paligemma.model.paligemma import PaliGemma
from paligemma.predictor import Predictor, load
from paligemma.tokenizer import Tokenizer
from tests import tiny


@pytest.fixture(params=[1, 2])
def predictor(request) -> Predictor:
    return Predictor(tiny.tiny_model(version=request.param), tiny.tiny_tokenizer())


def failed(predictor: Predictor) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.check(predictor) if not check.ok}


def test_a_healthy_model_passes(predictor):
    checks = doctor.check(predictor)
    assert [check for check in checks if not check.ok] == []
    assert {"tokenizer", "resize", "image tower", "embedding scale", "prefix mask", "cache", "batch", "finite numbers"} == {
        c.name for c in checks
    }
    assert all(check.detail and not check.advice for check in checks)


def test_a_healthy_model_passes_in_bfloat16():
    predictor = Predictor(tiny.tiny_model().bfloat16(), tiny.tiny_tokenizer())
    assert failed(predictor) == {}


def test_a_causal_prompt_is_found(predictor, monkeypatch):
    states = PaliGemma.hidden_states
    monkeypatch.setattr(
        PaliGemma, "hidden_states", lambda self, soft, ids, mask_ar, *a: states(self, soft, ids, torch.ones_like(mask_ar), *a)
    )
    assert "causally" in failed(predictor)["prefix mask"].detail


def test_a_leaking_answer_is_found(predictor, monkeypatch):
    states = PaliGemma.hidden_states
    monkeypatch.setattr(
        PaliGemma, "hidden_states", lambda self, soft, ids, mask_ar, *a: states(self, soft, ids, torch.zeros_like(mask_ar), *a)
    )
    wrong = failed(predictor)
    assert "before its time" in wrong["prefix mask"].detail
    assert wrong["prefix mask"].advice
    assert "cache" in wrong, "recomputing no longer equals decoding"


def test_a_scaled_picture_is_found(predictor, monkeypatch):
    join = PaliGemma._join
    monkeypatch.setattr(PaliGemma, "_join", lambda self, soft, ids: join(self, soft / 5, ids))
    assert "image x 0.20, expected 1" in failed(predictor)["embedding scale"].detail


def test_a_broken_cache_is_found(predictor, monkeypatch):
    extend = PaliGemma.extend

    def forgetful(self, ids, cache):
        cache.positions = cache.positions + 3
        return extend(self, ids, cache)

    monkeypatch.setattr(PaliGemma, "extend", forgetful)
    monkeypatch.setattr(checks, "ANSWER_TOKENS", 12)
    wrong = failed(predictor)
    assert set(wrong) == {"cache"}


def test_forgotten_padding_is_found(predictor, monkeypatch):
    prefill = PaliGemma.prefill
    monkeypatch.setattr(PaliGemma, "prefill", lambda self, soft, ids, valid, cache: prefill(self, soft, ids, None, cache))
    assert set(failed(predictor)) == {"batch"}


@pytest.mark.parametrize(
    ("encode", "found"),
    [
        (lambda ids, t: [id for id in ids if id not in t.loc], "ids of locations: "),
        (lambda ids, t: ids[:-1], "text encoded and decoded: "),
        (lambda ids, t: [t.bos_id, *ids], "control tokens made of typed text: "),
    ],
)
def test_a_tokenizer_that_damages_text_is_found(predictor, monkeypatch, encode, found):
    right = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text, **how: encode(right(self, text, **how), self))
    assert found in failed(predictor)["tokenizer"].detail


def test_a_tokenizer_of_another_size_is_found(predictor, monkeypatch):
    monkeypatch.setattr(predictor.tokenizer, "vocab_size", predictor.tokenizer.vocab_size + 1)
    assert "rows in the model" in failed(predictor)["tokenizer"].detail


def test_numbers_that_are_not_finite_are_found(predictor):
    with torch.no_grad():
        predictor.model.text.norm.weight[3] = float("nan")
    assert "final norm: NaN" in failed(predictor)["finite numbers"].detail


def test_a_dead_image_tower_is_found(predictor):
    with torch.no_grad():
        predictor.model.projector.weight.zero_()
    assert "image tower" in failed(predictor)


def test_another_resize_is_found(predictor, monkeypatch):
    right = pictures.to_pixels
    monkeypatch.setattr(pictures, "to_pixels", lambda image, size, resize: right(image, size, "bilinear"))
    assert "of 255 levels" in failed(predictor)["resize"].detail


def test_a_check_that_breaks_down_is_a_finding(predictor, monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(PaliGemma, "extend", broken)
    assert "RuntimeError: no kernel for this" in failed(predictor)["cache"].detail


@pytest.fixture
def folder(tmp_path):
    folder = checkpoint.save_huggingface(tiny.tiny_model(), tmp_path / "model")
    tiny.tiny_tokenizer().save(folder)
    doctor.write_reference(load(folder, device="cpu"))
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stored_outputs_are_compared(folder, dtype):
    checks = {check.name: check for check in doctor.check(load(folder, device="cpu", dtype=dtype))}
    assert checks["stored outputs"].ok, checks["stored outputs"]


def test_the_first_stage_that_differs_is_named(folder):
    predictor = load(folder, device="cpu")
    with torch.no_grad():
        predictor.model.text.blocks[1].mlp.down.weight.mul_(1.5)
    wrong = failed(predictor)
    assert set(wrong) == {"stored outputs"}
    assert wrong["stored outputs"].detail.startswith("decoder layer 1 is the first stage that differs")


def test_another_picture_size_or_damaged_reference_is_a_finding(folder):
    path = folder / reference.FILE_NAME
    stored = json.loads(path.read_text())
    stored["stages"]["projector"] = stored["stages"]["projector"][:5]
    path.write_text(json.dumps(stored))
    assert "projector" in failed(load(folder, device="cpu"))["stored outputs"].detail
    for damaged in ("{", "[]", "{}", '{"stages": {"pixels": "x"}}'):
        path.write_text(damaged)
        found = failed(load(folder, device="cpu"))["stored outputs"]
        assert "reference.json is damaged" in found.detail
        assert "delete it" in found.advice


def test_a_model_without_a_folder_has_nowhere_to_keep_a_reference(predictor):
    with pytest.raises(CheckpointError, match="folder"):
        doctor.write_reference(predictor)
