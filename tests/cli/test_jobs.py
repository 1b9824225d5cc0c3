"""`paligemma batch` on a real, tiny model: tables, drawings, what is said, exit codes, signals."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paligemma.checkpoint import save_codec, save_huggingface
from paligemma.cli import build_app
from paligemma.jobs.asked import all_asked

from ..jobs.making import album, lines, png
from ..tiny import random_codec, tiny_model, tiny_tokenizer

COMMANDS = [
    line.strip() for line in (Path(__file__).parents[2] / "docs" / "batch.md").read_text().splitlines() if line.startswith("    paligemma ")
]
TASKS = ("--task", "caption", "--task", "detect:cat;dog", "--max-tokens", 8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = save_huggingface(tiny_model(), tmp_path_factory.mktemp("models") / "tiny")
    tiny_tokenizer().save(folder)
    save_codec(random_codec(), folder)
    return folder


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_document_can_be_called_so(command):
    build_app().parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


def test_tasks_of_the_document_are_tasks():
    text = (Path(__file__).parents[2] / "docs" / "batch.md").read_text()
    block = text.split("## Tasks\n")[1].split("Options of all tasks")[0]
    spelt = [task for line in block.splitlines() for task in re.split(r"  +", line.strip()) if task]
    assert len(spelt) == 10, spelt
    for task in spelt:
        all_asked(shlex.split(task))


def test_a_folder(call, tiny, tmp_path):
    folder, out = album(tmp_path / "a", 5), tmp_path / "out"
    done = call("batch", folder, *TASKS, "--model", tiny, "--out", out, "--batch", 2, "--draw", tmp_path / "drawn")
    assert done.code == 0, done.err
    assert done.lines[0] == "5 items, 10 results"
    assert done.lines[-1] == f"results: {out / 'results.jsonl'}"
    found = rows(out / "results.jsonl")
    assert [(row["id"], row["task"]) for row in found] == [(f"{n}.png", task) for n in range(5) for task in ("caption", "detect:cat;dog")]
    alone = call("caption", folder, "--model", tiny, "--max-tokens", 8, "--json").records
    assert [row["result"]["text"] for row in found[::2]] == [record["result"]["text"] for record in alone]
    assert len(list((tmp_path / "drawn").iterdir())) == 10


def test_some_failed_and_all_failed(call, tiny, tmp_path):
    folder = album(tmp_path / "a", 3, broken=(1,))
    done = call("batch", folder, *TASKS, "--model", tiny, "--out", tmp_path / "out", "--json")
    (said,) = done.records
    assert done.code == 6
    assert (said["finished"], said["items"], said["rows"], said["failed"], said["errors"]) == (True, 3, 4, 1, {"image_unknown_format": 1})
    assert [row["id"] for row in rows(Path(said["errors_file"]))] == ["1.png"]
    assert len(rows(Path(said["results_file"]))) == 4
    done = call("batch", folder / "1.png", *TASKS, "--model", tiny, "--out", tmp_path / "none")
    assert done.code == 3
    assert "errors: 1 image_unknown_format" in done.out


def test_the_same_command_goes_on_and_another_is_refused(call, tiny, tmp_path):
    folder, out = album(tmp_path / "a", 3), tmp_path / "out"
    command = ("batch", folder, *TASKS, "--model", tiny, "--out", out)
    assert call(*command).code == 0
    before = (out / "results.jsonl").read_bytes()
    again = call(*command, "--json", "--batch", 3)
    assert again.records[0]["items_here"] == 0
    assert again.records[0]["rows"] == 6
    other = call(*command, "--task", "ocr")
    assert other.code == 2
    assert other.err.startswith(f"error[other_job]: {out} holds results of another job: not the same tasks")
    assert (out / "results.jsonl").read_bytes() == before
    replaced = call(*command, "--task", "ocr", "--overwrite")
    assert replaced.code == 0
    assert len(rows(out / "results.jsonl")) == 9


def test_parquet(call, tiny, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = album(tmp_path / "a", 2)
    table = lines(folder / "t.jsonl", {"id": "x", "image": "0.png", "price": 3}, {"id": "y", "image": "1.png"})
    done = call("batch", table, *TASKS, "--model", tiny, "--out", tmp_path / "out", "--format", "parquet")
    assert done.code == 0, done.err
    found = parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert [row["id"] for row in found] == ["x", "x", "y", "y"]
    assert json.loads(found[0]["kept"]) == {"price": 3}


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ((), 2, "no task is given"),
        (("--task", "capton"), 2, "did you mean 'caption'"),
        (("--task", "caption", "--batch", "0"), 2, "--batch"),
        (("--task", "caption", "--workers", "2"), 2, "--engine ray"),
        (("--task", "segment:cat", "--tiles"), 2, "--tiles searches"),
        (("--task", "caption", "--draw", "a/drawn"), 2, "within the source"),
        (("--task", "caption", "--engine", "ray", "--workers", "0"), 2, "hint: leave it out"),
        (("--task", "detect:cat", "--min-score", "30"), 2, "min_score must be from 0 to 1"),
        (("--task", "detect:cat", "--max-objects", "0"), 2, "max_objects must be from 1"),
        (("--task", "caption", "--beams", "0"), 2, "beams must be from 1"),
        (("--task", "caption", "--max-tokens", "-1"), 2, "max_tokens must be from 1"),
        (("--task", "caption", "--frames", "300"), 2, "it can be 1 to 256"),
        (("--task", "caption", "--frames", "0"), 2, "it can be 1 to 256"),
        (("--task", "caption", "--model", "nowhere"), 4, "no such file or folder"),
    ],
)
def test_what_is_refused_leaves_no_trace(call, tmp_path, monkeypatch, more, code, says):
    album(tmp_path / "a", 1)
    monkeypatch.chdir(tmp_path)
    done = call("batch", "a", *more, "--out", "out")
    assert done.code == code
    assert says in done.err
    assert not Path("out").exists()


def test_drawings_are_all_in_one_folder(call, tiny, tmp_path):
    command = ("batch", album(tmp_path / "a", 1), "--task", "caption", "--max-tokens", 3, "--model", tiny, "--out", tmp_path / "out")
    assert call(*command, "--draw", tmp_path / "drawn").code == 0
    assert call(*command, "--draw", tmp_path / "drawn").code == 0
    other = call(*command, "--draw", tmp_path / "elsewhere")
    assert (other.code, "another job: not the same drawings" in other.err) == (2, True)


def test_an_order_that_could_not_be_filled_gives_way_to_the_next(call, tmp_path):
    model = save_huggingface(tiny_model(), tmp_path / "without codec")
    tiny_tokenizer().save(model)
    command = ("batch", album(tmp_path / "a", 1), "--max-tokens", 3, "--model", model, "--out", tmp_path / "out")
    assert call(*command, "--task", "segment:cat").code == 2
    done = call(*command, "--task", "caption")
    assert done.code == 0, done.err


def test_no_such_source(call, tmp_path):
    done = call("batch", tmp_path / "none", "--task", "caption", "--out", tmp_path / "out")
    assert (done.code, "no such file or folder" in done.err) == (3, True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_it_can_go_on(call, tiny, tmp_path, number, code):
    folder, out = album(tmp_path / "a", 40), tmp_path / "out"
    command = ["batch", folder, *TASKS, "--model", tiny, "--out", out, "--batch", 1]
    process = subprocess.Popen(
        [sys.executable, "-m", "paligemma", *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while not (out / "parts").is_dir():
        assert time.monotonic() < end
        assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
        time.sleep(0.01)
    process.send_signal(number)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "the same command goes on" in errors
    assert re.match(r"[0-9]+ items?, [0-9]+ results\n", said)
    assert not (out / "results.jsonl").exists()
    done = call(*command)
    assert done.code == 0
    assert len(rows(out / "results.jsonl")) == 80


def test_a_full_disk(call, tiny, tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no full device")
    folder = album(tmp_path / "a", 1)
    out = tmp_path / "out"
    out.mkdir()
    (out / "lock").symlink_to("/dev/full")
    done = call("batch", folder, *TASKS, "--model", tiny, "--out", out)
    assert done.code == 5
    assert done.err.startswith("error[")


def test_a_picture_alone(call, tiny, tmp_path):
    (tmp_path / "x.png").write_bytes(png())
    done = call("batch", tmp_path / "x.png", "--task", "ocr", "--model", tiny, "--max-tokens", 3, "--out", tmp_path / "out")
    assert done.code == 0
    assert rows(tmp_path / "out" / "results.jsonl")[0]["id"] == "x.png"


@pytest.mark.parametrize(
    ("cores", "gpus", "workers", "given"),
    [
        (8, 0, None, (8, 1, 0)), (8, 0, 2, (2, 4, 0)), (2, 0, 3, (3, 1, 0)),
        (16, 4, None, (4, 4, 1)), (16, 4, 3, (3, 5, 1)), (16, 4, 8, (8, 2, 1 / 2)), (16, 2, 3, (3, 5, 1 / 2)), (16, 1, 4, (4, 4, 1 / 4)),
    ],
)  # fmt: skip
def test_each_worker_has_its_share(monkeypatch, cores, gpus, workers, given):
    from paligemma.cli import jobs
    from paligemma.jobs import ray_engine
    from paligemma.jobs.work import Order

    found = {}
    monkeypatch.setattr(ray_engine, "on_ray", lambda load, config, order, **how: found.update(how))
    monkeypatch.setattr(jobs.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(jobs, "_gpus", lambda options: gpus)
    _, span = jobs.engine_for(jobs.JobModel(engine="ray", workers=workers), Order(()), 6)
    assert (found["workers"], found["cpus"], found["gpus"]) == given
    assert (found["batch"], span) == (6, 60)
