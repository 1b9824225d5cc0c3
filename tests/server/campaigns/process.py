"""`paligemma serve` with the bundled model in a process of its own, and what that process takes from the machine."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil


@dataclass(frozen=True)
class Process:
    port: int
    pid: int
    log: deque[str]
    """The last lines that the server wrote."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def memory(self) -> int:
        """Bytes of the server without its decoders, which are replaced now and then."""
        return psutil.Process(self.pid).memory_info().rss

    def handles(self) -> tuple[int, int]:
        """Open files and threads."""
        process = psutil.Process(self.pid)
        return process.num_fds(), process.num_threads()

    def alive(self) -> bool:
        return self.ask("GET", "/healthz")[0] == 200


@contextmanager
def process(*options: str) -> Iterator[Process]:
    command = [sys.executable, "-m", "paligemma", "serve", "--port", "0", *options]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    log: deque[str] = deque(maxlen=200)
    assert running.stdout is not None
    assert running.stderr is not None
    threading.Thread(target=log.extend, args=(running.stderr,), daemon=True).start()
    try:
        first = running.stdout.readline()
        assert first.startswith("listening on http://127.0.0.1:"), "\n".join([first, *log])
        yield Process(int(first.split("/")[2].split(":")[1]), running.pid, log)
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(40)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            raise
