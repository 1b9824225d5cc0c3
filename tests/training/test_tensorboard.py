"""What TensorBoard shows is the log: no point twice, none missing, whatever happened to the run."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from paligemma.errors import UsageError
from paligemma.training import tensorboard
from paligemma.training.loop import LOG
from paligemma.training.tensorboard import FOLDER, Board

pytest.importorskip("tensorboard")


def shown(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Read by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / FOLDER), size_guidance={"scalars": 0}).Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def tell(board: Board, steps, **values: float) -> None:
    """As the loop does: into the log, then to whoever listens."""
    for step in steps:
        entry = {"step": step, "loss": 1 / step, **values}
        with (board.run / LOG).open("a") as file:
            file.write(json.dumps(entry) + "\n")
        board.add(entry)


def test_entries_become_points(tmp_path):
    board = Board(tmp_path)
    board.add({"total": 30})
    tell(board, [10, 20], rate=0.5)
    board.add({"step": 20, "held_out_loss": 3.0})
    found = shown(tmp_path)  # before the board is closed: a killed run loses nothing
    assert found["train/loss"] == [(10, pytest.approx(0.1)), (20, pytest.approx(0.05))]
    assert found["train/rate"] == [(10, 0.5), (20, 0.5)]
    assert found["held_out/loss"] == [(20, 3.0)]
    assert set(found) == {"train/loss", "train/rate", "held_out/loss"}
    board.close()


def test_a_run_that_goes_on_shows_no_point_twice(tmp_path):
    tell(Board(tmp_path), [10, 20, 30, 40])  # killed; its last checkpoint was at 25
    again = Board(tmp_path)
    tell(again, [30, 40, 50], loss=7.0)
    again.close()
    assert shown(tmp_path)["train/loss"] == [(10, pytest.approx(0.1)), (20, pytest.approx(0.05)), (30, 7.0), (40, 7.0), (50, 7.0)]


def test_a_run_that_goes_back_shows_no_point_twice(tmp_path):
    board = Board(tmp_path)
    tell(board, [10, 20, 30])
    tell(board, [20, 30, 40], loss=7.0)
    board.close()
    assert shown(tmp_path)["train/loss"] == [(10, pytest.approx(0.1)), (20, 7.0), (30, 7.0), (40, 7.0)]


def test_a_run_that_began_without_it_is_shown_from_its_beginning(tmp_path):
    (tmp_path / LOG).write_text('{"step": 5, "loss": 4.0}\n{"step": 5, "held_out_loss": 2.0}\n')
    board = Board(tmp_path)
    assert not (tmp_path / FOLDER).exists(), "a run that is finished already leaves no empty file"
    tell(board, [10])
    board.close()
    assert shown(tmp_path) == {"train/loss": [(5, 4.0), (10, pytest.approx(0.1))], "held_out/loss": [(5, 2.0)]}


def test_what_is_no_number_is_shown_as_such(tmp_path):
    board = Board(tmp_path)
    tell(board, [1, 2], norm=math.inf)
    board.close()
    assert all(math.isnan(value) for _, value in shown(tmp_path)["train/norm"])


def test_a_disk_that_is_full_ends_no_run(tmp_path, monkeypatch, capsys):
    board = Board(tmp_path)
    tell(board, [1])

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board._writer, "flush", full)
    for step in (2, 3):
        board.add({"step": step, "loss": 1.0})
    board.close()
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_a_disk_that_is_full_at_the_end_ends_no_run(tmp_path, monkeypatch, capsys):
    board = Board(tmp_path)
    tell(board, [1])

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board._writer, "close", full)
    board.close()
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UsageError, match="need the package tensorboard") as caught:
        Board(tmp_path)
    assert caught.value.hint == tensorboard.HINT
