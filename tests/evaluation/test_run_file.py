"""run.json: what it says of a model and its data, and when predictions of two runs may be mixed."""

import dataclasses
import os

import pytest

from paligemma import checkpoint
from paligemma.engine.scores import Calibration
from paligemma.errors import InputError, UsageError
from paligemma.evaluation import run_file
from paligemma.evaluation.run_file import Run, calibration_of, describe_run, fingerprint
from paligemma.predictor import load
from tests import tiny
from tests.evaluation.making import StandIn, dataset, question


@pytest.fixture
def run(tmp_path) -> Run:
    model = StandIn(calibration=Calibration({"box": (2.0, 1.0)}))
    return describe_run(model, dataset([question(tmp_path, 1)]), options={"beams": 2})  # type: ignore[arg-type]


def test_it_is_read_as_written(run, tmp_path):
    run.save(tmp_path)
    assert Run.load(tmp_path) == run
    assert calibration_of(run).parameters == {"box": (2.0, 1.0)}
    assert calibration_of(None).parameters == {}
    assert Run.load(tmp_path / "nowhere") is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"calibration": 3}', '{"calibration": {}, "model": 1}'])
def test_what_is_none_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match="does not describe an evaluation"):
        Run.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_fingerprint": "x"}, "the model differ"),
        ({"data_fingerprint": "x"}, "the data differ"),
        ({"options": {"beams": 3}}, "the options differ"),
        ({"calibration": {"box": (2.0, 1.5)}}, "the model's calibration differ"),
        ({"model_fingerprint": "x", "data_fingerprint": "y"}, "the model and the data differ"),
    ],
)
def test_other_runs_are_refused(run, tmp_path, change, words):
    with pytest.raises(UsageError, match=words):
        dataclasses.replace(run, **change).check_same(run, tmp_path)


def test_the_same_run_described_again_is_the_same(run, tmp_path):
    run.save(tmp_path)
    again = dataclasses.replace(run, records=99, description="moved")
    before = Run.load(tmp_path)
    assert before is not None
    again.check_same(before, tmp_path)


def test_a_model_from_files_has_their_fingerprint(tmp_path):
    folder = checkpoint.save_huggingface(tiny.tiny_model(), tmp_path / "tiny-mix")
    tiny.tiny_tokenizer().save(folder)
    other = checkpoint.save_huggingface(tiny.tiny_model(seed=1), tmp_path / "other")
    tiny.tiny_tokenizer().save(other)
    data = dataset([question(tmp_path, 1)])
    first = describe_run(load(folder, device="cpu"), data)
    assert first.model == "" != first.model_fingerprint, "not of a published size"
    assert first.is_mix
    assert not dataclasses.replace(first, model_path="/models/mixed").is_mix
    assert describe_run(load(folder, device="cpu"), data).model_fingerprint == first.model_fingerprint
    assert describe_run(load(other, device="cpu"), data).model_fingerprint != first.model_fingerprint


def test_the_fingerprint_is_of_what_is_in_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(run_file, "_WHOLE", 64)
    monkeypatch.setattr(run_file, "_STRIDE", 32)
    monkeypatch.setattr(run_file, "_SAMPLE", 8)
    weights = tmp_path / "model.safetensors"
    numbers = bytearray(range(200))
    weights.write_bytes(numbers)
    first = fingerprint(tmp_path)
    os.utime(weights, (1, 1))
    assert fingerprint(tmp_path) == first
    for place, seen in ((0, True), (63, True), (66, True), (75, False), (197, True)):
        weights.write_bytes(bytes(255 if at == place else value for at, value in enumerate(numbers)))
        assert (fingerprint(tmp_path) != first) is seen, place
    weights.write_bytes(numbers + b"more")
    assert fingerprint(tmp_path) != first


def test_a_published_size_is_named(tmp_path):
    from paligemma.config import PRESETS

    model = StandIn()
    model.config = dataclasses.replace(PRESETS["paligemma2-10b-448"], name="mine", resize="bilinear")
    run = describe_run(model, dataset([question(tmp_path, 1)]))  # type: ignore[arg-type]
    assert (run.model, run.resolution, run.model_fingerprint) == ("paligemma2-10b", 448, "")
