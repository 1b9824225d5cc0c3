"""Adapters onto disk and back: nothing is lost, nothing half-written, and what does not fit the model is refused with all that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from paligemma.checkpoint.adapter_config import is_adapter
from paligemma.checkpoint.adapters import fingerprint, load_adapter, save_adapter
from paligemma.errors import CheckpointError, UsageError
from paligemma.model.lora import LoraConfig, adapter_layers, merge
from paligemma.model.nf4 import quantize_linears
from tests.checkpoint.making import hf_folder
from tests.model.adapted import adapted, logits
from tests.tiny import TINY_1, TINY_2, random_model

ALL = ("language", "vision", "projector")
BASE = "google/paligemma-3b-pt-224"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def retensor(folder: Path, edit) -> Path:
    """The tensors edited in place, written by the library that owns the format."""
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """An adapter for TINY_1."""
    return save_adapter(adapted(), tmp_path / "adapter", base=BASE)


# There and back.


def test_there_and_back(folder):
    model = adapted()
    names = sorted(load_file(folder / WEIGHTS))
    assert names[0] == "base_model.model.model.language_model.layers.0.mlp.down_proj.lora_A.weight"
    assert {name.split(".lora_")[0] for name in names} == {
        f"base_model.model.model.language_model.layers.{block}.{layer}"
        for block in range(3)
        for layer in (*(f"self_attn.{letter}_proj" for letter in "qkvo"), *(f"mlp.{part}_proj" for part in ("gate", "up", "down")))
    }
    assert [path.name for path in sorted(folder.iterdir())] == [CONFIG, WEIGHTS, "base.json"], "and nothing temporary"
    other = random_model(TINY_1)
    info = load_adapter(other, folder, "birds")
    assert torch.equal(logits(other), logits(model))
    assert (info.base, info.rank, info.alpha) == (BASE, 8, 16.0)
    config = adapter_layers(other, "birds")["text.blocks.0.attn.q"].config
    assert (config.base, config.rank, config.dropout, config.rslora) == (BASE, 8, 0.0, False)
    assert set(config.targets) == {
        f"text.blocks.*.{layer}" for layer in ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")
    }
    save_adapter(other, folder.parent / "again", "birds")
    for name in (CONFIG, WEIGHTS, "base.json"):
        assert (folder.parent / "again" / name).read_bytes() == (folder / name).read_bytes()


ERAS = {
    "transformers 5": lambda name: name,
    "4.52": lambda name: name.replace("vision_tower.encoder", "vision_tower.vision_model.encoder"),
    "before": lambda name: (
        name.replace("model.model.language_model.", "model.language_model.model.")
        .replace("model.model.vision_tower.", "model.vision_tower.vision_model.")
        .replace("model.model.multi_modal_projector.", "model.multi_modal_projector.")
    ),
    "without a prefix": lambda name: name.removeprefix("base_model.model."),
}


@pytest.mark.parametrize("rename", ERAS.values(), ids=ERAS)
def test_names_of_every_era(tmp_path, rename):
    model = adapted(lora=LoraConfig(targets=ALL))
    save_adapter(model, tmp_path, base=BASE)

    def edit(tensors):
        named = {rename(name): tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors.update(named)

    retensor(tmp_path, edit)
    other = random_model(TINY_1)
    load_adapter(other, tmp_path)
    assert torch.equal(logits(other), logits(model))


def test_one_block_is_not_taken_for_all(tmp_path):
    save_adapter(adapted(lora=LoraConfig(targets=("text.blocks.1.attn.q",))), tmp_path, base=BASE)
    assert json.loads((tmp_path / CONFIG).read_text())["target_modules"] == ["model.language_model.layers.1.self_attn.q_proj"]
    model = random_model(TINY_1)
    load_adapter(model, tmp_path)
    (adapter,) = adapter_layers(model).values()
    assert adapter.config.targets == ("text.blocks.1.attn.q",)


def test_training_goes_on(folder):
    model = random_model(TINY_1).train()
    load_adapter(model, folder, trainable=True)
    assert all(adapter.training and adapter.a.requires_grad and adapter.b.requires_grad for adapter in adapter_layers(model).values())
    assert sum(parameter.requires_grad for parameter in model.parameters()) == 2 * 21


def test_float32_unless_told_otherwise(folder):
    retensor(folder, lambda tensors: tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()}))
    for dtype, expected in ((None, torch.float32), (torch.bfloat16, torch.bfloat16)):
        model = random_model(TINY_1).bfloat16()
        load_adapter(model, folder, dtype=dtype)
        assert {adapter.a.dtype for adapter in adapter_layers(model).values()} == {expected}
    save_adapter(model, folder)
    assert {tensor.dtype for tensor in load_file(folder / WEIGHTS).values()} == {torch.bfloat16}


def test_several_of_them_on_a_quantized_base(tmp_path):
    """QLoRA: trained on 4 bits, used there or on the plain base."""
    model = random_model(TINY_1)
    quantize_linears(model)
    for number, name in enumerate(("one", "two")):
        save_adapter(adapted(model=model, name=name, seed=number), tmp_path / name, name, base="here")
    plain = random_model(TINY_1)
    for name in ("one", "two"):
        load_adapter(plain, tmp_path / name, name)
        for where, adapter in adapter_layers(plain, name).items():
            assert torch.equal(adapter.b, adapter_layers(model, name)[where].b)


def test_other_weights_of_the_same_size(folder):
    other = random_model(TINY_1, seed=1)
    with pytest.raises(CheckpointError, match="trained on other weights") as error:
        load_adapter(other, folder)
    assert BASE in error.value.hint
    assert not any("adapters" in name for name in other.state_dict())
    load_adapter(other, folder, check_base=False)


def test_the_fingerprint_is_of_the_weights_not_of_their_number_type():
    expected = fingerprint(random_model(TINY_1))
    assert fingerprint(random_model(TINY_1).bfloat16()) == expected
    assert fingerprint(adapted(lora=LoraConfig(targets=ALL))) == expected
    four = random_model(TINY_1)
    quantize_linears(four, ("*",))
    assert fingerprint(four) == expected
    merged = adapted()
    merge(merged)
    assert fingerprint(merged) == expected
    trained = random_model(TINY_1)
    trained.text.norm.weight.data[0] += 0.1
    assert fingerprint(trained) != expected
    assert fingerprint(random_model(TINY_1).half()).startswith("float16:")


def test_float16_cannot_be_compared(folder):
    with pytest.warns(UserWarning, match="only shapes were"):
        load_adapter(random_model(TINY_1).half(), folder)


# Folders.


def test_either_file_names_the_folder(folder):
    for path in (folder, folder / CONFIG, folder / WEIGHTS, str(folder)):
        load_adapter(random_model(TINY_1), path)


def test_a_model_beside_is_not_buried(tmp_path):
    model = hf_folder(tmp_path / "model")
    with pytest.raises(UsageError, match="holds a model"):
        save_adapter(adapted(), model, base=BASE)
    with pytest.raises(UsageError, match="expected a folder"):
        save_adapter(adapted(), tmp_path / "x.safetensors", base=BASE)
    assert not is_adapter(model)


def test_a_save_that_fails_leaves_the_old_adapter(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="disk is full"):
        save_adapter(adapted(lora=LoraConfig(rank=2)), folder, base="other")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_adapter_with_values_that_are_no_numbers_is_not_written(tmp_path):
    model = adapted()
    adapter_layers(model)["text.blocks.2.mlp.up"].a.data[1, 2] = float("nan")
    with pytest.raises(CheckpointError, match=r"layers.2.mlp.up_proj.lora_A.weight: 1 NaN of 256 values"):
        save_adapter(model, tmp_path / "x", base=BASE)
    assert not (tmp_path / "x").exists()


# What is refused.


def test_half_an_adapter(tmp_path, folder):
    model = random_model(TINY_1)
    with pytest.raises(CheckpointError, match="no such folder"):
        load_adapter(model, tmp_path / "missing")
    (folder / CONFIG).rename(tmp_path / "kept")
    with pytest.raises(CheckpointError, match=r"no adapter_config.json"):
        load_adapter(model, folder)
    (tmp_path / "kept").rename(folder / CONFIG)
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"no adapter_model.safetensors beside adapter_config.json"):
        load_adapter(model, folder)


def test_a_pickle_is_never_opened(folder):
    (folder / WEIGHTS).unlink()
    torch.save({"a": torch.ones(1)}, folder / "adapter_model.bin")
    assert is_adapter(folder)
    for path in (folder, folder / "adapter_model.bin"):
        with pytest.raises(CheckpointError, match=r"adapter_model.bin is a pickle") as error:
            load_adapter(random_model(TINY_1), path)
        assert error.value.code == "pickle_refused"


Q = "base_model.model.model.language_model.layers.0.self_attn.q_proj."


def turned(tensors, name):
    tensors[name] = tensors[name].T.contiguous()


BAD_TENSORS = {
    "a half is missing": (lambda t: t.pop(Q + "lora_A.weight"), "lora_B.weight has no lora_A to go with it"),
    "the other half": (lambda t: t.pop(Q + "lora_B.weight"), "lora_A.weight has no lora_B to go with it"),
    "transposed": (lambda t: turned(t, Q + "lora_A.weight"), r"lora_A.weight has shape \(32, 8\), expected \(8, 32\)"),
    "another rank": (
        lambda t: t.update({Q + "lora_A.weight": torch.ones(4, 32), Q + "lora_B.weight": torch.ones(64, 4)}),
        r"(?s)lora_A.weight has shape \(4, 32\), expected \(8, 32\).*lora_B.weight has shape \(64, 4\), expected \(64, 8\)",
    ),
    "DoRA's": (lambda t: t.update({Q + "lora_magnitude_vector.weight": torch.ones(64)}), "belongs to a DoRA adapter"),
    "of the embedding": (
        lambda t: t.update({"base_model.model.model.language_model.embed_tokens.lora_embedding_A": torch.ones(8, 211)}),
        "embed_tokens.lora_embedding_A is for the embedding table",
    ),
    "of the output": (
        lambda t: t.update({"base_model.model.lm_head.lora_A.weight": torch.ones(8, 32)}),
        "lm_head.lora_A.weight is for the embedding table",
    ),
    "a whole layer": (
        lambda t: t.update({"base_model.model.model.multi_modal_projector.linear.weight": torch.ones(32, 24)}),
        "linear.weight is not part of a LoRA adapter",
    ),
    "a layer too many": (
        lambda t: t.update({Q.replace("layers.0", "layers.3") + "lora_A.weight": torch.ones(8, 32)}),
        "layers.3.self_attn.q_proj.lora_A.weight is for a layer that the model does not have",
    ),
    "another architecture": (
        lambda t: (t.clear(), t.update({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(8, 32)})),
        "for a layer that the model does not have",
    ),
    "under two names": (
        lambda t: t.update({Q.replace("model.language_model", "language_model.model") + "lora_A.weight": torch.ones(8, 32)}),
        "are for the same layer",
    ),
    "NaN": (lambda t: t[Q + "lora_B.weight"].fill_(float("nan")), r"q_proj.lora_B.weight: 512 NaN"),
    "endless": (lambda t: t[Q + "lora_B.weight"].fill_(float("inf")), "512 infinite"),
    "whole numbers": (lambda t: t.update({Q + "lora_B.weight": torch.ones(64, 8, dtype=torch.int8)}), "number type 'I8'"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "words"), BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_tensors_that_are_refused(folder, edit, words):
    retensor(folder, edit)
    model = random_model(TINY_1)
    before = logits(model)
    with pytest.raises(CheckpointError, match=words):
        load_adapter(model, folder)
    assert torch.equal(logits(model), before)
    assert list(model.state_dict()) == list(random_model(TINY_1).state_dict())


def test_another_size_is_told_in_one_message(folder):
    with pytest.raises(CheckpointError, match="does not fit this model") as error:
        load_adapter(random_model(TINY_2), folder)
    assert (error.value.exit_code, error.value.code) == (4, "adapter_differs")
    assert BASE in error.value.hint
    assert error.value.message.count("\n") == 21, "the first twenty, and how many more"
    assert error.value.message.endswith(" more")


def test_a_file_that_was_cut(folder):
    data = (folder / WEIGHTS).read_bytes()
    for length in (0, 7, 100, len(data) - 1):
        (folder / WEIGHTS).write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=WEIGHTS):
            load_adapter(random_model(TINY_1), folder)


def test_a_name_that_is_taken(folder):
    model = random_model(TINY_1)
    load_adapter(model, folder)
    with pytest.raises(UsageError, match="already has an adapter 'default'"):
        load_adapter(model, folder)
    load_adapter(model, folder, "second")
