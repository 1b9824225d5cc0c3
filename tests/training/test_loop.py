"""A run learns, is the same however it is cut up, and is not poisoned by what is no number."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from paligemma.data.batch import Batches, RowReader
from paligemma.data.mixture import Mixture
from paligemma.data.records import DataSet, Record
from paligemma.errors import ResourceError, TrainingError
from paligemma.training.loop import LOG, Loop, Plan, read_log, trained_tensors
from paligemma.training.optimizer import Adam, GradientDescent, Group
from paligemma.training.schedule import Schedule
from paligemma.training.step import Objective, mean_loss
from paligemma.training.store import Store
from tests.tiny import tiny_config, tiny_model, tiny_tokenizer

STEPS, BATCH = 12, 4
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataSet:
    folder = tmp_path_factory.mktemp("pictures")
    records = []
    for i in range(10):
        path = folder / f"{i}.png"
        Image.fromarray(np.full((28, 28, 3), 25 * i, np.uint8)).save(path)
        records.append(Record(f"r{i}", "caption", (path,), f"line {i}", "caption en", ("dark" if i < 5 else "a light one",)))
    return DataSet(folder, "jsonl", "caption", tuple(records))


def a_loop(
    data: DataSet, run: Path, *, dropout: float = 0.1, steps: int = STEPS, micro: int = BATCH, rate: float = 3e-3, kind=Adam, **more
) -> Loop:
    torch.manual_seed(3)
    model = tiny_model()
    for block in model.text.blocks:
        block.drop.p = dropout
    objective = Objective(model, smoothing=0.1)
    group = Group("all", trained_tensors(objective) and dict(model.named_parameters()), 0.0, Schedule("cosine", steps, 2))
    read = RowReader(tiny_tokenizer(), tiny_config(), 48)
    batches = Batches(Mixture([data], seed=1), read, pad_id=0, seed=3)

    def evaluate() -> dict[str, float]:
        held_out = Batches(Mixture([data]), read, pad_id=0).stream(0, 5, 2)
        return mean_loss(objective, held_out, micro=5, device=CPU, precision=torch.inference_mode)

    plan = Plan(steps, BATCH, micro, save_every=4, evaluate_every=4, log_every=1)
    return Loop(objective, kind([group], rate), batches, Store(run, facts={}), plan, device=CPU, evaluate=evaluate, **more)


def finish(loop: Loop) -> dict[str, torch.Tensor]:
    with loop.store.lock():
        ending = loop.run(loop.store.newest())
    assert ending.exit_code == 0
    return {name: tensor.clone() for name, tensor in trained_tensors(loop.objective).items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_time(log: list[dict]) -> list[dict]:
    return [{k: v for k, v in entry.items() if k not in ("seconds", "examples_per_second")} for entry in log]


def test_a_run_learns(data, tmp_path):
    loop = a_loop(data, tmp_path, dropout=0.0, steps=60, rate=1e-2)
    finish(loop)
    losses = [entry["held_out_loss"] for entry in read_log(tmp_path / LOG) if "held_out_loss" in entry]
    assert losses[-1] < losses[0] / 2
    assert loop.position.best == min(losses)


@pytest.mark.parametrize("cut", [1, 4, 7, 11])
def test_a_run_that_is_stopped_and_goes_on_is_the_same_run(data, tmp_path, cut):
    whole = finish(a_loop(data, tmp_path / "whole"))
    told = []

    def stop(entry):
        told.append(entry)
        if entry["step"] == cut and "loss" in entry:
            os.kill(os.getpid(), signal.SIGTERM)

    first = a_loop(data, tmp_path / "cut", tell=stop)
    with first.store.lock():
        ending = first.run(first.store.newest())
    assert ending.exit_code == 143
    assert ending.position.step == cut
    assert equal(finish(a_loop(data, tmp_path / "cut")), whole)
    logs = [without_time(read_log(tmp_path / name / LOG)) for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_a_run_that_dies_between_checkpoints_is_the_same_run(data, tmp_path):
    whole = finish(a_loop(data, tmp_path / "whole"))

    class Died(BaseException):
        pass

    def die(entry):
        if entry["step"] == 7:
            raise Died

    dying = a_loop(data, tmp_path / "cut", tell=die)
    with pytest.raises(Died), dying.store.lock():
        dying.run(dying.store.newest())
    assert read_log(tmp_path / "cut" / LOG)[-1]["step"] == 7
    assert equal(finish(a_loop(data, tmp_path / "cut")), whole)
    assert without_time(read_log(tmp_path / "cut" / LOG)) == without_time(read_log(tmp_path / "whole" / LOG))


def test_a_log_that_cannot_be_written_ends_no_run(data, tmp_path):
    """The disk is full in mid-run: the log loses lines, which is said; the weights are what they would have been."""
    whole = finish(a_loop(data, tmp_path / "whole"))

    def lose(entry):
        if entry["step"] == 5 and "loss" in entry:
            (tmp_path / "lost" / LOG).unlink()
            (tmp_path / "lost" / LOG).mkdir()

    loop = a_loop(data, tmp_path / "lost", tell=lose)
    assert equal(finish(loop), whole)
    assert loop.store.report.count("unwritten") == 1


def test_a_log_that_cannot_be_begun_is_refused_before_any_step(data, tmp_path, monkeypatch):
    def refuse(disk, path, content):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("paligemma.training.loop.replace_file", refuse)
    loop = a_loop(data, tmp_path)
    with loop.store.lock(), pytest.raises(ResourceError, match=LOG):
        loop.run(None)
    assert loop.position.step == 0


def test_parts_of_a_batch_add_up_to_it(data, tmp_path):
    started = {name: p.clone() for name, p in tiny_model().named_parameters()}
    whole, parts = (
        finish(a_loop(data, tmp_path / str(micro), dropout=0.0, micro=micro, steps=3, rate=0.03, kind=GradientDescent)) for micro in (4, 3)
    )
    moved = max((whole[name] - started[name]).abs().max() for name in whole)
    assert max((whole[name] - parts[name]).abs().max() for name in whole) < 1e-4 * moved


def test_measures_that_are_no_numbers_end_no_run_and_choose_no_checkpoint(data, tmp_path):
    """NaN at the first look, infinite at the second, at last a number: that one is best. Nothing of it gets into a checkpoint."""
    losses = iter([float("nan"), float("inf"), 2.0])
    loop = a_loop(data, tmp_path)
    loop.evaluate = lambda: {"loss": next(losses), "right": 0.5}
    finish(loop)
    assert (loop.position.best, loop.position.best_step) == (2.0, 12)
    told = [event["message"] for event in loop.store.report.events if event["kind"] == "measures"]
    assert [message.split(" is")[0] for message in told] == ["held-out loss at step 4", "held-out loss at step 8"]
    with loop.store.lock():
        saved = loop.store.newest()
        assert saved.state["measures"] == {"loss": 2.0, "right": 0.5}
    log = [entry["held_out_loss"] for entry in read_log(tmp_path / LOG) if "held_out_loss" in entry]
    assert str(log) == "[nan, inf, 2.0]"


def test_a_best_that_could_not_be_saved_is_none(data, tmp_path, monkeypatch):
    """At step 4 the loss is the lowest and the disk is full; the best of what was saved counts, here and in the checkpoint."""
    losses = iter([1.0, 3.0, 2.0])
    loop = a_loop(data, tmp_path)
    loop.evaluate = lambda: {"loss": next(losses)}
    commit = loop.store._commit

    def full(step, files, state):
        if step == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return commit(step, files, state)

    monkeypatch.setattr(loop.store, "_commit", full)
    finish(loop)
    assert (loop.position.best, loop.position.best_step) == (2.0, 12)
    with loop.store.lock():
        loop.store.newest()
        assert loop.store.best().step == 12
    assert loop.store.report.count("save_failed") == 1


class OnMps(torch.Tensor):
    """As on a device without float64: it must leave for the CPU before it becomes that."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.double:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        made = super().__torch_function__(function, types, args, kwargs or {})
        return made.as_subclass(torch.Tensor) if function is torch.Tensor.cpu else made


def test_measures_need_no_float64_on_the_device(data, tmp_path, monkeypatch):
    loop = a_loop(data, tmp_path)
    expected = loop.evaluate()

    class There(Objective):
        def forward(self, batch, whole):
            loss = super().forward(batch, whole)
            moved = {name: getattr(loss, name).as_subclass(OnMps) for name in ("per_example", "right")}
            return dataclasses.replace(loss, **moved)

    objective = There(loop.objective.model)
    coming = Batches(Mixture([data]), loop.batches.read, pad_id=0).stream(0, 5, 2)
    assert mean_loss(objective, coming, micro=5, device=CPU, precision=torch.inference_mode) == expected


class Poison(Objective):
    """Its loss is no number when it sees one of certain records."""

    def __init__(self, objective: Objective, bad: set[int]):
        super().__init__(objective.model, mean=objective.mean, smoothing=objective.smoothing)
        self.bad, self.calls = bad, 0

    def forward(self, batch, whole):
        loss = super().forward(batch, whole)
        if self.training:
            self.calls += 1
            if self.calls in self.bad:
                loss = type(loss)(loss.total * float("nan"), loss.per_example, loss.right, loss.tokens)
        return loss


def poisoned(loop: Loop, bad: set[int]) -> Loop:
    loop.objective = Poison(loop.objective, bad)
    return loop


def test_an_update_that_is_no_number_is_left_out(data, tmp_path):
    weights = finish(poisoned(a_loop(data, tmp_path), {3, 6}))
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    events = json.loads((tmp_path / "run_report.json").read_text())["events"]
    assert [event["step"] for event in events if event["kind"] == "skipped_step"] == [3, 6]
    assert all(len(event["records"]) == BATCH for event in events if event["kind"] == "skipped_step")


def test_three_in_a_row_go_back_once_and_pass_over_the_data(data, tmp_path):
    loop = poisoned(a_loop(data, tmp_path), {6, 7, 8})
    finish(loop)
    assert (loop.position.went_back, loop.position.skipped) == (1, 4 * BATCH), "back to step 4, and on after the data of step 8"
    events = json.loads((tmp_path / "run_report.json").read_text())["events"]
    assert [event["kind"] for event in events] == ["skipped_step"] * 3 + ["rollback"]


def test_twice_is_too_much(data, tmp_path):
    loop = poisoned(a_loop(data, tmp_path), {6, 7, 8, 10, 11, 12})
    with pytest.raises(TrainingError, match="again"), loop.store.lock():
        loop.run(loop.store.newest())
    with loop.store.lock():
        saved = loop.store.newest()
    assert saved is not None
    assert all(torch.isfinite(tensor).all() for tensor in saved.read("model").values())


def test_before_the_first_checkpoint_there_is_nowhere_to_go_back_to(data, tmp_path):
    loop = poisoned(a_loop(data, tmp_path), {1, 2, 3})
    with pytest.raises(TrainingError, match="before the first checkpoint") as caught, loop.store.lock():
        loop.run(loop.store.newest())
    assert caught.value.exit_code == 7


def test_only_what_is_trained_is_saved_and_a_checkpoint_of_something_else_is_refused(data, tmp_path):
    loop = a_loop(data, tmp_path)
    finish(loop)
    other = a_loop(data, tmp_path)
    for p in other.objective.model.vision.parameters():
        p.requires_grad_(False)
    with pytest.raises(TrainingError, match="other parameters"), other.store.lock():
        other.run(other.store.newest())
