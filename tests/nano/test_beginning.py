"""What a run begins with: another model's weights are the model's own, and a stopped run goes on as it was begun or not at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paligemma.checkpoint import load_model
from paligemma.errors import CheckpointError, UsageError
from paligemma.nano import beginning, train
from paligemma.nano.beginning import CODEC, START, TOKENIZER, origin
from paligemma.nano.recipes import RECIPES, Recipe
from paligemma.nano.resolution import resize_positions

DEBUG = RECIPES["debug"]
LAST = len(DEBUG.phases) - 1
GOES_ON = dataclasses.replace(
    DEBUG, name="on", phases=(DEBUG.phases[0], dataclasses.replace(DEBUG.phases[1], steps=1, batch=2, rate=0.0)), aid_steps=1, seed=9
)
"""One step of its last phase, in which nothing of the model moves but by decay."""


@pytest.fixture
def begun(drawn_here, monkeypatch) -> Callable[..., Path]:
    """`begun(run, start=..., phase=...)` trains there."""
    monkeypatch.setattr(train, "stream", drawn_here)

    def training(run: Path, recipe: Recipe = GOES_ON, **options: Any) -> Path:
        return train.train(recipe, run, compiled=False, log=lambda line: None, **options)

    return training


@pytest.fixture
def start(debug_run, tmp_path) -> Path:
    """An exported model in a folder of its own."""
    return shutil.copytree(debug_run / "model", tmp_path / "start")


@pytest.fixture
def other(start, tmp_path) -> Path:
    """Another one of the same shape, with another tokenizer and codec beside it."""
    folder = shutil.copytree(start, tmp_path / "other")
    model = load_model(folder, dtype=torch.float32)
    with torch.no_grad():
        model.text.embed.weight.mul_(2)
    train.save_huggingface(model, folder)
    for name in (CODEC, TOKENIZER):
        (folder / name).write_bytes(b"another")
    return folder


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_model(model, dtype=torch.float32).state_dict()


def near(a: Path, b: Path) -> bool:
    old, new = weights(a), weights(b)
    return all(torch.allclose(old[name], new[name], atol=0.01) for name in old)


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_run_begins_with_an_exported_model_and_stretches_its_positions(start, begun, tmp_path):
    """To larger pictures; what is not trained in the one step is the model's own."""
    vision = dataclasses.replace(DEBUG.vision, image_size=224)
    larger = dataclasses.replace(GOES_ON, name="larger", vision=vision, phases=GOES_ON.phases[1:], bank_size=1)
    model = begun(tmp_path / "larger", larger, start=start)
    before, after = load_model(start, dtype=torch.float32), load_model(model, dtype=torch.float32)
    assert after.config.vision == vision
    assert after.config.name == "larger"
    stretched = resize_positions(before.vision.pos_embed, 16)
    assert torch.allclose(after.vision.pos_embed, stretched, atol=0.01)
    old, new = before.state_dict(), after.state_dict()
    assert all(torch.allclose(old[name], new[name], atol=0.01) for name in old if name != "vision.pos_embed")
    assert all((model / name).read_bytes() == (start / name).read_bytes() for name in (CODEC, TOKENIZER))


def test_the_beginning_is_written_down_once_and_named_as_the_model_names_itself(start, begun, tmp_path):
    run = tmp_path / "run"
    begun(run, start=start, phase=LAST)
    written = json.loads((run / START).read_text())
    assert written == {"name": "debug", "fingerprint": written["fingerprint"], "phase": LAST, "folder": str(start)}
    assert origin(run) == "debug", "not the folder's name"
    shutil.rmtree(start)
    begun(run)
    assert json.loads((run / START).read_text()) == written


def test_a_run_from_nothing_says_so(debug_run, tmp_path):
    assert json.loads((debug_run / START).read_text())["name"] == ""
    assert origin(debug_run) == origin(tmp_path) == ""


def test_a_run_stopped_while_the_aids_were_taught_goes_on_from_the_same_weights(start, begun, tmp_path, monkeypatch):
    """At the same phase, without being told again."""
    run = tmp_path / "run"

    def stop(trainer: train.Trainer) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(beginning, "_teach_aids", stop)
        with pytest.raises(KeyboardInterrupt):
            begun(run, start=start, phase=LAST)
    assert not (run / "state.pt").exists()
    model = begun(run)
    assert {json.loads(line)["phase"] for line in (run / "log.jsonl").read_text().splitlines()} == {LAST}
    assert near(start, model)


def test_a_run_stopped_there_is_refused_where_the_model_is_gone_or_another(start, other, begun, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(train, "begin", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            begun(run, start=start, phase=LAST)
    moved = start.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="no longer at"):
        begun(run)
    other.rename(start)
    with pytest.raises(CheckpointError, match="no longer the model"):
        begun(run)
    assert near(moved, begun(run, start=moved))


@pytest.mark.parametrize("with_state", [True, False])
def test_another_model_or_phase_is_refused_and_changes_nothing(with_state, start, other, begun, tmp_path):
    run = tmp_path / "run"
    begun(run, start=start, phase=LAST)
    if not with_state:
        (run / "state.pt").unlink()
    before = contents(run)
    for options in ({"start": other}, {"start": other, "phase": LAST}, {"start": start, "phase": 0}, {"phase": 0}):
        with pytest.raises(UsageError, match=f"began with `debug` .* at phase {LAST}, not with `debug`"):
            begun(run, **options)
    assert contents(run) == before
    begun(run, start=start)


def test_a_run_from_nothing_takes_no_model_afterwards(start, begun, debug_run, tmp_path):
    run = shutil.copytree(debug_run, tmp_path / "run")
    before = contents(run)
    with pytest.raises(UsageError, match="began with random weights, not with `debug`"):
        begun(run, DEBUG, start=start)
    (run / START).unlink()  # older than that file
    with pytest.raises(UsageError, match="began with random weights"):
        begun(run, DEBUG, start=start)
    assert contents(run) == {name: content for name, content in before.items() if name != START}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"phase": LAST + 1}, f"--phase is one of 0 to {LAST}, got {LAST + 1}"),
        ({"phase": -1}, "got -1"),
        ({"phase": LAST}, "from random weights"),
    ],
)
def test_a_phase_that_cannot_be_is_refused_before_anything_is_written(options, says, begun, tmp_path):
    with pytest.raises(UsageError, match=says):
        begun(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_needs_a_model_does_not_begin_without_one(begun, tmp_path):
    assert RECIPES["nano-pt-224"].start == "nano-pt-112"
    with pytest.raises(UsageError, match="begins with a model: nano-pt-112") as raised:
        begun(tmp_path / "run", RECIPES["nano-pt-224"])
    assert "--start" in str(raised.value.hint)
    assert not (tmp_path / "run").exists()


def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(start, begun, tmp_path):
    with pytest.raises(CheckpointError, match="another shape"):
        begun(tmp_path / "run", dataclasses.replace(GOES_ON, text_mlp_dim=96), start=start)
    (start / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.model"):
        begun(tmp_path / "run", start=start)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damaged", ["", "[1]", '{"what": 1}'])
def test_a_damaged_beginning_is_refused(damaged, begun, tmp_path):
    (tmp_path / START).write_text(damaged)
    with pytest.raises(CheckpointError, match="does not say what the run begins with"):
        begun(tmp_path)
