"""L1, L2, L3, L5: headers that are refused before a byte of data is read, and what they are refused with."""

from __future__ import annotations

import itertools
import json
import random
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from paligemma.checkpoint.safetensors_header import MAX_HEADER, read_header
from paligemma.checkpoint.source import TensorSpec
from paligemma.errors import CheckpointError

from .making import safetensors_bytes

GOOD = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "b.c": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}}
DATA = bytes(32)


def entry(**changes: object) -> dict:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


def refused(tmp_path, content: bytes) -> CheckpointError:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert "model.safetensors" in caught.value.message
    assert len(caught.value.message) < 400
    return caught.value


def test_a_good_header(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({"__metadata__": {"format": "pt"}, **GOOD}, DATA))
    header = read_header(path)
    assert header.specs == {"a": TensorSpec((2, 3), "float32"), "b.c": TensorSpec((4,), "bfloat16")}
    start = path.stat().st_size - 32
    assert header.offsets == {"a": start, "b.c": start + 24}


def test_the_librarys_own_files_are_good(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"one": torch.randn(3, 4), "two": torch.randn(5).half(), "three": torch.tensor(1.0).bfloat16()}
    path.write_bytes(save(tensors, {"format": "pt"}))
    header = read_header(path)
    assert {name: spec.shape for name, spec in header.specs.items()} == {name: tuple(t.shape) for name, t in tensors.items()}
    raw = path.read_bytes()
    for name, tensor in tensors.items():
        start = header.offsets[name]
        assert raw[start : start + header.specs[name].nbytes] == tensor.view(-1).view(torch.uint8).numpy().tobytes()


# name: (file, a word of the message); the library refuses these too
L1 = {
    "no byte": (b"", "0 bytes"),
    "seven bytes": (bytes(7), "7 bytes"),
    "length of 2**63": (safetensors_bytes(GOOD, DATA, length=2**63), "claims"),
    "length past the end": (safetensors_bytes(GOOD, b"", length=1000), "claims"),
    "length over the library's limit": (safetensors_bytes(GOOD, DATA, length=100_000_001), "limit"),
    "length over ours": (safetensors_bytes(GOOD, DATA, length=MAX_HEADER + 1), "limit"),
    "not UTF-8": (safetensors_bytes(b'{"\xff": 1}'), "not JSON"),
    "not JSON": (safetensors_bytes(b"{a: 1}"), "not JSON"),
    "nested 100,000 deep": (safetensors_bytes(b'{"a":' + b"[" * 100_000), "not JSON"),
    "NaN": (safetensors_bytes(b'{"a": NaN}'), "not JSON"),
    "number of 5,000 digits": (safetensors_bytes(b'{"a": ' + b"9" * 5000 + b"}"), "not JSON"),
    "no tensor": (safetensors_bytes({}), "no tensor"),
    "negative shape": (safetensors_bytes(entry(shape=[-2]), bytes(8)), "shape"),
    "fractional shape": (safetensors_bytes(entry(shape=[2.0]), bytes(8)), "shape"),
    "boolean shape": (safetensors_bytes(entry(shape=[True]), bytes(8)), "shape"),
    "shape that overflows": (safetensors_bytes(entry(shape=[2**40, 2**40]), bytes(8)), "takes"),
    "shape beyond 2**53": (safetensors_bytes(entry(shape=[2**62]), bytes(8)), "shape"),
    "nine axes": (safetensors_bytes(entry(shape=[1] * 8 + [2]), bytes(8)), "shape"),
    "unknown number type": (safetensors_bytes(entry(dtype="F7"), bytes(8)), "number type"),
    "quantized": (safetensors_bytes(entry(dtype="I8", shape=[8]), bytes(8)), "number type"),
    "shape against offsets": (safetensors_bytes(entry(shape=[3]), bytes(8)), "takes 12 bytes"),
    "offsets backwards": (safetensors_bytes(entry(data_offsets=[8, 0]), bytes(8)), "range"),
    "offsets negative": (safetensors_bytes(entry(data_offsets=[-8, 0]), bytes(8)), "range"),
    "three offsets": (safetensors_bytes(entry(data_offsets=[0, 8, 8]), bytes(8)), "range"),
    "extra field": (safetensors_bytes(entry(extra=1), bytes(8)), "expected exactly"),
    "missing field": (safetensors_bytes({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "expected exactly"),
    "entry is a list": (safetensors_bytes({"a": [1]}, bytes(8)), "expected exactly"),
    "overlap": (safetensors_bytes({**entry(), "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12)), "overlaps"),
    "hole": (safetensors_bytes({**entry(), "b": {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]}}, bytes(20)), "hole"),
    "trailing bytes": (safetensors_bytes(GOOD, DATA + b"x"), "file holds 33"),
    "one byte short": (safetensors_bytes(GOOD, DATA[:-1]), "file holds 31"),
    "cut in half": (safetensors_bytes(GOOD, DATA[:16]), "file holds 16"),
    "metadata of numbers": (safetensors_bytes({"__metadata__": {"a": 1}, **entry()}, bytes(8)), "__metadata__"),
    "20,001 tensors": (
        safetensors_bytes(
            {f"t{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(20_001)}, bytes(80_004)
        ),
        "20,001 tensors",
    ),
}


@pytest.mark.parametrize("case", L1)
def test_l1_refused(tmp_path, case):
    content, word = L1[case]
    assert word in refused(tmp_path, content).message


# The library accepts the first five.
L2 = {
    "a name twice": b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    "a name that leaves the folder": json.dumps({"../../etc/x": entry()["a"]}).encode(),
    "a name with NUL": json.dumps({"a\0b": entry()["a"]}).encode(),
    "space before the brace": b" " + json.dumps(entry()).encode(),
    "no values": json.dumps({**entry(), "b": {"dtype": "F32", "shape": [0], "data_offsets": [8, 8]}}).encode(),
    "no values in a huge shape": json.dumps({**entry(), "b": {"dtype": "F32", "shape": [0, 2**52], "data_offsets": [8, 8]}}).encode(),
    "a field twice": b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    "a terminal escape": json.dumps({"a\x1b[31m": entry()["a"]}).encode(),
    "an absolute path": json.dumps({"/etc/x": entry()["a"]}).encode(),
    "a name of 513 characters": json.dumps({"a" * 513: entry()["a"]}).encode(),
    "no name": json.dumps({"": entry()["a"]}).encode(),
}


@pytest.mark.parametrize("case", L2)
def test_l2_refused_as_not_canonical(tmp_path, case):
    error = refused(tmp_path, safetensors_bytes(L2[case], bytes(8)))
    assert error.code == "header_not_canonical"
    assert "\x1b" not in error.message


# name: (first bytes, code, a word of the hint)
L3 = {
    "git lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5000000\n",
        "git_lfs_pointer",
        "git lfs pull",
    ),
    "html": (b"\n<!DOCTYPE html><html><head><title>Access to model is restricted</title>" + bytes(600), "html_page", "licence"),
    "pickle": (b"\x80\x02}q\x00(X\x05\x00\x00\x00" + bytes(600), "pickle_refused", "safetensors"),
}


@pytest.mark.parametrize("case", L3)
def test_l3_recognised(tmp_path, case):
    content, code, word = L3[case]
    error = refused(tmp_path, content)
    assert error.code == code
    assert word in (error.hint or "")


@pytest.mark.parametrize("length", [0x80, 0x280, 0x0480, 0x010280, 0x7B0280])
def test_a_header_length_that_looks_like_a_pickle_is_none(tmp_path, length):
    text = json.dumps(GOOD).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(text + b" " * (length - len(text)), DATA))
    assert list(read_header(path).specs) == ["a", "b.c"]


def test_l5_a_cut_says_how_much_is_missing_and_hints_at_the_download(tmp_path):
    error = refused(tmp_path, safetensors_bytes(GOOD, DATA[:-1]))
    assert "32 bytes of data" in error.message
    assert "fetch" in (error.hint or "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.text(max_size=4) | st.sampled_from(["F32", "BF16", "I8"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "a", "b"]), inner, max_size=4)
    ),
    max_leaves=12,
)

NUMBERS = itertools.count()


@given(JSON, st.integers(0, 48))
def test_any_json_is_a_header_or_refused(tmp_path_factory, value, size):
    path = tmp_path_factory.getbasetemp() / f"{next(NUMBERS)}.safetensors"  # a new file each: replacing one waits for the disk
    path.write_bytes(safetensors_bytes(json.dumps(value), bytes(size)))
    try:
        header = read_header(path)
    except CheckpointError:
        return
    assert sum(spec.nbytes for spec in header.specs.values()) == size


def test_what_the_library_refuses_is_never_accepted(tmp_path):
    """Two thousand headers with one to three bytes changed, removed or added: ours is the stricter reader, and raises nothing else."""
    rng = random.Random(5)
    base = safetensors_bytes({"__metadata__": {"format": "pt"}, **GOOD}, DATA)
    accepted = 0
    for number in range(2000):
        path = tmp_path / f"{number}.safetensors"
        content = bytearray(base)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(content))
            kind = rng.randrange(4)
            if kind == 0:
                content[at] = rng.randrange(256)
            elif kind == 1:
                content[at] = rng.choice(b'0123456789[]{},":\0 F')
            elif kind == 2:
                del content[at]
            else:
                content.insert(at, rng.choice(b"0123456789 "))
        if rng.random() < 0.5:  # keep the length honest, or almost every case ends at the first check
            content[:8] = struct.pack("<Q", max(0, len(content) - 8 - len(DATA)))
        path.write_bytes(content)
        try:
            header = read_header(path)
        except CheckpointError:
            continue
        accepted += 1
        try:
            with safe_open(path, "pt") as theirs:
                assert {name: tuple(theirs.get_slice(name).get_shape()) for name in theirs.keys()} == {  # noqa: SIM118
                    name: spec.shape for name, spec in header.specs.items()
                }
        except SafetensorError as error:
            pytest.fail(f"we accept what the library refuses ({error}): {bytes(content)!r}")
    assert accepted > 100, "the mutations must leave some headers whole, or nothing is compared"
