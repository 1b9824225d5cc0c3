"""`paligemma serve` as a process: it says where it listens, answers, and ends in order; what is wrong is said before a model is loaded."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest
import torch

from paligemma.checkpoint.finding import BUNDLED
from paligemma.cli.serving import leave_a_core

PICTURE = base64.b64encode((BUNDLED / "demo" / "objects1.png").read_bytes()).decode()


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`paligemma serve`, and the line in which it says where it listens."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PALIGEMMA_")} | {"OMP_NUM_THREADS": "1"}
    port = () if "--port" in arguments else ("--port", "0")
    command = [sys.executable, "-m", "paligemma", "serve", *port, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as running:
        try:
            assert running.stdout is not None
            line = running.stdout.readline()
            assert line, running.stderr.read() if running.stderr else ""
            yield running, line
        finally:
            running.kill()


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`paligemma serve`, and its port."""
    with started(*arguments) as (running, line):
        found = re.search(r":(\d+)/", line)
        assert found, line
        yield running, int(found[1])


def quiet_port() -> int:
    """A free one of those that systems give to nobody by themselves."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as trying, suppress(OSError):
            trying.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def refused(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "paligemma", "serve", *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def test_it_answers_and_ends_when_told_once_answers_are_written():
    with process("--log-json", "--name", "mine") as (running, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/v1/models", headers={"X-Forwarded-For": "203.0.113.9"})
        (model,) = json.loads(connection.getresponse().read())["data"]
        assert model["id"] == "mine"
        assert any("drawn world" in note for note in model["paligemma"]["notes"])
        connection.request("GET", "/")
        page = connection.getresponse()
        assert (page.status, page.getheader("content-type")) == (200, "text/html; charset=utf-8")
        assert "Ask a picture" in page.read().decode()
        body = {"image": PICTURE, "prompt": "caption en", "stream": True, "max_tokens": 300}
        rambling = {"temperature": 100, "seed": 1}  # any token may come, and the end is one of thousands
        connection.request("POST", "/v1/run", json.dumps(body | rambling), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        first = answer.readline()
        running.send_signal(signal.SIGTERM)
        rest = answer.read().decode()
        assert first == b"event: token\n"
        assert rest.endswith("data: [DONE]\n\n")
        assert '"completion_tokens":300' in rest
        _, log = running.communicate(timeout=30)
        assert running.returncode == 0
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        assert [line["path"] for line in lines if "path" in line][-1] == "/v1/run"
        assert all(len(line["request_id"]) >= 8 for line in lines if "path" in line)
        assert {line["client"] for line in lines if "path" in line} == {"127.0.0.1"}, "what a client says of itself is not believed"


def test_the_address_that_it_says_can_be_opened():
    """Also where it listens on all of them: browsers and the Host header want one."""
    with started("--host", "0.0.0.0", "--insecure-no-auth") as (_, line):
        found = re.fullmatch(r"listening on http://(127\.0\.0\.1:\d+)/ and this machine's other addresses  \(ctrl-C ends it\)\n", line)
        assert found, line
        connection = http.client.HTTPConnection(found[1], timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200


def test_a_small_model_leaves_a_core_to_the_rest_of_the_server(monkeypatch):
    had = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        leave_a_core()
        assert torch.get_num_threads() == 3
        monkeypatch.delenv("OMP_NUM_THREADS")
        for left in (2, 1, 1):
            leave_a_core()
            assert torch.get_num_threads() == left
    finally:
        torch.set_num_threads(had)


def test_killed_it_starts_again_where_it_was():
    """Nothing is to be cleaned up: its helpers have ended with it, and its port is free."""
    port = quiet_port()
    with process("--port", str(port)) as (running, _):
        helpers = psutil.Process(running.pid).children(recursive=True)
        assert helpers
        running.kill()
        running.wait(10)
        assert not psutil.wait_procs(helpers, timeout=10)[1]
    with process("--port", str(port)) as (_, same):
        connection = http.client.HTTPConnection("127.0.0.1", same, timeout=60)
        connection.request("POST", "/v1/caption", json.dumps({"image": PICTURE}), {"Content-Type": "application/json"})
        assert (same, connection.getresponse().status) == (port, 200)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--host", "0.0.0.0"), 2, "error[key_needed]"),
        (("--rows", "0"), 2, "--rows must be at least 1"),
        (("--port", "70000"), 2, "--port must be"),
        (("--adapter", "birds"), 2, "expected NAME=FOLDER"),
        (("--allowed-origin", "app.example.com"), 2, "--allowed-origin"),
        (("--media-root", "nowhere"), 2, "--media-root"),
        (("--model", "nowhere"), 4, "error["),
    ],
)
def test_what_is_wrong_is_said_in_a_line(arguments, code, words):
    found, said = refused(*arguments, *(() if "--port" in arguments else ("--port", "0")))
    assert (found, words in said, "Traceback" in said) == (code, True, False), said


def test_an_address_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = refused("--port", str(taken.getsockname()[1]))
    assert code == 5
    assert "cannot listen on 127.0.0.1" in said
    assert "hint: another program" in said
