"""`paligemma train` on a real, tiny model: learns, goes on after a stop, says what is wrong, and leaves what the other commands take."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import paligemma
from paligemma.checkpoint import save_codec, save_huggingface
from paligemma.cli import main
from paligemma.data.formats import FORMATS
from paligemma.training.fitting import MEMORY
from paligemma.training.footprint import Footprint
from paligemma.training.loop import LOG, read_log

from ..tiny import random_codec, tiny_config, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = save_huggingface(tiny_model(), tmp_path_factory.mktemp("models") / "tiny")
    tiny_tokenizer().save(folder)
    save_codec(random_codec(), folder / "mask_codec.safetensors")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Grey pictures that are dark or light, and one line that is no record."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for i in range(8):
        Image.fromarray(np.full((28, 28, 3), 30 * i, np.uint8)).save(folder / f"{i}.png")
        rows.append(json.dumps({"image": f"{i}.png", "prefix": "caption en", "suffix": "cat" if i < 4 else "dog"}))
    (folder / "annotations.jsonl").write_text("\n".join([*rows, '{"image": "0.png"}']))
    return folder


def run(*words: object) -> int:
    return main(["train", *map(str, words)])


def weights(model: Path) -> str:
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def basic(tiny, data) -> list[object]:
    return ["--model", tiny, "--data", data, "--batch", 4, "--max-bad-fraction", 0.2]


def test_a_model_learns_what_it_is_shown(basic, data, tmp_path, capsys):
    out = tmp_path / "my run"
    assert run(*basic, "--out", out, "--steps", 80, "--lr", 0.01, "--valid", data / "annotations.jsonl") == 0
    printed = capsys.readouterr()
    assert "8 records are usable, 1 are not" in printed.err
    assert re.search(r"weights +0.00 GB\n(.*\n)*.* are free; .*\n4 at a time, 1 time an update: all at once", printed.err)
    command = shlex.split(printed.out.splitlines()[-1])
    assert command == ["paligemma", "caption", str(data / "0.png"), "--model", str(out / "best")]
    model = paligemma.load(command[-1])
    right = sum(model.run(data / f"{i}.png", "caption en", max_tokens=4).text == ("cat" if i < 4 else "dog") for i in range(8))
    assert right == 8
    assert main(command[1:]) == 0, "what was printed works as it was printed"
    assert capsys.readouterr().out.strip() == "cat"
    assert Image.open(out / "curves.png").size[0] > 100
    faults = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [(fault["code"], fault["where"].endswith("9")) for fault in faults] == [("field", True)]
    assert "recipe simple" in (out / "last" / "README.md").read_text()


def test_an_adapter_is_written_beside_nothing_else_and_loads_with_its_base(basic, data, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(*basic, "--out", out, "--recipe", "lora", "--steps", 3) == 0
    assert {path.name for path in (out / "last").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert not (out / "last" / "model.safetensors").exists()
    assert paligemma.load(out / "last").run(data / "0.png", "caption en", max_tokens=2).prompt == "caption en"
    assert capsys.readouterr().out.splitlines()[-1] == f"paligemma caption {data / '0.png'} --model {out / 'last'}"


@pytest.mark.parametrize("strategy", ["full", "freeze-vision", "attention-only", "lora", "qlora"])
def test_every_strategy(strategy, basic, tmp_path):
    assert run(*basic, "--out", tmp_path / "run", "--strategy", strategy, "--steps", 2) == 0
    assert len(read_log(tmp_path / "run" / LOG)) == 2


def test_a_recipe_is_printed_edited_and_passed_back(basic, tmp_path, capsys):
    assert run(*basic, "--out", tmp_path / "run", "--recipe", "debug", "--print-recipe") == 0
    text = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine.toml").write_text(text.replace("steps = 3 ", "steps = 2 "))
    assert run(*basic[:4], "--max-bad-fraction", 0.2, "--out", tmp_path / "run", "--recipe", tmp_path / "mine.toml") == 0
    assert read_log(tmp_path / "run" / LOG)[-1]["step"] == 2
    assert "steps = 2 " in (tmp_path / "run" / "recipe.toml").read_text()


def test_a_recipe_is_shown_without_data(tiny, capsys):
    assert run("--model", tiny, "--print-recipe", "--recipe", "lora") == 0
    assert 'strategy = "lora"' in capsys.readouterr().out
    assert run("--model", tiny, "--out", "run") == 2
    assert "--data names" in capsys.readouterr().err


def test_a_hint_of_several_lines_is_shown_as_such(tiny, tmp_path, capsys):
    (tmp_path / "text.png").write_text("hello")
    assert run("--model", tiny, "--data", tmp_path / "text.png", "--out", tmp_path / "run") == 3
    assert "\n  jsonl " in capsys.readouterr().err


def test_killed_and_started_again_it_ends_with_the_same_weights(basic, tmp_path):
    """A process of its own, SIGKILL in the middle, the same command again: bit for bit what an unkilled run gives."""
    words = [*basic, "--steps", 30, "--save-every", 3]
    assert run(*words, "--out", tmp_path / "whole") == 0
    command = [sys.executable, "-m", "paligemma", "train", *map(str, words), "--out", str(tmp_path / "killed")]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("step-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((tmp_path / "killed").glob("step-*"))
    assert run(*words, "--out", tmp_path / "killed") == 0
    assert weights(tmp_path / "killed" / "last") == weights(tmp_path / "whole" / "last")


@pytest.fixture
def free(monkeypatch):
    """Memory to run in: so many bytes besides weights, gradients and Adam's state of the tiny model, the margin not counted.

    A pass holds 100,000 bytes an example; pictures that wait, and software, take nothing.
    """
    monkeypatch.setattr("paligemma.training.memory_plan.footprint", lambda *of: Footprint(of[-1].batch * 100_000, of[-1].batch * 100_000))
    monkeypatch.setattr("paligemma.training.fitting.WAITING", 0)
    monkeypatch.setattr("paligemma.training.fitting.SOFTWARE", 0)

    def set_free(beside: int) -> None:
        size = int((16 * tiny_config().num_parameters + beside) / 0.8)
        monkeypatch.setattr("paligemma.checkpoint.memory.free_memory", lambda **_: size)

    return set_free


def test_a_run_that_does_not_fit_is_not_loaded(basic, free, tmp_path, monkeypatch, capsys):
    """What it takes, what there is, and what would fit, before a weight is read; exit code 5."""
    free(0)
    monkeypatch.setattr("paligemma.predictor.loading.read", lambda *args, **kwargs: pytest.fail("it was loaded"))
    assert run(*basic, "--out", tmp_path / "run") == 5
    said = capsys.readouterr().err
    assert "error[out_of_memory]: the run does not fit" in said
    assert "--strategy lora" in said
    assert not (tmp_path / "run").exists()


def test_as_many_at_a_time_as_fit_and_the_same_when_it_goes_on(basic, free, tmp_path, capsys):
    """The choice is one of the run's facts; memory that is free or short on another day does not change it."""
    words = [*basic[:4], "--batch", 8, "--max-bad-fraction", 0.2, "--out", tmp_path / "run", "--save-every", 2, "--steps", 4]
    free(450_000)
    assert run(*words) == 0
    assert "4 at a time, 2 times an update: the most that fit here" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / MEMORY).read_text())["micro"] == 4
    shutil.rmtree(tmp_path / "run" / "step-00000004")
    for beside in (2_000_000, 350_000):
        free(beside)
        assert run(*words) == 0
        assert "4 at a time, 2 times an update: as the run began" in capsys.readouterr().err
    free(2_000_000)
    assert run(*words, "--micro", 8) == 2
    assert "recipe.micro: saved 4, now 8" in capsys.readouterr().err


def test_tensorboard_shows_a_run_that_was_stopped_as_one(basic, data, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [*basic, "--out", tmp_path / "run", "--save-every", 2, "--tensorboard", "--valid", data / "annotations.jsonl"]
    assert run(*words, "--steps", 5) == 0
    shutil.rmtree(tmp_path / "run" / "step-00000005")
    assert run(*words, "--steps", 5) == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    log = read_log(tmp_path / "run" / LOG)
    for tag, name in (("train/loss", "loss"), ("held_out/loss", "held_out_loss")):
        shown = [(point.step, pytest.approx(point.value, rel=1e-6)) for point in events.Scalars(tag)]
        assert shown == [(entry["step"], entry[name]) for entry in log if name in entry]


def test_an_adapter_is_no_model_to_begin_with(basic, tmp_path, capsys):
    assert run(*basic, "--out", tmp_path / "run", "--recipe", "lora", "--steps", 1) == 0
    assert run(*basic[2:], "--model", tmp_path / "run" / "last", "--out", tmp_path / "again") == 4
    assert "paligemma convert" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (["--lr", "0.5"], 2, "learning_rate"),
        (["--seed", "9"], 2, "seed"),
        (["--strategy", "lora"], 4, "parameters"),
    ],
)
def test_another_run_does_not_go_on_in_its_place(change, code, says, basic, tmp_path, capsys):
    assert run(*basic, "--out", tmp_path / "run", "--steps", 2) == 0
    capsys.readouterr()
    assert run(*basic, "--out", tmp_path / "run", "--steps", 2, *change) == code
    assert says in capsys.readouterr().err


def test_changed_data_are_noticed(basic, data, tmp_path, capsys):
    mine = tmp_path / "data"
    mine.mkdir()
    for path in data.iterdir():
        (mine / path.name).write_bytes(path.read_bytes())
    words = ["--data", mine, *basic[:2], *basic[4:], "--out", tmp_path / "run", "--steps", 2]
    assert run(*words) == 0
    with (mine / "annotations.jsonl").open("a") as file:
        file.write('\n{"image": "1.png", "prefix": "caption en", "suffix": "bird"}')
    assert run(*words) == 3
    assert "--allow-data-change" in capsys.readouterr().err
    assert run(*words, "--allow-data-change") == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--data", "nowhere", "--out", "run"], 3, "nowhere"),
        (["--steps", "2"], 2, "--out names"),
        (["--out", "run", "--recipe", "missing.toml"], 3, "No such file"),
        (["--recipe", "docvqua", "--out", "run"], 2, "did you mean 'docvqa'"),
        (["--recipe", "docvqa", "--out", "run"], 2, "pixels"),
        (["--out", "run", "--flip", "2"], 2, "augment.flip"),
        (["--data", "holed.jsonl", "--out", "run"], 3, "can be used"),
        (["--out", "run", "--batch", "0"], 2, "batch"),
        (["--out", "run", "--micro", "-1"], 2, "at a time"),
    ],
)
def test_wrong_input_gets_a_line(words, code, says, basic, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holed.jsonl").write_text("no record\n")
    start = basic if "--data" not in words else basic[:2]
    assert run(*start, *words) == code
    assert says in capsys.readouterr().err


def test_the_page_lists_every_format_and_task():
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text()
    rows = dict(re.findall(r"^\| ([a-z-]+) \|.*\| ([^|]+) \|$", page, re.MULTILINE))
    assert {name: rows[name] for name in FORMATS} == {name: ", ".join(reader.tasks) or "every task" for name, reader in FORMATS.items()}
