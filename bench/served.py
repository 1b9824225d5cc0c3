"""A server in a process of its own, and what that process takes from the machine.

with served("--rows", "1") as server: server.ask("GET", "/healthz")
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

OURS = (sys.executable, "-m", "paligemma", "serve", "--port", "0")
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
_SAYS = "listening on http://127.0.0.1:"


@dataclass(frozen=True)
class Server:
    port: int
    pid: int
    log: deque[str]
    """The last lines that the server wrote."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, bytes]:
        """Status and body. What is sent is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def alive(self) -> bool:
        return self.ask("GET", "/healthz")[0] == 200

    def memory(self) -> int:
        """Bytes of the server itself; the processes that decode pictures come and go."""
        return psutil.Process(self.pid).memory_info().rss

    def handles(self) -> tuple[int, int]:
        """Open files and threads."""
        process = psutil.Process(self.pid)
        return process.num_fds(), process.num_threads()


@contextmanager
def served(*options: str, command: Sequence[str] = OURS, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """`paligemma serve` with the bundled model, or another command that says where it listens. Ends it as an operator would."""
    running = subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT, **(environment or {})},
    )
    log: deque[str] = deque(maxlen=200)
    assert running.stdout is not None
    assert running.stderr is not None
    threading.Thread(target=log.extend, args=(running.stderr,), daemon=True).start()
    try:
        first = running.stdout.readline()
        if not first.startswith(_SAYS):
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(5)
            raise RuntimeError(f"the server did not start: {first}{''.join(log)}")
        yield Server(int(first.removeprefix(_SAYS).partition("/")[0]), running.pid, log)
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(45)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            raise
