"""Every kind of picture comes out as the model sees it; every other file costs its own request, and at most one process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image, PngImagePlugin

from paligemma.image import as_floats, open_image, to_pixels
from paligemma.server.decoding import Decoded, Decoders
from paligemma.server.media import Budget
from paligemma.server.refusals import Refused
from paligemma.server.settings import Limits

SIZE = 28
RNG = np.random.default_rng(0)
NOISE = Image.fromarray(RNG.integers(1, 255, (40, 56, 3), dtype=np.uint8))


def file(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def flat_png(width: int, height: int) -> bytes:
    """All zero, one bit a pixel: megapixels in a few kilobytes."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@dataclass
class Pool:
    """Decoders, and an event loop that is there for them."""

    runner: asyncio.Runner
    decoders: Decoders

    def decode(self, data: bytes, budget: Budget | None = None) -> Decoded:
        return self.runner.run(self.decoders.decode(data, "image", budget or Budget(self.decoders.limits)))

    def refused(self, data: bytes) -> Refused:
        with pytest.raises(Refused) as caught:
            self.decode(data)
        assert (caught.value.status, caught.value.param) == (400, "image")
        return caught.value

    def memory(self) -> int:
        """Most that any of the processes has held, bytes."""
        states = [Path(f"/proc/{process.pid}/status").read_text() for process in self.decoders._running]
        return max(int(state.partition("VmHWM:")[2].split()[0]) << 10 for state in states)


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Pool]]:
    with asyncio.Runner() as runner:
        pools = []

        def start(resize: str = "bicubic", **limits) -> Pool:
            pool = Pool(runner, Decoders(SIZE, resize, Limits(decode_workers=1, **limits)))
            runner.run(pool.decoders.__aenter__())
            pools.append(pool)
            return pool

        yield start
        for pool in pools:
            runner.run(pool.decoders.close())


@pytest.fixture(scope="module")
def pool(start) -> Pool:
    return start()


# Pictures

exif = Image.Exif()
exif[0x0112] = 6
PICTURES = {
    "png": file(NOISE), "jpeg": file(NOISE, "JPEG"), "webp": file(NOISE, "WEBP"), "gif": file(NOISE, "GIF"), "bmp": file(NOISE, "BMP"),
    "progressive": file(NOISE, "JPEG", progressive=True), "grey": file(NOISE.convert("L")), "grey and alpha": file(NOISE.convert("LA")),
    "alpha": file(NOISE.convert("RGBA")), "palette": file(NOISE.convert("P")), "bits": file(NOISE.convert("1")),
    "palette and alpha": file(NOISE.convert("P"), transparency=3), "cmyk": file(NOISE.convert("CMYK"), "JPEG"),
    "16 bits": file(Image.fromarray(RNG.integers(0, 1 << 16, (40, 56), dtype=np.uint16))), "1x1": file(NOISE.crop((0, 0, 1, 1))),
    "3x3": file(NOISE.crop((0, 0, 3, 3))), "1x30000": file(Image.new("RGB", (1, 30_000), "red")),
    "30000x1": file(Image.new("L", (30_000, 1))),
    "turned": file(NOISE, "JPEG", exif=exif), "frames": file(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(180)] * 3),
    "apng": file(NOISE, save_all=True, append_images=[NOISE.rotate(180)]), "mpo": file(NOISE, "MPO", save_all=True, append_images=[NOISE]),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_is_as_the_model_sees_it(pool: Pool, name: str):
    decoded = pool.decode(PICTURES[name])
    image = open_image(PICTURES[name])
    assert (decoded.width, decoded.height) == image.size
    assert (decoded.pixels.shape, decoded.pixels.dtype) == ((SIZE, SIZE, 3), np.uint8)
    assert np.array_equal(as_floats(decoded.pixels), to_pixels(image, SIZE, "bicubic"))
    if name == "turned":
        assert image.size == (40, 56)


@pytest.mark.parametrize("resize", ["bilinear", "bilinear-antialias"])
def test_every_way_to_squeeze(start, resize):
    decoded = start(resize).decode(PICTURES["png"])
    assert np.array_equal(as_floats(decoded.pixels), to_pixels(NOISE, SIZE, resize))


def test_a_very_long_animation(pool: Pool):
    """Its first frame is looked at, and no other."""
    one = file(NOISE.crop((0, 0, 8, 8)), "GIF")
    frame = one[one.rindex(b",\0\0\0\0") : -1]
    many = one[:-1] + frame * 100_000 + b";"
    first = pool.decode(one).pixels  # its process has begun
    took = []
    for _ in range(3):
        before = _processor_time()
        assert np.array_equal(pool.decode(many).pixels, first)
        took.append(_processor_time() - before)
    assert min(took) < 0.1


def _processor_time() -> float:
    """Seconds of this process and of those that it started: what else the machine does takes none of them."""
    seconds = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            seconds += sum(process.cpu_times()[:2])
    return seconds


# Files that are none

ICO, PPM, TIFF = file(NOISE, "ICO"), file(NOISE, "PPM"), file(NOISE, "TIFF")
OTHERS = {
    "empty": b"", "html": b"<!DOCTYPE html><img>", "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "pdf": b"%PDF-1.7\n", "tiff": TIFF,
    "ico": ICO, "ppm": PPM, "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "psd": b"8BPS\0\1" + bytes(40), "text": b"hello",
    "jpeg cut": PICTURES["jpeg"][:-200], "jpeg start": PICTURES["jpeg"][:20], "png start": PICTURES["png"][:20],
    "png cut": PICTURES["png"][:-800],
    "png short of rows": flat_png(64, 64).replace(struct.pack(">II", 64, 64), struct.pack(">II", 64, 65)), "gif start": b"GIF89a",
    "webp start": PICTURES["webp"][:20], "riff": b"RIFF\0\0\0\0WAVE", "no width": PICTURES["bmp"][:18] + bytes(8) + PICTURES["bmp"][26:],
    "mp4": b"\0\0\0\x18ftypisom" + bytes(20), "random": RNG.bytes(1000), "png and random": b"\x89PNG\r\n\x1a\n" + RNG.bytes(1000),
    "avif": b"\0\0\0\x1cftypavif" + bytes(100), "heic": b"\0\0\0\x1cftypheic" + bytes(100),
    "text bomb": file(NOISE, pnginfo=(lambda info: (info.add_text("a", "x" * (3 << 20), zip=True), info)[1])(PngImagePlugin.PngInfo())),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_picture(pool: Pool, name: str):
    refusal = pool.refused(OTHERS[name])
    assert (refusal.code, refusal.message) == ("image_invalid", "image: not a whole picture of a known format (JPEG, PNG, WEBP, GIF, BMP)")


def test_a_real_avif_is_not_taken(pool: Pool):
    assert pool.refused(file(NOISE, "AVIF")).code == "image_invalid"


def test_mutated_files_cost_no_process(pool: Pool):
    """What decoders make of them is their business; none of these kills one."""
    before = pool.decoders.deaths
    for name in ("png", "jpeg", "webp", "gif", "bmp"):
        for _ in range(20):
            data = bytearray(PICTURES[name])
            for place in RNG.integers(0, len(data), 4):
                data[place] = RNG.integers(256)
            with contextlib.suppress(Refused):
                pool.decode(bytes(data))
    assert pool.decoders.deaths == before


def with_chunks(*chunks: bytes) -> bytes:
    """A picture with these before its pixels."""
    whole = PICTURES["png"]
    head = whole.index(b"IDAT") - 4
    return whole[:head] + b"".join(chunks) + whole[head:]


BOMB = zlib.compress(bytes(256 << 20), 1)
CIRCLE = b"MM\0*" + struct.pack(">IH", 8, 1) + struct.pack(">HHII", 0x8769, 4, 1, 8) + struct.pack(">I", 8)
"""EXIF whose only entry, and whose next directory, is the directory itself."""
COMPANIONS = {
    "profile": with_chunks(chunk(b"iCCP", b"icc\0\0" + BOMB)),
    "text": with_chunks(chunk(b"zTXt", b"a\0\0" + BOMB)),
    "many texts": with_chunks(*[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20)))] * 300),
    "exif in a circle": file(NOISE, "JPEG", exif=b"Exif\0\0" + CIRCLE),
    "exif in a circle, png": with_chunks(chunk(b"eXIf", CIRCLE)),
    "exif of megabytes": with_chunks(chunk(b"eXIf", CIRCLE[:8] + b"\xff" * (8 << 20))),
}


@pytest.mark.parametrize("name", COMPANIONS)
def test_what_comes_with_a_picture_costs_little(pool: Pool, name: str):
    """Profiles, texts and EXIF are passed over or refused, in little memory and time; the process lives."""
    pool.decode(PICTURES["png"])
    deaths, before = pool.decoders.deaths, pool.memory()
    try:
        told = pool.decode(COMPANIONS[name]).width
    except Refused as refusal:
        told = refusal.code
    assert told in (56, "image_invalid")
    assert pool.decoders.deaths == deaths
    assert pool.memory() - before < 100 << 20


# Pixels


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (10_000, 9_000), (8_193, 8_192)])
def test_too_many_pixels_are_known_by_the_header(pool: Pool, width: int, height: int):
    pool.decode(PICTURES["png"])
    before = pool.memory()
    refusal = pool.refused(flat_png(width, height))
    assert refusal.code == "image_too_many_pixels"
    assert f"{width * height:,}" in refusal.message
    assert "67,108,864" in refusal.message
    assert pool.memory() - before < 20 << 20


def test_sides_too_long(pool: Pool):
    assert "32,768" in pool.refused(flat_png(32_769, 1)).message


def test_pixels_of_a_request_together(pool: Pool):
    budget = Budget(Limits(images_pixels=2 * 40 * 56))
    pool.decode(PICTURES["png"], budget)
    pool.decode(PICTURES["jpeg"], budget)
    with pytest.raises(Refused, match="together") as caught:
        pool.decode(PICTURES["1x1"], budget)
    assert caught.value.code == "image_too_many_pixels"


# Processes


def test_a_process_that_is_killed(pool: Pool):
    """As by a decoder that writes where it must not, or by the kernel that runs out of memory."""
    deaths = pool.decoders.deaths

    async def kill_in_the_middle() -> None:
        (process,) = pool.decoders._running
        os.kill(process.pid, signal.SIGSTOP)  # it stops, so that the picture is on its way for sure
        decoding = asyncio.create_task(pool.decoders.decode(PICTURES["png"], "image", Budget(Limits())))
        await asyncio.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        await decoding

    with pytest.raises(Refused) as caught:
        pool.runner.run(kill_in_the_middle())
    assert (caught.value.status, caught.value.code) == (400, "image_decode_failed")
    assert pool.decoders.deaths == deaths + 1
    assert pool.decode(PICTURES["png"]).width == 56


def test_a_process_that_died_between_two_pictures(pool: Pool):
    (process,) = pool.decoders._running
    process.kill()
    pool.runner.run(process.wait())
    assert pool.decode(PICTURES["png"]).width == 56


def test_a_client_that_leaves_while_its_picture_is_decoded(pool: Pool):
    """The next one gets its own picture."""

    async def leave() -> None:
        (process,) = pool.decoders._running
        os.kill(process.pid, signal.SIGSTOP)
        decoding = asyncio.create_task(pool.decoders.decode(PICTURES["1x1"], "image", Budget(Limits())))
        await asyncio.sleep(0.05)
        decoding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await decoding

    pool.runner.run(leave())
    assert pool.decode(PICTURES["png"]).width == 56
    assert len(pool.decoders._running) == 1


def test_time_is_limited(start):
    pool, large = start(decode_seconds=0.05), flat_png(8000, 8000)
    begun = time.monotonic()
    assert pool.refused(large).code == "image_decode_failed"
    assert time.monotonic() - begun < 10
    assert pool.decoders.deaths == 1


def test_memory_is_limited(start):
    pool = start(decode_memory=300 << 20, decode_seconds=60)
    assert pool.refused(flat_png(8000, 8000)).code == "image_decode_failed"  # 256 MB as RGB
    assert pool.decode(PICTURES["png"]).width == 56


def test_as_many_at_a_time_as_there_are_processes(pool: Pool):
    async def decode_all() -> list[int]:
        answers = await asyncio.gather(*(pool.decoders.decode(PICTURES[name], name, Budget(Limits())) for name in ("png", "1x1") * 5))
        return [answer.width for answer in answers]

    assert pool.runner.run(decode_all()) == [56, 1] * 5
    assert len(pool.decoders._running) == 1


def test_secrets_are_not_handed_down(pool: Pool, monkeypatch):
    monkeypatch.setenv("PALIGEMMA_API_KEY", "secret")
    (process,) = pool.decoders._running
    process.kill()
    pool.runner.run(process.wait())
    pool.decode(PICTURES["png"])
    (process,) = pool.decoders._running
    assert b"secret" not in Path(f"/proc/{process.pid}/environ").read_bytes()


def test_a_process_writes_no_files(pool: Pool):
    (process,) = pool.decoders._running
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    for what in ("Max file size", "Max core file size"):
        assert limits.partition(what)[2].split()[:2] == ["0", "0"]


def test_nothing_is_left_behind(start):
    pool = start()
    (process,) = pool.decoders._running
    pool.runner.run(pool.decoders.close())
    assert process.returncode is not None
    assert not pool.decoders._running
