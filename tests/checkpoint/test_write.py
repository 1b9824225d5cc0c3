"""Writing: files appear whole or not at all, other libraries read them, surplus rows are harmless."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from paligemma.checkpoint import inspect, load_model, save_huggingface, save_npz, write
from paligemma.checkpoint.hf_config import write_config
from paligemma.checkpoint.outgoing import ModelSource, Outgoing, padded_table
from paligemma.checkpoint.source import TensorSpec
from paligemma.checkpoint.weight_maps import HF_EMBEDDING, bv_layout
from paligemma.config import VOCAB_SIZE
from paligemma.errors import CheckpointError, ResourceError, UsageError
from paligemma.model.lora import LoraConfig, add_adapter, merge
from paligemma.model.nf4 import quantize_linears
from tests.tiny import TINY, TINY_1, TINY_2, random_model

from .making import hf_tensors


def equal(path, model) -> bool:
    loaded = load_model(path)
    return loaded.config == model.config and all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", TINY)
def test_saved_models_load_equal(tmp_path, name, dtype):
    model = random_model(TINY[name]).to(dtype)
    assert equal(save_huggingface(model, tmp_path / "hf"), model)
    assert equal(save_npz(model, tmp_path / "x.npz"), model)


def test_each_tensor_keeps_its_number_type(tmp_path):
    model = random_model(TINY_1).bfloat16()
    model.text.norm.float()
    save_huggingface(model, tmp_path / "hf")
    assert {name for name, tensor in load_file(tmp_path / "hf" / "model.safetensors").items() if tensor.dtype == torch.float32} == {
        "language_model.model.norm.weight"
    }
    with np.load(save_npz(model, tmp_path / "x.npz", prefix="")) as arrays:
        assert {name for name in arrays.files if arrays[name].dtype == np.float32} == {"llm/final_norm/scale"}


def test_the_safetensors_library_reads_it(tmp_path):
    save_huggingface(random_model(TINY_1), tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == hf_tensors().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in hf_tensors().items())


@pytest.mark.parametrize(
    ("dtype", "stored"), [(torch.float32, np.dtype("<f4")), (torch.float16, np.dtype("<f2")), (torch.bfloat16, np.dtype("V2"))]
)
def test_numpy_reads_it(tmp_path, dtype, stored):
    model = random_model(TINY_2).to(dtype)
    path = save_npz(model, tmp_path / "x.npz", prefix="")
    with np.load(path) as arrays:
        assert {name: arrays[name].shape for name in arrays.files} == bv_layout(TINY_2).shapes
        assert {arrays[name].dtype for name in arrays.files} == {stored}
        down = arrays["llm/layers/mlp/linear"][1]
    numbers = down.view(ml_dtypes.bfloat16) if stored.kind == "V" else down
    assert np.array_equal(numbers.astype(np.float32), model.text.blocks[1].mlp.down.weight.T.detach().float().numpy())


def test_equal_models_make_equal_files(tmp_path):
    for name in ("a", "b"):
        save_npz(random_model(TINY_1), tmp_path / f"{name}.npz")
        save_huggingface(random_model(TINY_1), tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_shards(tmp_path):
    model = random_model(TINY_1)
    save_huggingface(model, tmp_path, max_shard_bytes=50_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 3
    assert all(file.name == f"model-{number:05}-of-{len(files):05}.safetensors" for number, file in enumerate(files, 1))
    for file in files:
        held = load_file(file)
        assert sum(4 * tensor.numel() for tensor in held.values()) <= 50_000 or len(held) == 1
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * TINY_1.num_parameters
    assert index["weight_map"] == {name: file.name for file in files for name in load_file(file)}
    assert equal(tmp_path, model)


def test_shards_of_two_models_are_never_taken_for_one(tmp_path, monkeypatch):
    """Cut off after any of the renames, what is left of as many shards is refused, unless all are of the new model."""
    old, new = random_model(TINY_1, 1), random_model(TINY_1, 2)
    count = len(list(save_huggingface(old, tmp_path / "once", max_shard_bytes=50_000).glob("*.safetensors")))
    rename, left = os.replace, 0

    def cut(source, target):
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        rename(source, target)

    for done in range(1, count + 1):
        folder = save_huggingface(old, tmp_path / str(done), max_shard_bytes=50_000)
        left = done
        with monkeypatch.context() as patched:
            patched.setattr("paligemma.checkpoint.write.os.replace", cut)
            with pytest.raises(KeyboardInterrupt):
                save_huggingface(new, folder, max_shard_bytes=50_000)
        with pytest.raises(CheckpointError):
            load_model(folder)
        assert equal(save_huggingface(new, folder, max_shard_bytes=50_000), new)


def test_fewer_files_replace_more(tmp_path):
    save_huggingface(random_model(TINY_1, 1), tmp_path, max_shard_bytes=50_000)
    (tmp_path / "mask_codec.safetensors").touch()
    (tmp_path / "tokenizer.model").touch()
    model = random_model(TINY_1, 2)
    save_huggingface(model, tmp_path)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["config.json", "mask_codec.safetensors", "model.safetensors", "preprocessor_config.json", "tokenizer.model"]
    assert equal(tmp_path, model)


def test_what_fails_on_the_way_leaves_everything_as_it_was(tmp_path):
    model = random_model(TINY_1, 1)
    save_huggingface(model, tmp_path / "hf", max_shard_bytes=50_000)
    save_npz(model, tmp_path / "x.npz")

    def fail():
        raise CheckpointError("no")

    with pytest.raises(CheckpointError, match="no"):
        save_huggingface(random_model(TINY_1, 2), tmp_path / "hf", before_commit=fail)
    with pytest.raises(CheckpointError, match="no"):
        save_npz(random_model(TINY_1, 2), tmp_path / "x.npz", before_commit=fail)
    assert equal(tmp_path / "hf", model)
    assert equal(tmp_path / "x.npz", model)
    assert not [file for file in tmp_path.rglob("*") if file.name.endswith(".tmp")]


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write.os, "fsync", full)
    for save, path in ((save_huggingface, tmp_path / "hf"), (save_npz, tmp_path / "x.npz")):
        with pytest.raises(ResourceError, match="disk is full"):
            save(random_model(TINY_1), path)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_too_little_disk_is_seen_before_writing(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("paligemma.checkpoint.memory.shutil.disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match="GB of disk"):
        save_npz(random_model(TINY_1), tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


def test_progress_ends_at_all_bytes(tmp_path):
    for save, path in ((save_huggingface, tmp_path / "hf"), (save_npz, tmp_path / "x.npz")):
        seen = []
        save(random_model(TINY_1), path, progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert seen == sorted(seen)
        assert seen[-1] == (4 * TINY_1.num_parameters,) * 2


def test_values_that_do_not_fit_the_number_type(tmp_path):
    model = random_model(TINY_1)
    with torch.no_grad():
        model.projector.weight[0, 0] = 70_000.0
    with pytest.raises(CheckpointError, match=r"projector.weight: values up to 7e\+04 do not fit into float16"):
        save_huggingface(model, tmp_path, dtype="float16")
    save_huggingface(model, tmp_path, dtype="bfloat16")


def test_wrong_places(tmp_path):
    model = random_model(TINY_1)
    save_npz(model, tmp_path / "x.npz")
    with pytest.raises(UsageError, match="two formats"):
        save_huggingface(model, tmp_path)
    with pytest.raises(UsageError, match="folder"):
        save_huggingface(model, tmp_path / "x.npz")
    with pytest.raises(UsageError, match="npz"):
        save_npz(model, tmp_path / "x")


def test_tensors_without_or_against_a_configuration(tmp_path):
    source = ModelSource(random_model(TINY_1))
    save_huggingface(source, tmp_path / "hf", config=TINY_1)
    with pytest.raises(UsageError, match="without a configuration"):
        save_huggingface(source, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"text\.blocks"):
        save_npz(source, tmp_path / "x.npz", config=TINY_2)


def test_the_archive_keeps_what_no_shape_shows(tmp_path):
    config = dataclasses.replace(TINY["tiny-27b"], resize="bilinear-antialias", name="mine")
    save_npz(random_model(config), tmp_path / "x.npz", recorded_softcap=30.0)
    info = inspect(tmp_path / "x.npz")
    assert (info.config, info.config_from, info.recorded_softcap) == (config, "the archive's comment", 30.0)


@pytest.mark.parametrize("sizes", [[VOCAB_SIZE * 3], [10, 200_001, 3 * VOCAB_SIZE - 200_011]])
def test_surplus_rows_are_the_mean_row(sizes):
    """In pieces that begin and end inside rows, too. The mean row's logit is the mean logit: it is never the largest."""
    table = torch.randn(VOCAB_SIZE, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, -2.0, 0.5])
    entry = Outgoing(HF_EMBEDDING, TensorSpec((VOCAB_SIZE, 3), "float32"), lambda: iter(table.view(-1).split(sizes)))
    other = Outgoing("other", TensorSpec((VOCAB_SIZE, 3), "float32"), lambda: iter([]))
    padded, same = padded_table([entry, other])
    assert same is other
    rows = torch.cat(list(padded.values())).view(padded.spec.shape)
    assert rows.shape == (VOCAB_SIZE + 64, 3)
    assert torch.equal(rows[:VOCAB_SIZE], table)
    torch.testing.assert_close(rows[VOCAB_SIZE:], table.double().mean(0).float().expand(64, 3))
    for state in torch.eye(3):
        logits = rows @ state
        assert logits[VOCAB_SIZE:].max() < logits[:VOCAB_SIZE].max()


def test_small_vocabularies_get_no_surplus_rows(tmp_path):
    save_huggingface(random_model(TINY_1), tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    assert data == json.loads(json.dumps(write_config(TINY_1, dtype="float32")))
    assert data["text_config"]["vocab_size"] == load_file(tmp_path / "model.safetensors")[HF_EMBEDDING].shape[0] == TINY_1.text.vocab_size


def test_a_model_that_carries_more_than_a_checkpoint_holds(tmp_path):
    """An adapter that is not merged, 4-bit layers: refused with a way out rather than lost."""
    model = random_model(TINY_1)
    add_adapter(model, LoraConfig(), "birds")
    for save, path in ((save_huggingface, tmp_path / "hf"), (save_npz, tmp_path / "x.npz")):
        with pytest.raises(UsageError, match="carries the adapter 'birds'") as caught:
            save(model, path)
        assert caught.value.code == "unmerged_adapter"
    merge(model, "birds")
    save_huggingface(model, tmp_path / "hf")
    quantize_linears(model)
    with pytest.raises(UsageError, match="4-bit layers"):
        save_npz(model, tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


def write_all(paths, text: str, error: OSError | None = None) -> None:
    with write.replacing_together(*paths) as files:
        for file in files:
            file.write(text.encode())
        if error is not None:
            raise error


def contents_of(paths) -> list[str | None]:
    return [path.read_text() if path.exists() else None for path in paths]


@pytest.mark.parametrize("dies_at", range(1, 5))
def test_files_that_belong_together_are_never_half_old(tmp_path, monkeypatch, dies_at):
    """Killed at any change of a name: the first file is there only beside others of its own time."""
    paths = [tmp_path / name for name in ("first", "b", "c")]
    for path in paths:
        path.write_text("old")
    left = dies_at

    class Killed(BaseException):
        pass

    def counted(call):
        def or_die(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return call(*args, **kwargs)

        return or_die

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", counted(os.replace))
        patch.setattr("pathlib.Path.unlink", counted(Path.unlink))
        with pytest.raises(Killed):
            write_all(paths, "new")
    found = contents_of(paths)
    assert found[0] is None or set(found) == {found[0]}, found


def test_files_that_belong_together_are_as_they_were_after_a_failure(tmp_path):
    paths = [tmp_path / name for name in ("first", "b")]
    for path in paths:
        path.write_text("old")
    with pytest.raises(ResourceError, match="disk is full"):
        write_all(paths, "new", OSError(errno.ENOSPC, "full"))
    assert contents_of(paths) == ["old", "old"]
    write_all(paths, "new")
    assert contents_of(paths) == ["new", "new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "first"]
