"""What `adapter_config.json` says: which base, and what is not supported, in one sentence each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from paligemma.checkpoint.adapter_config import find_base, inspect_adapter, is_adapter
from paligemma.checkpoint.adapters import load_adapter, save_adapter
from paligemma.errors import CheckpointError, UsageError
from paligemma.model.lora import LoraConfig, add_adapter
from tests.checkpoint.making import hf_folder
from tests.model.adapted import adapted
from tests.tiny import TINY_1, random_model

BASE = "google/paligemma-3b-pt-224"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path) -> Path:
    """An adapter for TINY_1."""
    return save_adapter(adapted(), tmp_path / "adapter", base=BASE)


def change(folder: Path, **fields: object) -> Path:
    """Fields of the configuration replaced."""
    data = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(data | fields))
    return folder


def test_the_base_is_named_in_full(tmp_path, monkeypatch):
    model = adapted()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a@b").mkdir(parents=True)
    for number, (base, written) in enumerate(
        {
            "google/paligemma-3b-pt-224@bfloat16": ("google/paligemma-3b-pt-224", "bfloat16"),
            "google/paligemma-3b-pt-224": ("google/paligemma-3b-pt-224", None),
            "../models/mine": ("../models/mine", None),
            "nano-112": ("nano-112", None),
            "runs/a@b": ("runs/a@b", None),
        }.items()
    ):
        folder = save_adapter(model, tmp_path / str(number), base=base)
        data = json.loads((folder / CONFIG).read_text())
        assert (data["base_model_name_or_path"], data["revision"]) == written
        assert inspect_adapter(folder).base == find_base(folder) == base
    assert inspect_adapter(save_adapter(model, tmp_path / "path", base=tmp_path)).base == str(tmp_path)


def test_a_base_beside_the_adapter(tmp_path, folder):
    hf_folder(tmp_path / "models" / "mine")
    for base in ("../models/mine", str(tmp_path / "models" / "mine")):
        change(folder, base_model_name_or_path=base)
        assert Path(find_base(folder)).samefile(tmp_path / "models" / "mine")
    for base in (".", str(folder)):
        change(folder, base_model_name_or_path=base)
        with pytest.raises(CheckpointError, match="is an adapter itself"):
            find_base(folder)
    change(folder, base_model_name_or_path=None)
    assert inspect_adapter(folder).base is None
    with pytest.raises(CheckpointError, match="does not say which model"):
        find_base(folder)


def test_no_base_is_no_adapter(tmp_path):
    model = adapted()
    for base in (None, "", "two\nlines"):
        with pytest.raises(UsageError, match="names no model") as error:
            save_adapter(model, tmp_path / "x", base=base)
        assert "base=" in error.value.hint
    assert not (tmp_path / "x").exists()
    model = random_model(TINY_1)
    add_adapter(model, LoraConfig(base="made/with"))
    assert inspect_adapter(save_adapter(model, tmp_path / "x")).base == "made/with"


def test_what_is_an_adapter(tmp_path, folder):
    assert is_adapter(folder)
    assert is_adapter(str(folder))
    assert is_adapter(folder / CONFIG)
    assert is_adapter(folder / WEIGHTS)
    assert not is_adapter(folder / "base.json")
    assert not is_adapter(tmp_path)
    assert not is_adapter(tmp_path / "missing")
    model = hf_folder(tmp_path / "model")
    assert not is_adapter(model)
    (model / CONFIG).write_text("{}")
    assert not is_adapter(model), "a model that lies beside is meant"


LONG = "x" * 2000
BAD_CONFIGS = {
    "another kind": ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA is supported"),
    "no kind": ({"peft_type": None}, "peft_type is None"),
    "DoRA": ({"use_dora": True}, "DoRA adapter, which is not supported"),
    "whole layers": ({"modules_to_save": ["embed_tokens"]}, r"whole trained layers \(modules_to_save\)"),
    "tokens": ({"trainable_token_indices": [5]}, "trained rows of the embedding table"),
    "parameters": ({"target_parameters": ["w"]}, "target_parameters"),
    "biases": ({"bias": "lora_only"}, "bias is 'lora_only'"),
    "biases of its own": ({"lora_bias": True}, "lora_bias"),
    "repeated layers": ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, "may have changed the weights of the base"),
    "LoftQ": ({"init_lora_weights": "loftq"}, "may have changed the weights of the base"),
    "a number for a start": ({"init_lora_weights": 1}, "init_lora_weights is 1"),
    "activated LoRA": ({"alora_invocation_tokens": [3, 4]}, "'alora_invocation_tokens' is not supported"),
    "what does not exist yet": ({"use_magic": {"strength": 3}}, "'use_magic' is not supported"),
    "no rank": ({"r": 0}, "r is 0, expected whole numbers from 1 to 4096"),
    "a huge rank": ({"r": 10**9}, "r is 1000000000"),
    "a rank in words": ({"r": "8"}, "r is '8'"),
    "alpha NaN": ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
    "alpha of many digits": ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
    "no alpha": ({"lora_alpha": 0}, "lora_alpha is 0"),
    "dropout": ({"lora_dropout": 1}, "lora_dropout is 1, expected numbers from 0 to below 1"),
    "rslora": ({"use_rslora": "yes"}, "use_rslora is 'yes'"),
    "a pattern that could run for years": ({"alpha_pattern": {"(a+)+$": 4}}, r"the expression '\(a\+\)\+\$'"),
    "a pattern that is no table": ({"rank_pattern": [3]}, "rank_pattern is"),
    "a pattern of words": ({"rank_pattern": {"q_proj": "4"}}, "rank_pattern is '4'"),
    "a base of control characters": ({"base_model_name_or_path": "a\x1b[31m"}, "base_model_name_or_path is"),
    "a long base": ({"base_model_name_or_path": LONG}, "base_model_name_or_path is"),
    "a base that is a table": ({"base_model_name_or_path": {}}, "base_model_name_or_path is"),
}


@pytest.mark.parametrize(("fields", "words"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_configurations_that_are_refused(folder, fields, words):
    change(folder, **fields)
    model = random_model(TINY_1)
    with pytest.raises(CheckpointError, match=words) as error:
        load_adapter(model, folder)
    assert "\n" not in error.value.message
    assert len(error.value.message) < 250
    assert list(model.state_dict()) == list(random_model(TINY_1).state_dict())


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"r": 1' + b"1" * 10_000 + b"}", b" " * (2 << 20)], ids=range(7)
)
def test_configurations_that_are_none(folder, text):
    for name in (CONFIG, "base.json"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(text)
        with pytest.raises(CheckpointError, match=name):
            inspect_adapter(folder)
        (folder / name).write_bytes(before)


def test_a_pointer_and_a_web_page(folder):
    (folder / CONFIG).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        load_adapter(random_model(TINY_1), folder)
    (folder / CONFIG).write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(CheckpointError, match="web page"):
        load_adapter(random_model(TINY_1), folder)


def test_describing_imports_no_torch(folder):
    code = (
        "import sys; from paligemma.checkpoint.adapter_config import *; "
        f"assert is_adapter({str(folder)!r}); print(find_base({str(folder)!r}), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [BASE, "False"]
