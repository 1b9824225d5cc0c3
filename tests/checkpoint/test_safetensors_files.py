"""L4, L5: index and shards must agree in every way; reading mapped or copied gives the same bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from paligemma.checkpoint.safetensors_files import SafetensorsFiles, find_safetensors
from paligemma.errors import CheckpointError

from .making import safetensors_bytes, shard, write_index

TENSORS = {f"t{i}": torch.randn(3, i + 1) for i in range(7)}
BYTES = sum(tensor.numel() * 4 for tensor in TENSORS.values())


@pytest.fixture
def folder(tmp_path):
    shard(tmp_path, TENSORS)
    return tmp_path


@pytest.mark.parametrize("mapped", [True, False])
def test_reads_whole_tensors_and_stretches(folder, mapped):
    source = SafetensorsFiles(find_safetensors(folder), mapped=mapped)
    assert source.specs.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(source.read(name), tensor)
        assert torch.equal(source.read(name, 1, 2), tensor.view(-1)[1:3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("shift", [0, 1])
def test_arrays_are_the_tensors(tmp_path, mapped, dtype, shift):
    """Also at odd places in the file, and for a matrix that is large enough to be mapped."""
    tensors = {"large": torch.randn(300, 301).to(dtype), "small": torch.randn(3).to(dtype)}
    kind = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    header, data = {}, b""
    for name, tensor in tensors.items():
        end = len(data) + tensor.numel() * dtype.itemsize
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(data), end]}
        data += tensor.view(torch.uint8).numpy().tobytes()
    text = json.dumps(header)
    text += " " * ((shift - len(text)) % 8)
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(text, data))
    source = SafetensorsFiles([tmp_path / "model.safetensors"], mapped=mapped)
    for name, tensor in tensors.items():
        assert torch.equal(source.read(name), tensor)
        np.testing.assert_array_equal(source.floats(name), tensor.float().numpy())
        assert source.array(name, 1, 2).tobytes() == tensor.view(-1)[1:3].view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("mapped", [True, False])
def test_a_file_that_changed_after_opening_is_an_error(folder, mapped):
    source = SafetensorsFiles(find_safetensors(folder), mapped=mapped)
    for file in source.files:
        file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="ended early"):
        [source.read(name) for name in source.specs]


def index(folder) -> dict:
    return json.loads((folder / "model.safetensors.index.json").read_text())


def rewrite(folder, **changes: object):
    """Move tensors in the index: name -> file, or None to leave it out."""
    where = index(folder)["weight_map"] | changes
    write_index(folder, {name: file for name, file in where.items() if file is not None}, BYTES)


ONE, TWO = "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"

# what happens to a good folder -> words of the message
L4 = {
    "shard name with a slash": (lambda f: rewrite(f, t0="sub/model.safetensors"), ["sub/model.safetensors"]),
    "shard name that climbs": (lambda f: rewrite(f, t0="../model.safetensors"), ["../model"]),
    "shard name with a backslash": (lambda f: rewrite(f, t0="..\\model.safetensors"), ["model.safetensors"]),
    "shard that is no safetensors": (lambda f: rewrite(f, t0="model.bin"), ["model.bin"]),
    "missing shard": (lambda f: (f / TWO).unlink(), [TWO, "missing"]),
    "shard not listed": (lambda f: (f / "model-00004-of-00003.safetensors").write_bytes((f / ONE).read_bytes()), ["00004", "not listed"]),
    "tensor in two shards": (lambda f: (f / TWO).write_bytes((f / ONE).read_bytes()), ["t0", TWO]),
    "tensor listed in the wrong shard": (lambda f: rewrite(f, t0=TWO), ["t0", ONE, TWO]),
    "tensor not listed": (lambda f: rewrite(f, t0=None), ["t0", "nowhere"]),
    "tensor listed but nowhere": (lambda f: rewrite(f, t99=ONE), ["t99", "not there"]),
    "total size": (lambda f: write_index(f, index(f)["weight_map"], 5), ["total_size is 5", str(BYTES)]),
    "total size of text": (lambda f: write_index(f, index(f)["weight_map"], "5"), ["total_size"]),
    "257 shards": (lambda f: write_index(f, {f"t{i}": f"{i}.safetensors" for i in range(257)}, 5), ["257 shards"]),
    "no weight map": (lambda f: (f / "model.safetensors.index.json").write_text("[]"), ["weight_map"]),
    "no JSON": (lambda f: (f / "model.safetensors.index.json").write_text("{"), ["not JSON"]),
    "an index that is too large": (lambda f: (f / "model.safetensors.index.json").write_bytes(b" " * (17 << 20)), ["limit"]),
    "an index that is a pointer": (
        lambda f: (f / "model.safetensors.index.json").write_text("version https://git-lfs.github.com/spec/v1\n"), ["LFS"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", L4)
def test_l4_refused(folder, case):
    damage, words = L4[case]
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        find_safetensors(folder)
    for word in words:
        assert word in caught.value.message


def test_two_shards_swapped_are_refused(folder):
    one, two = (folder / ONE).read_bytes(), (folder / TWO).read_bytes()
    (folder / ONE).write_bytes(two)
    (folder / TWO).write_bytes(one)
    with pytest.raises(CheckpointError) as caught:
        find_safetensors(folder)
    assert caught.value.code == "index_mismatch"
    assert len(caught.value.message.splitlines()) > 4, "all problems are listed"


@pytest.mark.parametrize("cut", [1, 100])
def test_l5_a_cut_shard_is_named(folder, cut):
    (folder / TWO).write_bytes((folder / TWO).read_bytes()[:-cut])
    with pytest.raises(CheckpointError, match=TWO):
        find_safetensors(folder)


def test_the_same_name_in_two_files_without_an_index(tmp_path):
    content = safetensors_bytes({"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"t is in a\.safetensors and in b\.safetensors"):
        SafetensorsFiles([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])


def test_a_folder_without_its_index_is_refused(folder):
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors\.index"):
        find_safetensors(folder)


def test_codec_and_adapter_are_not_weights(tmp_path):
    for name in ("model", "mask_codec", "adapter_model"):
        (tmp_path / f"{name}.safetensors").touch()
    assert [path.name for path in find_safetensors(tmp_path)] == ["model.safetensors"]
