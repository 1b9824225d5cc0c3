"""A source that changed anywhere: what is done stays done, and the tables are those of a job that never saw the source as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from paligemma.errors import InputError
from paligemma.image import UNREADABLE
from paligemma.jobs import following
from paligemma.jobs.following import follow
from paligemma.jobs.items import items
from paligemma.jobs.job import run
from paligemma.jobs.journal import JOURNAL, opened
from paligemma.jobs.rows import Lines
from paligemma.training.disk import Disk

from .making import album, engine, png

ORDER = {"source": "a", "tasks": ["caption"]}
CALLS = ("create", "write", "sync", "rename", "sync_folder", "unlink")


class Killed(BaseException):
    """As if the process ended here."""


class Mortal(Disk):
    """The process ends before the call of this number that changes something."""

    def __init__(self, calls: int):
        self.left = calls

    def __getattribute__(self, name: str):
        if name in CALLS:
            self.left -= 1
            if self.left < 0:
                raise Killed
        return super().__getattribute__(name)


def go(out: Path, source: Path, *, stop: int = 99, lasting: tuple[str, ...] = ()) -> list[str]:
    """Follows and runs, until so many were asked; returns their ids."""
    asked: list[str] = []

    def watched(spans):
        for start, done in engine(spans):
            asked.extend(one.id for one in done)
            yield start, done

    with opened(out, ORDER, Lines()) as journal:
        follow(journal, items(source), lasting=lasting)
        run(items(source), journal, watched, span=2, stopped=lambda: len(asked) >= stop)
    return asked


def change(source: Path) -> None:
    """One picture comes in the middle, one goes, one that was broken is mended."""
    (source / "0a.png").write_bytes(png(21))
    (source / "3.png").unlink()
    (source / "5.png").write_bytes(png(22))


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*s.jsonl")}


@pytest.mark.parametrize("stop", [2, 6, 99])
def test_only_what_is_new_or_failed_is_asked(tmp_path, stop):
    source, out = album(tmp_path / "a", 8, broken=(1, 5)), tmp_path / "out"
    before = go(out, source, stop=stop)
    change(source)
    asked = go(out, source)
    names = [item.id for item in items(source)]
    assert sorted(asked) == sorted({*names} - {*before} | {"0a.png", "1.png", "5.png"})
    go(tmp_path / "undisturbed", source)
    assert tables(out) == tables(tmp_path / "undisturbed")
    assert set(tables(out)) == {"results.jsonl", "errors.jsonl"}


def test_nothing_is_written_where_nothing_changed(tmp_path):
    source, out = album(tmp_path / "a", 4, broken=(1,)), tmp_path / "out"
    go(out, source)
    kept = (out / JOURNAL).stat()
    assert go(out, source, lasting=("image_unknown_format",)) == []
    left = (out / JOURNAL).stat()
    assert (left.st_ino, left.st_mtime_ns, left.st_size) == (kept.st_ino, kept.st_mtime_ns, kept.st_size)
    assert go(out, source) == ["1.png"]
    (source / "9.png").write_bytes(png())
    assert go(out, source, lasting=("image_unknown_format",)) == ["9.png"], "a source that grew at its end"


def test_a_picture_of_another_size_is_asked_about_again(tmp_path):
    source, out = album(tmp_path / "a", 4), tmp_path / "out"
    go(out, source)
    (source / "0.png").write_bytes(png(8, 6, "red"))
    (source / "1.png").write_bytes(png(30, 20))
    turned = Image.new("RGB", (6, 10))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(source / "2.png", exif=exif)  # upright it is as wide and high as before
    (source / "3.png").write_bytes(b"no picture")
    assert go(out, source) == ["1.png", "3.png"]
    sizes = [row["result"].get("width") for row in map(json.loads, (out / "results.jsonl").read_text().splitlines())]
    assert sizes == [None, 8, None, 30, None, 10]
    assert go(out, source) == ["3.png"]


@pytest.mark.parametrize("error", [InputError("not now", code=UNREADABLE), OSError(5, "Input/output error")])
def test_what_the_disk_does_not_give_out_for_now_is_as_it_was(tmp_path, monkeypatch, error):
    source, out = album(tmp_path / "a", 4), tmp_path / "out"
    go(out, source)

    def refusing(path):
        raise error

    monkeypatch.setattr(following, "picture_size", refusing)
    assert go(out, source) == []


def test_a_source_of_which_nothing_is_left(tmp_path):
    source, out = album(tmp_path / "a", 3), tmp_path / "out"
    go(out, source)
    for path in source.iterdir():
        path.rename(source / f"new-{path.name}")
    assert sorted(go(out, source)) == ["new-0.png", "new-1.png", "new-2.png"]
    assert not any(b'"0.png"' in data for data in tables(out).values())


@pytest.mark.parametrize("stop", [6, 99])
def test_a_kill_loses_nothing_that_was_done(tmp_path, stop):
    for calls in range(99):
        place = tmp_path / str(calls)
        source, out = album(place / "a", 8, broken=(5,)), place / "out"
        before = go(out, source, stop=stop)
        change(source)
        try:
            with opened(out, ORDER, Lines()) as journal:
                journal._disk = Mortal(calls)
                follow(journal, items(source))
        except Killed:
            assert sorted(go(out, source)) == sorted({item.id for item in items(source)} - {*before} | {"5.png"}), calls
        else:
            break
        go(place / "undisturbed", source)
        assert tables(out) == tables(place / "undisturbed"), calls
    assert 8 < calls < 98, "every call was tried"
