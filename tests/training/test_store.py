"""The store: what is saved comes back, the newest whole one is found, old ones go, the best stays, and nothing fails silently."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from paligemma.errors import CheckpointError, ResourceError, UsageError
from paligemma.training import disk as disk_module
from paligemma.training import tensor_file
from paligemma.training.disk import Disk
from paligemma.training.manifest import folder_name
from paligemma.training.run_report import Report
from paligemma.training.saved import Saved
from paligemma.training.store import BEST, LATEST, QUARANTINE, Store
from paligemma.training.tensor_file import Later, NotFiniteError


def files(value: float = 1.0) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"weight": torch.full((3, 2), value)}, "optimizer": {"weight.first": torch.full((3, 2), -value)}}


def store_of(run: Path, disk: Disk | None = None, **options: Any) -> Store:
    return Store(run, facts={"base": "x"}, disk=disk, report=Report(run, disk=disk, say=lambda line: None), **options)


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def store(run):
    """Locked, and known to be empty."""
    store = store_of(run)
    with store.lock():
        assert store.newest() is None
        yield store


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def step_of(saved: Saved | None) -> int:
    return saved.step if saved else 0


def kinds(store: Store) -> list[str]:
    return [event["kind"] for event in store.report.events]


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
    assert kinds(store)[2:] == ["fallback"], "LATEST still says that there was a newer one"


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


class Refusing(Disk):
    """Refuses one kind of call, for paths with a part in their name, while `left` is not used up."""

    def __init__(self, call: str, part: str = "", code: int = errno.ENOSPC, left: int = 10**9):
        self.left = left
        real = getattr(self, call)

        def refuse(target: Any, *rest: Any) -> Any:
            if self.left > 0 and part in str(getattr(target, "name", None) if call in ("write", "sync", "close") else target):
                self.left -= 1
                raise OSError(code, os.strerror(code), str(target))
            return real(target, *rest)

        self._refuse = call, refuse

    def begin(self) -> None:
        setattr(self, *self._refuse)


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


# What fails


@pytest.mark.parametrize("call", ["make_folder", "create", "write", "sync", "close", "rename", "free", "sync_folder"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EACCES, errno.EROFS])
def test_a_save_that_fails_leaves_the_old_ones_and_the_third_ends_the_run(run, call, code):
    disk = Refusing(call, "step" if call not in ("free", "sync_folder") else "run", code)
    with (store := store_of(run, disk)).lock():
        store.newest()
        assert store.save(1, files(), {})
        disk.begin()
        assert store.save(2, files(), {}) is None
        assert store.save(3, files(), {}) is None
        disk.left = 0
        assert store.save(4, files(), {})
        disk.left = 10**9
        assert store.save(5, files(), {}) is None
        assert store.save(6, files(), {}) is None
        with pytest.raises(ResourceError) as caught:
            store.save(7, files(), {})
        assert caught.value.exit_code == 5
        disk.left = 0
        assert kinds(store).count("save_failed") == 5
        assert step_of(store.newest()) >= 4
        assert not [name for name in os.listdir(run) if name.startswith(".tmp-step")]


def test_a_required_save_fails_at_once(run):
    disk = Refusing("write", "step")
    with (store := store_of(run, disk)).lock():
        store.newest()
        disk.begin()
        with pytest.raises(ResourceError, match="No space left") as caught:
            store.save(1, files(), {}, required=True)
    assert (caught.value.exit_code, caught.value.code) == (5, "disk_full")


class Room(Disk):
    room = 0

    def free(self, path: Path) -> int:
        return self.room


def test_room_is_asked_for_before_anything_is_written(run):
    disk = Room()
    with (store := store_of(run, disk)).lock():
        store.newest()
        size = 2 * 3 * 2 * 4 + len(b"{}\n")
        disk.room = int(size * 1.2)
        assert store.save(1, files(), {}) is None
        assert "are free" in store.report.events[-1]["message"]
        with pytest.raises(ResourceError, match="are free"):
            store.need_space(size)
        disk.room += 1
        store.need_space(size)
        assert store.save(1, files(), {})


class Forgetful(Disk):
    """Says that it wrote, and keeps something else: a bad cable, a bad controller."""

    broken = False

    def sync(self, file) -> None:
        super().sync(file)
        if self.broken and "model" in file.name.name:
            flip(file.name)


def test_what_the_disk_did_not_keep_is_found_when_it_is_read_back(run):
    disk = Forgetful()
    with (store := store_of(run, disk)).lock():
        store.newest()
        for step in range(1, 3):
            store.save(step, files(), {})
        disk.broken = True
        assert store.save(3, files(), {}) is None
        assert store.steps() == [1, 2], "nothing is pruned for a checkpoint that is not whole"
        assert os.listdir(run / QUARANTINE) == ["step-00000003"]
        assert kinds(store) == ["damaged", "save_failed"]
        disk.broken = False
        assert store.save(3, files(), {})


def test_what_cannot_be_tidied_is_told_and_done_by_the_next_save(run):
    disk = Refusing("unlink", "model", errno.EACCES, left=1)
    with (store := store_of(run, disk)).lock():
        store.newest()
        disk.begin()
        for step in range(1, 5):
            assert store.save(step, files(), {})
        assert kinds(store) == ["tidying"]
        assert store.steps() == [3, 4]
        assert not [name for name in os.listdir(run) if name.startswith(".tmp-")]


@pytest.mark.parametrize(("code", "named"), [(errno.EMFILE, "Too many open files"), (errno.EACCES, "Permission denied")])
def test_what_cannot_be_looked_at_is_not_taken_for_damage(run, code, named):
    disk = Refusing("open", "model", code)
    with (store := store_of(run, disk)).lock():
        store.newest()
        store.save(1, files(), {})
        disk.begin()
        with pytest.raises(ResourceError, match=named) as caught:
            store.newest()
        assert caught.value.exit_code == 5
        assert store.steps() == [1]


# The run's folder


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("call", ["open_lock", "create", "make_folder"])
def test_a_folder_that_cannot_be_written_to_is_found_at_the_start(run, call, code):
    disk = Refusing(call, "run", code)
    disk.begin()
    with pytest.raises(ResourceError) as caught, store_of(run, disk).lock():
        pass
    assert (caught.value.exit_code, caught.value.code == "read_only") == (5, code == errno.EROFS)
    assert os.strerror(code) in caught.value.message


def test_a_file_is_no_folder(run):
    run.write_bytes(b"")
    with pytest.raises(UsageError, match="is no folder"), store_of(run).lock():
        pass


def test_an_error_of_the_trainer_s_own_is_left_as_it_is(run):
    with pytest.raises(FileNotFoundError), store_of(run).lock():
        (run / "pictures").read_bytes()


@pytest.mark.parametrize("name", ["a b", "späte läufe 火", "line\nbreak", "-x", "per%cent", "quo'te\"s"])
def test_any_name_of_a_folder(tmp_path, name):
    with (store := store_of(tmp_path / name / "run")).lock():
        store.newest()
        store.save(1, files(), {})
        store.save(2, files(), {})
        flip(store.run / "step-00000002" / "model.safetensors")
        assert step_of(store.newest()) == 1


def test_a_run_behind_a_link(tmp_path, run):
    (tmp_path / "elsewhere").mkdir()
    run.symlink_to(tmp_path / "elsewhere")
    with (store := store_of(run)).lock():
        store.newest()
        store.save(1, files(), {})
    assert (tmp_path / "elsewhere" / "step-00000001").is_dir()


def test_locale_c(run):
    code = (
        "import sys, torch; from pathlib import Path; from paligemma.training.store import Store\n"
        "with (store := Store(Path(sys.argv[1]), facts={})).lock():\n"
        "    store.newest(); store.save(1, {'model': {'w': torch.ones(1)}}, {chr(228): chr(223)}); print(ascii(store.newest().state))"
    )
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code, os.fsencode(run / "ä")], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout == "{'\\xe4': '\\xdf'}\n", done.stderr


def test_hundreds_of_old_checkpoints(run):
    for step in range(300):
        (run / folder_name(step)).mkdir(parents=True)
    with (store := store_of(run)).lock():
        with pytest.raises(CheckpointError, match="no checkpoint is whole"):
            store.newest()
        store._looked = True
        store.save(5000, files(), {})
        assert store.steps() == [299, 5000]


def test_other_things_in_the_folder_are_left_alone(store, run):
    (run / "notes.txt").write_text("mine")
    (run / "last").mkdir()
    (run / ".tmp-mine").mkdir()
    for step in range(4):
        store.save(step, files(), {})
    assert (run / "notes.txt").exists()
    assert (run / "last").exists()
    assert not (run / ".tmp-mine").exists()


def test_modes_follow_the_umask(run):
    before = os.umask(0o027)
    try:
        with (store := store_of(run)).lock():
            store.newest()
            folder = store.save(1, files(), {})
    finally:
        os.umask(before)
    assert folder
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}
    assert folder.stat().st_mode & 0o777 == 0o750
