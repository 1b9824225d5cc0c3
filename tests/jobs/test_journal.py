"""The folder of results: one owner, one order, parts that are whole or not there, tables that are all of them."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from paligemma.errors import ResourceError, UsageError
from paligemma.jobs.items import items
from paligemma.jobs.journal import JOURNAL, Journal, drawing_name, opened
from paligemma.jobs.parts import ERRORS, RESULTS, Ids
from paligemma.jobs.rows import FORMS, Lines
from paligemma.training.disk import Disk

from .making import album, answered

ORDER = {"source": "a", "tasks": ["caption"]}


@pytest.fixture
def done(tmp_path):
    """What came of twelve items, two of which are broken."""
    return [answered(item) for item in items(album(tmp_path / "album", 12, broken=(3, 7)))]


def ids(done) -> Ids:
    found = Ids()
    for one in done:
        found.add(one.id)
    return found


def read(folder: Path, kind: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{kind}.jsonl").read_text().splitlines()]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_parts_become_tables(tmp_path, done):
    out = tmp_path / "out"
    with opened(out, ORDER, Lines(), draw=tmp_path / "drawn") as journal:
        journal.add(4, done[4:])
        assert not (out / "results.jsonl").exists(), "there is a table, and not all is done"
        journal.add(0, done[:4])
        whole = journal.finish(ids(done))
    assert (whole.start, whole.stop, whole.rows, whole.failed, whole.cut, dict(whole.codes)) == (
        0,
        12,
        20,
        2,
        1,
        {"image_unknown_format": 2},
    )
    assert read(out, RESULTS) == [row for one in done for row in one.rows]
    assert [row["id"] for row in read(out, ERRORS)] == ["3.png", "7.png"]
    assert names(out) == {"job.json", "journal.jsonl", "lock", "parts", "results.jsonl", "errors.jsonl"}
    assert names(out / "parts") == set()
    assert names(tmp_path / "drawn") == {drawing_name(one.id, "caption") for one in done if one.drawings}


def test_what_is_done_is_there_when_it_is_opened_again(tmp_path, done):
    out = tmp_path / "out"
    with opened(out, ORDER, Lines()) as journal:
        first = journal.add(0, done[:4])
    with opened(out, ORDER, Lines()) as journal:
        assert journal.parts == [first]
        journal.add(4, done[4:])
        journal.finish(ids(done))
    with opened(out, ORDER, Lines()) as journal:
        assert [(part.start, part.stop) for part in journal.parts] == [(0, 12)]
        before = (out / "results.jsonl").stat()
        journal.finish(ids(done))
        after = (out / "results.jsonl").stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "a finished job was finished again"


@pytest.mark.parametrize("form", FORMS)
def test_a_finished_job_may_go_on_where_its_source_grew(tmp_path, done, form):
    out = tmp_path / "out"
    for stop in (5, 9, 12):
        with opened(out, ORDER, FORMS[form]()) as journal:
            start = journal.parts[-1].stop if journal.parts else 0
            journal.add(start, done[start:stop])
            assert not journal.table(RESULTS).exists()
            journal.finish(ids(done[:stop]))
    at_once = tmp_path / "at once"
    with opened(at_once, ORDER, FORMS[form]()) as journal:
        journal.add(0, done)
        journal.finish(ids(done))
    for name in names(out) - {"parts", "journal.jsonl"}:
        if name.endswith(".parquet"):
            import pyarrow.parquet

            assert pyarrow.parquet.read_table(out / name) == pyarrow.parquet.read_table(at_once / name)
        else:
            assert (out / name).read_bytes() == (at_once / name).read_bytes(), name


def test_torn_lines_and_lost_files_are_not_done(tmp_path, done):
    out = tmp_path / "out"
    with opened(out, ORDER, Lines()) as journal:
        first = journal.add(0, done[:4])
        journal.add(4, done[4:8])
        journal.add(8, done[8:])
    (out / "parts" / "000000000004.errors.jsonl").unlink()
    (out / "parts" / "000000000099.results.jsonl").write_text("left over")
    (out / "parts" / ".tmp-x").write_text("unfinished")
    (out / ".tmp-results.jsonl").write_text("unfinished")
    data = (out / JOURNAL).read_bytes()
    (out / JOURNAL).write_bytes(data[:-20])
    with opened(out, ORDER, Lines()) as journal:
        assert journal.parts == [first]
    assert (out / JOURNAL).read_bytes() == first.to_line()
    assert names(out / "parts") == {"000000000000.results.jsonl", "000000000000.errors.jsonl"}
    assert ".tmp-results.jsonl" not in names(out)


def test_a_part_that_was_changed_is_found_out_and_done_again(tmp_path, done):
    out = tmp_path / "out"
    with opened(out, ORDER, Lines()) as journal:
        journal.add(0, done)
        path = out / "parts" / "000000000000.results.jsonl"
        path.write_bytes(path.read_bytes().replace(b"cat", b"cow"))
        with pytest.raises(ResourceError, match="not what was written") as raised:
            journal.finish(ids(done))
        assert raised.value.code == "part_damaged"
    with opened(out, ORDER, Lines()) as journal:
        assert journal.parts == []
        journal.add(0, done)
        journal.finish(ids(done))
    assert read(out, RESULTS) == [row for one in done for row in one.rows]


def test_another_order_is_refused_and_nothing_is_touched(tmp_path, done):
    out = tmp_path / "out"
    with opened(out, ORDER, Lines()) as journal:
        journal.add(0, done)
        journal.finish(ids(done))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with (
        pytest.raises(UsageError, match="another job: not the same source and tasks") as raised,
        opened(out, {"source": "b", "tasks": []}, Lines()),
    ):
        pass
    assert raised.value.code == "other_job"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with opened(out, {**ORDER, "source": "b"}, Lines(), overwrite=True) as journal:
        assert journal.parts == []
    assert not (out / "results.jsonl").exists()
    with opened(out, {**ORDER, "source": "b"}, Lines()):
        pass


def test_an_order_of_which_nothing_was_done_gives_way(tmp_path, done):
    out = tmp_path / "out"
    with opened(out, ORDER, Lines()):
        (out / "parts" / "000000000000.results.jsonl").write_text("a part that was never finished")
    with opened(out, {**ORDER, "source": "b"}, Lines()) as journal:
        assert not journal.parts
        assert names(out / "parts") == set()
        journal.add(0, done)
    with pytest.raises(UsageError, match="another job: not the same source"), opened(out, ORDER, Lines()):
        pass


def test_an_order_that_was_killed_before_its_journal_gives_way(tmp_path):
    out = tmp_path / "out"
    with opened(out, ORDER, Lines()):
        pass
    (out / "journal.jsonl").unlink()
    for left in (out / "parts", None):
        with opened(out, {**ORDER, "source": str(left)}, Lines()) as journal:
            assert not journal.parts
        (out / "journal.jsonl").unlink()
        if left:
            left.rmdir()


@pytest.mark.parametrize("text", ["{}", "[1]", "0"])
@pytest.mark.parametrize("there", ["job.json", "results.jsonl", "parts/mine.txt"])
def test_a_folder_of_somebody_else_does_not_give_way(tmp_path, there, text):
    out = tmp_path / "out"
    (out / there).parent.mkdir(parents=True)
    (out / there).write_text(text)
    with pytest.raises(UsageError, match="nothing says which"), opened(out, ORDER, Lines()):
        pass
    assert (out / there).read_text() == text


def test_results_of_which_nothing_is_known_are_not_touched(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.jsonl").write_text("of somebody\n")
    (out / "notes.txt").write_text("of somebody\n")
    with pytest.raises(UsageError, match="nothing says which"), opened(out, ORDER, Lines()):
        pass
    assert (out / "results.jsonl").read_text() == "of somebody\n"
    with opened(out, ORDER, Lines(), overwrite=True):
        pass
    assert (out / "notes.txt").exists(), "what is not ours was removed"
    assert not (out / "results.jsonl").exists()


def test_one_at_a_time(tmp_path):
    out = tmp_path / "out"
    with opened(out, ORDER, Lines()):
        code = (
            f"from paligemma.jobs.journal import opened; from paligemma.jobs.rows import Lines; from pathlib import Path\n"
            f"with opened(Path({str(out)!r}), {ORDER!r}, Lines()): pass"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert other.returncode == 1
        assert "another process is writing results there" in other.stderr
    with opened(out, ORDER, Lines()):
        pass


def test_a_dead_owner_does_not_keep_the_folder(tmp_path):
    out = tmp_path / "out"

    def die() -> None:
        with opened(out, ORDER, Lines()):
            import os

            os._exit(9)

    child = multiprocessing.get_context("fork").Process(target=die)
    child.start()
    child.join()
    with opened(out, ORDER, Lines()):
        pass


@pytest.mark.parametrize("call", ["create", "write", "sync", "rename", "sync_folder"])
def test_a_disk_that_refuses_is_said_so_and_what_is_done_stays(tmp_path, done, call):
    class Full(Disk):
        refuses = False

    def refuse(self, *arguments):
        if self.refuses:
            raise OSError(28, "No space left on device")
        return getattr(Disk, call)(self, *arguments)

    setattr(Full, call, refuse)
    disk, out = Full(), tmp_path / "out"
    with opened(out, ORDER, Lines(), disk=disk) as journal:
        first = journal.add(0, done[:4])
        disk.refuses = True
        with pytest.raises(ResourceError, match="No space") as raised:
            journal.add(4, done[4:])
        assert raised.value.code == "disk_full"
        disk.refuses = False
    with opened(out, ORDER, Lines()) as journal:
        assert journal.parts[:1] == [first]


def test_a_place_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="no folder"), opened(tmp_path / "file" / "out", ORDER, Lines()):
        pass


def test_names_of_drawings_are_readable_and_different():
    name = drawing_name("photos/a b.png", "detect:cat;dog")
    assert name.startswith("a_b-detect_cat_dog-")
    assert name.endswith(".png")
    found = {drawing_name(id, task) for id in ("a/b.png", "a_b.png", "b.png", "猫" * 300) for task in ("caption", "detect:a", "detect_a")}
    assert len(found) == 12
    assert all(len(name.encode()) < 200 and "/" not in name for name in found)


def test_reading_costs_no_file_that_is_there(tmp_path, done):
    """Opening a folder with many parts looks at names and sizes, not at contents."""
    out = tmp_path / "out"
    with opened(out, ORDER, Lines()) as journal:
        for place, one in enumerate(done):
            journal.add(place, [one])
    opens: list[Path] = []

    class Counting(Disk):
        def open(self, path):
            opens.append(path)
            return super().open(path)

    assert len(Journal(out, Lines(), None, Counting()).parts) == 12
    assert opens == []


@pytest.mark.parametrize("finished", [False, True])
def test_what_was_taken_elsewhere_is_forgotten(tmp_path, done, finished):
    out = tmp_path / "out"
    with opened(out, ORDER, Lines()) as journal:
        journal.add(4, done[4:])
        journal.add(0, done[:4])
        if finished:
            journal.finish(ids(done))
        lines = [json.loads(line) for path in journal.files(RESULTS) for line in path.read_text().splitlines()]
        assert lines == [row for one in done for row in one.rows], "in the order of the source"
        journal.forget()
        assert not journal.parts
    assert names(out) == {"lock"}
    with opened(out, {**ORDER, "tasks": ["ocr"]}, Lines()) as journal:
        assert not journal.parts
