"""Values that are no numbers, files that were checked before, and manifests of checksums."""

from __future__ import annotations

import hashlib
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paligemma.checkpoint import verify_sha256
from paligemma.checkpoint.values import ValueCheck, cache_folder, known_good, remember_good, value_problem
from paligemma.errors import CheckpointError

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@given(values=st.lists(st.sampled_from([0.0, -0.0, 1.5, -3.0, float("nan"), float("inf"), float("-inf")]), min_size=1, max_size=70))
def test_counts_what_is_no_number(values, dtype):
    tensor = torch.tensor(values, dtype=dtype)
    nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    problem, zeros = value_problem(tensor)
    assert (problem is not None) == bool(nan or infinite)
    if nan:
        assert f"{nan} NaN" in str(problem)
    if infinite:
        assert f"{infinite} infinite" in str(problem)
    assert zeros == (problem is None and not tensor.any())
    assert value_problem(tensor.float().numpy()) == (problem, zeros)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_numbers_are_numbers(dtype):
    assert value_problem(torch.full((5,), torch.finfo(dtype).max, dtype=dtype)) == (None, False)


def test_a_tensor_in_pieces():
    check = ValueCheck("x")
    for name, parts in {"a": [0, 0], "b": [0, 1], "c": [1, 0]}.items():
        for part in parts:
            check.look(name, torch.full((4,), float(part)))
    assert check.zeros() == ["a"]
    check.finish()


def test_files_are_known_until_they_change(tmp_path, cache):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    assert not known_good([one, two])
    remember_good([one, two])
    assert known_good([two, one])
    assert not known_good([one])
    os.utime(one, ns=(1, 1))
    assert not known_good([one, two])
    assert cache_folder() == cache


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PALIGEMMA_CACHE", str(tmp_path / "file" / "below"))
    (tmp_path / "file").touch()
    remember_good([tmp_path / "file"])
    assert not known_good([tmp_path / "file"])


def manifest(folder, **digests: str):
    path = folder / "SHA256SUMS"
    path.write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))
    return path


def test_l6_a_flipped_bit_is_found_by_its_checksum(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(torch.ones(100).numpy().tobytes())
    sums = manifest(tmp_path, **{"model.safetensors": hashlib.sha256(weights.read_bytes()).hexdigest()})
    assert verify_sha256(tmp_path, sums) == [weights]
    content = bytearray(weights.read_bytes())
    content[42] ^= 0x40
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: SHA-256") as caught:
        verify_sha256(tmp_path, sums)
    assert caught.value.code == "sha256_differs"


def test_all_files_of_a_manifest_are_named(tmp_path):
    (tmp_path / "a").write_text("a")
    with pytest.raises(CheckpointError) as caught:
        verify_sha256(tmp_path, manifest(tmp_path, a="0" * 64, b="1" * 64))
    assert "a: SHA-256" in caught.value.message
    assert "b is missing" in caught.value.message


@pytest.mark.parametrize("text", ["", "nonsense\n", "0" * 64 + "  ../x\n", "0" * 64 + "  /etc/passwd\n", "0" * 63 + "  x\n", "\udcff"])
def test_manifests_that_are_none(tmp_path, text):
    (tmp_path / "sums").write_text(text, errors="surrogateescape")
    with pytest.raises(CheckpointError) as caught:
        verify_sha256(tmp_path, tmp_path / "sums")
    assert caught.value.code == "bad_manifest"


def test_manifests_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(CheckpointError, match="cannot be read") as caught:
            verify_sha256(tmp_path, path)
        assert caught.value.code == "bad_manifest"
