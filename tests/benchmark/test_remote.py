"""A process that is told what to do: its answers, its errors, its end."""

from __future__ import annotations

import sys
import time

import pytest

from paligemma.benchmark.remote import Remote
from paligemma.errors import CheckpointError, ResourceError

ECHO = "import sys\nfor line in sys.stdin:\n    print(line, end='', flush=True)\n"
REFUSE = """
import sys
import time
for line in sys.stdin:
    print('{"error": {"kind": "CheckpointError", "message": "no", "hint": "yes", "code": "bad"}}', flush=True)
"""


def test_a_command_and_its_answer():
    with Remote([sys.executable, "-c", ECHO], "echo") as remote:
        assert remote.ask("load", model="é") == {"do": "load", "model": "é"}
        assert remote.ask("memory") == {"do": "memory"}


def test_an_error_comes_through_as_it_was_raised():
    with Remote([sys.executable, "-c", REFUSE], "refuse") as remote, pytest.raises(CheckpointError, match="no") as caught:
        remote.ask("load")
    assert (caught.value.hint, caught.value.code) == ("yes", "bad")


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("import sys; sys.stdin.readline(); print('what a pity\\n\\n', file=sys.stderr); sys.exit(3)", "ended with code 3: what a pity"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed, perhaps for want of memory"),
    ],
)
def test_a_process_that_ends_is_one_line(end, said):
    with Remote([sys.executable, "-c", end], "a model") as remote, pytest.raises(ResourceError) as caught:
        remote.ask("load")
    assert caught.value.message == f"the process of a model {said}"


def test_what_goes_wrong_here_does_not_wait_for_it():
    busy = "import sys, time; print('{}', flush=True); time.sleep(60)"
    start = time.perf_counter()

    def broken_off() -> None:
        with Remote([sys.executable, "-c", busy], "busy") as remote:
            remote.read()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert time.perf_counter() - start < 30
