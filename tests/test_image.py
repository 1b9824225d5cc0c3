"""Every kind of picture comes out upright, RGB and bounded, or is refused in one line; the resizes equal what they are named after."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from paligemma.errors import InputError
from paligemma.image import FORMATS, Clip, Limits, open_image, to_pixels

RNG = np.random.default_rng(0)
NOISE = Image.fromarray(RNG.integers(1, 255, (40, 56, 3), dtype=np.uint8))
"""56 wide, 40 high, no black row."""


def encode(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


# Sources


def test_one_picture_by_every_door(tmp_path: Path):
    data = encode(NOISE, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        doors = [
            str(path),
            path,
            data,
            bytearray(data),
            memoryview(data),
            io.BytesIO(data),
            file,
            NOISE,
            Image.open(path),
            np.asarray(NOISE),
        ]
        for door in doors:
            image = open_image(door)
            assert (image.mode, image.size) == ("RGB", (56, 40))
            assert (pixels(image) == pixels(NOISE)).all()


@pytest.mark.parametrize("format", FORMATS)
def test_every_format(format: str):
    image = open_image(encode(NOISE.resize((112, 80), Image.Resampling.BILINEAR), format))
    assert (image.mode, image.size) == ("RGB", (112, 80))
    assert np.abs(pixels(image) - pixels(NOISE.resize((112, 80), Image.Resampling.BILINEAR))).mean() < 25  # lossy, but the same picture


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(format: str):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    image = open_image(encode(frames[0], format, save_all=True, append_images=frames[1:], lossless=True))
    assert image.getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("shape", [(40, 56), (40, 56, 1), (40, 56, 3), (40, 56, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_arrays(shape: tuple[int, ...], dtype: type):
    bytes = RNG.integers(0, 256, shape, dtype=np.uint8)
    bytes[..., 3:] = 255
    image = open_image(bytes if dtype == np.uint8 else (bytes / 255).astype(dtype))
    assert (pixels(image) == np.broadcast_to(bytes.reshape(40, 56, -1)[:, :, :3], (40, 56, 3))).all()


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((3, 40, 56), np.uint8), r"shape \(height, width, 3\), found \(3, 40, 56\)"),
        (np.zeros(5, np.uint8), "found \\(5,\\)"),
        (np.zeros((4, 4, 2), np.uint8), "found \\(4, 4, 2\\)"),
        (np.zeros((0, 4, 3), np.uint8), "nothing to see"),
        (np.full((4, 4), 2.0), r"floats in \[0, 1\], found 2 to 2"),
        (np.full((4, 4), -0.1), "found -0.1 to -0.1"),
        (np.full((4, 4), np.nan), "found nan"),
        (np.zeros((4, 4), np.int64), "uint8 or float, found int64"),
        (np.zeros((4, 4), bool), "found bool"),
        (np.zeros((4, 4), object), "found object"),
    ],
)
def test_arrays_that_are_no_pictures(array: np.ndarray, told: str):
    with pytest.raises(InputError, match=told):
        open_image(array)


@pytest.mark.parametrize("thing", [None, 5, ["a.png"], {}, io.StringIO("text")])
def test_other_things(thing):
    with pytest.raises(InputError, match=f"found {type(thing).__name__}"):
        open_image(thing)


# Modes


def test_transparency_becomes_white():
    red = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    red.putpixel((1, 1), (255, 0, 0, 255))
    red.putpixel((2, 2), (0, 0, 0, 128))
    for format in ("PNG", "WEBP"):
        image = open_image(encode(red, format, lossless=True))
        assert image.getpixel((0, 0)) == (255, 255, 255)
        assert image.getpixel((1, 1)) == (255, 0, 0)
        assert image.getpixel((2, 2)) == (127, 127, 127)
    assert open_image(red.convert("LA")).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(red.convert("RGBa")).getpixel((1, 1)) == (255, 0, 0)


def test_palette_and_colour_key():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    assert [open_image(encode(palette, "PNG")).getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (200, 100, 50)]
    for format in ("PNG", "GIF"):
        keyed = open_image(encode(palette, format, transparency=0))
        assert [keyed.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 50)]
    key = encode(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert open_image(key).getpixel((0, 0)) == (255, 255, 255)


def test_grey_bits_and_sixteen_bits():
    levels = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    image = open_image(encode(Image.fromarray(levels), "PNG"))
    assert [image.getpixel((x, 0)) for x in range(5)] == [(v, v, v) for v in (0, 0, 1, 128, 255)]
    assert open_image(Image.fromarray(levels.astype(">u2"), mode=None)).getpixel((3, 0)) == (128, 128, 128)
    assert open_image(encode(Image.new("1", (3, 3), 1), "PNG")).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(encode(Image.new("L", (3, 3), 77), "JPEG")).getpixel((0, 0)) == (77, 77, 77)


def test_cmyk():
    white, cyan = (open_image(encode(Image.new("CMYK", (8, 8), ink), "JPEG")).getpixel((4, 4)) for ink in ((0, 0, 0, 0), (255, 0, 0, 0)))
    assert white == (255, 255, 255)
    assert cyan[0] < 5
    assert min(cyan[1:]) > 250


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_without_a_range(mode: str):
    with pytest.raises(InputError, match=f"mode '{mode}'"):
        open_image(Image.new(mode, (4, 4)))


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1, 30_000), (30_000, 1)])
def test_odd_shapes(size: tuple[int, int]):
    image = open_image(encode(Image.new("RGB", size, (9, 8, 7)), "PNG"))
    assert image.size == size
    for resize in ("bicubic", "bilinear", "bilinear-antialias"):
        assert np.allclose(to_pixels(image, 28, resize)[:, 5, 5], np.array([9, 8, 7]) / 127.5 - 1, atol=1e-6)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_orientation(orientation: int, format: str):
    """A picture stored turned and labelled so comes out as it was, also when it is opened a second time."""
    upright = Image.new("RGB", (48, 32), "red")
    upright.paste("blue", (0, 0, 16, 16))
    methods = Image.Transpose
    store = {2: methods.FLIP_LEFT_RIGHT, 3: methods.ROTATE_180, 4: methods.FLIP_TOP_BOTTOM, 5: methods.TRANSPOSE}
    store |= {6: methods.ROTATE_90, 7: methods.TRANSVERSE, 8: methods.ROTATE_270}
    stored = upright.transpose(store[orientation]) if orientation in store else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(encode(stored, format, exif=exif, quality=95))
    for _ in range(2):
        assert image.size == (48, 32)
        assert np.abs(pixels(image) - pixels(upright)).mean() < 8
        image = open_image(image)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 60_000]
)
def test_broken_exif_is_no_exif(exif: bytes, recwarn):
    assert open_image(encode(NOISE, "JPEG", exif=exif)).size == NOISE.size
    assert not recwarn.list


def test_orientations_out_of_range_mean_nothing():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert open_image(encode(NOISE, "JPEG", exif=exif)).size == NOISE.size


# What is refused


def png(
    width: int, height: int, raw: bytes, *, depth: int = 8, colour: int = 2, interlaced: int = 0, level: int = 6, pieces: int = 3
) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = zlib.compress(raw, level)
    step = max(1, len(data) // pieces)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    body = b"".join(chunk(b"IDAT", data[i : i + step]) for i in range(0, len(data), step))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height"), [(20_000, 20_000), (10_000, 9_000), (8193, 8192), (32_769, 1), (1, 40_000), (2**31 - 1, 2**31 - 1)]
)
def test_size_is_judged_by_the_header(width: int, height: int, recwarn):
    with pytest.raises(InputError) as caught:
        open_image(png(width, height, b""))
    assert caught.value.code == "image_too_many_pixels"
    assert not recwarn.list


def test_limits_can_be_set(tmp_path: Path):
    data = encode(NOISE, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert open_image(data, Limits(max_bytes=len(data), max_pixels=56 * 40, max_side=56)).size == (56, 40)
    for door in (data, path, io.BytesIO(data)):
        with pytest.raises(InputError, match=f"{len(data) - 1:,}"):
            open_image(door, Limits(max_bytes=len(data) - 1))
    for door in (data, path, NOISE, np.asarray(NOISE)):
        with pytest.raises(InputError, match=r"2,240 pixels \(56 x 40\) exceed the limit of 2,239"):
            open_image(door, Limits(max_pixels=2239))
        with pytest.raises(InputError, match="a side may have 55"):
            open_image(door, Limits(max_side=55))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "bytes that start with b'%!PS"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer or a text file"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video"),
        (b"8BPS\0\x01", "a Photoshop picture"),
        (encode(NOISE, "TIFF"), "a TIFF picture"),
        (encode(NOISE, "ICO"), "bytes that start with"),
        (encode(NOISE, "PPM"), "bytes that start with b'P6"),
        (encode(NOISE, "JPEG2000"), "bytes that start with"),
        (b"\x89PNG\r\n\x1a\n", "bytes that start with"),
        (b"a" * 5000, "bytes that start with b'aaaaaaaa'"),
    ],
)
def test_other_files(tmp_path: Path, data: bytes, found: str):
    path = tmp_path / "cat.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=re.escape(found)) as caught:
        open_image(path)
    assert str(path) in caught.value.message
    assert ("sample_frames" in str(caught.value.hint)) == (found == "a video")
    assert "\n" not in caught.value.message
    assert not re.search("0x[0-9a-f]{6,}|BytesIO", caught.value.message)


FILES = {
    "JPEG": encode(NOISE, "JPEG"),
    "progressive JPEG": encode(NOISE, "JPEG", progressive=True),
    "PNG": encode(NOISE, "PNG"),
    "palette PNG": encode(NOISE.quantize(16), "PNG"),
    "WEBP": encode(NOISE, "WEBP"),
    "lossless WEBP": encode(NOISE, "WEBP", lossless=True),
    "GIF": encode(NOISE.quantize(32), "GIF"),
    "BMP": encode(NOISE, "BMP"),
    "AVIF": encode(NOISE, "AVIF"),
}


@pytest.mark.parametrize("kind", FILES)
def test_cut_files(kind: str):
    """Cut anywhere, a file is refused, or nothing that is seen was lost."""
    whole = pixels(open_image(FILES[kind]))
    refused = 0
    for cut in range(0, len(FILES[kind]), max(1, len(FILES[kind]) // 60)):
        try:
            image = open_image(FILES[kind][:cut])
        except InputError:
            refused += 1
            continue
        assert (pixels(image) == whole).all(), cut
    assert refused > 50


@pytest.mark.parametrize("kind", FILES)
def test_damaged_files(kind: str):
    """Whatever is flipped: a picture of the same kind or an `InputError` without addresses, nothing else."""
    rng = np.random.default_rng(1)
    for _ in range(40):
        data = bytearray(FILES[kind])
        for position in rng.integers(0, len(data), 3):
            data[position] ^= int(rng.integers(1, 256))
        try:
            assert open_image(bytes(data), Limits(max_pixels=1 << 20)).mode == "RGB"
        except InputError as error:
            told = error.message
            assert not re.search("\n|0x[0-9a-f]{6,}|BytesIO", told)


@settings(max_examples=100, deadline=None)
@given(
    data=st.binary(max_size=200),
    start=st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP"]),
)
def test_any_bytes(data: bytes, start: bytes):
    try:
        image = open_image(start + data, Limits(max_pixels=1 << 16))
    except InputError:
        return
    assert image.mode == "RGB"


# name: bits, PNG colour type, interlaced, channels
PNG_KINDS = {
    "RGB": (8, 2, 0, 3), "grey": (8, 0, 0, 1), "one bit": (1, 0, 0, 1), "four bits": (4, 0, 0, 1), "16-bit grey": (16, 0, 0, 1),
    "16-bit RGB": (16, 2, 0, 3), "RGBA": (8, 6, 0, 4), "grey and alpha": (8, 4, 0, 2), "interlaced RGB": (8, 2, 1, 3),
    "interlaced one bit": (1, 0, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize(("depth", "colour", "interlaced", "channels"), PNG_KINDS.values(), ids=PNG_KINDS)
@pytest.mark.parametrize(("width", "height"), [(13, 9), (5, 1), (1, 5), (64, 64)])
def test_png_with_missing_rows(depth: int, colour: int, interlaced: int, channels: int, width: int, height: int):
    """Pillow shows them black and says nothing. One byte less than there should be is noticed, and nothing else is."""
    passes = (
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)] if interlaced else [(0, 0, 1, 1)]
    )
    raw = b""
    for x, y, dx, dy in passes:
        columns, rows = len(range(x, width, dx)), len(range(y, height, dy))
        raw += b"".join(b"\0" + b"\xff" * ((columns * depth * channels + 7) // 8) for _ in range(rows) if columns)
    arguments = {"depth": depth, "colour": colour, "interlaced": interlaced}
    assert open_image(png(width, height, raw, **arguments)).getpixel((width - 1, height - 1)) == (255, 255, 255)
    for short in (raw[:-1], raw[: len(raw) // 2], raw[:1]):
        with pytest.raises(InputError, match="cut short"):
            open_image(png(width, height, short, **arguments))
    black = bytes(len(raw))
    assert open_image(png(width, height, black, **arguments)).size == (width, height)
    assert open_image(png(width, height, raw + b"more", **arguments)).size == (width, height)


def test_a_library_that_lets_truncated_files_pass(monkeypatch):
    """Some packages switch Pillow's own check off for the whole process. Missing PNG rows are noticed nevertheless."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(InputError, match="cut short"):
        open_image(FILES["PNG"][: len(FILES["PNG"]) // 2])


def test_paths_that_are_no_files(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    for path, told in [
        (tmp_path / "none.png", "no such file"),
        (tmp_path / "dangling.png", "no such file"),
        (tmp_path, "a folder, expected a picture"),
        (tmp_path / "pipe", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("a\0b.png", "no such file"),
        ("x" * 5000, "cannot be opened"),
        (tmp_path / "a\nb\x1b[31m.png", r"a\\nb\\x1b\[31m\.png: no such file"),
    ]:
        with pytest.raises(InputError, match=told) as caught:
            open_image(path)
        assert caught.value.message.isprintable()


def test_heic_without_its_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="a HEIC picture") as caught:
        open_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert "pip install pillow-heif" in (caught.value.hint or "")


def test_heic_with_its_package(monkeypatch):
    """A stand-in for pillow-heif, which registers a Pillow plugin named HEIF."""

    class Heif(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._mode, self._size, self.tile = "RGB", (2, 1), [ImageFile._Tile("raw", (0, 0, 2, 1), 24, ("RGB", 0, 1))]

    plugin = types.ModuleType("pillow_heif")
    plugin.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    plugin.register_heif_opener = lambda: Image.register_open("HEIF", Heif, lambda start: start[8:12] == b"heic")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    image = open_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes([1, 2, 3, 4, 5, 6]))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(1, 2, 3), (4, 5, 6)]


# Resizing


def triangle(length: int, size: int, *, antialias: bool) -> np.ndarray:
    """(size, length) weights of linear interpolation with half-pixel centres, in float64, from the definition."""
    scale = length / size
    reach = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(size) + 0.5) * scale
    if not antialias:
        centres = centres.clip(0.5, length - 0.5)
    weights = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centres[:, None]) / reach)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("resize", ["bilinear", "bilinear-antialias"])
@pytest.mark.parametrize(("size", "width", "height"), [(28, 60, 41), (56, 60, 41), (224, 60, 41), (28, 500, 7), (3, 100, 100)])
def test_bilinear_is_its_formula(resize, size: int, width: int, height: int):
    image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
    antialias = resize == "bilinear-antialias"
    down, across = triangle(height, size, antialias=antialias), triangle(width, size, antialias=antialias)
    exact = down @ np.moveaxis(np.asarray(image, dtype=float), 2, 0) @ across.T
    ours = np.rint((to_pixels(image, size, resize) + 1) * 127.5)
    assert (np.abs(ours - np.floor(exact)) <= ((exact - np.floor(exact) > 0.999) | (exact - np.floor(exact) < 0.001))).all()


def test_bilinear_is_torchs_too():
    torch = pytest.importorskip("torch")
    image = Image.fromarray(RNG.integers(0, 256, (67, 90, 3), dtype=np.uint8))
    input = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None].float()
    for resize, antialias in (("bilinear", False), ("bilinear-antialias", True)):
        theirs = torch.nn.functional.interpolate(input, (28, 28), mode="bilinear", align_corners=False, antialias=antialias)[0].numpy()
        ours = (to_pixels(image, 28, resize) + 1) * 127.5
        assert np.all(theirs - ours > -0.01)
        assert np.all(theirs - ours < 1.01)
    # without antialias most of the picture is skipped, so the two differ
    assert not np.allclose(to_pixels(image, 28, "bilinear"), to_pixels(image, 28, "bilinear-antialias"), atol=0.1)


@pytest.mark.parametrize("resize", ["bicubic", "bilinear", "bilinear-antialias"])
def test_even_areas_stay_even_and_the_size_is_kept(resize):
    for level in (0, 1, 100, 127, 254, 255):
        image = Image.new("RGB", (301, 97), (level, level, level))
        assert (to_pixels(image, 56, resize) == np.float32(level) / np.float32(255) * 2 - 1).all()
    same = Image.fromarray(RNG.integers(0, 256, (28, 28, 3), dtype=np.uint8))
    assert (to_pixels(same, 28, resize) == np.moveaxis(np.asarray(same), 2, 0) / np.float32(255) * 2 - 1).all()


def test_pixels_are_channels_first_and_in_range():
    image = Image.new("RGB", (20, 10), (255, 0, 51))
    pixels = to_pixels(image, 14)
    assert pixels.shape == (3, 14, 14)
    assert np.allclose(pixels[:, 3, 3], [1, -1, -0.6])
    assert (to_pixels(image.convert("RGBA"), 14) == pixels).all()


# Small values


def test_clip():
    assert Clip([NOISE, NOISE]).frames == (NOISE, NOISE)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one picture"):
        Clip(())
