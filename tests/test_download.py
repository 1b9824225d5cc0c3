"""What may be fetched, what may not, and how much of it. No network: names are resolved by the tests, the server is a local one."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from paligemma import download
from paligemma.download import fetch
from paligemma.errors import InputError

PRIVATE = (
    "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::",
    "2002:a00:1::1", "2001:db8::1", "192.0.2.1", "198.18.0.1",
)  # fmt: skip
PUBLIC = ("1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1")


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str):
    assert not download._is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str):
    assert download._is_public(address)


@pytest.fixture
def no_sockets(monkeypatch) -> None:
    def refuse(*arguments, **options):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.png", "ftp://example.com/a.png", "file:///etc/passwd", "FILE:///etc/passwd", "data:image/png;base64,AAAA",
        "https://", "https:///a.png", "https://user@example.com/a.png", "https://user:secret@example.com/", "https://[::1",
        "//example.com/a.png",
        "https://example.com:port/", "https://exa mple.com/\r\nX: y",
        "https://1.1.1.1:8443/", "https://1.1.1.1:80/a.png", "https://1.1.1.1/" + "a" * 9000,
        "https://127.0.0.1/", "https://[::1]/", "https://0.0.0.0/", "https://2130706433/", "https://0x7f.1/", "https://017700000001/",
        "https://[::ffff:10.0.0.1]/", "https://localhost/", "https://localhost./", "https://169.254.169.254/latest/meta-data",
    ],
)  # fmt: skip
def test_addresses_that_are_refused_without_a_connection(url: str, no_sockets):
    with pytest.raises(InputError) as caught:
        fetch(url)
    assert caught.value.code == "download_failed"
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("url", ["https://user@example.com/", "https://:@example.com/", "https:///a.png", "http://example.com/"])
def test_what_is_no_address_is_not_looked_up(url: str, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it was looked up"))
    with pytest.raises(InputError, match="expected an"):
        fetch(url)


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::1", "1.1.1.1"], []])
def test_a_name_with_any_private_address_is_refused(addresses: list[str], monkeypatch, no_sockets):
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **_: [(0, 0, 0, "", (address, port)) for address in addresses])
    with pytest.raises(InputError, match=r"not on the public internet|no address"):
        fetch("https://pictures.example/a.png")


def test_a_name_is_looked_up_once(monkeypatch):
    """One that means something else the next time leads nowhere else: the address that was checked is the one that is dialled."""
    answers, dialled = [["1.1.1.1"], ["127.0.0.1"], ["10.0.0.1"]], []

    def resolve(host, port, **_):
        return [(0, 0, 0, "", (address, port)) for address in answers.pop(0)]

    def dial(address, timeout=None):
        dialled.append(address)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", dial)
    with pytest.raises(InputError, match="no network here"):
        fetch("https://rebinding.example/a.png")
    assert dialled == [("1.1.1.1", 443)]
    assert len(answers) == 2


DRIPS = {"/drip": b"\r\n", "/drip-header": b"x", "/drip-headers": b"x: y\r\n", "/drip-answers": b"HTTP/1.1 100 Continue\r\n\r\n"}
"""What is sent again and again for ten seconds, after the line with the status. The first empty line ends the headers."""


PACKED = gzip.compress(bytes(30 << 20))
"""30 MiB in 30 kB."""


class Server(BaseHTTPRequestHandler):
    """Answers by path; speaks plain HTTP, the tests leave the encryption out."""

    def do_GET(self) -> None:
        kind, _, target = self.path[1:].partition("/")
        if kind in ("to", "endlessly-to"):
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
            with contextlib.suppress(OSError):
                while kind == "endlessly-to":
                    self.wfile.write(bytes(1 << 16))
        elif self.path == "/to-a-long-one":
            self.send_response(302)
            self.send_header("Location", "https://pictures.example/" + "a" * 9000)
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404, "no\x1b[31m such thing")
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 << 16))
        elif self.path in DRIPS:
            self.send_response(100 if self.path == "/drip-answers" else 200)
            self.flush_headers()
            with contextlib.suppress(OSError):
                for _ in range(200):
                    self.wfile.write(DRIPS[self.path])
                    time.sleep(0.05)
        elif self.path == "/packed":
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(PACKED)
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"only this")
        else:
            self.send_response(200)
            self.end_headers()
            seen = (self.headers[name] for name in ("Host", "Accept-Encoding", "Cookie"))
            self.wfile.write(f"{self.path} {' '.join(map(str, seen))}".encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture
def waits() -> list[float]:
    """How long each connection may take, as it was asked for."""
    return []


@pytest.fixture
def dialled(port: int, waits: list[float], monkeypatch) -> list[tuple[str, int]]:
    """pictures.example has a public address, which leads to the local server; a proxy in the environment would lead nowhere."""
    dialled: list[tuple[str, int]] = []

    def to_server(address, timeout=None):
        dialled.append(address)
        waits.append(timeout)
        connection = socket.socket()
        connection.settimeout(timeout)
        connection.connect(("127.0.0.1", port))
        return connection

    def resolve(host, port, **_):
        return [(0, 0, 0, "", ({"pictures.example": "1.1.1.1"}.get(host, "127.0.0.1"), port))]

    class NoEncryption:
        def wrap_socket(self, plain: socket.socket, server_hostname: str) -> socket.socket:
            assert server_hostname == "pictures.example"
            return plain

    monkeypatch.setattr(socket, "create_connection", to_server)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(download.ssl, "create_default_context", NoEncryption)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://10.0.0.1:9")
    return dialled


def test_fetching(dialled: list[tuple[str, int]]):
    assert fetch("https://pictures.example/a.png?x=1") == b"/a.png?x=1 pictures.example identity None"
    assert dialled == [("1.1.1.1", 443)]  # the address that was checked, not the name


def test_redirects_are_checked_each(dialled: list[tuple[str, int]]):
    assert fetch("https://pictures.example/to/https://pictures.example/b").startswith(b"/b ")
    assert len(dialled) == 2
    dialled.clear()
    for target in (
        "http://pictures.example/b",
        "file:///etc/passwd",
        "https://inside.example/",
        "ftp://pictures.example/",
        "https://u@pictures.example/",
    ):
        with pytest.raises(InputError):
            fetch(f"https://pictures.example/to/{target}")
    assert len(dialled) == 5  # the first step of each, and no second one
    chain = "https://pictures.example" + "/to/https://pictures.example" * 5 + "/b"
    with pytest.raises(InputError):
        fetch(chain)


def test_a_redirect_is_an_address_like_any(dialled: list[tuple[str, int]]):
    with pytest.raises(InputError, match=r"9,\d{3} characters"):
        fetch("https://pictures.example/to-a-long-one")
    assert len(dialled) == 1


def test_no_redirect_where_none_is_allowed(dialled: list[tuple[str, int]]):
    with pytest.raises(InputError, match="leads elsewhere"):
        fetch("https://pictures.example/to/https://pictures.example/b", redirects=0)
    assert len(dialled) == 1
    assert fetch("https://pictures.example/to/https://pictures.example/b", redirects=1).startswith(b"/b ")


def test_too_much_too_slow_too_little(dialled: list[tuple[str, int]]):
    with pytest.raises(InputError, match="more than the allowed 100,000 bytes"):
        fetch("https://pictures.example/endless", max_bytes=100_000)
    with pytest.raises(InputError, match="ended 91 bytes early"):
        fetch("https://pictures.example/short")


@pytest.mark.parametrize("path", DRIPS)
def test_a_server_that_drips_gets_no_more_time_than_any(path: str, dialled: list[tuple[str, int]]):
    began = time.monotonic()
    with pytest.raises(InputError, match=r"takes too long|timed out"):
        fetch(f"https://pictures.example{path}", seconds=0.6)
    assert time.monotonic() - began < 5


def test_no_time_is_left():
    with pytest.raises(InputError, match="takes too long"):
        download._left(time.monotonic() - 1)


def test_a_redirect_gets_the_time_that_is_left(dialled: list[tuple[str, int]], waits: list[float]):
    fetch("https://pictures.example" + "/to/https://pictures.example" * 3 + "/b", seconds=20)
    assert len(waits) == 4
    assert 20 > waits[0] > waits[1] > waits[2] > waits[3] > 0


def test_several_addresses_share_the_time(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **_: [(0, 0, 0, "", (f"1.1.1.{i}", port)) for i in range(3)])
    waits = []

    def dead(address, timeout):
        waits.append(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", dead)
    with pytest.raises(InputError, match="timed out"):
        fetch("https://pictures.example/", seconds=6)
    assert waits == [pytest.approx(share, rel=0.5) for share in (2, 3, 6)]


def test_a_server_that_does_not_encrypt_gets_no_more_time_than_any(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = socket.create_connection(silent.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **_: [(0, 0, 0, "", ("1.1.1.1", port))])
        monkeypatch.setattr(socket, "create_connection", lambda address, timeout: connection.settimeout(timeout) or connection)
        with pytest.raises(InputError, match=r"takes too long|timed out"):
            fetch("https://pictures.example/", seconds=0.3)


def test_what_comes_with_a_redirect_is_not_read(dialled: list[tuple[str, int]]):
    assert fetch("https://pictures.example/endlessly-to/https://pictures.example/b").startswith(b"/b ")


def test_no_redirect_leads_to_another_port(dialled: list[tuple[str, int]]):
    assert fetch("https://pictures.example/to/https://pictures.example:443/b").startswith(b"/b ")
    dialled.clear()
    with pytest.raises(InputError, match="expected port 443, found 8443"):
        fetch("https://pictures.example/to/https://pictures.example:8443/b")
    assert len(dialled) == 1


def test_nothing_is_unpacked(dialled: list[tuple[str, int]]):
    assert fetch("https://pictures.example/packed", max_bytes=100_000) == PACKED


def test_errors_of_the_server(dialled: list[tuple[str, int]]):
    with pytest.raises(InputError, match=r"^https://pictures.example/missing: the server answers 404$"):
        fetch("https://pictures.example/missing")
