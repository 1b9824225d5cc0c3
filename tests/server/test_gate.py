"""Who may come in, with how much and how fast; and every error has one shape that tells nothing of the machine."""

from __future__ import annotations

import base64
import contextlib
import logging
import resource
import threading
import time
from collections.abc import Iterator

import pytest

from paligemma.server import gate
from paligemma.server.refusals import Refused
from paligemma.server.scheduler import Coming, Scheduler
from paligemma.server.settings import Limits, Settings

from .conftest import Served, eventually, heard, one, reply, serving
from .toy import Toy

KEY = "kéy-1234"
"""Not ASCII, as a key may be."""
HEADER_KEY = KEY.encode().decode("latin-1")
HEAD = b"POST /v1/length HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LIMITS = Limits(body_bytes=100_000, header_bytes=4000, url_bytes=1000)


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="module")
def served(toy: Toy) -> Iterator[Served]:
    with serving(toy.app, Settings(limits=LIMITS)) as served:
        yield served


@pytest.fixture(scope="module")
def locked(toy: Toy) -> Iterator[Served]:
    with serving(
        toy.app, Settings(api_keys=("other", KEY), allowed_hosts=("models.example",), allowed_origins=("https://app.example",))
    ) as served:
        yield served


# Ids, headers, accounts


def test_an_answer_has_the_id_of_the_request(served: Served):
    for given, kept in (("abc-1.2_3", True), ("a b", False), ("x" * 65, False), ("", False), ("é", False)):
        answer = served.ask("GET", "/v1/models", X_Request_ID=given)
        assert answer.json()["id"] == answer.headers["x-request-id"]
        assert (answer.headers["x-request-id"] == given) is kept
    assert served.ask("GET", "/v1/models").headers["x-request-id"] != served.ask("GET", "/v1/models").headers["x-request-id"]


def test_without_a_place_nothing_of_the_body_is_looked_at(toy: Toy):
    def full(client: str, coming: object = None) -> None:
        raise Refused(429, "full", "queue_full", retry_after=1)

    toy.reached.clear()
    with serving(toy.app, admit=full) as served, served.connect() as connection:
        for _ in range(2):  # a short body is dropped, and the connection goes on
            connection.sendall(HEAD + b"Content-Length: 3\r\n\r\n{{{")
            assert (answer := one(connection)).error()["code"] == "queue_full"
            assert "connection" not in answer.headers
        connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
        assert reply(heard(connection)).status == 429
        assert not toy.reached
        assert served.ask("GET", "/v1/models").status == 200


def test_a_place_is_kept_once_the_body_has_been_read(toy: Toy):
    """Until the exchange is over: what is made of a body takes time, in which others come."""
    scheduler = Scheduler(rows=0, tokens=0, waiting=1, waiting_each=1, patience=1)
    asked: list[bool] = []

    def admit(client: str, coming: Coming | None = None) -> None:
        asked.append(coming is not None)
        if coming is not None:
            coming.expect(scheduler, client)

    with serving(toy.app, admit=admit) as served:
        for _ in range(2):
            assert served.ask("POST", "/v1/length", b"{}").status == 200
            eventually(lambda: not scheduler._coming)
        assert (asked[0], asked.count(True)) == (False, 2)
        scheduler.enter("another")
        assert served.ask("POST", "/v1/length", b"{}").error()["code"] == "queue_full"


def test_headers_against_other_sites(served: Served):
    answer = served.ask("GET", "/v1/models")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert served.ask("GET", "/").headers["content-security-policy"] == "default-src 'self'"  # the app's own word holds


def test_each_request_is_observed_once(toy: Toy):
    observed: list[tuple[str, str, int, float]] = []
    with serving(toy.app, observe=lambda *seen: observed.append(seen)) as served:
        served.ask("GET", "/v1/models/a")
        served.ask("BREW", "/nowhere")
        served.ask("POST", "/v1/length", b"{}", Content_Type="text/plain")  # for its head
    assert [seen[:3] for seen in observed] == [("GET", "/v1/models/{name:path}", 200), ("other", "other", 404), ("POST", "other", 415)]
    assert all(0 <= seconds < 5 for *_, seconds in observed)


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", b"{}")])
def test_the_log_has_one_line_without_control_characters(served: Served, caplog, method: str, body: bytes | None):
    with caplog.at_level(logging.INFO, "paligemma.server"):
        served.ask(method, "/v1/models/%0aforged%1b[31m", body, X_Request_ID="seen")
        (line,) = eventually(lambda: [record.getMessage() for record in caplog.records if record.getMessage().startswith("seen")])
    assert line.isprintable()
    assert " 404 " in line


# Errors


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/fail", 500, "internal_error"),
        ("GET", "/v1/broken", 500, "internal_error"),
        ("GET", "/v1/bad", 400, "image_damaged"),
    ],
)
def test_errors_have_one_shape(served: Served, method: str, path: str, status: int, code: str):
    answer = served.ask(method, path, X_Request_ID="the-id")
    assert (answer.status, answer.error()["code"]) == (status, code)
    assert ("the-id" in answer.error()["message"]) is (status == 500)
    if status == 405:
        assert "GET" in answer.headers["allow"]


def test_a_failure_is_in_the_log_with_its_traceback(served: Served, caplog):
    served.ask("GET", "/v1/fail", X_Request_ID="failing")
    (record,) = eventually(lambda: [record for record in caplog.records if record.levelname == "ERROR"])
    first, *lines = record.getMessage().splitlines()
    assert first == "failing failed"
    assert any("secret of /home/someone" in line for line in lines)
    assert all(line.startswith("    ") and line.isprintable() for line in lines)  # "forged line" cannot be taken for one of the log


# Hosts and origins


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]:1"])
def test_names_of_this_machine(served: Served, host: str):
    assert served.ask("GET", "/v1/models", Host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "localhost.", "10.0.0.1", "", "localhost:x", "models.example"])
def test_other_names_are_refused(served: Served, toy: Toy, host: str):
    toy.reached.clear()
    answer = served.ask("GET", "/v1/models", Host=host)
    assert (answer.status, answer.error()["code"]) == (403, "host_not_allowed")
    assert not toy.reached


def test_a_key_does_not_replace_the_host(locked: Served):
    assert locked.ask("GET", "/v1/models", X_API_Key=HEADER_KEY, Host="evil.example").status == 403
    assert locked.ask("GET", "/v1/models", X_API_Key=HEADER_KEY, Host="models.example:80").status == 200


def test_pages_of_other_sites(served: Served, toy: Toy):
    toy.reached.clear()
    for origin in ("https://evil.example", "null", "https://127.0.0.1.evil.example", "http://127.0.0.1:1"):
        answer = served.ask("POST", "/v1/length", b"1", Origin=origin)
        assert (answer.status, answer.error()["code"]) == (403, "origin_not_allowed")
        preflight = served.ask("OPTIONS", "/v1/length", Origin=origin, Access_Control_Request_Method="POST")
        assert preflight.status == 403
        for refused in (answer, preflight, served.ask("GET", "/v1/models", Origin=origin)):
            assert not any(name.startswith("access-control") for name in refused.headers)
    assert toy.reached == ["/v1/models"] * 4  # a GET is answered; the other page cannot read it
    assert served.ask("POST", "/v1/length", b"1", Origin=f"http://127.0.0.1:{served.port}").status == 200


def test_an_origin_that_is_allowed(locked: Served):
    origin = "https://app.example"
    preflight = locked.ask("OPTIONS", "/v1/length", Origin=origin, Access_Control_Request_Method="POST")
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    for status, headers in ((200, {"X_API_Key": HEADER_KEY}), (401, {})):
        answer = locked.ask("POST", "/v1/length", b"1", Origin=origin, **headers)
        assert (answer.status, answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (status, origin, "Origin")
    assert "access-control-allow-credentials" not in preflight.headers
    strange = locked.ask("OPTIONS", "/v1/length", Origin=origin, Access_Control_Request_Method="POST", Host="evil.example")
    assert strange.status == 403


# Keys


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {HEADER_KEY}"},
        {"Authorization": f"bearer  {HEADER_KEY}"},
        {"X_API_Key": HEADER_KEY},
        {"X_API_Key": "other"},
        {"Authorization": f"Basic {base64.b64encode(f'anyone:{KEY}'.encode()).decode()}"},
        {"Authorization": "Basic cHJveHk6aXRz", "X_API_Key": HEADER_KEY},
    ],
)
def test_right_keys(locked: Served, headers: dict[str, str]):
    answer = locked.ask("GET", "/v1/models", **headers)
    assert answer.status == 200
    assert answer.json()["client"].startswith("key-")
    assert "1234" not in answer.json()["client"]


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"X_API_Key": ""}, {"X_API_Key": "wrong"}, {"X_API_Key": HEADER_KEY + "x"}, {"X_API_Key": HEADER_KEY[:-1]},
        {"Authorization": f"Basic {HEADER_KEY}"}, {"Authorization": "Bearer"}, {"Authorization": HEADER_KEY}, {"X_API_Key": "\xff" * 9},
        {"Cookie": f"key={HEADER_KEY}"}, {"Authorization": f"Basic {base64.b64encode(f'{KEY}:'.encode()).decode()}"},
        {"Authorization": f"Basic {base64.b64encode(f'anyone:{KEY}x'.encode()).decode()}"}, {"Authorization": "Basic"},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "path", ["/v1/models", "/metrics", "/readyz", "/openapi.json", "/docs", "/nowhere", "/v1/models?api_key=other&key=other"]
)
def test_no_key_no_entry(locked: Served, toy: Toy, headers: dict[str, str], path: str):
    toy.reached.clear()
    answer = locked.ask("GET", path, **headers)
    assert (answer.status, answer.error()["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not toy.reached


def test_a_key_of_a_megabyte(locked: Served):
    with locked.connect() as connection:
        with contextlib.suppress(OSError):
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-API-Key: " + b"k" * (1 << 20) + b"\r\n\r\n")
        assert reply(heard(connection)).status == 431


@pytest.mark.parametrize("path", ["/", "/healthz", "/page/page.css"])
def test_what_is_open(locked: Served, path: str):
    assert locked.ask("GET", path).status == 200
    assert locked.ask("POST", path).status == 401


TRICKS = (
    "//v1/models", "/V1/models", "/v1/models/", "/v1/%2e%2e/metrics", "/v1/../v1/models",
    "/page/../v1/models", "/page/%2e%2e/v1/models",
    "/page//v1/models", "/healthz/", "/healthz/../v1/models", "/./v1/models", "/v1\\models", "/v1/models%00", "/page/%5c..%5cv1", "*",
    "http://localhost/v1/models", "/healthz%2f..%2fv1%2fmodels", "/page/x%2f..", "v1/models",
)  # fmt: skip


@pytest.mark.parametrize("path", TRICKS)
def test_ways_around_a_path(locked: Served, served: Served, toy: Toy, path: str):
    toy.reached.clear()
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode()
    assert reply(locked.say(request + b"\r\n")).status in (401, 404)
    assert reply(locked.say(request + b"X-API-Key: other\r\n\r\n")).status == 404
    assert reply(served.say(request + b"\r\n")).error()["code"] == "not_found"
    assert not toy.reached


# Sizes


def test_long_headers_and_addresses(served: Served):
    for path, headers in (("/v1/models?" + "x" * 1000, {}), ("/" + "x" * 1000, {}), ("/v1/models", {"X_Long": "x" * 4000})):
        answer = served.ask("GET", path, **headers)
        assert (answer.status, answer.error()["code"]) == (431, "headers_too_large")


POST = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_body_that_is_announced_too_large_is_not_read(toy: Toy, monkeypatch):
    monkeypatch.setattr(gate, "_LINGER", 0.1)
    announced = POST % b"/v1/length" + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (33 << 20)
    with serving(toy.app) as served, served.connect() as connection:
        toy.reached.clear()
        served.say(announced)  # what the first of its kind takes is no part of it
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        connection.sendall(announced)
        answer = reply(heard(connection))  # nothing of the body was sent, and no 100 asked for it
        assert (answer.status, answer.error()["code"]) == (413, "body_too_large")
        assert answer.headers["connection"] == "close"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10
        assert not toy.reached


def test_an_answer_arrives_though_the_body_is_still_being_sent(served: Served, monkeypatch):
    monkeypatch.setattr(gate, "_LINGER", 10.0)
    answer = served.ask("POST", "/v1/length", bytes(5_000_000))
    assert answer.error()["code"] == "body_too_large"


@pytest.mark.parametrize("path", ["/v1/length", "/v1/swallowed", "/v1/unread"])
def test_an_endless_body_ends(served: Served, monkeypatch, path: str):
    monkeypatch.setattr(gate, "_LINGER", 0.2)
    chunk = b"2000\r\n" + bytes(0x2000) + b"\r\n"
    with served.connect() as connection:
        connection.sendall(POST % path.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        stop = threading.Event()

        def pour() -> None:
            try:
                while not stop.is_set():
                    connection.sendall(chunk)
            except OSError:
                pass

        thread = threading.Thread(target=pour)
        thread.start()
        begun = time.monotonic()
        answer = reply(heard(connection))  # until the connection is closed
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    assert time.monotonic() - begun < 20
    assert answer.headers["connection"] == "close"
    assert answer.status == (200 if path == "/v1/unread" else 413)


def test_a_body_within_the_limit(served: Served):
    assert served.ask("POST", "/v1/length", bytes(100_000)).json() == 100_000
    assert served.ask("POST", "/v1/length", bytes(100_001)).status == 413


def test_bodies_of_all_requests_together(toy: Toy):
    limits = Limits(bodies_bytes=150_000)
    with serving(toy.app, Settings(limits=limits)) as served, served.connect() as first:
        first.sendall(POST % b"/v1/length" + b"Content-Length: 100001\r\n\r\n" + bytes(100_000))
        eventually(lambda: served.server.config.app.held >= 100_000)
        second = served.ask("POST", "/v1/length", bytes(100_000))
        assert (second.status, second.error()["code"]) == (503, "busy")
        assert second.headers["retry-after"]
        first.sendall(b"x")
        assert one(first).status == 200
        assert served.ask("POST", "/v1/length", bytes(100_000)).status == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content_Encoding": "gzip"}, "unsupported_encoding"),
        ({"Content_Encoding": "identity, br"}, "unsupported_encoding"),
        ({"Content_Type": "application/x-www-form-urlencoded"}, "unsupported_media_type"),
        ({"Content_Type": "text/plain"}, "unsupported_media_type"),
        ({"Content_Type": ""}, "unsupported_media_type"),
    ],
)
def test_bodies_of_other_kinds(served: Served, toy: Toy, headers: dict[str, str], code: str):
    toy.reached.clear()
    answer = served.ask("POST", "/v1/length", b"{}", **headers)
    assert (answer.status, answer.error()["code"]) == (415, code)
    assert not toy.reached


def test_kinds_of_bodies_that_are_taken(served: Served):
    for kind in ("application/json; charset=utf-8", "Multipart/Form-Data; boundary=x"):
        assert served.ask("POST", "/v1/length", b"{}", Content_Type=kind, Content_Encoding="identity").status == 200


# Pace


@pytest.mark.parametrize(("limits", "grace"), [(Limits(body_seconds=0.4), 60.0), (Limits(body_rate=1000), 0.3)])
@pytest.mark.parametrize("path", ["/v1/length", "/v1/swallowed"])
def test_a_slow_body(toy: Toy, monkeypatch, limits: Limits, grace: float, path: str):
    """By the time for all of it, and by the bytes a second."""
    monkeypatch.setattr(gate, "_GRACE", grace)
    monkeypatch.setattr(gate, "_LINGER", 0.1)
    with serving(toy.app, Settings(limits=limits)) as served, served.connect() as connection:
        begun = time.monotonic()
        connection.sendall(POST % path.encode() + b"Content-Length: 1000\r\n\r\n")
        for _ in range(20):
            try:
                connection.sendall(b"x")
            except OSError:
                break
            time.sleep(0.05)
        answer = reply(heard(connection))
    assert (answer.status, answer.error()["code"], answer.headers["connection"]) == (408, "body_too_slow", "close")
    assert 0.25 < time.monotonic() - begun < 8


def test_a_body_at_a_fair_pace(toy: Toy, monkeypatch):
    monkeypatch.setattr(gate, "_GRACE", 1.0)
    with serving(toy.app, Settings(limits=Limits(body_rate=1000))) as served, served.connect() as connection:
        connection.sendall(POST % b"/v1/length" + b"Content-Length: 4000\r\n\r\n")
        for _ in range(40):
            connection.sendall(bytes(100))
            time.sleep(0.06)
        assert one(connection).status == 200


def test_a_client_that_leaves_is_no_error(served: Served, caplog):
    with served.connect() as connection:
        connection.sendall(POST % b"/v1/length" + b"Content-Length: 1000\r\nX-Request-ID: left\r\n\r\nabc")
        time.sleep(0.1)
    time.sleep(0.2)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
