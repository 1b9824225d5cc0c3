"""The campaigns at their smallest size, each in a process of its own that never started a thread; and that they can fail."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from paligemma.training import loop
from paligemma.training.disk import Disk

from . import kills, real, toy
from .crashes import CHOICES, Played, _lay_out
from .mutants import MUTANTS
from .trial import CALLS, Watch

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="campaigns fork their trainers"), pytest.mark.timeout(900)]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.training.campaigns", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=880
    )


@pytest.mark.parametrize("campaign", ["C12", "C13", "C14", "C15", "C16"])
def test_a_run_survives(campaign):
    done = run("--campaign", campaign)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^{campaign} .* 0 +[0-9.]+% ", done.stdout, re.M), done.stdout


REAL = ["C12", "C13", "C14", "C15", "C16", "C20"]
"""Campaigns a case of which also tries `paligemma train` itself here; all of them: --trainer real without --cases."""


def test_paligemma_train_itself_survives():
    """Killed and continued, the models it leaves are to the bit those of a run that was left alone: `Reference.finished` demands it."""
    campaigns = [word for name in REAL for word in ("--campaign", name)]
    done = run("--trainer", "real", "--cases", "1", *campaigns)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^(C\d+) .* 1 +0 ", done.stdout, re.M) == REAL, done.stdout


MODEL = -2
"""The last case of C12 but one, whatever their number."""


def test_a_model_that_was_being_written_is_written_again():
    """`paligemma train` killed before a file of its finished models is opened or put in place."""
    reference: Any = SimpleNamespace(calls=["write"] * 60, saves=[(1, 20), (21, 40), (41, 60)], steps=15, exports=20)
    assert kills.points(reference, "push", random.Random(0))[MODEL][0] == "model"
    done = run("--trainer", "real", "--campaign", "C12", f"--case={MODEL}")
    assert done.returncode == 0, done.stdout + done.stderr


def careless(run: Path, disk: Disk, watch: Watch) -> int:
    """`paligemma train`, but chance begins anew with each process."""
    with mock.patch.object(loop.random_state, "restore", return_value=[]):
        return real.train(run, disk, watch)


def test_the_real_trainer_too_is_found_out():
    done = run("--campaign", "C12", "--cases", "1", "--trainer", f"{__name__}:{careless.__name__}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"^C12 case \d+: .* I[23]: ", done.stdout, re.M), done.stdout


def test_every_guard_that_is_taken_out_is_missed():
    done = run("--mutants")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall("killed: ", done.stdout)) == len(MUTANTS), done.stdout


def forgetful(run: Path, disk: Disk, watch: Watch) -> int:
    """A trainer that does not bring its moments back."""
    take = toy.Training.take

    def some(self: toy.Training, saved: toy.Saved) -> None:
        take(self, saved)
        self.tensors["optimizer"]["matrix.first"].zero_()

    with mock.patch.object(toy.Training, "take", some):
        return toy.train(run, disk, watch)


def test_a_trainer_that_forgets_something_is_found_out_and_the_case_replayed():
    trainer = f"{__name__}:{forgetful.__name__}"
    done = run("--campaign", "C16", "--trainer", trainer)
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.search(r"^(C16 case \d+: .* I[23]: .*)\nreplay: python -m tests.training.campaigns (.*)$", done.stdout, re.M)
    assert found, done.stdout
    again = run(*shlex.split(found[2]))
    assert again.returncode == 1
    assert found[1] in again.stdout


def test_the_calls_that_can_fail_are_all_of_the_disk_s():
    assert set(CALLS) >= {"create", "write", "sync", "close", "rename", "sync_folder", "names", "look", "unlink", "free", "open_lock"}
    assert all(hasattr(Disk, name) for name in CALLS)


# The model of a disk without power


WRITTEN = [["make_folder", "run"], ["create", "run/a", 1], ["write", 1, "YWJjZGVm"]]


def after(log: list, choice: str, tmp_path: Path, seed: int = 0) -> dict[str, bytes]:
    """The files that are there after the crash."""
    import random

    place = tmp_path / f"{choice}{seed}"
    place.mkdir()
    Played(log).crash(choice, random.Random(seed), place)
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_what_was_not_synced_may_be_there_or_not(tmp_path):
    assert after(WRITTEN, "all", tmp_path) == {"run/a": b"abcdef"}
    assert after(WRITTEN, "none", tmp_path) == {}
    assert after(WRITTEN, "names only", tmp_path) == {"run/a": b""}
    torn = [after(WRITTEN, "torn", tmp_path, seed)["run/a"] for seed in range(20)]
    assert b"abcdef" not in torn
    assert {len(data) for data in torn} >= {6}
    assert any(len(data) < 6 for data in torn)


@pytest.mark.parametrize("choice", CHOICES)
def test_what_was_synced_is_there(tmp_path, choice):
    log = [*WRITTEN, ["sync", 1], ["sync_folder", "run"], ["sync_folder", ""]]
    assert after(log, choice, tmp_path) == {"run/a": b"abcdef"}
    log += [["rename", "run/a", "run/b"], ["sync_folder", "run"], ["create", "run/c", 2], ["unlink", "run/b"]]
    assert after(log[:-2], choice, tmp_path, 1) == {"run/b": b"abcdef"}


def test_a_rename_is_whole_and_may_come_before_the_data(tmp_path):
    log = [*WRITTEN, ["sync_folder", "run"], ["sync_folder", ""], ["rename", "run/a", "run/b"]]
    assert after(log, "names only", tmp_path) == {"run/b": b""}
    assert after(log, "none", tmp_path) == {"run/a": b""}
    seen = [tuple(after(log, "any", tmp_path, seed)) for seed in range(20)]
    assert set(seen) == {("run/a",), ("run/b",)}


def test_laying_out_is_of_what_is_kept(tmp_path):
    played = Played(WRITTEN)
    with contextlib.suppress(KeyError):
        _lay_out(played.root, tmp_path, lambda file: b"never")
    assert list(tmp_path.iterdir()) == []
