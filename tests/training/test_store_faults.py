"""The store where the file system refuses, runs full, forgets, or is an odd place: old checkpoints stay, and the run ends when it must."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paligemma.errors import CheckpointError, ResourceError, UsageError
from paligemma.training.disk import Disk
from paligemma.training.manifest import folder_name
from paligemma.training.store import QUARANTINE

from .storing import Refusing, files, flip, kinds, step_of, store_of

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
