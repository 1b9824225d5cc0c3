"""Two processes under torchrun are one run: its losses, its weights, its checkpoints, its messages.

Compared with a run alone that takes the same rows at a time, one part after the other, so both add up the same float32 numbers. What
remains is the order in which squares are summed up for norms, and how far rows are padded: a few units in the last place of a gradient.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._C._distributed_c10d import HashStore

from paligemma.cli import failures, main
from paligemma.errors import ResourceError, UsageError
from paligemma.training.distributed import ALONE, Processes, joined
from paligemma.training.loop import LOG, read_log
from paligemma.training.saved import open_saved
from tests.training.together import CASES, STEPS, a_run, prepare

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost", "--nproc-per-node", "2", "-m"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
TOLERANCE = {"full": 1e-3, "lora": 1e-3, "qlora": 1e-3, "small": 1e-2, "descent": 1e-3}
"""How far weights may be apart, as a share of how far they moved: rounding, which differs between processors (`lora`: 1.3e-5 on one); a
gradient that is not the mean of both processes' is apart by tenths. `small`: its first moment has 8 bits, and so has its rounding.
`descent`: weights moved so little that one unit in their last place is 2e-4 of it."""
NOTHING = "attn.k.bias"
"""In the image tower: a softmax does not see it, so its gradient is zero but for rounding, which Adam makes steps of any direction from."""


Alone = Callable[[str], tuple[Path, dict[str, torch.Tensor]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Everything that two processes do, done once, whatever number of workers tests have."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "together"
    done = folder.with_suffix(".txt")
    try:
        folder.mkdir()
    except FileExistsError:  # another worker is at it
        while not done.exists():
            time.sleep(0.1)
    else:
        prepare(folder)
        command = [*TORCHRUN, "tests.training.together", str(folder)]
        ended = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        written = folder.with_suffix(".new")
        written.write_text(ended.stderr[-4000:] if ended.returncode else "")
        written.rename(done)  # whole
    assert not done.read_text(), done.read_text()
    return folder


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory) -> Alone:
    """A case, done by one process: its folder, and the weights before."""

    @functools.cache
    def do(name: str) -> tuple[Path, dict[str, torch.Tensor]]:
        run = a_run(folder, name, ALONE, out=tmp_path_factory.mktemp(name) / "run")
        before = {key: p.detach().clone() for key, p in run.trainable.parameters.items()}
        run.go()
        return run.out, before

    return do


def last(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    saved = open_saved(max(run.glob("step-*")))
    return {file: saved.read(file, mapped=False) for file in saved.files}


def events(run: Path) -> list[dict]:
    return json.loads((run / "run_report.json").read_text())["events"]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(name, folder, alone):
    run, before = alone(name)
    ones, twos = (read_log(way / LOG) for way in (run, folder / name))
    assert [entry["step"] for entry in ones if "loss" in entry] == list(range(1, STEPS + 1))
    for one, two in zip(ones, twos, strict=True):
        assert one.keys() == two.keys()
        losses = [[value for key, value in entry.items() if "loss" in key] for entry in (one, two)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
        assert [two.get(key) for key in ("right", "held_out_right", "truncated")] == [
            one.get(key) for key in ("right", "held_out_right", "truncated")
        ]
        assert two.get("norm", 0.0) == pytest.approx(one.get("norm", 0.0), rel=1e-3)
    files = [last(way) for way in (run, folder / name)]
    shapes = [{(file, key): (t.shape, t.dtype) for file, ts in saved.items() for key, t in ts.items()} for saved in files]
    assert shapes[0] == shapes[1], "checkpoints of several processes are those of one"
    one, two = (saved["model"] for saved in files)
    for key in one:
        if not key.endswith(NOTHING):
            apart, moved = (two[key] - one[key]).norm(), (one[key] - before[key]).norm()
            assert apart <= TOLERANCE[name] * moved, f"{key}: {apart / moved:.1e} of its way"


@pytest.mark.parametrize(("name", "file"), [("full", "model.safetensors"), ("lora", "adapter_model.safetensors")])
def test_what_is_left_in_the_end_is_what_a_run_alone_leaves(name, file, folder, alone):
    from safetensors.torch import load_file

    run, _ = alone(name)
    for model in ("best", "last"):
        one, two = (load_file(way / model / file) for way in (run, folder / name))
        assert one.keys() == two.keys()
        apart = sum((two[key] - one[key]).square().sum() for key in one if not key.endswith("k_proj.bias"))
        assert apart < 1e-6, model
    left = [{path.relative_to(way) for path in way.rglob("*")} for way in (run, folder / name)]
    assert left[0] == left[1]


def test_a_signal_to_one_stops_all_and_they_go_on_as_if_nothing_had_been(folder):
    through, cut = (last(folder / name) for name in ("through", "cut"))
    assert all(torch.equal(through[file][name], cut[file][name]) for file in through for name in through[file])
    assert [event["kind"] for event in events(folder / "cut")] == ["stopped"]


def test_trouble_in_one_is_the_trouble_of_all(folder):
    run = folder / "trouble"
    found = {event["kind"]: event for event in events(run)}
    assert found.keys() == {"record", "skipped_step"}
    assert found["skipped_step"]["step"] == 3
    assert len(found["skipped_step"]["records"]) == 4, "of both"
    assert len((run / "quarantine.jsonl").read_text().splitlines()) == 1
    assert all(torch.isfinite(tensor).all() for tensor in last(run)["model"].values())
    assert len(open_saved(max(run.glob("step-*"))).state["quarantine"]) == 1


def train(folder: Path, *words: object) -> list[str]:
    basic = ["--model", folder / "model", "--data", folder / "data", "--device", "cpu", "--micro", 2, "--lr", 1e-3, "--steps", 40]
    return ["train", *map(str, [*basic, *words])]


def test_from_one_process_to_two_and_back(folder, tmp_path, monkeypatch, capsys):
    words = train(folder, "--batch", 4, "--out", tmp_path / "run", "--allow-inexact")

    def stop(entry: dict) -> None:
        if entry.get("step") == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr("paligemma.cli.training._lines", stop)
        assert main(words) == 143
    process = subprocess.Popen([*TORCHRUN, "paligemma", *words], cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while read_log(tmp_path / "run" / LOG)[-1]["step"] < 6 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert said.count("SIGTERM: finishing this step") == 1, said
    assert said.count("updates; the same command goes on") == 1
    saved = open_saved(max((tmp_path / "run").glob("step-*")))
    assert 6 <= saved.step < 40
    assert saved.facts["machine.processes"] == "2"
    assert read_log(tmp_path / "run" / LOG)[-1]["step"] == saved.step
    assert main(words) == 0
    assert main([*train(folder, "--batch", 4), "--out", str(tmp_path / "straight")]) == 0
    curves = [[entry["loss"] for entry in read_log(tmp_path / name / LOG)] for name in ("run", "straight")]
    assert len(curves[0]) == 40
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    assert {event["kind"] for event in events(tmp_path / "run")} == {"stopped", "inexact"}


def test_what_is_wrong_is_said_once(folder, tmp_path):
    command = [*TORCHRUN, "paligemma", *train(folder, "--batch", 5, "--out", tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1, "torchrun's own, whatever its processes say"
    assert "exitcode  : 2 " in done.stderr
    said = "error[uneven_batch]: a batch of 5 examples cannot be shared out evenly between 2 processes\nhint: --batch 4 or 6, or"
    assert done.stderr.count(said) == done.stderr.count("error[") == 1
    assert not (tmp_path / "run").exists()


def test_shares():
    assert [Processes(0, 3).share(batch) for batch in (3, 6)] == [1, 2]
    assert ALONE.share(5) == 5
    with pytest.raises(UsageError, match="evenly") as caught:
        Processes(0, 3).share(2)
    assert caught.value.hint == "--batch 3, or another number of processes"


@pytest.mark.parametrize(("count", "parts"), [(6, [(0, 2), (2, 2), (4, 2)]), (5, [(0, 2), (2, 2), (4, 1)]), (2, [(0, 2)] * 3)])
def test_parts_of_what_is_held_out(count, parts):
    assert [Processes(rank, 3).part(count) for rank in range(3)] == parts
    assert ALONE.part(count) == (0, count)


@pytest.mark.parametrize("size", [None, "1"])
def test_one_process_is_alone(size, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    with joined() as processes:
        assert processes is ALONE
        assert (processes.gather("a"), processes.total([1.5]), processes.lead(lambda: 3)) == (["a"], [1.5], 3)


@pytest.mark.parametrize(("size", "says"), [("2", "no RANK"), ("two", "expected a number")])
def test_an_environment_that_is_no_torchruns(size, says, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match=says), joined():
        pass


@pytest.mark.parametrize(("name", "value", "says"), [
    ("RANK", "one", "RANK is 'one'"), ("RANK", "2", "RANK is 2"), ("MASTER_PORT", "http", "MASTER_PORT is 'http'"),
    ("MASTER_PORT", "70000", "MASTER_PORT is 70000"),
])  # fmt: skip
def test_numbers_that_are_none(name, value, says, monkeypatch):
    for key, right in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", name: value}.items():
        monkeypatch.setenv(key, right)
    with pytest.raises(UsageError, match=says), joined("cpu"):
        pass


def test_a_port_that_is_taken(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    with socket.create_server(("localhost", 0)) as taken:
        port = str(taken.getsockname()[1])
        for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ResourceError, match=f"cannot meet at localhost, port {port}: .*in use") as caught, joined("cpu"):
            pass
    assert "\n" not in caught.value.message


def ending(monkeypatch, error: BaseException, rank: int, store: HashStore, **how) -> BaseException:
    """What leaves the block of a process in which that happens."""
    for name, value in {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    module = importlib.import_module("torch.distributed.rendezvous")
    monkeypatch.setattr(module, "rendezvous", lambda *_, **__: iter([(store, rank, 2)]))

    def raises(*_):
        raise error

    monkeypatch.setattr("paligemma.training.distributed._own_device", raises)
    with pytest.raises(BaseException) as caught, joined("cpu", **how):  # noqa: PT011 - which, is what is asked
        pass
    return caught.value


def test_a_process_that_is_lost_is_told_with_what_the_library_said(monkeypatch):
    said = "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1\nException raised from here\nframe #0"
    found = ending(monkeypatch, RuntimeError(said), 0, HashStore())
    assert isinstance(found, ResourceError)
    assert found.message.endswith("cannot be reached: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device"), 5), (FileNotFoundError(2, "No such file", "x"), 2), (MemoryError(), 5),
        (UsageError("x"), 2), (ValueError("x"), 1), (KeyboardInterrupt(), 130), (failures.Stopped(), 143), (SystemExit(3), 3),
    ],
)  # fmt: skip
def test_all_end_with_the_code_of_the_first(error, code, monkeypatch, capsys):
    store = HashStore()
    assert ending(monkeypatch, error, 0, store, exit_code=failures.exit_code) is error
    other = ending(monkeypatch, ValueError("what follows"), 1, store, exit_code=failures.exit_code)
    assert isinstance(other, SystemExit)
    assert other.code == failures.report(error) == code


@pytest.mark.parametrize(("device", "says"), [("mps", "cannot share"), ("cuda:1", "cannot share"), ("gpu", "not the name")])
def test_a_device_that_each_cannot_have(device, says, monkeypatch):
    """Said by the first process that finds out; in another one that would find the same, nothing is said any more."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    store = HashStore()
    module = importlib.import_module("torch.distributed.rendezvous")  # torch.distributed has a function of that name
    monkeypatch.setattr(module, "rendezvous", lambda *_, **__: iter([(store, 0, 2)]))
    with pytest.raises(UsageError, match=says), joined(device):
        pass
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as caught, joined(device):
        pass
    assert caught.value.code == 2
