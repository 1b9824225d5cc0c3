"""States to safetensors and back: bit for bit, readable by the safetensors library and by our own strict reader, never non-finite."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from paligemma.checkpoint import source
from paligemma.checkpoint.safetensors_files import SafetensorsFiles
from paligemma.errors import CheckpointError
from paligemma.training import tensor_file
from paligemma.training.tensor_file import Later, NotFiniteError, Saveable, nbytes, pieces, read_tensors, written_order

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
WHOLE = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


def tensors(dtypes=(*FLOATS, *WHOLE)) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    made = {f"block.{number}.weight": (torch.randn(3, 5, generator=random) * 3).to(dtype) for number, dtype in enumerate(dtypes)}
    return made | {f"count.{number}": torch.ones((), dtype=dtype) for number, dtype in enumerate(dtypes)}


def write(path: Path, given: Mapping[str, Saveable]) -> Path:
    path.write_bytes(b"".join(bytes(piece) for piece in pieces(given, "model")))
    return path


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and found[name].shape == tensor.shape and torch.equal(found[name], tensor)
        for name, tensor in expected.items()
    )


@pytest.mark.parametrize("mapped", [True, False])
def test_every_number_type_comes_back(tmp_path, mapped):
    path = write(tmp_path / "f.safetensors", tensors())
    assert same(read_tensors(path, mapped=mapped), tensors())
    assert same(safetensors.torch.load_file(path), tensors())
    assert path.stat().st_size == nbytes(tensors()) + 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]


def test_the_library_s_files_are_read(tmp_path):
    safetensors.torch.save_file(tensors(), tmp_path / "f.safetensors", metadata={"format": "pt"})
    assert same(read_tensors(tmp_path / "f.safetensors"), tensors())


def test_weights_are_a_file_that_the_strict_reader_takes(tmp_path):
    given = tensors([torch.float32, torch.bfloat16, torch.float16])
    files = SafetensorsFiles([write(tmp_path / "model.safetensors", given)])
    assert same({name: files.read(name) for name in files.specs}, given)


def test_every_tensor_begins_at_a_multiple_of_its_number_s_size(tmp_path):
    given = {
        "small": torch.ones(3, dtype=torch.int8),
        "wide": torch.ones(3, dtype=torch.float64),
        "half": torch.ones(1, dtype=torch.bfloat16),
    }
    data = write(tmp_path / "f", given).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert all((8 + length + header[name]["data_offsets"][0]) % tensor.dtype.itemsize == 0 for name, tensor in given.items())
    assert written_order(given) == ["wide", "half", "small"]


def test_large_tensors_go_out_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_file, "CHUNK_BYTES", 64)
    given = {"matrix": torch.randn(37, 11), "turned": torch.randn(6, 20).T, "every second": torch.randn(40)[::2]}
    out = list(pieces(given, "model"))
    assert max(len(piece) for piece in out[1:]) <= 64
    assert same(read_tensors(write(tmp_path / "f", given)), given)
    assert source.CHUNK_BYTES > 64


def test_gradients_and_parameters(tmp_path):
    given = {"weight": torch.nn.Parameter(torch.randn(4))}
    assert same(read_tensors(write(tmp_path / "f", given)), {"weight": given["weight"].detach()})


def test_no_tensor_at_all(tmp_path):
    assert read_tensors(write(tmp_path / "f", {})) == {}


def test_later_ones_are_made_one_by_one(tmp_path):
    alive: list[str] = []

    def make(name: str) -> Tensor:
        alive.append(name)
        return torch.full((4,), float(len(alive)))

    given: dict[str, Saveable] = {name: Later((4,), torch.float32, lambda name=name: make(name)) for name in "abc"}
    out = pieces(given, "model")
    next(out)
    assert alive == []
    next(out)
    assert alive == ["a"]
    assert same(read_tensors(write(tmp_path / "f", given)), {name: torch.full((4,), float(i)) for i, name in enumerate("abc", 2)})


def test_a_later_one_must_be_what_was_announced():
    for made in (torch.ones(5), torch.ones(4, dtype=torch.float64)):
        with pytest.raises(ValueError, match="announced"):
            list(pieces({"a": Later((4,), torch.float32, lambda made=made: made)}, "model"))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named_before_it_is_handed_out(dtype, bad, monkeypatch):
    monkeypatch.setattr(tensor_file, "CHUNK_BYTES", 64)
    spoilt = torch.ones(100, dtype=dtype)
    spoilt[77] = bad
    given = {"first": torch.ones(3, dtype=dtype), "second": spoilt}
    handed: list[bytes] = []
    with pytest.raises(NotFiniteError, match=r"optimizer: second holds 1 (NaN|infinite)") as caught:
        handed.extend(bytes(piece) for piece in pieces(given, "optimizer"))
    assert torch.frombuffer(bytearray(b"".join(handed[1:])), dtype=dtype).isfinite().all()
    assert caught.value.exit_code == 7


@pytest.mark.parametrize(
    ("name", "tensor", "error"),
    [
        ("a/b", torch.ones(1), ValueError), ("../a", torch.ones(1), ValueError), ("", torch.ones(1), ValueError),
        ("näme", torch.ones(1), ValueError), ("a\0", torch.ones(1), ValueError), ("empty", torch.ones(3, 0), ValueError),
        ("complex", torch.ones(1, dtype=torch.complex64), TypeError),
    ],
)  # fmt: skip
def test_what_such_a_file_cannot_hold_is_refused_at_once(name, tensor, error):
    with pytest.raises(error, match="model"):
        next(pieces({"good": torch.ones(2), name: tensor}, "model"))


def forged(entry: dict[str, object], data: bytes = bytes(16)) -> bytes:
    text = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | entry}).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**62),
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{]",
        *map(forged, [{"shape": [2**40]}, {"shape": [-1, -2]}, {"shape": [0]}, {"shape": 3}, {"dtype": "F8"}, {"dtype": ["F32"]}]),
        *map(forged, [{"data_offsets": [12, 20]}, {"data_offsets": [-8, 0]}, {"data_offsets": []}]),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, data):
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(CheckpointError, match="f: "):
        read_tensors(tmp_path / "f")


def test_writing_to_a_view_leaves_the_file_alone(tmp_path):
    path = write(tmp_path / "f", {"a": torch.zeros(40_000)})
    before = path.read_bytes()
    read_tensors(path)["a"].fill_(1.0)
    assert path.read_bytes() == before
