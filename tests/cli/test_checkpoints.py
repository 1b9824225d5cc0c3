"""The commands about checkpoints, on a tiny model in a folder of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from paligemma.checkpoint import inspect, load_model, save_adapter, save_huggingface
from paligemma.config import PRESETS, preset
from paligemma.model.lora import LoraConfig

from ..model.adapted import adapted, logits
from ..tiny import TINY_1, TINY_2, random_model


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


def sums(folder: Path, *names: str) -> Path:
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    path = folder.parent / "SHA256SUMS"
    path.write_text("".join(lines))
    return path


def test_info_compares_checksums(tiny, call, tmp_path):
    copy = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    manifest = sums(copy, "model.safetensors", "config.json")
    for named in (copy, copy / "model.safetensors"):
        done = call("info", named, "--verify-sha256", manifest)
        assert done.code == 0
        assert f"{copy / 'config.json'}: SHA-256 as listed" in done.out
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert call("info", copy).code == 0, "the bit left a number a number"
    done = call("info", copy, "--verify-sha256", manifest)
    assert done.code == 4
    assert done.err.startswith("error[sha256_differs]")
    assert "model.safetensors: SHA-256" in done.err


def test_info_names_the_damaged_file_although_it_cannot_be_opened(tiny, call, tmp_path):
    copy = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    manifest = sums(copy, "model.safetensors")
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-100])
    assert call("info", copy, "--verify-sha256", manifest).err.startswith("error[sha256_differs]")


def test_info_says_which_weights_a_manifest_leaves_out(tiny, call, tmp_path):
    copy = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    (record,) = call("info", copy, "--json", "--verify-sha256", sums(copy, "config.json")).records
    assert record["compared"] == [f"{copy / 'config.json'}: SHA-256 as listed"]
    (warning,) = record["warnings"]
    assert warning.startswith("model.safetensors was not compared")


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


def test_convert_says_what_it_left_out_and_what_looks_odd(call, tmp_path):
    text = dataclasses.replace(preset("paligemma-3b-224").text, width=4, depth=1, mlp_dim=4, heads=1, head_dim=2)
    model = random_model(dataclasses.replace(TINY_1, text=text)).bfloat16()
    model.text.norm.float()
    model.projector.bias.data.zero_()
    save_huggingface(model, tmp_path / "hf")
    done = call("convert", tmp_path / "hf", tmp_path / "x.npz")
    assert done.code == 0
    assert done.lines == [
        f"{tmp_path / 'x.npz'}: big_vision, mixed",
        "not taken along: 64 rows of the embedding table that stand for no token",
        "only zeros: projector.bias",
    ]
    assert done.err.startswith("warning: model.safetensors: the tensors are of several number types (bfloat16, float32)")
    done = call("convert", tmp_path / "x.npz", tmp_path / "wide", "--dtype", "float32")
    assert done.lines == [f"{tmp_path / 'wide'}: huggingface, float32", "only zeros: projector.bias"]


def test_convert_counts_the_zeros_it_does_not_name(call, tmp_path):
    model = random_model(TINY_1)
    for parameter in model.parameters():
        parameter.data.zero_()
    line = call("convert", save_huggingface(model, tmp_path / "hf"), tmp_path / "x.npz").lines[-1]
    names = line.removeprefix("only zeros: ").split(" and ")[0].split(", ")
    assert len(names) == 8
    assert line.endswith(f" and {len(model.state_dict()) - 8} more")


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
    assert call("pull", "a/b@c", "--revision", "d").code == 2


BRANCH = "google/paligemma-3b-pt-224@bfloat16"


@pytest.mark.parametrize("words", [["google/paligemma-3b-pt-224", "--revision", "bfloat16"], [BRANCH]])
def test_what_was_pulled_from_a_branch_is_listed_and_found_as_it_says(words, tiny, call, monkeypatch, tmp_path):
    repo = tmp_path / "cache" / "models--google--paligemma-3b-pt-224"

    def snapshot_download(name, *, revision, local_files_only=False, **_):
        assert name == "google/paligemma-3b-pt-224"
        if local_files_only and revision != "bfloat16":
            raise LocalEntryNotFoundError(name)
        return str(repo / "snapshots" / ("0" * 40))

    shutil.copytree(tiny, repo / "snapshots" / ("0" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "bfloat16").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    done = call("pull", *words)
    assert done.lines[0] == f"{BRANCH} is in {repo / 'snapshots' / ('0' * 40)}"
    assert done.lines[1].endswith(f"--model {BRANCH}")
    (record,) = call("models", "--json").records
    assert BRANCH in [local["name"] for local in record["local"]]
    assert "google/paligemma-3b-pt-224" not in [local["name"] for local in record["local"]]
    assert call("info", BRANCH).code == 0


def test_names_cannot_steer_a_terminal(tiny, call, monkeypatch, tmp_path):
    odd = Path(shutil.copytree(tiny, tmp_path / "odd\x1b[31m"))
    (odd / "tokenizer.model").touch()
    monkeypatch.setattr("paligemma.checkpoint.hub.pull", lambda name: odd)
    monkeypatch.setattr("paligemma.cli.checkpoints.local_models", lambda: [("odd", odd)])
    commands = [["models"], ["info", odd], ["pull", "a/b"], ["convert", odd, tmp_path / "new\x1b[31m" / "x.npz"]]
    for command in commands:
        done = call(*command)
        assert done.code == 0
        assert r"\x1b[31m" in done.out
        assert "\x1b" not in done.out


@pytest.fixture(scope="module")
def adapter(tiny) -> Path:
    """Of the tiny model, in a folder with a blank in its name."""
    lora = LoraConfig(rank=4, alpha=12, targets=("text.blocks.*.attn.q", "projector"))
    return save_adapter(adapted(lora=lora), tiny.parent / "an adapter", base=tiny)


def test_info_of_an_adapter(tiny, adapter, call):
    done = call("info", adapter)
    assert done.code == 0
    assert "LoRA, rank 4, alpha 12" in done.out
    assert str(tiny) in done.out
    assert "model.language_model.layers.*.self_attn.q_proj (3)" in done.out
    (record,) = call("info", adapter, "--json").records
    assert record["parameters"] == 4 * (24 + 32) + 3 * 4 * (32 + 64)
    assert record["base"] == record["base_found"] == str(tiny)
    assert record["problems"] == []
    manifest = sums(adapter, "adapter_model.safetensors")
    done = call("info", adapter, "--verify-sha256", manifest)
    assert done.code == 0
    assert "adapter_config.json was not compared" in done.out


def test_info_of_an_adapter_and_another_base(tiny, adapter, call, tmp_path):
    other = save_huggingface(random_model(TINY_2), tmp_path / "other")
    done = call("info", adapter, "--base", other)
    assert done.code == 4
    assert "has shape (4, 32), expected (4, 40)" in done.out
    assert call("info", adapter, "--base", "nowhere").code == 4
    assert call("info", tiny, "--base", other).code == 2
    alone = save_adapter(adapted(), tmp_path / "alone", base="google/paligemma-3b-pt-224")
    done = call("info", alone)
    assert done.code == 0
    assert "paligemma pull" in done.out or "neither a folder here" in done.out
    assert "base found          no" in done.out


def test_convert_merges_an_adapter(tiny, adapter, call, tmp_path):
    done = call("convert", adapter, tmp_path / "merged")
    assert done.code == 0
    assert f"{tiny} with the adapter {adapter} added to 4 of its layers" in done.out
    together = logits(adapted(lora=LoraConfig(rank=4, alpha=12, targets=("text.blocks.*.attn.q", "projector"))))
    torch.testing.assert_close(logits(load_model(tmp_path / "merged")), together, rtol=1e-4, atol=1e-4)
    assert call("convert", adapter, tmp_path / "merged.npz", "--base", tiny).code == 0
    torch.testing.assert_close(logits(load_model(tmp_path / "merged.npz")), together, rtol=1e-4, atol=1e-4)
    assert call("convert", tiny, tmp_path / "x", "--base", tiny).code == 2
    other = save_huggingface(random_model(TINY_1, 3), tmp_path / "other")
    done = call("convert", adapter, tmp_path / "x", "--base", other)
    assert done.code == 4
    assert "trained on other weights" in done.err
