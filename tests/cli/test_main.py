"""The command line as a whole: quick help, one-line errors, exit codes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App

from paligemma.cli import COMMANDS, build_app
from paligemma.cli.failures import Stopped
from paligemma.errors import CheckpointError, InputError, ResourceError, UsageError

ALL = [name for commands in COMMANDS.values() for name in commands]


def process(*arguments: str, **how) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "paligemma", *arguments], capture_output="stdout" not in how, text=True, **how)


def test_help_lists_every_command_and_imports_nothing_heavy():
    done = process("--help", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1", "COLUMNS": "200"})
    assert done.returncode == 0
    assert all(name in done.stdout for name in ALL)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "cyclopts" in imported
    assert not imported & {"torch", "numpy", "PIL", "paligemma.predictor", "paligemma.cli.tasks", "huggingface_hub"}


@pytest.mark.parametrize("name", ALL)
def test_every_command_is_there_and_explains_itself(name: str, call):
    assert isinstance(build_app()[name], App)
    done = call(name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: paligemma {name}")


def test_version(call):
    assert call("--version").out.strip() == "0.1.0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["captoin", "a.jpg"], 'error[usage]: Unknown command "captoin". Did you mean "caption"?'),
        (["caption", "a.jpg", "--jsn"], "error[usage]: Unknown option: --jsn. Did you mean --json?"),
        (["caption"], "error[usage]: paligemma caption needs pictures"),
        (["ask", "a.jpg"], "error[usage]: paligemma ask needs pictures and then, in quotes, what to ask"),
        (["caption", "a.jpg", "--beams", "two"], 'error[usage]: Invalid value for --beams: unable to convert "two" into int'),
        (["caption", "a.jpg", "--dtype", "int3"], "error[usage]: Invalid value"),
        (["caption", "a.jpg", "--batch", "0"], "error[usage]: --batch must be at least 1, got 0"),
        (["caption", "a.jpg", "--stream", "--json"], "error[usage]: --stream"),
        (["detect", "a.jpg", " ; "], "error[usage]:"),
        (["describe-box", "a.jpg", "1,2,3"], "error[usage]: '1,2,3' is not a box"),
        (["caption", "https://example.org/a.jpg"], "error["),
    ],
)
def test_a_wrong_call_is_one_line_a_hint_and_code_2(arguments, message, call, model):
    done = call(*arguments)
    assert done.code == 2
    assert done.out == ""
    first, *rest = done.err.splitlines()
    assert first.startswith(message)
    assert len(rest) <= 1
    assert all(line.startswith("hint: ") for line in rest)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("no"), 2, "error[usage]: no"),
        (CheckpointError("no", code="pickle_refused"), 4, "error[pickle_refused]: no"),
        (ResourceError("no"), 5, "error[resource]: no"),
        (MemoryError(), 5, "error[out_of_memory]: out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), 5, "error[out_of_memory]: out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "x.png"), 5, "error[disk_full]: x.png: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 5, "error[not_allowed]: /x: Permission denied"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b.png"), 2, "error[usage]: a/b.png: not a directory"),
        (ZeroDivisionError("by\nzero"), 1, "error[bug]: ZeroDivisionError: by"),
        (KeyboardInterrupt(), 130, ""),
        (Stopped(), 143, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_kind_of_error_has_its_code(error, code, line, call, model, picture):
    model.raises = error
    done = call("caption", picture("a.png"))
    assert done.code == code
    assert done.err.splitlines()[:1] == ([line] if line and not line.endswith("memory") else done.err.splitlines()[:1])
    assert done.err.startswith(line)
    assert "Traceback" not in done.err


def test_a_list_of_problems_stays_a_list(call, model, picture):
    model.raises = CheckpointError("two problems:\n  a is missing\n  b\x1b[0m is not")
    assert call("caption", picture("a.png")).err.splitlines()[1:] == ["  a is missing", r"  b\x1b[0m is not"]


def test_debug_shows_the_traceback_wherever_it_stands(call, model, picture):
    model.raises = InputError("no")
    model.raises = ZeroDivisionError("zero")
    path = picture("a.png")
    for arguments in (["--debug", "caption", path], ["caption", path, "--debug"], ["caption", "--debug", path]):
        done = call(*arguments)
        assert done.code == 1
        assert "Traceback" in done.err
        assert "error[bug]: ZeroDivisionError: zero" in done.err


def test_after_two_dashes_everything_is_text(call, model, picture):
    call("ask", picture("a.png"), "--", "--debug")
    assert model.asked[0][2] == ("--debug",)


def test_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        done = process("models", stdout=stdout, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk():
    with open("/dev/full", "w") as stdout:
        done = process("models", stdout=stdout, stderr=subprocess.PIPE)
    assert done.returncode == 5
    assert done.stderr.startswith("error[disk_full]: output: ")
    assert "Traceback" not in done.stderr
