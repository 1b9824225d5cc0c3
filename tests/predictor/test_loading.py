"""From what the user names to a predictor: files found, devices and number types chosen, what is refused and why."""

import dataclasses
import json

import pytest
import torch

from paligemma import checkpoint
from paligemma.checkpoint import finding
from paligemma.checkpoint.finding import find
from paligemma.errors import CheckpointError, ResourceError, UsageError
from paligemma.predictor import Predictor, load
from paligemma.predictor.loading import device_of
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore::paligemma.predictor.CutShort")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = checkpoint.save_huggingface(tiny.tiny_model(), tmp_path_factory.mktemp("models") / "tiny")
    tiny.tiny_tokenizer().save(folder)
    checkpoint.save_codec(tiny.random_codec(), folder)
    (folder / "calibration.json").write_text(json.dumps({"box": {"a": 2, "b": 1}}))
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A bare big_vision archive of a PaliGemma 2."""
    return checkpoint.save_npz(tiny.tiny_model(version=2), tmp_path_factory.mktemp("archives") / "tiny.npz")


def test_a_folder_holds_everything(folder, picture):
    model = load(folder, device="cpu")
    expected = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer(), tiny.random_codec())
    assert model.caption(picture, max_tokens=6).to_dict() == expected.caption(picture, max_tokens=6).to_dict()
    assert model.segment(picture, "cat", max_objects=1).masks[0].codes == expected.segment(picture, "cat", max_objects=1).masks[0].codes
    assert model.calibration.parameters == {"box": (2.0, 1.0)}
    assert str(folder) in model.description
    assert not any(parameter.requires_grad for parameter in model.model.parameters())


def test_an_archive_needs_a_tokenizer(archive, folder, picture, tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer\.model") as caught:
        load(archive)
    assert "--tokenizer" in caught.value.hint
    for tokenizer in (folder, folder / "tokenizer.model", tiny.tiny_tokenizer()):
        model = load(archive, tokenizer=tokenizer, device="cpu")
        assert model.codec is None
    model = load(archive, tokenizer=folder, codec=folder / "mask_codec.safetensors", device="cpu")
    assert model.refer(picture, "the cat", max_tokens=40).masks


def test_files_beside_an_archive_are_found(archive, folder, tmp_path):
    (tmp_path / "model.npz").write_bytes(archive.read_bytes())
    tiny.tiny_tokenizer().save(tmp_path)
    checkpoint.save_codec(tiny.random_codec(), tmp_path / "vae-oid.npz")
    for path in (tmp_path, tmp_path / "model.npz"):
        assert load(path, device="cpu").codec is not None


@pytest.mark.parametrize(("dtype", "expected"), [(None, "float32"), ("bfloat16", "bfloat16"), (torch.bfloat16, "bfloat16")])
def test_number_types(folder, picture, dtype, expected):
    model = load(folder, device="cpu", dtype=dtype)
    assert str(model.model.dtype) == f"torch.{expected}"
    assert expected in model.description
    assert model.detect(picture, "cat", max_objects=1).stop == "grammar"


def test_paligemma_2_is_kept_out_of_float16(archive, folder, tmp_path):
    with pytest.raises(UsageError, match="float16"):
        load(archive, tokenizer=folder, dtype="float16")
    half = checkpoint.save_npz(tiny.tiny_model(version=2), tmp_path / "half.npz", dtype="float16")
    assert load(half, tokenizer=folder, device="cpu").model.dtype == torch.bfloat16


def test_the_tokenizer_must_fit_the_model(tmp_path):
    small = checkpoint.save_huggingface(tiny.random_model(tiny.TINY_1), tmp_path / "small")
    with pytest.raises(CheckpointError, match=r"1,552 tokens.*211"):
        load(small, tokenizer=tiny.tiny_tokenizer())


def test_nor_may_it_be_too_small(folder, tmp_path):
    config = dataclasses.replace(tiny.TINY_1, text=dataclasses.replace(tiny.TINY_1.text, vocab_size=1600))
    large = checkpoint.save_huggingface(tiny.random_model(config), tmp_path / "large")
    with pytest.raises(CheckpointError, match=r"1,552 tokens.*1,600"):
        load(large, tokenizer=tiny.tiny_tokenizer())


@pytest.mark.parametrize("device", ["gpu", "cpu!"])
def test_devices_that_do_not_exist(device):
    with pytest.raises(UsageError, match="not the name of a device"):
        device_of(device)


def test_devices_that_are_not_here():
    with pytest.raises(ResourceError, match="cuda:77"):
        device_of("cuda:77")
    assert device_of("cpu") == torch.device("cpu")


def test_number_types_that_do_not_exist(folder):
    for wrong in ("int3", torch.int8, "float64"):
        with pytest.raises(UsageError, match="number type"):
            load(folder, dtype=wrong)


def test_names_are_looked_up(folder, monkeypatch, tmp_path):
    assert find(folder) == folder
    monkeypatch.setattr(finding, "BUNDLED", folder.parent)
    monkeypatch.setattr(finding, "DEFAULT", "tiny")
    assert find(None) == find("bundled") == find("tiny") == folder
    with pytest.raises(CheckpointError) as caught:
        find("tinny")
    assert "'tiny'" in caught.value.hint
    monkeypatch.setattr(finding, "DEFAULT", "absent")
    with pytest.raises(CheckpointError, match="no bundled model"):
        find(None)


def test_a_hub_id_is_found_in_the_cache_or_said_how_to_fetch(folder, monkeypatch):
    monkeypatch.setattr(finding, "cached", lambda name: folder if name == "google/here" else None)
    assert find("google/here") == folder
    with pytest.raises(CheckpointError, match="neither a folder here nor") as caught:
        find("google/paligemma2-3b-mix-224")
    assert "paligemma pull google/paligemma2-3b-mix-224" in caught.value.hint
    monkeypatch.chdir(folder.parent.parent)
    with pytest.raises(CheckpointError, match="no such file") as caught:
        find(f"{folder.parent.name}/tinyy")
    assert "'tiny'" in caught.value.hint


def test_a_misspelt_file_gets_a_suggestion(folder):
    with pytest.raises(CheckpointError, match="no such file") as caught:
        load(folder.parent / "tinyy")
    assert "'tiny'" in caught.value.hint


def test_a_damaged_calibration_is_refused(folder, tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.model"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "calibration.json").write_text('{"box": 1}')
    with pytest.raises(CheckpointError, match=r"calibration\.json"):
        load(tmp_path)


def test_another_engine_and_fewer_bits(folder, picture):
    plain, static = load(folder, device="cpu"), load(folder, device="cpu", engine="static")
    found, expected = (model.detect(picture, "cat ; dog", max_objects=2) for model in (static, plain))
    assert found.text == expected.text
    assert [box.score for box in found.boxes] == pytest.approx([box.score for box in expected.boxes], abs=1e-4)
    seen = static.encode(picture)
    assert static.caption(seen, max_tokens=6, beams=2).text == plain.caption(picture, max_tokens=6, beams=2).text
    assert "static shapes" in static.description
    for kind in ("int8", "int4"):
        rounded = [load(folder, device="cpu", quantize=kind, engine=engine) for engine in (None, "static")]
        texts = [model.caption(picture, max_tokens=6).text for model in rounded]
        assert texts[0] == texts[1]


@pytest.mark.parametrize(("how", "words"), [({"engine": "steam"}, "no engine 'steam'"), ({"quantize": "int3"}, "not 'int3'")])
def test_engines_and_bits_that_do_not_exist(folder, how, words):
    with pytest.raises(UsageError, match=words):
        load(folder, device="cpu", **how)
