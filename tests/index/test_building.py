"""A folder and its index stay the same through every kind of change, and nothing is computed that is known."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from paligemma.errors import InputError
from paligemma.image import UNREADABLE
from paligemma.index import building
from paligemma.index.describing import Wanted
from paligemma.predictor import Predictor
from paligemma.tasks.caption import without_places
from tests import tiny
from tests.index.making import COLOURS, ColourEncoder, build, held, paint

pytest.importorskip("lancedb")


@pytest.fixture
def album(tmp_path):
    root = tmp_path / "album"
    for name, colours in {
        "a.png": ["red"],
        "b/b.png": ["green", "blue"],
        "b/c.png": ["yellow"],
        "d.png": ["white", "black", "red"],
    }.items():
        paint(root / name, *colours)
    return root


def check(root, where):
    """Every picture is there with what its file says and the vector that the encoder gives it, and nothing else is."""
    from PIL import Image

    index = held(where)
    on_disk = {path.relative_to(root).as_posix(): path for path in root.rglob("*.png")}
    assert index.keys() == on_disk.keys()
    for name, path in on_disk.items():
        with Image.open(path) as picture:
            np.testing.assert_allclose(index[name].vector, ColourEncoder().pictures([picture])[0], atol=1e-6)
            assert (index[name].width, index[name].height) == picture.size
        assert (index[name].modified, index[name].size) == (path.stat().st_mtime_ns, path.stat().st_size)
    assert len({entry.id for entry in index.values()}) == len(index)
    return index


def test_only_what_changed_is_looked_at(album, tmp_path):
    where, encoder = tmp_path / "index", ColourEncoder()
    assert build(album, where, encoder).counts == {"unchanged": 0, "added": 4, "removed": 0}
    first = check(album, where)
    assert build(album, where, encoder).counts == {"unchanged": 4, "removed": 0}
    assert encoder.seen == 4

    (album / "a.png").rename(album / "b" / "moved.png")
    paint(album / "d.png", "blue", "blue", "red")
    paint(album / "new.png", "green")
    (album / "copy.png").write_bytes((album / "b" / "b.png").read_bytes())
    (album / "b" / "c.png").unlink()
    os.utime(album / "b" / "b.png", ns=(1, 1))
    counts = build(album, where, encoder).counts
    assert counts == {"unchanged": 0, "moved": 1, "changed": 1, "added": 1, "copied": 1, "touched": 1, "removed": 1}
    assert encoder.seen == 6, "only the changed and the new one"
    second = check(album, where)
    assert second["b/moved.png"].id == first["a.png"].id
    assert second["d.png"].id == first["d.png"].id


def test_pictures_that_change_places(album, tmp_path):
    where = tmp_path / "index"
    build(album, where)
    for first, second in (("a.png", "d.png"), ("b/b.png", "b/c.png")):
        (album / first).rename(album / "x")
        (album / second).rename(album / first)
        (album / "x").rename(album / second)
    (album / "e.png").write_bytes((album / "a.png").read_bytes())
    build(album, where, batch=1)
    check(album, where)


def test_a_copied_row_that_became_another_picture_is_not_copied(album, tmp_path, monkeypatch):
    """`a` becomes another picture, which is written before `z`, a copy of what `a` was, is looked up."""
    monkeypatch.setattr(building, "GROUP", 1)
    where = tmp_path / "index"
    build(album, where)
    (album / "z.png").write_bytes((album / "a.png").read_bytes())
    paint(album / "a.png", "blue", "yellow")
    build(album, where, batch=1)
    check(album, where)


def test_a_copy_that_vanishes_before_it_is_read_again_fails_alone(album, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "GROUP", 1)
    where = tmp_path / "index"
    build(album, where)
    (album / "z.png").write_bytes((album / "a.png").read_bytes())
    paint(album / "a.png", "blue", "yellow")
    read = building.Builder._read

    def vanishing(self, file, settled):
        if not settled:  # again
            (album / "z.png").unlink()
        return read(self, file, settled)

    monkeypatch.setattr(building.Builder, "_read", vanishing)
    report = build(album, where, batch=1)
    assert (list(report.failed), report.counts["changed"]) == (["z.png"], 1)
    check(album, where)


def test_bad_pictures_are_named_and_the_rest_goes_on(album, tmp_path):
    where = tmp_path / "index"
    build(album, where)
    (album / "d.png").write_bytes(b"no picture any more")
    (album / "cut.png").write_bytes((album / "a.png").read_bytes()[:60])
    (album / "gone.png").symlink_to(album / "nowhere.png")
    (album / os.fsdecode(b"odd\xff.png")).write_bytes((album / "a.png").read_bytes())
    paint(album / "good.png", "blue")
    told = []
    report = build(album, where, tell=told.append)
    assert report.failed.keys() == {"d.png", "cut.png", "gone.png", "odd\udcff.png"}
    assert "\\udcff" in report.failed["odd\udcff.png"].message
    assert sum(told) == 5
    assert held(where).keys() == {"a.png", "b/b.png", "b/c.png", "good.png"}


def test_what_the_disk_does_not_give_out_is_not_forgotten(album, tmp_path, monkeypatch, shut):
    where = tmp_path / "index"
    build(album, where)
    paint(album / "more.png", "yellow")  # as b/c.png, which is not gone: a copy
    paint(album / "a.png", "blue")
    shut(album / "b")
    opened = building.opened
    failing = PermissionError(13, "Permission denied")

    def refusing(path, limits, name):
        if path.name == "a.png":
            raise InputError("a.png: cannot be opened", code=UNREADABLE) from failing
        return opened(path, limits, name)

    monkeypatch.setattr(building, "opened", refusing)
    before = held(where)
    report = build(album, where)
    assert (report.counts, report.failed.keys()) == ({"unchanged": 1, "copied": 1, "removed": 0}, {"b", "a.png"})
    assert "this folder cannot be read" in report.failed["b"].message
    after = held(where)
    assert {path: after[path].id for path in before} == {path: entry.id for path, entry in before.items()}
    monkeypatch.undo()
    assert build(album, where).counts == {"unchanged": 4, "changed": 1, "removed": 0}
    check(album, where)


def test_broken_off_and_run_again(album, tmp_path, monkeypatch):
    """What was told is kept; the rest is done by the next run, which does nothing twice."""
    monkeypatch.setattr(building, "GROUP", 2)
    where, told = tmp_path / "index", []

    class Breaks(ColourEncoder):
        def pictures(self, pictures):
            if self.seen == 3:
                raise KeyboardInterrupt
            return super().pictures(pictures)

    with pytest.raises(KeyboardInterrupt):
        build(album, where, Breaks(), batch=1, tell=told.append)
    assert sum(told) == len(held(where)) == 2
    encoder = ColourEncoder()
    assert build(album, where, encoder).counts["added"] == 2
    assert encoder.seen == 2
    check(album, where)


def test_an_empty_folder_forgets_nothing(album, tmp_path):
    where = tmp_path / "index"
    build(album, where)
    for path in album.rglob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match="no pictures"):
        build(album, where)
    assert len(held(where)) == 4


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(tiny.tiny_model(version=2), tiny.tiny_tokenizer())


def test_what_a_model_says_is_asked_once(album, tmp_path, predictor):
    where, encoder = tmp_path / "index", ColourEncoder()
    build(album, where, encoder)
    captions = Wanted(("en",), model="tiny")
    assert build(album, where, encoder, wanted=captions, predictor=predictor).counts["described"] == 4
    said = held(where)
    assert all(entry.captions == {"en": without_places(predictor.caption(album / path).text)[0]} for path, entry in said.items())
    assert build(album, where, encoder, wanted=captions, predictor=predictor).counts["described"] == 0

    everything = Wanted(("en", "de"), True, ("cat", "dog"), "tiny")
    (album / "a.png").rename(album / "moved.png")
    report = build(album, where, encoder, wanted=everything, predictor=predictor)
    assert (report.counts["described"], report.counts["moved"]) == (3, 1)
    assert encoder.seen == 4
    for path, entry in held(where).items():
        assert entry.captions is not None
        assert entry.captions.keys() == {"en", "de"}
        assert (entry.classes, entry.model) == (("cat", "dog"), "tiny")
        assert entry.text == predictor.ocr(album / path).text
        assert entry.objects is not None
        for box, expected in zip(entry.objects, predictor.detect(album / path, ["cat", "dog"]), strict=True):
            assert (box.label, *box.xyxy, box.score) == pytest.approx((expected.label, *expected.xyxy, expected.score))


def test_other_classes_come_to_those_that_are_there(album, tmp_path, predictor):
    where = tmp_path / "index"
    for classes, described in ((("cat",), 0), (("dog", "cat"), 4), (("dog",), 0)):
        report = build(album, where, wanted=Wanted(classes=classes, model="tiny"), predictor=predictor)
        assert report.counts["described"] == described
    for path, entry in held(where).items():
        assert entry.classes == ("cat", "dog")
        assert entry.objects is not None
        expected = [box.label for name in entry.classes for box in predictor.detect(album / path, [name])]
        assert [box.label for box in entry.objects] == expected


def test_another_model_says_everything_anew(album, tmp_path, predictor):
    where = tmp_path / "index"
    build(album, where, wanted=Wanted(("en",), True, model="one"), predictor=predictor)
    build(album, where, wanted=Wanted(("de",), model="other"), predictor=predictor)
    for entry in held(where).values():
        assert entry.captions is not None
        assert (entry.captions.keys(), entry.text, entry.model) == ({"de"}, None, "other")


INDEXING = """
import sys, time
from pathlib import Path
from paligemma.index import building
from tests.index.making import build
building.GROUP, building.UPKEEP = 4, 3
told = 0
def tell(count):
    global told
    told += count
    print(count, flush=True)
    time.sleep(0.02 if told < int(sys.argv[3]) else 60)  # so that there is time to kill it
build(Path(sys.argv[1]), sys.argv[2], batch=2, threads=2, tell=tell)
"""


def known(root, where) -> int:
    """How many files the index knows as they are."""
    if not (where / "pictures.lance").exists():
        return 0
    facts = {(path.relative_to(root).as_posix(), path.stat().st_mtime_ns) for path in root.iterdir()}
    return sum((one.path, one.modified) in facts for one in held(where).values())


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_time_and_run_again(tmp_path, seed):
    """What was told as done stays, whole pictures only; the last run adds the rest. Files change, move and go between two of them."""
    root, where, rng = tmp_path / "album", tmp_path / "index", random.Random(seed)
    for number in range(80):
        paint(root / f"{number}.png", *rng.choices(tuple(COLOURS), k=4), size=(30 + number, 12))
    for after in (rng.randrange(4, 12), rng.randrange(1, 8), rng.randrange(1, 8)):
        before, done = known(root, where), 0
        command = [sys.executable, "-c", INDEXING, str(root), str(where), str(after + 8)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        while done < after and (line := process.stdout.readline()):
            done += int(line)
        time.sleep(rng.random() / 50)
        process.kill()
        process.wait()
        process.stdout.close()
        assert process.returncode == -signal.SIGKILL, "it was at its end before it was killed"
        assert known(root, where) >= before + done, "what was told as done is not there"
        victim = rng.choice(sorted(root.iterdir()))
        victim.rename(root / f"moved-{victim.name}")
    paint(next(root.glob("moved-*")), "black", "pink")
    build(root, where)
    assert len(check(root, where)) == 80
    assert build(root, where).counts == {"unchanged": 80, "removed": 0}
