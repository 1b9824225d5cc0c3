"""Both ways without losing a bit, in little memory, with what belongs to the model, and never over what is there."""

from __future__ import annotations

import dataclasses
import json
import re
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from paligemma.checkpoint import convert, inspect, load, load_model, save_codec, save_huggingface, save_npz
from paligemma.config import preset
from paligemma.errors import CheckpointError, UsageError
from tests.parity.big_vision import random_arrays
from tests.tiny import TINY, TINY_1, random_codec, random_model

from .making import hf_folder, hf_tensors

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "bv_tiny1.npz"


def contents(path: Path) -> dict[str, tuple]:
    with np.load(path) as arrays:
        return {name: (arrays[name].shape, arrays[name].dtype.str, arrays[name].tobytes()) for name in arrays.files}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)


def test_the_golden_file_there_and_back(tmp_path):
    convert(GOLDEN, tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "back.npz")
    assert contents(tmp_path / "back.npz") == contents(GOLDEN)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", TINY)
def test_archives_there_and_back(tmp_path, name, dtype):
    arrays = random_arrays(TINY[name])
    np.savez(tmp_path / "x.npz", **{key: array.astype(dtype) for key, array in arrays.items()})
    done = convert(tmp_path / "x.npz", tmp_path / "hf")
    assert (done.format, done.dtype) == ("huggingface", np.dtype(dtype).name)
    convert(done.path, tmp_path / "back.npz", prefix="")
    assert contents(tmp_path / "back.npz") == contents(tmp_path / "x.npz")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", TINY)
def test_folders_there_and_back(tmp_path, name, dtype):
    config = TINY[name]
    hf_folder(tmp_path / "hf", hf_tensors(config, dtype), config)
    convert(tmp_path / "hf", tmp_path / "x.npz")
    convert(tmp_path / "x.npz", tmp_path / "back", max_shard_bytes=None)
    assert same(weights(tmp_path / "back"), hf_tensors(config, dtype))
    assert inspect(tmp_path / "back").config == config, "resize, query scale and name survive the archive"


@pytest.mark.parametrize("scanned", [True, False])
def test_compressed_and_unscanned_archives(tmp_path, scanned):
    arrays = random_arrays(TINY_1)
    np.savez(tmp_path / "plain.npz", **arrays)
    if not scanned:
        for name in [name for name in arrays if "/encoderblock/" in name]:
            arrays |= {name.replace("encoderblock", f"encoderblock_{layer}"): part for layer, part in enumerate(arrays.pop(name))}
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    for name in ("plain", "packed"):
        convert(tmp_path / f"{name}.npz", tmp_path / name)
    assert same(weights(tmp_path / "packed"), weights(tmp_path / "plain"))


def test_to_another_number_type(tmp_path):
    hf_folder(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "half", dtype="bfloat16")
    assert same(weights(tmp_path / "half"), {name: tensor.bfloat16() for name, tensor in hf_tensors().items()})
    convert(tmp_path / "half", tmp_path / "wide.npz", dtype="float32")
    convert(tmp_path / "wide.npz", tmp_path / "again", dtype="bfloat16")
    assert same(weights(tmp_path / "again"), weights(tmp_path / "half")), "widening loses nothing"
    with pytest.raises(UsageError, match="int8"):
        convert(tmp_path / "hf", tmp_path / "bad", dtype="int8")


def mixed_tensors() -> dict[str, torch.Tensor]:
    """bfloat16 matrices and float32 norms, as some trainers write them; the norms would not survive being rounded."""
    wide = hf_tensors()
    return {name: tensor if "norm" in name else tensor.bfloat16() for name, tensor in wide.items()}


@pytest.mark.filterwarnings("ignore:.*several number types")
def test_each_tensor_keeps_its_number_type(tmp_path):
    hf_folder(tmp_path / "hf", mixed_tensors())
    done = convert(tmp_path / "hf", tmp_path / "x.npz")
    assert done.dtype == "mixed"
    kinds = {name: kind for name, (_, kind, _) in contents(tmp_path / "x.npz").items()}
    assert kinds["params/llm/layers/pre_attention_norm/scale"] == kinds["params/llm/final_norm/scale"] == "<f4"
    assert kinds["params/llm/layers/mlp/linear"] == kinds["params/llm/embedder/input_embedding"] == "|V2"
    assert convert(tmp_path / "x.npz", tmp_path / "back").dtype == "mixed"
    assert same(weights(tmp_path / "back"), mixed_tensors())
    assert inspect(tmp_path / "back").dtype == json.loads((tmp_path / "back" / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.filterwarnings("ignore:.*several number types")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_of_mixed_number_types_all_become_the_one_asked_for(tmp_path, dtype):
    hf_folder(tmp_path / "hf", mixed_tensors())
    for name in ("x.npz", "new"):
        assert convert(tmp_path / "hf", tmp_path / name, dtype=dtype).dtype == dtype
        assert inspect(tmp_path / name).warnings == ()
    wanted = {name: tensor.to(getattr(torch, dtype)) for name, tensor in mixed_tensors().items()}
    assert same(weights(tmp_path / "new"), wanted)


@pytest.mark.filterwarnings("ignore:.*several number types")
@pytest.mark.parametrize("others", [torch.bfloat16, torch.float32])
def test_layers_of_one_array_get_the_type_that_holds_all_of_them(tmp_path, others):
    """float16 holds 1 + 2**-10, bfloat16 holds 2**100, neither holds both."""
    tensors = hf_tensors(dtype=others)
    one, other = (f"language_model.model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1))
    tensors[one] = torch.full_like(tensors[one], 1 + 2**-10, dtype=torch.float16)
    tensors[other] = torch.full_like(tensors[other], 2.0**100)
    hf_folder(tmp_path / "hf", tensors)
    convert(tmp_path / "hf", tmp_path / "x.npz")
    assert contents(tmp_path / "x.npz")["params/llm/layers/mlp/linear"][1] == "<f4"
    convert(tmp_path / "x.npz", tmp_path / "back")
    found = weights(tmp_path / "back")
    assert all(torch.equal(found[name], tensor.to(found[name].dtype)) for name, tensor in tensors.items())
    assert {name for name, tensor in found.items() if tensor.dtype != tensors[name].dtype} <= {
        name for name in tensors if "mlp.down_proj" in name
    }


def test_convert_warns_of_what_inspect_warns_of(tmp_path):
    hf_folder(tmp_path / "hf", mixed_tensors())
    (warning,) = inspect(tmp_path / "hf").warnings
    with pytest.warns(UserWarning, match=re.escape(f"model.safetensors: {warning}")):
        convert(tmp_path / "hf", tmp_path / "x.npz")


def test_published_rows_come_and_go(tmp_path):
    """Hugging Face's surplus rows stand for no token: an archive has none, and a folder gets them back as mean rows."""
    text = dataclasses.replace(preset("paligemma-3b-224").text, width=4, depth=1, mlp_dim=4, heads=1, head_dim=2)
    config = dataclasses.replace(TINY_1, text=text)
    model = random_model(config).bfloat16()
    save_huggingface(model, tmp_path / "hf")
    assert weights(tmp_path / "hf")["language_model.model.embed_tokens.weight"].shape == (257216, 4)
    done = convert(tmp_path / "hf", tmp_path / "x.npz")
    assert done.dropped_rows == 64
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["params/llm/embedder/input_embedding"].shape == (257152, 4)
    convert(tmp_path / "x.npz", tmp_path / "back")
    assert same(weights(tmp_path / "back"), weights(tmp_path / "hf"))


def test_the_recorded_softcap_goes_along(tmp_path):
    from paligemma.checkpoint.hf_config import write_config

    config = TINY["tiny-2"]
    hf_folder(tmp_path / "hf", config=config, text_config=write_config(config, dtype="float32", recorded_softcap=30.0)["text_config"])
    convert(tmp_path / "hf", tmp_path / "x.npz")
    convert(tmp_path / "x.npz", tmp_path / "back")
    assert inspect(tmp_path / "back").recorded_softcap == 30.0
    assert load_model(tmp_path / "back").config.text.final_softcap is None


def test_companions_are_taken_along(tmp_path):
    hf_folder(tmp_path / "hf")
    for name in (
        "tokenizer.model",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "calibration.json",
        "notes.txt",
        "pytorch_model.bin",
    ):
        (tmp_path / "hf" / name).write_text(name)
    save_codec(random_codec(), tmp_path / "hf")
    done = convert(tmp_path / "hf", tmp_path / "npz" / "x.npz")
    assert set(done.copied) == {"tokenizer.model", "tokenizer.json", "calibration.json", "mask_codec.safetensors"}
    assert {file.name for file in (tmp_path / "npz").iterdir()} == {*done.copied, "x.npz"}
    done = convert(tmp_path / "hf", tmp_path / "other", dtype="bfloat16")
    assert {"tokenizer_config.json", "README.md"} < set(done.copied)
    assert not {"notes.txt", "pytorch_model.bin"} & {file.name for file in (tmp_path / "other").iterdir()}


def test_nothing_is_overwritten_unasked(tmp_path):
    hf_folder(tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.model").write_text("ours")
    convert(tmp_path / "hf", tmp_path / "x.npz")
    before = (tmp_path / "x.npz").read_bytes()
    with pytest.raises(UsageError, match=r"x\.npz exists already"):
        convert(tmp_path / "hf", tmp_path / "x.npz")
    (tmp_path / "tokenizer.model").write_text("another model's")
    with pytest.raises(UsageError, match=r"tokenizer\.model, which belongs to another model"):
        convert(tmp_path / "hf", tmp_path / "y.npz")
    assert (tmp_path / "x.npz").read_bytes() == before
    assert not (tmp_path / "y.npz").exists()
    convert(tmp_path / "hf", tmp_path / "x.npz", dtype="bfloat16", overwrite=True)
    assert inspect(tmp_path / "x.npz").dtype == "bfloat16"
    assert (tmp_path / "tokenizer.model").read_text() == "ours"


@pytest.mark.parametrize(
    ("target", "format", "word"),
    [
        ("hf", None, "source itself"),
        ("new.npz", "huggingface", "huggingface is a folder"),
        ("new", "big_vision", "big_vision is one .npz file"),
        ("new", "gguf", "no format is called"),
    ],
)
def test_targets_that_make_no_sense(tmp_path, target, format, word):
    hf_folder(tmp_path / "hf")
    with pytest.raises(UsageError, match=word):
        convert(tmp_path / "hf", tmp_path / target, format)


def test_what_would_not_load_is_not_converted(tmp_path):
    tensors = hf_tensors()
    tensors["language_model.model.layers.2.mlp.up_proj.weight"][5, 6] = float("nan")
    tensors["multi_modal_projector.linear.bias"][0] = float("inf")
    hf_folder(tmp_path / "hf", tensors)
    for target in ("x.npz", "new"):
        with pytest.raises(CheckpointError) as caught:
            convert(tmp_path / "hf", tmp_path / target)
        assert "text.blocks.2.mlp.up.weight: 1 NaN" in caught.value.message
        assert "projector.bias: 1 infinite" in caught.value.message
    assert not (tmp_path / "x.npz").exists()
    assert not list((tmp_path / "new").glob("*"))


def test_an_untied_output_matrix_is_not_lost_silently(tmp_path):
    tensors = hf_tensors()
    tensors["lm_head.weight"] = tensors["language_model.model.embed_tokens.weight"] + 1
    hf_folder(tmp_path / "hf", tensors)
    with pytest.raises(CheckpointError, match="differs from the embedding table"):
        convert(tmp_path / "hf", tmp_path / "x.npz")


@pytest.mark.filterwarnings("ignore:.*several number types")
@pytest.mark.parametrize("place", [0, -1])
def test_a_second_copy_of_the_table_may_be_of_another_number_type(tmp_path, monkeypatch, place):
    """And then its pieces of so and so many bytes are not the table's."""
    monkeypatch.setattr(load, "CHUNK_BYTES", 1 << 10)
    tensors = hf_tensors(dtype=torch.bfloat16)
    tensors["lm_head.weight"] = tensors["language_model.model.embed_tokens.weight"].float()
    hf_folder(tmp_path / "hf", tensors)
    convert(tmp_path / "hf", tmp_path / "x.npz")
    assert torch.equal(load_model(tmp_path / "x.npz").text.embed.weight, tensors["language_model.model.embed_tokens.weight"])
    tensors["lm_head.weight"][place, place] += 1
    hf_folder(tmp_path / "hf", tensors)
    with pytest.raises(CheckpointError, match="differs from the embedding table"):
        convert(tmp_path / "hf", tmp_path / "y.npz")


def test_memory_is_that_of_single_tensors(tmp_path, monkeypatch):
    """Largest tensor here: 1.3 MB of 21 MB. Python's share is traced, torch's is what a source hands out at a time."""
    config = dataclasses.replace(
        TINY_1, text=dataclasses.replace(TINY_1.text, width=256, mlp_dim=1280, depth=8, vocab_size=1280), name="custom"
    )
    from paligemma.checkpoint import source
    from paligemma.checkpoint.safetensors_files import SafetensorsFiles

    largest = []
    read = SafetensorsFiles.read

    def watched(self, *args):
        tensor = read(self, *args)
        largest.append(tensor.numel() * tensor.element_size())
        return tensor

    monkeypatch.setattr(SafetensorsFiles, "read", watched)
    monkeypatch.setattr(source, "CHUNK_BYTES", 1 << 18)
    save_huggingface(random_model(config), tmp_path / "hf")
    tracemalloc.start()
    try:
        convert(tmp_path / "hf", tmp_path / "x.npz")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(largest) == 4 * 256 * 1280
    assert peak < 4 << 20
    assert same(load_model(tmp_path / "x.npz").state_dict(), random_model(config).state_dict())


def test_an_archive_to_an_archive(tmp_path):
    save_npz(random_model(TINY_1), tmp_path / "x.npz")
    convert(tmp_path / "x.npz", tmp_path / "half.npz", dtype="float16", prefix="")
    assert same(load_model(tmp_path / "half.npz").state_dict(), random_model(TINY_1).half().state_dict())
