"""One owner at a time, by name; a dead one's lock is free, even while its data workers live on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paligemma.errors import UsageError
from paligemma.training.disk import Disk
from paligemma.training.lock import NAME, locked

HOLD = """
import os, sys, time
from pathlib import Path
from paligemma.training.disk import Disk
from paligemma.training.lock import locked
with locked(Path(sys.argv[1]), Disk()):
    {inside}
    print("held", flush=True)
    time.sleep(60)
"""
WITH_WORKER = """ready, begun = os.pipe()
    if os.fork() == 0:
        os.write(begun, b".")  # a worker that is killed with its parent before its first line proves nothing
        os.close(1)
        time.sleep(float(sys.argv[2]))
        os._exit(0)
    os.read(ready, 1)"""


def holder(run: Path, inside: str = "pass", *words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(inside=inside), str(run), *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_free_again_afterwards(tmp_path):
    for _ in range(2):
        with locked(tmp_path, Disk()) as died:
            assert died is None
            assert (tmp_path / NAME).read_text().startswith(f"process {os.getpid()} on ")
    assert (tmp_path / NAME).read_text() == ""


def test_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path, Disk()):
        raise KeyError
    with locked(tmp_path, Disk()) as died:
        assert died is None


def test_a_second_owner_in_the_same_process_is_refused(tmp_path):
    with locked(tmp_path, Disk()), pytest.raises(UsageError, match=f"process {os.getpid()}"), locked(tmp_path, Disk()):
        pass


def test_a_second_process_is_refused_and_a_dead_owner_replaced(tmp_path):
    first = holder(tmp_path)
    with (
        pytest.raises(UsageError, match=rf"{re.escape(str(tmp_path))} is being trained by process {first.pid} on ") as caught,
        locked(tmp_path, Disk()),
    ):
        pass
    assert (caught.value.exit_code, caught.value.code) == (2, "run_in_use")
    first.send_signal(signal.SIGKILL)
    first.wait()
    with locked(tmp_path, Disk()) as died:
        assert died is not None
        assert died.startswith(f"process {first.pid} on ")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_worker_does_not_keep_a_dead_owner_s_lock(tmp_path):
    first = holder(tmp_path, WITH_WORKER, "5")
    first.send_signal(signal.SIGKILL)
    first.wait()
    began = time.monotonic()
    with locked(tmp_path, Disk()):
        assert time.monotonic() - began < 4


def test_a_forked_child_leaves_the_lock_alone(tmp_path):
    with locked(tmp_path, Disk()):
        child = subprocess.run(
            [sys.executable, "-c", HOLD.format(inside="pass"), str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert "is being trained by" in child.stderr
        written = (tmp_path / NAME).read_text()
        assert str(os.getpid()) in written


def test_a_strange_text_in_the_file_is_not_repeated(tmp_path):
    (tmp_path / NAME).write_bytes(b"\x1b[31m" + b"x" * 50)
    with locked(tmp_path, Disk()) as died:
        assert died is None
