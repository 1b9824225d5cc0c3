"""Archives: what NumPy writes is read to the bit, stored or packed; L9: all else is refused from the directory and the array headers."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest
import torch

from paligemma.checkpoint.npz_file import NpzFile
from paligemma.errors import CheckpointError

from .making import npy_bytes, npy_header, zip_file

RNG = np.random.default_rng(0)
ARRAYS = {
    "params/a": RNG.standard_normal((3, 4, 5)).astype(np.float32),
    "params/b/scale": RNG.standard_normal(7).astype(np.float16),
    "params/c/w": RNG.standard_normal((2, 6)).astype(ml_dtypes.bfloat16),
    "params/d": np.float32(3.5),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(tmp_path, save):
    path = tmp_path / "x.npz"
    save(path, **ARRAYS)
    source = NpzFile(path)
    assert {name: spec.dtype for name, spec in source.specs.items()} == dict(
        zip(ARRAYS, ("float32", "float16", "bfloat16", "float32"), strict=True)
    )
    for name, array in ARRAYS.items():
        tensor = source.read(name)
        assert tuple(tensor.shape) == array.shape
        assert tensor.reshape(-1).view(torch.uint8).numpy().tobytes() == array.tobytes()
        assert source.array(name).shape == array.shape
        assert source.array(name).tobytes() == array.tobytes()
        np.testing.assert_array_equal(source.floats(name), array.astype(np.float32))
    assert float(source.read("params/c/w", 7, 1)) == float(ARRAYS["params/c/w"][1, 1])


def test_bfloat16_is_stored_as_two_bytes_of_no_type(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, w=ARRAYS["params/c/w"])
    assert np.load(path)["w"].dtype == np.dtype("V2"), "the published files look like this to NumPy"
    assert torch.equal(NpzFile(path).read("w"), torch.from_numpy(ARRAYS["params/c/w"].astype(np.float32)).bfloat16())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_parts_in_any_order(tmp_path, save):
    save(tmp_path / "x.npz", a=ARRAYS["params/a"])
    source = NpzFile(tmp_path / "x.npz")
    flat = torch.from_numpy(ARRAYS["params/a"]).view(-1)
    for start in (0, 20, 40, 20, 0, 40):
        assert torch.equal(source.read("a", start, 20), flat[start : start + 20])


def test_a_packed_layer_after_the_other_unpacks_once(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", a=ARRAYS["params/a"])
    source = NpzFile(tmp_path / "x.npz")
    opened = []
    unwrapped = zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, *args, **more: opened.append(1) or unwrapped(self, *args, **more))
    for start in (0, 20, 40):
        source.read("a", start, 20)
    assert len(opened) == 1


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_flipped_bit_fails_the_checksum(tmp_path, pieces):
    path = tmp_path / "x.npz"
    array = np.arange(6000, dtype=np.float32)  # more than the zip library reads ahead, and checks, along with the array's header
    np.savez(path, a=array)
    content = bytearray(path.read_bytes())
    content[content.index(array.tobytes()) + 17] ^= 0x20
    path.write_bytes(content)

    def read(source: NpzFile) -> None:
        for number in range(pieces):
            source.read("a", number * 6000 // pieces, 6000 // pieces)

    with pytest.raises(CheckpointError, match="checksum") as caught:
        read(NpzFile(path))
    assert caught.value.code == "bad_checksum"
    read(NpzFile(path, verify=False))


def header(descr: str = "<f4", fortran: bool = False, shape: str = "(2,)") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}"


def archive(tmp_path, members: dict[str, bytes], **more) -> bytes:
    return zip_file(tmp_path / "made.npz", members, **more).read_bytes()


def forged(tmp_path, old: bytes, new: bytes, *, count: int = -1, members: dict[str, bytes] | None = None) -> bytes:
    """An archive with a sequence of bytes replaced."""
    content = archive(tmp_path, members or {"a.npy": npy_bytes(np.zeros(2, np.float32))})
    assert old in content
    return content.replace(old, new, count)


def directory_field(tmp_path, offset: int, value: bytes) -> bytes:
    """An archive whose directory entry says something else."""
    content = bytearray(archive(tmp_path, {"a.npy": npy_bytes(np.zeros(2, np.float32))}))
    at = content.index(b"PK\1\2") + offset
    content[at : at + len(value)] = value
    return bytes(content)


def twice(tmp_path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("a.npy", npy_bytes(np.zeros(2, np.float32)))
        made.writestr("b.npy", npy_bytes(np.zeros(2, np.float32)))
    return out.getvalue().replace(b"b.npy", b"a.npy")


FLOATS = npy_bytes(np.zeros(2, np.float32))

# name: (bytes of the archive, a word of the message)
L9 = {
    "not a zip": (lambda t: b"hello" * 100, "not a zip"),
    "empty": (lambda t: b"", "not a zip"),
    "cut in half": (lambda t: archive(t, {"a.npy": FLOATS})[:150], "not a zip"),
    "no member": (lambda t: archive(t, {}), "empty"),
    "member that is no array": (lambda t: archive(t, {"a.txt": b"x"}), "not an array"),
    "array name, other content": (lambda t: archive(t, {"a.npy": b"x" * 200}), "not an array in NumPy's format"),
    "member that climbs": (lambda t: archive(t, {"../a.npy": FLOATS}), "path"),
    "absolute member": (lambda t: archive(t, {"/a.npy": FLOATS}), "path"),
    "control characters": (lambda t: archive(t, {"a\x1b[31m.npy": FLOATS}), "control"),
    "NUL in a name": (lambda t: forged(t, b"a.npy", b"\0.npy"), "NUL"),
    "a member twice": (twice, "twice"),
    "encrypted": (lambda t: directory_field(t, 8, b"\x01\x00"), "encrypted"),
    "another packing": (lambda t: archive(t, {"a.npy": FLOATS}, compression=zipfile.ZIP_BZIP2), "method 12"),
    "sizes that lie": (lambda t: directory_field(t, 24, struct.pack("<I", 1 << 30)), "sizes differ"),
    "sizes that lie in zip64": (lambda t: directory_field(t, 24, struct.pack("<I", 0xFFFFFFFF)), "x.npz"),
    "offset that lies": (lambda t: directory_field(t, 42, struct.pack("<I", 1 << 30)), "x.npz"),
    "zip bomb": (
        lambda t: archive(t, {"a.npy": npy_header(header(shape="(20000000,)"), bytes(80_000_000))}, compression=zipfile.ZIP_DEFLATED),
        "more than 200 times",
    ),
    "object array": (lambda t: archive(t, {"a.npy": npy_bytes(np.array([{}], dtype=object))}), "pickle"),
    "forged shape": (lambda t: archive(t, {"a.npy": npy_header(header(shape="(300000000000,)"))}), "takes 1,200,000,000,000 bytes"),
    "shape over the data": (lambda t: archive(t, {"a.npy": npy_header(header(shape="(3,)"), bytes(8))}), "takes 12 bytes"),
    "shape under the data": (lambda t: archive(t, {"a.npy": npy_header(header(shape="(1,)"), bytes(8))}), "takes 4 bytes"),
    "negative shape": (lambda t: archive(t, {"a.npy": npy_header(header(shape="(-2,)"), bytes(8))}), "header"),
    "no values": (lambda t: archive(t, {"a.npy": npy_header(header(shape="(0,)"))}), "no value"),
    "nine axes": (lambda t: archive(t, {"a.npy": npy_header(header(shape="(1, 1, 1, 1, 1, 1, 1, 1, 2)"), bytes(8))}), "shape"),
    "double precision": (lambda t: archive(t, {"a.npy": npy_bytes(np.zeros(2))}), "number type"),
    "big-endian": (lambda t: archive(t, {"a.npy": npy_bytes(np.zeros(2, ">f4"))}), "number type"),
    "records": (lambda t: archive(t, {"a.npy": npy_bytes(np.zeros(2, [("x", "<f4")]))}), "header"),
    "column by column": (lambda t: archive(t, {"a.npy": npy_bytes(np.asfortranarray(np.zeros((2, 3), np.float32)))}), "column"),
    "code in the header": (lambda t: archive(t, {"a.npy": npy_header("__import__('os').abort()", bytes(8))}), "header"),
    "deep header": (lambda t: archive(t, {"a.npy": npy_header("(" * 9000)}), "header"),
    "header of 60,000 characters": (lambda t: archive(t, {"a.npy": npy_header(" " * 60_000)}), "limit"),
    "header that ends early": (lambda t: archive(t, {"a.npy": b"\x93NUMPY\x01\x00\xff\x00{'descr'"}), "ends early"),
    "format version 9": (lambda t: archive(t, {"a.npy": b"\x93NUMPY\x09\x00" + FLOATS[8:]}), "version 9"),
    "git lfs pointer": (lambda t: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
    "web page": (lambda t: b"<!DOCTYPE html><html>" + bytes(300), "web page"),
}


@pytest.mark.parametrize("case", L9)
def test_l9_refused(tmp_path, case):
    make, word = L9[case]
    path = tmp_path / "x.npz"
    path.write_bytes(make(tmp_path))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            NpzFile(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert word in caught.value.message
    assert len(caught.value.message) < 400
    assert peak < 8 << 20


def test_l9_a_million_members(tmp_path):
    """The directory alone would take hundreds of megabytes to hold."""
    entry = b"PK\1\2" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    count = 1_000_000
    directory = entry * count
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), 0, 0)
    path = tmp_path / "x.npz"
    path.write_bytes(directory + end)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="directory of"):
            NpzFile(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


ENTRY = b"PK\1\2" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
MANY = 66_000


def end_record(count: int, length: int) -> bytes:
    return b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, length, 0, 0)


def zip64_record(count: int, length: int) -> bytes:
    return b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, length, 0)


def locator(offset: int) -> bytes:
    return b"PK\6\7" + struct.pack("<IQI", 0, offset, 1)


def test_a_zip64_directory_counts_even_where_the_short_counts_are_not_full(tmp_path):
    """The zip library follows the locator always."""
    directory = ENTRY * MANY
    path = tmp_path / "x.npz"
    path.write_bytes(directory + zip64_record(MANY, len(directory)) + locator(len(directory)) + end_record(1, len(ENTRY)))
    assert len(zipfile.ZipFile(path).infolist()) == MANY
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="66,000 members in a directory of"):
            NpzFile(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_locator_that_leads_elsewhere_is_refused(tmp_path):
    """The zip library does not look where it leads, it takes what stands before it."""
    modest, directory = zip64_record(1, len(ENTRY)), ENTRY * MANY
    before = modest + directory + zip64_record(MANY, len(directory))
    path = tmp_path / "x.npz"
    path.write_bytes(before + locator(0) + end_record(1, len(ENTRY)))
    with pytest.raises(CheckpointError, match="zip64 directory is not where it should be"):
        NpzFile(path)


@pytest.mark.parametrize("zip64", [False, True])
def test_the_directory_lists_as_many_members_as_it_claims(tmp_path, zip64):
    directory = ENTRY * 3
    large = zip64_record(1, len(directory)) + locator(len(directory)) if zip64 else b""
    path = tmp_path / "x.npz"
    path.write_bytes(directory + large + end_record(1, len(directory)))
    with pytest.raises(CheckpointError, match="claims 1 members and lists 3"):
        NpzFile(path)


def test_large_archives_of_the_zip_library_are_read(tmp_path, monkeypatch):
    """With the limit lowered it writes a zip64 directory for two members, as it would for weights of more than four gigabytes."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    np.savez(tmp_path / "x.npz", a=ARRAYS["params/a"], d=ARRAYS["params/d"])
    assert b"PK\6\7" in (tmp_path / "x.npz").read_bytes()
    assert NpzFile(tmp_path / "x.npz").read("d") == 3.5


def test_a_damaged_packed_member_is_refused_when_read(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=RNG.standard_normal(4000).astype(np.float32))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    source = NpzFile(path)
    with pytest.raises(CheckpointError, match="damaged"):
        source.read("a")


def test_any_damaged_archive_is_read_or_refused(tmp_path):
    """A thousand archives with a few bytes changed: no exception but ours, never more values than the file has bytes for."""
    rng = random.Random(3)
    path = tmp_path / "x.npz"
    bases = []
    for save in (np.savez, np.savez_compressed):
        save(path, **{"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b/c": np.ones(5, np.float16)})
        bases.append(path.read_bytes())
    whole = 0
    for number in range(1000):
        content = bytearray(bases[number % 2])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(content)) if rng.random() < 0.6 else rng.randrange(len(content) - 160, len(content))
            content[at] = rng.choice((0, 1, 0xFF, rng.randrange(256)))
        path = tmp_path / f"{number}.npz"  # a new file each: replacing one waits for the disk
        path.write_bytes(content)
        try:
            source = NpzFile(path)
            tensors = [source.read(name) for name in source.specs]
        except CheckpointError:
            continue
        whole += 1
        assert sum(tensor.numel() for tensor in tensors) <= 17
    assert whole > 20


def test_the_checksum_is_the_zip_formats(tmp_path):
    np.savez(tmp_path / "x.npz", a=ARRAYS["params/a"])
    with zipfile.ZipFile(tmp_path / "x.npz") as made:
        assert zlib.crc32(npy_bytes(ARRAYS["params/a"])) == made.getinfo("a.npy").CRC
