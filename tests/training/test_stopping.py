"""Signals: the first is remembered, the second ends the process, handlers come and go, children die when they are told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from paligemma.training.stopping import SIGNALS, Stopping


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_is_remembered_and_the_old_handlers_come_back(number, code, capfd):
    before = [signal.getsignal(one) for one in SIGNALS]
    with Stopping() as stopping:
        assert (stopping.requested, stopping.exit_code) == (False, 0)
        os.kill(os.getpid(), number)
        assert (stopping.requested, stopping.exit_code, stopping.signal) == (True, code, number)
    assert [signal.getsignal(one) for one in SIGNALS] == before
    assert f"{number.name}: finishing this step" in capfd.readouterr().err


def test_handlers_come_back_after_an_error():
    before = [signal.getsignal(one) for one in SIGNALS]
    with pytest.raises(KeyError), Stopping():
        raise KeyError
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_elsewhere_than_in_the_main_thread_nothing_is_set():
    before = [signal.getsignal(one) for one in SIGNALS]
    found = []

    def work() -> None:
        with Stopping() as stopping:
            found.append([signal.getsignal(one) for one in SIGNALS])
            found.append(stopping.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before, False]


SCRIPT = """
import os, signal, sys, time
from paligemma.training.stopping import Stopping
with Stopping() as stopping:
    {body}
"""
TWICE = """
    try:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        print("not reached")
"""
CHILD = """
    child = os.fork()
    if child == 0:
        time.sleep(20)
        os._exit(0)
    time.sleep(0.1)
    os.kill(child, signal.SIGINT)
    time.sleep(0.1)
    alive = os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGTERM)
    print(alive, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), stopping.requested)
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT.format(body=body)], capture_output=True, text=True, check=False, timeout=60)


def test_the_second_one_ends_the_process_at_once():
    done = run(TWICE)
    assert (done.returncode, done.stdout) == (143, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_worker_dies_of_sigterm_and_leaves_sigint_to_its_parent():
    assert run(CHILD).stdout.split() == ["True", "-15", "False"]


def test_where_two_may_come_for_one_the_second_is_taken_for_the_first(capfd):
    with Stopping(quiet=True, grace=30.0) as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.exit_code == 143
    assert capfd.readouterr().err == ""
