"""A process that is told what to do and answers, a JSON object a line each way."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from .. import errors


class Remote:
    """Use in a `with` block: leaving it ends the process. `what`: how errors name it. What it writes on standard error is kept from view.

    `started`: when, by `time.perf_counter`.
    """

    def __init__(self, command: Sequence[str], what: str, environment: Mapping[str, str] | None = None):
        self.what, self.started = what, time.perf_counter()
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (`close` does; a pipe that nobody reads would fill up)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One command and its answer. Raises the error that the process answers with, `ResourceError` where it ends by itself."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self.read()

    def read(self) -> dict[str, Any]:
        """The next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        answer = json.loads(line)
        if "error" in answer:
            told = answer["error"]
            raise getattr(errors, told["kind"])(told["message"], hint=told["hint"], code=told["code"])
        return answer

    def _ended(self) -> errors.ResourceError:
        code = self._process.wait()
        self._said.seek(0)
        said = [line for line in self._said.read().splitlines() if line.strip()]
        why = "was killed, perhaps for want of memory" if code == -9 else f"ended with code {code}"
        return errors.ResourceError(
            f"the process of {self.what} {why}{f': {said[-1].strip()}' if said else ''}",
            hint="free some memory, or take a smaller model" if code == -9 else None,
            code="process_ended",
        )

    def close(self, at_once: bool = False) -> None:
        """End the process; `at_once`: whatever it is doing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if at_once:
            self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(at_once=kind is not None)
