"""From every format to a better model: data written by the formats' own libraries, one command that trains, and `eval` before and after.

Not run by default. `pytest -m slow -s tests/slow/test_fine_tuning.py` takes about ten minutes on two cores and prints a table. The commands
are those that `paligemma nano data` prints, each a process of its own, as a user's would be.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paligemma.evaluation.gain import gain
from paligemma.evaluation.metrics import METRICS
from paligemma.evaluation.scores import score
from paligemma.nano.datasets import FORMATS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

GAIN = 0.05
"""Of the metric, from 0 to 1, at the least; and chance would not do it: see `evaluation.gain`."""


def run(command: str) -> tuple[str, float]:
    """What `paligemma ...` prints, and its seconds."""
    threads = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # the other tests' one is not enough here
    began = time.monotonic()
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=threads)
    assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
    return done.stdout, time.monotonic() - began


def scores(folder: Path) -> dict:
    return json.loads((folder / "scores.json").read_text())


@pytest.mark.parametrize("format", FORMATS)
def test_one_command_makes_it_better_and_the_report_says_so(format: str, tmp_path: Path):
    folder = tmp_path / format
    commands, _ = run(f"paligemma nano data {shlex.quote(str(folder))} --format {format}")
    measure, train, again = commands.splitlines()
    run(measure)
    printed, seconds = run(train)
    assert "paligemma " in printed.splitlines()[-1], "the command that uses the model is not printed"
    told, _ = run(again)
    before, after = (scores(tmp_path / f"{format}-{when}") for when in ("before", "after"))
    assert before["metric"] == after["metric"]
    kind = METRICS[after["metric"]]
    assert kind.higher_is_better
    shown = [f"{kind.shown(one['value']):>5} [{', '.join(map(kind.shown, one['interval']))}]" for one in (before, after)]
    print(f"\n| {format} | {kind.keys[kind.main]} | {shown[0]} | {shown[1]} | {after['count']} | {seconds:.0f} |", flush=True)
    found = gain(score(tmp_path / f"{format}-after", after["metric"]), tmp_path / f"{format}-before")
    assert found.apart, "chance could have done that"
    assert found.left_out == 0
    assert after["value"] > before["value"] + GAIN
    assert found.verdict in told
    report = (tmp_path / f"{format}-after" / "report.html").read_text(encoding="utf-8")
    assert f">+{kind.shown(after['value'] - before['value'])}</strong>" in report
