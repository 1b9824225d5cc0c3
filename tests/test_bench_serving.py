"""The load that the server is measured with is the one that was planned, and what came of it is counted right."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from bench.serving import Row, chats, measure_peer, streams, table
from bench.traffic import Outcome, Plan, answered, drive, percentile, rate, recovery

SLOW = 0.05


class Answerer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.keys.append(self.headers["Authorization"])  # type: ignore[attr-defined]
        time.sleep(SLOW)
        status = 429 if self.path == "/full" else 200
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answerer) as server:
        server.keys = []  # type: ignore[attr-defined]
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def plan(server: ThreadingHTTPServer, **how) -> Plan:
    return Plan(f"http://127.0.0.1:{server.server_port}", [("/ask", {"a": 1}), ("/full", {})], seconds=1.0, keys=("one", "two"), **how)


def test_so_many_ask_at_a_time(server):
    outcomes = drive(plan(server, clients=4))
    assert {one.status for one in outcomes} == {200, 429}
    assert 4 <= len(outcomes) <= 4 * (1.0 / SLOW + 1)
    assert all(one.seconds >= one.first >= SLOW for one in outcomes)
    assert set(server.keys) == {"Bearer one", "Bearer two"}


def test_somebody_comes_whether_there_was_an_answer_or_not(server):
    outcomes = drive(plan(server, rate=60.0))
    assert 10 <= len(outcomes) <= 100
    assert [one.at for one in outcomes] == sorted(one.at for one in outcomes)
    assert SLOW <= recovery(outcomes, 1.0) < 10


def test_a_connection_that_breaks_is_an_outcome():
    outcomes = drive(Plan("http://127.0.0.1:9", [("/ask", {})], seconds=0.1, rate=50.0))
    assert outcomes
    assert {one.status for one in outcomes} == {0}
    assert recovery(outcomes, 0.1) == math.inf


def test_figures():
    outcomes = [Outcome(200, 0.0, 0.5, 0.1), Outcome(200, 0.9, 0.5, 0.1), Outcome(429, 0.1, 0.01, 0.01)]
    assert rate(outcomes, 1.0) == 1.0
    assert len(answered(outcomes)) == 2
    assert recovery([*outcomes, Outcome(429, 1.01, 0.1, 0.1), Outcome(200, 1.2, 0.3, 0.1)], 1.0) == pytest.approx(0.5)
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
    assert table([Row("a", "1", "2 (reached)")]).splitlines()[-1] == "| a | 1 | 2 (reached) |"


def test_both_servers_are_asked_the_same():
    for (_, chat), (_, native) in zip(chats(), streams(), strict=True):
        picture, text = chat["messages"][0]["content"]
        assert (picture["image_url"]["url"], text["text"]) == (native["image"], native["prompt"])
        assert chat["max_tokens"] == native["max_tokens"]


@pytest.mark.slow
def test_the_peer_answers():
    rows = measure_peer(3)
    assert len(rows) == 5
    assert float(rows[2].value.split()[0]) > 0
