"""Anything that is a picture -> an upright RGB image of known, bounded size -> the square of numbers the model sees. No torch.

Decisions about pixels that are made here: transparent parts become white, as on a page (the reference drops the alpha channel and shows
whatever lies beneath, often black under black text); EXIF orientation is applied (the reference ignores it, which turns phone photos on
their side); sixteen-bit pictures keep their high byte; colour profiles are ignored, as in the reference; the aspect ratio is not kept.
"""

from __future__ import annotations

import collections
import importlib.util
import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from .config import Resize
from .errors import InputError
from .printable import printable

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
"""What is opened, the first frame of an animation. No other decoder is tried on unknown bytes. HEIC needs the package `pillow-heif`."""
UNREADABLE = "unreadable"
"""Code of the error for what may be a picture, or a folder of them, but the disk does not give it out."""


@dataclass(frozen=True)
class Limits:
    """Checked before a picture is decoded: the bytes of the file, then what its header says. (The model sees 0.8 megapixels at most.)"""

    max_bytes: int = 256 << 20
    max_pixels: int = 64 << 20
    max_side: int = 32_768


@dataclass(frozen=True)
class Clip:
    """Several pictures for one prompt, in order: frames of a video, or two to compare. An empty one raises `InputError`."""

    frames: tuple[Image.Image, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", tuple(self.frames))
        if not self.frames:
            raise InputError("a clip needs at least one picture, found none")


def open_image(
    source: str | Path | bytes | IO[bytes] | Image.Image | np.ndarray,
    limits: Limits | None = None,
    *,
    name: str | None = None,
    formats: tuple[str, ...] | None = None,
) -> Image.Image:
    """An upright RGB image from a path, the bytes of a file, an open binary file, a Pillow image or an array.

    Arrays are (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 or floats in [0, 1]. `name` is what errors call the picture.
    `formats`: what a file may be, in Pillow's names; `FORMATS` and HEIC unless told otherwise.
    Raises `InputError` for what is missing, too large, of another format, damaged or cut short. An RGB Pillow image may be returned as is.
    """
    limits = limits or Limits()
    if isinstance(source, str | Path):
        name = name or printable(str(source))
        with opened(Path(source), limits, name) as file:
            return _read(file, limits, name, formats)
    name = name or "the image"
    if isinstance(source, Image.Image):
        check_size(source.size, limits, name)
        return _upright(source, name)
    if isinstance(source, np.ndarray):
        return _flatten(_from_array(source, limits, name))
    data = source if isinstance(source, bytes) else _all_bytes(source, limits, name)
    if len(data) > limits.max_bytes:
        raise InputError(f"{name}: more than the allowed {limits.max_bytes:,} bytes", hint=_LARGE_HINT, code="image_too_large")
    return _read(io.BytesIO(data), limits, name, formats)


def to_pixels(image: Image.Image, size: int, resize: Resize = "bicubic") -> np.ndarray:
    """The whole picture squeezed into a square, as the model sees it: float32 (3, size, size), RGB, in [-1, 1]. See `squeeze`."""
    return as_floats(squeeze(image, size, resize))


def squeeze(image: Image.Image, size: int, resize: Resize = "bicubic") -> np.ndarray:
    """The whole picture squeezed into a square: uint8 (size, size, 3), RGB.

    `bicubic`              Pillow's, on bytes. Equal to transformers' SiglipImageProcessor without torchvision, bit for bit.
    `bilinear`             big_vision's default, `tf.image.resize(antialias=False)`: four neighbours, half-pixel centres, cut to bytes.
    `bilinear-antialias`   big_vision's `antialias=True`: triangle filter as wide as the shrinkage, cut to bytes.

    The last two equal the reference's formula in exact arithmetic; where a value falls on a whole number, rounding may make it differ
    by one of 255 levels. A picture that has the size already is not changed by any of them.
    """
    return _RESIZE[resize](_flatten(image), size)


def as_floats(squeezed: np.ndarray) -> np.ndarray:
    """What `squeeze` made, as the model sees it: float32 (3, size, size) in [-1, 1]."""
    return np.ascontiguousarray(np.moveaxis(squeezed, 2, 0), dtype=np.float32) / np.float32(255) * 2 - 1


# Reading


_CUT_HINT = "the file is not whole: copy or download it again"
_LARGE_HINT = "make it smaller; the model sees less than one megapixel"


def _unreadable(name: str, what: str, error: OSError) -> InputError:
    return InputError(f"{name}: {what} ({error.strerror})", hint="may you read it, and is the disk well?", code=UNREADABLE)


def check_listed(folder: Path, name: str) -> None:
    """Raises `InputError` for a folder of which the disk does not say what is in it."""
    try:
        with os.scandir(folder) as listed:
            collections.deque(listed, 0)  # some disks open a folder, and fail when it is read
    except OSError as error:
        raise _unreadable(name, "this folder cannot be read", error) from error


def opened(path: Path, limits: Limits, name: str) -> IO[bytes]:
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_size <= limits.max_bytes:
            return path.open("rb")
    except (FileNotFoundError, ValueError):  # ValueError: a NUL in the name
        raise InputError(f"{name}: no such file", code="not_found") from None
    except OSError as error:
        raise _unreadable(name, "cannot be opened", error) from error
    if stat.S_ISDIR(found.st_mode):
        check_listed(path, name)
        raise InputError(f"{name}: a folder, expected a picture")
    if not stat.S_ISREG(found.st_mode):  # opening a pipe or a device could block, or never end
        raise InputError(f"{name}: not a regular file")
    raise InputError(f"{name}: {found.st_size:,} bytes, at most {limits.max_bytes:,} are allowed", hint=_LARGE_HINT, code="image_too_large")


def _all_bytes(source: object, limits: Limits, name: str) -> bytes:
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    read = getattr(source, "read", None)
    data = read(limits.max_bytes + 1) if read else None
    if not isinstance(data, bytes):
        kind = type(source).__name__
        raise InputError(
            f"{name}: expected a path, bytes, a binary file, a Pillow image or an array, found {kind}",
            hint="tensor.permute(1, 2, 0).numpy() is such an array, if the tensor is (3, height, width)" if kind == "Tensor" else None,
        )
    return data


def _read(file: IO[bytes], limits: Limits, name: str, formats: tuple[str, ...] | None) -> Image.Image:
    image = read_header(file, name, formats)
    check_size(image.size, limits, name)
    result = _upright(image, name)
    if image.format == "PNG" and _may_lack_rows(image) and _png_is_short(file):
        raise InputError(f"{name}: the PNG data is cut short", hint=_CUT_HINT, code="image_damaged")
    return result


_WARNINGS = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns about large and odd files; here they are refused or accepted in so many words. The lock: it is global state."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_header(file: IO[bytes], name: str, formats: tuple[str, ...] | None = None) -> Image.Image:
    """The picture's header; nothing is decoded yet."""
    start = file.read(32)
    file.seek(0)
    formats = formats or _formats(start, name)
    try:
        with _quiet():
            return Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: more pixels than Pillow opens", hint=_LARGE_HINT, code="image_too_many_pixels") from error
    except UnidentifiedImageError as error:
        found = _looks_like(start)
        raise InputError(
            f"{name}: expected a picture ({', '.join(formats)}), found {found}",
            hint=_OTHER_HINTS.get(found, "convert it to PNG or JPEG"),
            code="image_unknown_format",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on hostile bytes, from struct.error to SyntaxError
        raise InputError(f"{name}: the picture's header is damaged", code="image_damaged") from error


_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


def _formats(start: bytes, name: str) -> tuple[str, ...]:
    if start[4:8] != b"ftyp" or start[8:12] not in _HEIC_BRANDS or b"avif" in start[16:]:
        return FORMATS
    if importlib.util.find_spec("pillow_heif") is None:
        raise InputError(f"{name}: a HEIC picture", hint="pip install pillow-heif, or convert it to JPEG", code="image_unknown_format")
    import pillow_heif  # pyright: ignore[reportMissingImports]

    pillow_heif.register_heif_opener()
    return ("HEIF",)


_OTHER_FILES = {
    b"%PDF": "a PDF document", b"<!DO": "a web page", b"<!do": "a web page", b"<htm": "a web page", b"<svg": "an SVG drawing",
    b"<?xm": "an XML file", b"II*\0": "a TIFF picture", b"MM\0*": "a TIFF picture", b"8BPS": "a Photoshop picture", b"PK\3\4": "a ZIP file",
    b"vers": "a Git LFS pointer or a text file", b"\x1aE\xdf\xa3": "a video", b"RIFF": "a damaged WebP picture or a video",
}  # fmt: skip


_OTHER_HINTS = {
    "an empty file": "copy or download it again",
    "a video": "in Python: paligemma.Clip(paligemma.sample_frames(PATH)); commands know it by .mp4",
}


def _looks_like(start: bytes) -> str:
    if not start:
        return "an empty file"
    if start[4:8] == b"ftyp" and b"avif" not in start:
        return "a damaged HEIC picture" if start[8:12] in _HEIC_BRANDS else "a video"
    return _OTHER_FILES.get(start[:4], f"bytes that start with {start[:8]!r}")


def check_size(size: tuple[int, int], limits: Limits, name: str) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise InputError(
            f"{name}: {width * height:,} pixels ({width} x {height}) exceed the limit of {limits.max_pixels:,}",
            hint=_LARGE_HINT,
            code="image_too_many_pixels",
        )
    if max(size) > limits.max_side:
        raise InputError(
            f"{name}: {width} x {height} pixels, a side may have {limits.max_side:,}", hint=_LARGE_HINT, code="image_too_many_pixels"
        )
    if min(size) < 1:
        raise InputError(f"{name}: {width} x {height} pixels, there is nothing to see")


_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF orientation -> what undoes it."""


def _upright(image: Image.Image, name: str) -> Image.Image:
    """Decode, turn, and reduce to RGB."""
    try:
        image.load()
        flat = _flatten(image)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # as in `read_header`
        cut = "truncated" in str(error)
        what, hint = ("cut short", _CUT_HINT) if cut else ("damaged", None)
        raise InputError(f"{name}: the {image.format or 'picture'} data is {what}", hint=hint, code="image_damaged") from error
    turn = turn_of(image)
    if turn is None:
        return flat
    turned = flat.transpose(turn)
    turned.info.clear()  # the EXIF in it would have the picture turned again
    return turned


def turn_of(image: Image.Image) -> Image.Transpose | None:
    try:
        with _quiet():
            return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a picture with broken EXIF is a picture without EXIF; Pillow's parser raises many types
        return None


def _flatten(image: Image.Image) -> Image.Image:
    """RGB, transparent parts on white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(f"a picture of mode {image.mode!r} has no known range", hint="give 8-bit values, or floats in [0, 1] as an array")
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        return page.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_array(array: np.ndarray, limits: Limits, name: str) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        hint = "numpy.moveaxis(array, 0, 2) puts the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else None
        raise InputError(f"{name}: expected an array of shape (height, width, 3), found {array.shape}", hint=hint)
    check_size((array.shape[1], array.shape[0]), limits, name)
    if np.issubdtype(array.dtype, np.floating):
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # also true for NaN
            raise InputError(f"{name}: expected floats in [0, 1], found {low:g} to {high:g}", hint="divide by the largest possible value")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f"{name}: expected an array of uint8 or float, found {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(array))


# Pillow decodes a PNG whose pixel data ends early without a word, and leaves the missing rows zero.


def _may_lack_rows(image: Image.Image) -> bool:
    """One of the last two rows is all zero (in an interlaced file the last pass holds the odd rows), so it is worth counting."""
    width, height = image.size
    tail = np.asarray(image.crop((0, max(height - 2, 0), width, height)))
    return bool(image.info.get("interlace")) or not tail.reshape(tail.shape[0], -1).any(axis=1).all()


def _png_is_short(file: IO[bytes]) -> bool:
    """Whether the pixel data of a PNG that has been decoded once inflates to fewer bytes than its header calls for."""
    inflater = zlib.decompressobj()
    missing = 0
    file.seek(8)
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        data = file.read(length)
        file.seek(4, os.SEEK_CUR)
        if kind == b"IHDR":
            missing = _png_data_bytes(data)
        while kind == b"IDAT" and data and missing > 0:
            missing -= len(inflater.decompress(data, 1 << 20))
            data = inflater.unconsumed_tail
    return missing > 0


def _png_data_bytes(header: bytes) -> int:
    """Each row is a filter byte and its pixels; an interlaced picture is seven smaller ones."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header[:13])
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    adam7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    total = 0
    for x, y, step_x, step_y in adam7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // step_x), -(-(height - y) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


# Resizing: RGB image, side -> uint8 (side, side, 3)


def _bicubic(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def _bilinear(image: Image.Image, size: int) -> np.ndarray:
    pixels = np.asarray(image)
    y0, y1, fy = _neighbours(image.height, size)
    x0, x1, fx = _neighbours(image.width, size)
    fx = fx[:, None]
    above, below = (_mix(pixels[y][:, x0], pixels[y][:, x1], fx) for y in (y0, y1))
    return _mix(above, below, fy[:, None, None]).astype(np.uint8)


def _neighbours(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `size` output pixels, the two input pixels it lies between and how far it is from the first; float32 as in TensorFlow."""
    scale = np.float32(length) / np.float32(size)
    centre = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    first = np.floor(centre)
    return np.maximum(first, 0).astype(int), np.minimum(np.ceil(centre), length - 1).astype(int), centre - first


def _mix(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    a = a.astype(np.float32)
    return a + (b - a) * weight


def _bilinear_antialias(image: Image.Image, size: int) -> np.ndarray:
    """Pillow's bilinear filter is the same triangle; on float channels it does not round in between.

    The small addition keeps even areas even: a sum of weights may be 0.9999999, and cutting would darken them by one level.
    """
    channels = (channel.convert("F").resize((size, size), Image.Resampling.BILINEAR) for channel in image.split())
    return (np.stack([np.asarray(channel) for channel in channels], axis=2) + 1e-4).clip(0, 255).astype(np.uint8)


_RESIZE = {"bicubic": _bicubic, "bilinear": _bilinear, "bilinear-antialias": _bilinear_antialias}
