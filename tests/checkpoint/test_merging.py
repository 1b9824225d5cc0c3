"""An adapter and its base become one checkpoint: what `merge` makes of the two, in either format, whatever passes through in parts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from paligemma.checkpoint import convert, inspect, load_model, save_adapter, save_huggingface, save_npz, source
from paligemma.checkpoint.adapter_config import inspect_adapter
from paligemma.checkpoint.adapter_layout import adaptable, contents, fit_problems
from paligemma.checkpoint.adapters import layer_shapes
from paligemma.errors import CheckpointError, UsageError
from paligemma.model.lora import LoraConfig, merge
from tests.model.adapted import adapted, logits
from tests.tiny import TINY, TINY_1, TINY_2, random_model

ALL = LoraConfig(rank=4, alpha=12.0, targets=("language", "vision", "projector"))


def written(folder: Path, config=TINY_1, lora: LoraConfig = ALL, dtype=torch.float32) -> Path:
    """A base and an adapter that names it; the adapter's folder."""
    base = save_huggingface(random_model(config).to(dtype), folder / "base")
    return save_adapter(adapted(config, lora, model=random_model(config).to(dtype)), folder / "adapter", base=base)


@pytest.mark.parametrize("target", ["merged", "merged.npz"])
@pytest.mark.parametrize("name", TINY)
def test_the_merged_model_answers_as_base_and_adapter_do(tmp_path, name, target):
    adapter = written(tmp_path, TINY[name])
    done = convert(adapter, tmp_path / target)
    assert done.adapted == len(layer_shapes(random_model(TINY[name])))
    together = adapted(TINY[name], ALL)
    torch.testing.assert_close(logits(load_model(done.path)), logits(together), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(random_model(TINY[name])), logits(together), rtol=1e-2, atol=1e-2)


def test_it_is_what_merge_makes_of_the_model(tmp_path, monkeypatch):
    """In parts that end in the middle of a row, and in bfloat16 to the last bit: the sum is rounded once."""
    monkeypatch.setattr(source, "CHUNK_BYTES", 4 * 77)
    adapter = written(tmp_path, TINY_2, LoraConfig(rank=4, rslora=True), torch.bfloat16)
    model = adapted(TINY_2, LoraConfig(rank=4, rslora=True), model=random_model(TINY_2).bfloat16())
    merge(model)
    save_huggingface(model, tmp_path / "expected")
    convert(adapter, tmp_path / "found")
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("expected", "found"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in expected.items())


def test_a_wider_type_keeps_the_sum(tmp_path):
    adapter = written(tmp_path, dtype=torch.bfloat16)
    convert(adapter, tmp_path / "wide", dtype="float32")
    model = adapted(TINY_1, ALL, model=random_model(TINY_1).bfloat16().float())
    torch.testing.assert_close(logits(load_model(tmp_path / "wide")), logits(model), rtol=1e-4, atol=1e-4)


def test_what_the_base_was_taught_is_no_longer_all(tmp_path):
    adapter = written(tmp_path, dataclasses.replace(TINY_1, taught=("caption en",)))
    assert inspect(tmp_path / "base").config.taught == ("caption en",)
    convert(adapter, tmp_path / "merged")
    assert inspect(tmp_path / "merged").config.taught == ()


def test_layers_of_other_ranks(tmp_path):
    model = adapted(lora=LoraConfig(rank=4, targets=("text.blocks.*.attn.*",)))
    for block in model.text.blocks[:1]:
        layer = block.attn.q.adapters["default"]
        layer.config = dataclasses.replace(layer.config, rank=2, alpha=5.0)
        layer.a, layer.b = torch.nn.Parameter(layer.a[:2]), torch.nn.Parameter(layer.b[:, :2])
    base = save_huggingface(random_model(TINY_1), tmp_path / "base")
    convert(save_adapter(model, tmp_path / "adapter", base=base), tmp_path / "merged")
    torch.testing.assert_close(logits(load_model(tmp_path / "merged")), logits(model), rtol=1e-4, atol=1e-4)


def test_what_belongs_to_the_model_comes_along(tmp_path):
    adapter = written(tmp_path)
    for name in ("tokenizer.model", "calibration.json", "README.md", "tokenizer_config.json"):
        (tmp_path / "base" / name).write_text(f"base's {name}")
    assert "calibration.json" not in convert(adapter, tmp_path / "none").copied, "the base's is fitted to other answers"
    (adapter / "calibration.json").write_text("the adapter's")
    (adapter / "tokenizer.json").write_text("nobody's")
    assert set(convert(adapter, tmp_path / "one").copied) == {"tokenizer.model", "calibration.json", "tokenizer_config.json"}
    assert (tmp_path / "one" / "calibration.json").read_text() == "the adapter's"
    (adapter / "README.md").write_text("the adapter's card")
    convert(adapter, tmp_path / "two")
    assert (tmp_path / "two" / "README.md").read_text() == "the adapter's card"
    convert(tmp_path / "base", tmp_path / "three")
    assert (tmp_path / "three" / "README.md").read_text() == "base's README.md"


def test_the_base_by_another_name(tmp_path):
    adapter = written(tmp_path)
    moved = save_npz(random_model(TINY_1), tmp_path / "moved.npz")
    (tmp_path / "base" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        convert(adapter, tmp_path / "merged")
    convert(adapter, tmp_path / "merged", base=moved)
    torch.testing.assert_close(logits(load_model(tmp_path / "merged")), logits(adapted(TINY_1, ALL)), rtol=1e-4, atol=1e-4)


def test_what_does_not_go_together(tmp_path):
    adapter = written(tmp_path)
    other = save_huggingface(random_model(TINY_1, seed=5), tmp_path / "other")
    with pytest.raises(CheckpointError, match="trained on other weights") as caught:
        convert(adapter, tmp_path / "merged", base=other)
    assert "check_base" not in str(caught.value.hint)
    two = save_huggingface(random_model(TINY_2), tmp_path / "two")
    with pytest.raises(CheckpointError, match="does not fit this model"):
        convert(adapter, tmp_path / "merged", base=two)
    with pytest.raises(UsageError, match="is no adapter"):
        convert(other, tmp_path / "merged", base=other)
    with pytest.raises(UsageError, match="the source itself"):
        convert(adapter, adapter)
    with pytest.raises(CheckpointError, match="a LoRA adapter"):
        convert(adapter, tmp_path / "merged", base=adapter)
    assert not (tmp_path / "merged").exists()


def test_a_base_that_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    adapter = save_adapter(adapted(), tmp_path / "adapter", base="google/paligemma-3b-pt-224")
    with pytest.raises(CheckpointError, match="its base is missing") as caught:
        convert(adapter, tmp_path / "merged")
    assert "paligemma pull google/paligemma-3b-pt-224" in str(caught.value.hint)
    assert "--base" in str(caught.value.hint)


def test_a_base_is_looked_for_as_any_model_is(tmp_path, monkeypatch):
    """By the name of a bundled one, too."""
    written(tmp_path / "bundled")
    monkeypatch.setattr("paligemma.checkpoint.finding.BUNDLED", tmp_path / "bundled")
    adapter = save_adapter(adapted(TINY_1, ALL, model=random_model(TINY_1)), tmp_path / "adapter", base="base")
    assert convert(adapter, tmp_path / "merged").adapted


def test_sums_that_are_no_numbers_are_not_written(tmp_path):
    base = save_huggingface(random_model(TINY_1).half(), tmp_path / "base")
    model = adapted(TINY_1, ALL)
    with torch.no_grad():
        model.projector.adapters["default"].b.fill_(1e6)
    adapter = save_adapter(model, tmp_path / "adapter", base=base)
    (adapter / "base.json").unlink()
    with pytest.warns(UserWarning, match="cannot be compared"), pytest.raises(CheckpointError, match="not numbers"):
        convert(adapter, tmp_path / "merged")
    assert not list((tmp_path / "merged").glob("*.safetensors"))


def test_what_an_adapter_holds(tmp_path):
    info = inspect_adapter(written(tmp_path, lora=LoraConfig(rank=4, targets=("text.blocks.*.attn.q", "projector"))))
    found = contents(info)
    assert found.layers == {"model.multi_modal_projector.linear": 1, "model.language_model.layers.*.self_attn.q_proj": 3}
    assert found.parameters == 4 * (24 + 32) + 3 * 4 * (32 + 64)
    assert (found.dtype, found.file_bytes) == ("float32", (info.path / "adapter_model.safetensors").stat().st_size)
    assert fit_problems(info, TINY_1, adaptable(TINY_1)) == []
    assert "has shape" in fit_problems(info, TINY_2, adaptable(TINY_2))[0]


@pytest.mark.parametrize("name", TINY)
def test_what_can_be_adapted_is_known_without_a_model(name):
    assert adaptable(TINY[name]) == layer_shapes(random_model(TINY[name]))
