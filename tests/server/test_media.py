"""What a client calls a picture is bytes within its budget, or is refused without a word on what this machine can reach."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from paligemma.errors import InputError
from paligemma.server import media
from paligemma.server.media import Budget, read_picture
from paligemma.server.refusals import Refused
from paligemma.server.settings import Limits, Settings

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
TEXT = base64.b64encode(PNG).decode()
ALLOWED = Settings(media_domains=("images.example",))


def read(value: str, settings: Settings | None = None, budget: Budget | None = None) -> bytes:
    settings = settings or Settings()
    return asyncio.run(read_picture(value, "image", budget or Budget(settings.limits), settings))


def refused(value: str, settings: Settings | None = None, budget: Budget | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        read(value, settings, budget)
    assert caught.value.status == 400
    assert caught.value.param == "image"
    return caught.value


@pytest.fixture
def no_sockets(monkeypatch) -> None:
    def refuse(*arguments, **options):
        raise AssertionError("a socket was used")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


# Base64


@pytest.mark.parametrize(
    "value",
    [
        f"data:image/png;base64,{TEXT}", f"data:IMAGE/PNG;base64,{TEXT}", f"data:image/jpeg;base64,{TEXT}",
        f"data:image/png;charset=utf-8;base64,{TEXT}", TEXT,
    ],
)  # fmt: skip
def test_base64(value: str):
    assert read(value) == PNG


@pytest.mark.parametrize(
    "value",
    [
        f"DATA:image/png;base64,{TEXT}", f"data:image/png;BASE64,{TEXT}",
        "data:", "data:image/png", f"data:image/png;base64{TEXT}", f"data:image/png,{TEXT}", f"data:;base64,{TEXT}", f"data:base64,{TEXT}",
        f"data:text/html;base64,{TEXT}", f"data:application/octet-stream;base64,{TEXT}", f"data:image/png;base64,{TEXT[:-1]}",
        f"data:image/png;base64,{TEXT[:80]}\n{TEXT[80:]}", f"data:image/png;base64, {TEXT}", f"data:image/png;base64,{TEXT} ",
        f"data:image/png;base64,{TEXT.replace('A', '%41')}", "data:image/png;base64,", f"data:image/png;base64,{TEXT}é",
        f"data:image/png;base64,{TEXT}=", f"data:image/png;base64,{TEXT}{TEXT}", "data:image/png;base64,-_-_", "data:" + "x" * 1_000_000,
    ],
)  # fmt: skip
def test_data_urls_that_are_none(value: str):
    assert refused(value).code == "image_invalid"


def test_lengths_are_looked_at_before_decoding(monkeypatch):
    limits = Limits(image_bytes=len(PNG), images_bytes=2 * len(PNG) + 1)
    settings = Settings(limits=limits)
    budget = Budget(limits)
    for _ in range(2):
        assert read(f"data:image/png;base64,{TEXT}", settings, budget) == PNG
    monkeypatch.setattr(media.binascii, "a2b_base64", lambda *_, **__: pytest.fail("it was decoded"))
    assert "together" in refused(f"data:image/png;base64,{TEXT}", settings, budget).message
    longer = base64.b64encode(PNG + b"1").decode()
    assert refused(f"data:image/png;base64,{longer}", settings).code == "image_too_large"
    monkeypatch.undo()
    assert refused(longer, settings).code == "image_too_large"


# Budgets


def test_pictures_are_counted():
    budget = Budget(Limits(images=3))
    for _ in range(3):
        read(TEXT, budget=budget)
    assert refused(TEXT, budget=budget).code == "too_many_images"


def test_pixels_are_added_up():
    budget = Budget(Limits(image_pixels=100, images_pixels=150, image_side=50))
    budget.take_pixels(10, 10, "image 1")
    assert budget.pixels_left == 50
    budget.take_pixels(5, 6, "image 2")
    wrong = (
        (budget, 11, 11, "121 pixels .* limit of 100"),
        (budget, 5, 5, "25 pixels .* together .* 150"),
        (Budget(budget.limits), 1, 51, "side"),
    )
    for which, width, height, words in wrong:
        with pytest.raises(Refused, match=words) as caught:
            which.take_pixels(width, height, "image")
        assert caught.value.code == "image_too_many_pixels"
    assert budget.pixels == 130


# Addresses and names

NOT_ALLOWED = "image: expected a form's file (image=@FILE), data:image/...;base64,..., or an address that this server allows"
FORBIDDEN = (
    "http://169.254.169.254/latest/meta-data", "http://127.0.0.1/", "https://127.0.0.1/", "https://[::1]/a.png", "https://0.0.0.0/",
    "https://2130706433/", "https://0x7f.1/", "https://017700000001/", "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::a00:1]/",
    "https://100.64.0.1/", "https://localhost./", "https://evil@127.0.0.1/", "https://images.example.evil.com/a.png",
    "https://images.example@evil.com/", "https://evil.com#images.example", "https://evil.com?images.example", "https://evil.com/images.example",
    "https://evil.com\\@images.example/", "https://images.example\\@evil.com/", "https://images.example:8443/a.png",
    "https://images.example:443@evil.com/", "https://user@images.example/", "https://images。example/a.png", "https://ｉmages.example/",
    "https://xn--images-.example/", "https://images.example./a.png", "https://images.example/a b", "https://images.example/a\r\nHost: x",
    "https://images.example%2eevil.com/", "https:///images.example", "https:images.example/a.png", "https://", "//images.example/a.png",
    "http://images.example/a.png", "ftp://images.example/a.png", "gopher://images.example/", "blob:https://images.example/1",
    "file:///etc/passwd", "FILE:///etc/passwd", "file:etc/passwd", "file://localhost/etc/passwd", "/etc/passwd", "/etc/passwd2",
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd", "\\\\host\\share\\a.png", "C:\\a.png", "/dev/zero", "/dev/stdin", "~/.ssh/id_rsa", "cat.png", "", " ", "\0",
    "https://images.example/" + "\ud800", "javascript:alert(1)",
)  # fmt: skip


@pytest.mark.parametrize("settings", [Settings(), ALLOWED], ids=["none allowed", "one host allowed"])
def test_what_may_not_be_fetched(settings: Settings, no_sockets):
    async def ask(value: str) -> tuple[str, str, bool]:
        begun = time.monotonic()
        with pytest.raises(Refused) as caught:
            await read_picture(value, "image", Budget(settings.limits), settings)
        return caught.value.code, caught.value.message, 0.04 < time.monotonic() - begun < 5

    async def ask_all() -> list[tuple[str, str, bool]]:
        return await asyncio.gather(*map(ask, FORBIDDEN))

    for value, found in zip(FORBIDDEN, asyncio.run(ask_all()), strict=True):
        assert found == ("image_url_not_allowed", NOT_ALLOWED, True), value


def test_an_allowed_address(monkeypatch):
    asked = []

    def fetch(url: str, **options: object) -> bytes:
        asked.append((url, options))
        return PNG

    monkeypatch.setattr(media, "fetch", fetch)
    urls = ["https://images.example/a.png?x=1#y", "HTTPS://Images.Example:443/", "https://images.example"]
    assert [read(url, ALLOWED) for url in urls] == [PNG] * 3
    assert asked == [(url, {"max_bytes": 20 << 20, "seconds": 10.0, "redirects": 0}) for url in urls]
    refused(urls[0])  # not without the operator's word


class Clock:
    """Time that passes only where somebody waits for it or works."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += max(0.0, seconds)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(media, "time", clock)
    monkeypatch.setattr(media.asyncio, "sleep", clock.sleep)
    return clock


@pytest.mark.parametrize(
    ("reason", "seconds"),
    [
        ("the host is not on the public internet (10.0.0.1)", 0.0), ("cannot be fetched (Name or service not known)", 0.02),
        ("the server leads elsewhere", 0.2), ("the server answers 404", 0.3), ("more than the allowed bytes", 4.0),
        ("the download takes too long", 9.99),
    ],
)  # fmt: skip
def test_why_a_fetch_failed_is_not_told(monkeypatch, clock: Clock, reason: str, seconds: float):
    """Not by words, and not by the time: what failed at once is told when the slowest would be."""

    def fetch(url: str, **_: object) -> bytes:
        clock.now += seconds
        raise InputError(reason, code="download_failed")

    monkeypatch.setattr(media, "fetch", fetch)
    begun = clock.now
    refusal = refused("https://images.example/a.png", ALLOWED)
    assert (refusal.code, refusal.message) == ("image_url_failed", "image: the address gave no file within 20,971,520 bytes")
    assert clock.now - begun == pytest.approx(media._FETCH_SECONDS)


@pytest.mark.parametrize("value", ["http://127.0.0.1/", "https://other.example/a.png", "file:a.png", "file:../a.png", "/etc/passwd"])
def test_a_refusal_is_told_after_one_time(monkeypatch, clock: Clock, tmp_path: Path, value: str):
    """Looking for a file takes longer than looking at an address."""
    monkeypatch.setattr(media, "_from_folder", lambda *_: setattr(clock, "now", clock.now + 0.03))
    begun = clock.now
    assert refused(value, Settings(media_root=tmp_path, media_domains=("images.example",))).code == "image_url_not_allowed"
    assert clock.now - begun == pytest.approx(media._REFUSAL_SECONDS)


def test_a_slow_fetch_is_given_up(monkeypatch):
    end = threading.Event()
    monkeypatch.setattr(media, "_FETCH_SECONDS", 0.1)
    monkeypatch.setattr(media, "fetch", lambda url, **_: end.wait(20))
    begun = time.monotonic()

    async def ask() -> float:
        with pytest.raises(Refused):
            await read_picture("https://images.example/a.png", "image", Budget(ALLOWED.limits), ALLOWED)
        end.set()  # its thread is waited for
        return time.monotonic() - begun

    assert asyncio.run(ask()) < 10


def test_a_fetched_file_counts(monkeypatch):
    settings = Settings(media_domains=("images.example",), limits=Limits(images_bytes=len(PNG)))
    monkeypatch.setattr(media, "fetch", lambda url, **_: PNG)
    budget = Budget(settings.limits)
    read("https://images.example/a.png", settings, budget)
    assert refused("https://images.example/a.png", settings, budget).code == "image_too_large"


# Files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    (root / "inner").mkdir(parents=True)
    (root / "a.png").write_bytes(PNG)
    (root / "inner" / "b.png").write_bytes(PNG)
    (root / "link.png").symlink_to("a.png")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "outside").symlink_to(tmp_path)
    (root / "nowhere.png").symlink_to(tmp_path / "missing.png")
    (root / "circle").symlink_to("circle")
    (root / "zero").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe")
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "media-2").mkdir()
    (tmp_path / "media-2" / "a.png").write_bytes(PNG)
    return root


@pytest.mark.parametrize("name", ["a.png", "inner/b.png", "./a.png", "inner/../a.png", "link.png"])
def test_files_in_the_folder(root: Path, name: str):
    assert read(f"file:{name}", Settings(media_root=root)) == PNG


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "../media-2/a.png", "inner/../../secret.png", "out.png", "outside/secret.png", "circle", "zero", "pipe", "inner", "",
     ".", "../missing.png", "outside/missing.png", "missing/../../secret.png", "inner/../../missing.png", "nowhere.png", "a.png\0",
     "..\\secret.png", "/etc/passwd", "//etc/passwd", "/dev/zero", "{root}/a.png",
     "x" * 5000],
)  # fmt: skip
def test_files_outside_and_what_is_no_file(root: Path, name: str):
    begun = time.monotonic()
    refusal = refused(f"file:{name.format(root=root) if '{' in name else name}", Settings(media_root=root))
    assert (refusal.code, refusal.message) == (
        "image_url_not_allowed",
        NOT_ALLOWED,
    )
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("name", ["missing.png", "inner/missing.png", "missing/a.png", "./inner/../missing.png", "..%2fsecret.png"])
def test_a_file_that_is_not_in_the_folder_is_said_to_be_missing(root: Path, name: str):
    refusal = refused(f"file:{name}", Settings(media_root=root))
    assert (refusal.code, refusal.message) == ("image_not_found", "image: no such file below the server's --media-root")
    assert refused(f"file:{name}", Settings()).code == "image_url_not_allowed", "without a folder there is nothing to tell"


def test_a_large_file_is_not_read_whole(root: Path):
    with (root / "large.png").open("wb") as file:
        file.truncate(1 << 40)
    assert refused("file:large.png", Settings(media_root=root, limits=Limits(image_bytes=1000))).code == "image_too_large"


def test_a_pipe_is_not_even_opened(root: Path, monkeypatch):
    monkeypatch.setattr(media.os, "open", lambda *_: pytest.fail("it was opened"))
    assert refused("file:pipe", Settings(media_root=root)).code == "image_url_not_allowed"


@pytest.mark.parametrize("name", ["pipe", "inner"])
def test_a_file_that_becomes_a_pipe_meanwhile(root: Path, monkeypatch, name: str):
    """It is looked at again once it is open."""
    seen = os.stat(root / "a.png")
    monkeypatch.setattr(media.Path, "stat", lambda *_, **__: seen)
    assert refused(f"file:{name}", Settings(media_root=root)).code == "image_url_not_allowed"


def test_a_file_that_becomes_a_link_meanwhile(root: Path, monkeypatch):
    monkeypatch.setattr(media.Path, "resolve", lambda path, **_: path)
    assert refused("file:out.png", Settings(media_root=root)).code == "image_url_not_allowed"
