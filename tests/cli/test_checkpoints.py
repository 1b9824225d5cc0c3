"""The commands about checkpoints, on a tiny model in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paligemma.checkpoint import inspect, save_huggingface
from paligemma.config import PRESETS

from ..tiny import TINY_1, random_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_huggingface(random_model(TINY_1), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def test_models_lists_every_preset_with_its_size(call):
    out = call("models").out
    assert all(name in out for name in PRESETS)
    assert "2.92 billion" in out


def test_models_as_json(call):
    (record,) = call("models", "--json").records
    row = next(row for row in record["published"] if row["name"] == "paligemma2-10b-448")
    assert row == {
        "name": "paligemma2-10b-448",
        "version": 2,
        "resolution": 448,
        "image_tokens": 1024,
        "parameters": PRESETS["paligemma2-10b-448"].num_parameters,
        "bfloat16_bytes": 2 * PRESETS["paligemma2-10b-448"].num_parameters,
    }


def test_info_says_what_it_is(tiny, call):
    done = call("info", tiny)
    assert done.code == 0
    assert f"{TINY_1.num_parameters:,}" in done.out
    (record,) = call("info", tiny, "--json").records
    assert record["parameters"] == TINY_1.num_parameters
    assert record["format"] == "huggingface"
    assert record["problems"] == []


def test_info_of_something_that_would_not_load_is_code_4(tiny, tmp_path, call):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes())
    config = json.loads((tiny / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] += 1
    (broken / "config.json").write_text(json.dumps(config))
    done = call("info", broken)
    assert done.code == 4
    assert "problems" in done.out


@pytest.mark.parametrize("command", [["info"], ["convert", "--", "out.npz"]])
def test_a_model_that_is_not_there_is_code_4(command, call, tmp_path):
    name, *rest = command
    done = call(name, tmp_path / "nothing", *rest)
    assert done.code == 4
    assert done.err.startswith("error[not_found]")


def test_convert_there_and_back(tiny, call, tmp_path):
    done = call("convert", tiny, tmp_path / "tiny.npz")
    assert done.code == 0
    assert inspect(tmp_path / "tiny.npz").format == "big_vision"
    assert call("convert", tmp_path / "tiny.npz", tmp_path / "again", "--dtype", "bfloat16").code == 0
    assert inspect(tmp_path / "again").dtype == "bfloat16"


def test_convert_does_not_overwrite_unless_told(tiny, call, tmp_path):
    target = tmp_path / "tiny.npz"
    assert call("convert", tiny, target).code == 0
    assert call("convert", tiny, target).code == 2
    assert call("convert", tiny, target, "--overwrite").code == 0


def test_pull_says_where_it_is_and_how_to_use_it(call, monkeypatch):
    monkeypatch.setattr("paligemma.checkpoint.hub.pull", lambda name: Path("/somewhere") / name)
    out = call("pull", "google/paligemma2-3b-mix-224").out
    assert "google/paligemma2-3b-mix-224 is in /somewhere/google/paligemma2-3b-mix-224" in out
    assert "--model google/paligemma2-3b-mix-224" in out


def test_pull_of_what_is_no_id_is_code_2(call):
    assert call("pull", "../x").code == 2
