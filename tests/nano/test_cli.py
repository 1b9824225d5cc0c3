"""`paligemma nano ...` through the real door: each command does its work, prints where it is, and refuses a wrong call at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from paligemma import demo, predictor
from paligemma.cli import main
from paligemma.nano import publish, train
from paligemma.nano.recipes import RECIPES

from .answering import Knowing


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def nano(capsys):
    """`nano("scenes", "out")` -> code, out, err of `paligemma nano scenes out`."""

    def run(*arguments: object) -> Done:
        code = main(["nano", *map(str, arguments)])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


def test_help_names_every_command(nano):
    done = nano("--help")
    assert done.code == 0
    assert all(name in done.out for name in ("scenes", "demo", "train", "evaluate"))


def test_scenes(nano, tmp_path):
    done = nano("scenes", tmp_path / "out", "--count", 3, "--seed", 5)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{tmp_path / 'out' / 'scenes.jsonl'}\n"
    assert len(Path(done.out.strip()).read_text(encoding="utf-8").splitlines()) == 3


def test_demo(nano, tmp_path):
    done = nano("demo", tmp_path / "out")
    assert (done.code, done.out) == (0, f"{tmp_path / 'out' / 'demo.json'}\n")
    assert demo.pictures(tmp_path / "out")


def test_training_goes_on_where_it_was_and_says_what_to_try(nano, finished_run):
    """Here at the end: only the export and the reference outputs are left to do."""
    (finished_run / "model" / "model.safetensors").unlink()
    done = nano("train", "--recipe", "debug", "--no-compile", "--samples", 0, "--out", finished_run)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"continuing after {RECIPES['debug'].phases[-1].steps} steps of phase {len(RECIPES['debug'].phases) - 1}",
        f"paligemma demo --model {finished_run / 'model'}",
    ]
    assert {"model.safetensors", "reference.json"} < {path.name for path in (finished_run / "model").iterdir()}


@pytest.mark.parametrize(
    ("arguments", "recipe", "run", "compiled", "samples"),
    [
        ([], "nano-112", "runs/nano-112", True, 500),
        (["--recipe", "debug", "--no-compile"], "debug", "runs/debug", False, 0),
        (["--out", "here", "--samples", "7", "--compile"], "nano-112", "here", True, 7),
    ],
)
def test_what_is_trained_where(arguments, recipe, run, compiled, samples, nano, monkeypatch):
    calls = []

    def stand_in(*arguments, **options):
        calls.append((arguments, options))
        return Path("model")

    monkeypatch.setattr(train, "train", stand_in)
    monkeypatch.setattr(publish, "finish", stand_in)
    assert nano("train", *arguments).out == "paligemma demo --model model\n"
    assert calls == [
        ((RECIPES[recipe], Path(run)), {"start": None, "phase": None, "compiled": compiled}),
        ((Path("model"), Path(run)), {"samples": samples}),
    ]


def test_evaluate_prints_and_writes_every_score(nano, monkeypatch, test_scenes, tmp_path):
    loaded = []
    monkeypatch.setattr(predictor, "load", lambda model: loaded.append(model) or Knowing(test_scenes))
    done = nano("evaluate", "--model", tmp_path, "--samples", 10, "--out", tmp_path / "scores.json")
    assert (done.code, done.err) == (0, "")
    assert loaded == [tmp_path]
    assert "counting exact: 1.000 [1.000, 1.000] n=10 baseline 0.200" in done.out.splitlines()
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert list(stored) == [line.partition(": ")[0] for line in done.out.splitlines()]
    assert stored["reading, exact"]["count"] == 10


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--recipe", "debgu"], ["error[usage]: no recipe is called 'debgu'", "hint: did you mean 'debug'?"]),
        (
            ["train", "--recipe", "xyz"],
            ["error[usage]: no recipe is called 'xyz'", "hint: recipes: nano-112, nano-pt-112, nano-pt-224, debug"],
        ),
        (
            ["train", "--recipe", "nano-pt-224"],
            ["error[usage]: the recipe nano-pt-224 begins with a model", "hint: --start FOLDER names it"],
        ),
        (["train", "--phase", "3"], ["error[usage]: a run from random weights begins at phase 0", "hint: --start MODEL"]),
        (["scenes", "out", "--split", "dev"], ["error[usage]: no split is called 'dev'", "hint: one of: train, test"]),
        (["examples", "refr", "out"], ["error[usage]: no data is called 'refr'", "hint: did you mean 'refer'?"]),
        (["family", "nano-ft-referr"], ["error[usage]: no transfer is called", "hint: did you mean 'nano-ft-refer'?"]),
        (["scenes"], ['error[usage]: Command "nano scenes" parameter', "hint: see paligemma nano scenes --help"]),
        (["train", "--smaples", "3"], ["error[usage]: Unknown option: --smaples", "hint: see paligemma nano train --help"]),
        (["tarin"], ['error[usage]: Unknown command "tarin"', "hint: see paligemma nano --help"]),
    ],
    ids=["recipe", "no such recipe", "no start", "phase", "split", "examples", "transfer", "no folder", "option", "command"],
)
def test_a_wrong_call_is_one_line_a_hint_and_code_2(arguments, says, nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = nano(*arguments)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 2
    assert all(line.startswith(start) for line, start in zip(done.err.splitlines(), says, strict=True)), done.err
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_recipe_is_left_alone(nano, finished_run):
    before = {path.name: path.read_bytes() for path in finished_run.iterdir() if path.is_file()}
    done = nano("train", "--recipe", "nano-112", "--out", finished_run)
    assert done.code == 2
    assert done.err.startswith(f"error[usage]: {finished_run} holds a run of another recipe: name is debug, not nano-112; ")
    assert {path.name: path.read_bytes() for path in finished_run.iterdir() if path.is_file()} == before


def test_no_samples_are_no_measurement(nano, monkeypatch):
    monkeypatch.setattr(predictor, "load", lambda model: Knowing([]))
    done = nano("evaluate", "--samples", 0)
    assert done.code == 2
    assert "at least one sample" in done.err


def test_examples(nano, tmp_path):
    done = nano("examples", "video", tmp_path / "films", "--split", "valid", "--count", 2)
    assert (done.code, done.out, done.err) == (0, f"{tmp_path / 'films' / 'valid.jsonl'}\n", "")
    assert len(list((tmp_path / "films" / "valid").iterdir())) == 8
