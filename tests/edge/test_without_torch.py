"""An installation without PyTorch: what works there, and how what does not says so. Each in a process in which torch cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import paligemma
from paligemma.checkpoint import save_adapter, save_codec, save_huggingface, save_npz
from paligemma.edge.pack_file import Arrays, read_index
from paligemma.edge.packer import held, pack_model
from paligemma.errors import CheckpointError, ResourceError, UsageError
from paligemma.results import Masks
from tests import tiny
from tests.model.adapted import adapted

BEFORE = """
import contextlib, io, json, sys
sys.modules["torch"] = None  # as if it were not installed
from paligemma.cli import main
def call(*arguments):
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    return code, *(text.seek(0) or text.read() for text in (out, err))
"""


def without_torch(code: str) -> Any:
    """What the process called `result`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{BEFORE}\n{code}\nprint(json.dumps(result))"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def called(*commands: list[object]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of command lines, one after the other."""
    return without_torch(f"result = [call(*words) for words in {[list(map(str, words)) for words in commands]!r}]")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A whole model's folder: weights in bfloat16, tokenizer, codec."""
    folder = save_huggingface(tiny.tiny_model(), tmp_path_factory.mktemp("source") / "model", dtype="bfloat16")
    tiny.tiny_tokenizer().save(folder)
    save_codec(tiny.random_codec(), folder / "mask_codec.safetensors")
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    return path


def test_what_looks_and_fetches_works(source, tmp_path):
    archive = save_npz(tiny.tiny_model(), tmp_path / "model.npz")
    pack = pack_model(source, tmp_path / "pack")
    helps = (["--help"], ["caption", "--help"], ["train", "--help"])
    adapter = save_adapter(adapted(config=tiny.tiny_config()), tmp_path / "adapter", base=source)
    done = called(*helps, ["models"], ["info"], *(["info", path] for path in (source, archive, adapter, pack)))
    assert [code for code, _, _ in done] == [0] * 9, done
    assert "LoRA, rank" in done[-2][1]
    assert "mask decoder included" in done[-1][1]
    code, _, error = called(["pull", "google/paligemma2-3b-mix-224"])[0]
    assert (code, "HF_HUB_OFFLINE" in error) == (CheckpointError.exit_code, True), "it gets as far as the network"


def test_the_same_pack_is_made(source, tmp_path):
    archive = save_npz(tiny.tiny_model(version=2), tmp_path / "model.npz", dtype="float16")
    kinds = {"float32": source, "bf16": source, "int8": archive, "int4": source}
    done = called(*(["pack", model, "--quantize", kind, "--out", tmp_path / kind] for kind, model in kinds.items()))
    assert [code for code, _, _ in done] == [0] * 4, done
    for kind, model in kinds.items():
        expected = read_index(pack_model(model, tmp_path / f"{kind} again", kind))
        assert read_index(tmp_path / kind) == expected
        assert Arrays(tmp_path / kind, expected).verify() == []


@pytest.mark.filterwarnings("ignore::paligemma.CutShort")
def test_a_small_checkpoint_answers_as_with_pytorch(source, picture):
    model = paligemma.load(source, device="cpu")
    expected = [
        model.caption(picture, max_tokens=8),
        model.detect(picture, ["cat", "dog"], max_objects=2),
        model.refer(picture, "cat"),
    ]
    commands = (["caption", "--max-tokens", "8"], ["detect", "cat ; dog", "--max-objects", "2"], ["refer", "cat"])
    done = called(*([name, picture, *more, "--json", "--model", source] for name, *more in commands))
    for (code, out, error), result in zip(done, expected, strict=True):
        assert code == 0, error
        assert json.loads(out)["result"]["text"] == result.to_dict()["text"]
    (found,) = Masks.from_dict(json.loads(done[2][1])["result"]).masks
    assert (found.mask != expected[2].masks[0].mask).mean() < 0.01


def test_the_demo_is_answered(tmp_path):
    ((code, out, error),) = called(["demo", "--out", tmp_path / "demo"])
    assert code == 0, error
    right, _, total = out.splitlines()[-1].partition(" as expected")[0].partition(" of ")
    assert right == total
    assert int(total) > 70


def test_an_archive_with_the_codec_and_the_tokenizer_named(source, picture, tmp_path):
    archive = save_npz(tiny.tiny_model(), tmp_path / "model.npz")
    files = ["--tokenizer", source / "tokenizer.model", "--codec", source / "mask_codec.safetensors"]
    done = called(
        ["refer", picture, "cat", "--model", archive, *files],
        ["refer", picture, "cat", "--model", archive, *files[:2]],
        ["refer", picture, "cat", "--model", archive],
        ["pack", archive, "--quantize", "float32", "--out", tmp_path / "pack", *files],
        ["refer", picture, "cat", "--model", tmp_path / "pack"],
    )
    assert [code for code, _, _ in done] == [0, UsageError.exit_code, CheckpointError.exit_code, 0, 0], done
    assert "no_codec" in done[1][2]
    assert "no_tokenizer" in done[2][2]
    assert done[0][1] == done[4][1]


def test_an_adapter_needs_pytorch(source, tmp_path):
    adapter = save_adapter(adapted(config=tiny.tiny_config()), tmp_path / "adapter", base=source)
    for loads in (f"{str(adapter)!r}", f"{str(source)!r}, adapters={{'a': {str(adapter)!r}}}"):
        code = f"""
import paligemma
try:
    paligemma.load({loads})
except paligemma.ResourceError as error:
    result = error.message
"""
        assert without_torch(code) == "an adapter needs PyTorch, which is not installed"


NEEDS = {
    "train": ["train", "--data", "x.jsonl", "--recipe", "lora", "--out", "run"],
    "convert": ["convert", "nano-112", "out.npz"],
    "a device": ["caption", "PICTURE", "--device", "cuda"],
    "a number type": ["caption", "PICTURE", "--dtype", "bfloat16"],
    "nano train": ["nano", "train"],
}


def test_what_needs_pytorch_says_so_in_one_line(picture, tmp_path):
    done = called(*([str(picture) if word == "PICTURE" else word for word in words] for words in NEEDS.values()))
    for name, (code, _, error) in zip(NEEDS, done, strict=True):
        first, hint = error.strip().splitlines()
        assert code == ResourceError.exit_code, (name, error)
        assert first.startswith("error[no_torch]: "), name
        assert "needs PyTorch, which is not installed" in first, name
        assert "pip install 'paligemma[torch]'" in hint, name


def test_a_large_checkpoint_is_to_be_packed(source):
    code = f"""
import paligemma
from paligemma.predictor import packs
packs.SMALL = 1000
try:
    paligemma.load({str(source)!r})
except paligemma.ResourceError as error:
    result = [error.message, error.hint, error.code]
"""
    message, hint, name = without_torch(code)
    assert name == "no_torch"
    assert str(source) in message
    assert hint == f"pip install 'paligemma[torch]', or pack it: paligemma pack {source} --out packed"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("save", [save_huggingface, save_npz])
def test_the_numbers_in_memory_are_those_of_the_checkpoint(tmp_path, save, dtype):
    model = tiny.tiny_model(version=2)
    arrays = held(save(model, tmp_path / "model.npz" if save is save_npz else tmp_path / "model", dtype=dtype))
    state = {name: weight.to(getattr(torch, dtype)).float().numpy() for name, weight in model.state_dict().items()}
    for name, joined in {"attn.qkv": ("q", "k", "v")}.items():
        for layer in range(model.config.vision.depth):
            parts = [state.pop(f"vision.blocks.{layer}.attn.{part}.weight") for part in joined]
            state[f"vision.blocks.{layer}.{name}.weight"] = np.concatenate(parts)
            parts = [state.pop(f"vision.blocks.{layer}.attn.{part}.bias") for part in joined]
            state[f"vision.blocks.{layer}.{name}.bias"] = np.concatenate(parts)
    for layer in range(model.config.text.depth):
        parts = [state.pop(f"text.blocks.{layer}.attn.{part}.weight") for part in ("k", "v")]
        state[f"text.blocks.{layer}.attn.kv.weight"] = np.concatenate(parts)
    assert arrays.index.entries.keys() == state.keys()
    for name, expected in state.items():
        found = arrays.numbers(name, arrays.entry(name).shape)
        np.testing.assert_array_equal(found.ravel(), expected.ravel(), err_msg=name)


def test_values_that_are_no_numbers_are_refused(source, tmp_path):
    for name in ("text.norm.weight", "vision.blocks.0.mlp.up.weight"):
        model = tiny.tiny_model()
        model.get_parameter(name).data.view(-1)[3] = float("nan")
        folder = save_huggingface(model, tmp_path / name)
        for kind in ("int8", "float32"):
            with pytest.raises(CheckpointError, match=rf"model.safetensors: values that are not numbers\n  {name}: 1 NaN of"):
                pack_model(folder, tmp_path / "pack", kind)
        assert not list((tmp_path / "pack").iterdir())
