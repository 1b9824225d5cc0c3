"""The store: what is saved comes back, the newest whole one is found, old ones go, the best stays, and nothing is passed over silently."""

from __future__ import annotations

import os

import pytest
import torch

from paligemma.errors import CheckpointError, ResourceError, UsageError
from paligemma.training import disk as disk_module
from paligemma.training import tensor_file
from paligemma.training.disk import Disk
from paligemma.training.manifest import folder_name
from paligemma.training.store import BEST, LATEST, QUARANTINE
from paligemma.training.tensor_file import Later, NotFiniteError

from .storing import Refusing, files, flip, kinds, step_of, store_of

# What is saved


def test_what_is_saved_comes_back(store, run):
    state = {"data": [1, 2.5, None, True, "ä\n"], "nested": {"": {}}, "big": 2**100}
    folder = store.save(200, files(3.0), state)
    assert folder == run / "step-00000200"
    assert sorted(os.listdir(folder)) == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    saved = store.newest()
    assert (saved.step, saved.state, saved.facts, saved.files) == (200, state, {"base": "x"}, ("model", "optimizer"))
    assert torch.equal(saved.read("optimizer")["weight.first"], files(3.0)["optimizer"]["weight.first"])
    assert (run / LATEST).read_text() == "step-00000200\n"
    assert kinds(store) == []


@pytest.mark.parametrize("keep", [2, 3])
def test_only_the_newest_are_kept(run, keep):
    with (store := store_of(run, keep=keep)).lock():
        store.newest()
        for step in range(1, 7):
            store.save(step, files(step), {})
            assert store.steps() == list(range(max(1, step - keep + 1), step + 1))


def test_fewer_than_two_are_not_kept(run):
    with pytest.raises(UsageError, match="at least 2"):
        store_of(run, keep=1)


def test_a_step_that_is_there_is_not_written_again(store, run):
    store.save(1, files(), {})
    before = (run / "step-00000001" / "manifest.json").stat().st_mtime_ns, os.listdir(run)
    assert store.save(1, files(2.0), {}) == run / "step-00000001"
    assert ((run / "step-00000001" / "manifest.json").stat().st_mtime_ns, os.listdir(run)) == before


def test_a_step_that_is_there_and_damaged_is_written_again(store, run):
    store.save(1, files(), {})
    flip(run / "step-00000001" / "model.safetensors")
    assert store.save(1, files(2.0), {})
    assert store.newest().read("model")["weight"][0, 0] == 2.0
    assert os.listdir(run / QUARANTINE) == ["step-00000001"]


def test_gigabytes_take_the_same_way(store, monkeypatch):
    """Several pieces a tensor, several blocks a file, hashed beside the disk's work."""
    monkeypatch.setattr(tensor_file, "CHUNK_BYTES", 1 << 12)
    monkeypatch.setattr(disk_module, "BLOCK_BYTES", 1 << 13)
    monkeypatch.setattr(disk_module, "_ASIDE_BYTES", 1 << 10)
    weights = {"a": torch.randn(100, 333), "b": torch.randn(777).bfloat16()}
    assert store.save(1, {"model": weights}, {})
    found = store.newest().read("model")
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("file", ["model", "optimizer"])
def test_what_is_not_finite_is_never_committed(store, run, file, bad):
    store.save(1, files(), {})
    spoilt = files()
    next(iter(spoilt[file].values()))[1, 1] = bad
    with pytest.raises(NotFiniteError, match=f"{file}: weight"):
        store.save(2, spoilt, {})
    assert store.steps() == [1]
    assert not [name for name in os.listdir(run) if name.startswith(".tmp-")]


@pytest.mark.parametrize(
    ("state", "error", "named"),
    [
        ({"a": {"b": [1, float("nan")]}}, NotFiniteError, "a.b[1] is nan"),
        ({"a": -float("inf")}, NotFiniteError, "a is -inf"),
        ({"a": (1, 2)}, TypeError, "a is a tuple"),
        ({"a": {3: 1}}, TypeError, "a has the key 3"),
        ({3: 1}, TypeError, "the state has the key 3"),
        ({"a": torch.ones(1)}, TypeError, "a is a Tensor"),
        ({"a": b"x"}, TypeError, "a is a bytes"),
    ],
)
def test_a_state_that_would_come_back_as_something_else(store, state, error, named):
    with pytest.raises(error) as caught:
        store.save(1, files(), state)
    assert named in str(caught.value)
    assert store.steps() == []


def test_names_of_files(store):
    for name in ("Model", "a/b", "../a", "", "a.b"):
        with pytest.raises(ValueError, match="no name of a file"):
            store.save(1, {name: {}}, {})


def test_what_cannot_be_made_leaves_nothing(store, run):
    def fail() -> torch.Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        store.save(1, {"model": {"weight": Later((2,), torch.float32, fail)}}, {})
    assert not [name for name in os.listdir(run) if "step" in name]


# What is found


def test_a_damaged_one_is_passed_over_set_aside_and_told(store, run):
    for step in (1, 2):
        store.save(step, files(step), {"step": step})
    flip(run / "step-00000002" / "optimizer.safetensors")
    saved = store.newest()
    assert (saved.step, saved.state) == (1, {"step": 1})
    assert kinds(store) == ["damaged", "fallback"]
    assert "optimizer.safetensors" in store.report.events[0]["message"]
    assert "step-00000002 damaged: continuing from step 1" in store.report.events[1]["message"]
    assert os.listdir(run / QUARANTINE) == ["step-00000002"]
    assert store.newest().step == 1
    assert kinds(store)[2:] == [], "it is told once"


def test_where_all_are_damaged_nothing_moves(store, run):
    for step in (1, 2):
        store.save(step, files(), {})
        flip(run / folder_name(step) / "model.safetensors")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="no checkpoint is whole") as caught:
            store.newest()
        assert caught.value.exit_code == 4
        assert all(folder_name(step) in caught.value.message for step in (1, 2))
        assert store.steps() == [1, 2]


@pytest.mark.parametrize("gone", [1, 2])
def test_a_checkpoint_that_vanished_is_told(store, run, gone):
    for step in (1, 2):
        store.save(step, files(), {})
    for step in range(3 - gone, 3):
        disk_module.remove_tree(Disk(), run / folder_name(step))
    saved = store.newest()
    assert step_of(saved) == 2 - gone
    assert "step-00000002, which LATEST names, not there" in store.report.events[-1]["message"]


def test_what_cannot_be_read_any_more(store):
    store.save(1, files(), {})
    saved = store.newest()
    (saved.folder / "model.safetensors").unlink()
    with pytest.raises(ResourceError, match="No such file"):
        saved.read("model")


def test_a_newer_release_s_checkpoint_is_not_passed_over(store, run, monkeypatch):
    store.save(1, files(), {})
    from paligemma.training import manifest

    monkeypatch.setattr(manifest, "FORMAT", 2)
    store.save(2, files(), {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 2") as caught:
        store.newest()
    assert caught.value.code == "newer_format"
    assert store.steps() == [1, 2]


def test_checkpoints_of_another_run_are_not_mixed_with_ours(run):
    with (first := store_of(run)).lock():
        first.newest()
        first.save(1, files(), {})
    with (second := store_of(run)).lock():
        with pytest.raises(UsageError, match="holds the checkpoints of a run") as caught:
            second.save(1, files(2.0), {})
        assert caught.value.code == "run_not_empty"
        second.newest()
        assert second.save(2, files(2.0), {})


def test_only_with_the_lock(run):
    store = store_of(run)
    for call in (store.newest, store.best, lambda: store.save(1, files(), {}), lambda: store.mark_best(1)):
        with pytest.raises(AssertionError, match="lock"):
            call()


# The best


def test_the_best_is_kept_until_a_better_one_is_marked(store):
    for step in range(1, 8):
        store.save(step, files(step), {})
        if step in (2, 5):
            store.mark_best(step)
    assert store.steps() == [5, 6, 7]
    assert store.best().step == 5


def test_the_mark_outlives_the_process(run):
    for step in range(1, 6):
        with (store := store_of(run)).lock():
            store.newest()
            store.save(step, files(step), {})
            if step == 1:
                assert store.mark_best(1)
    assert store_of(run).steps() == [1, 4, 5]
    with (store := store_of(run)).lock():
        assert step_of(store.best()) == 1


def test_no_best(store):
    assert store.best() is None
    with pytest.raises(CheckpointError, match="step 3 was not saved"):
        store.mark_best(3)


def test_a_best_that_is_damaged_is_told(store, run):
    store.save(1, files(), {})
    store.mark_best(1)
    flip(run / "step-00000001" / "model.safetensors")
    assert store.best() is None
    assert kinds(store) == ["best"]


def test_without_a_readable_mark_nothing_is_pruned(run):
    with (store := store_of(run)).lock():
        store.newest()
        store.save(1, files(), {})
        store.mark_best(1)
    (run / BEST).write_bytes(b"{}")
    with (store := store_of(run)).lock():
        store.newest()
        for step in range(2, 6):
            store.save(step, files(), {})
        assert store.steps() == [1, 2, 3, 4, 5]
        assert kinds(store).count("best") == 1
        assert store.best() is None
        store.mark_best(4)
        store.save(6, files(), {})
        assert store.steps() == [4, 5, 6]


def test_a_mark_that_could_not_be_written_is_written_later(run):
    disk = Refusing("create", BEST, left=1)
    with (store := store_of(run, disk)).lock():
        store.newest()
        store.save(1, files(), {})
        disk.begin()
        assert not store.mark_best(1)
        assert not (run / BEST).exists()
        for step in range(2, 5):
            store.save(step, files(), {})
        assert store.steps() == [1, 3, 4]
    with (store := store_of(run)).lock():
        assert step_of(store.best()) == 1
