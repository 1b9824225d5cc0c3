"""Opening a data set: splits, tasks, the share of faults, fingerprints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from paligemma.data.opening import BadData, open_data, splits
from paligemma.errors import InputError, UsageError
from paligemma.image import Limits
from tests.annotations.world import picture, pictures, supervised

GOOD = {"image": "a.png", "prefix": "x", "suffix": "y"}
BAD = {"image": "none.png", "prefix": "x", "suffix": "y"}


def write(folder: Path, *rows: object, name: str = "x.jsonl") -> Path:
    pictures(folder)
    (folder / name).write_text("\n".join(map(json.dumps, rows)))
    return folder / name


def test_one_percent_may_be_bad(tmp_path):
    data = open_data(write(tmp_path, *[GOOD] * 99, BAD))
    assert data.bad_share == 0.01
    with pytest.raises(BadData, match=r"2 of 100 records cannot be used \(2\.0%\), at most 1\.0% may be") as caught:
        open_data(write(tmp_path, *[GOOD] * 98, BAD, {"image": "a.png"}))
    error = caught.value
    assert (error.exit_code, error.code) == (3, "too_many_faults")
    assert isinstance(error, InputError)
    assert "1 missing: a picture that is not there" in error.message
    assert "x.jsonl:99: no such file: none.png" in error.message
    assert [fault.code for fault in error.data.faults] == ["missing", "field"]
    assert len(open_data(tmp_path / "x.jsonl", max_bad_share=0.02)) == 98
    with pytest.raises(UsageError):
        open_data(tmp_path / "x.jsonl", max_bad_share=2)


def test_no_usable_record_is_an_error_whatever_is_allowed(tmp_path):
    with pytest.raises(BadData, match="none of 3 records can be used") as caught:
        open_data(write(tmp_path, BAD, BAD, BAD), max_bad_share=1)
    assert caught.value.code == "no_records"
    assert "--pictures" in str(caught.value.hint)


def test_splits_are_named_or_asked_for(tmp_path):
    write(tmp_path, GOOD, name="train.jsonl")
    assert splits(tmp_path) == ("train",)
    assert open_data(tmp_path).split == "train"  # the only one there is
    write(tmp_path, GOOD, GOOD, name="test.jsonl")
    with pytest.raises(UsageError, match="is divided into train, test") as caught:
        open_data(tmp_path)
    assert caught.value.hint == "say which: --split train, or --split all"
    assert [len(open_data(tmp_path, split=split)) for split in ("train", "test", "all")] == [1, 2, 3]
    with pytest.raises(UsageError, match="has no part 'valid': its parts are train, test"):
        open_data(tmp_path, split="valid")
    with pytest.raises(UsageError, match="it is not divided"):
        open_data(tmp_path / "test.jsonl", split="test")
    assert splits(tmp_path / "test.jsonl") == ()


def test_tasks(tmp_path):
    supervised(tmp_path / "in").as_coco(str(tmp_path / "set"), str(tmp_path / "set" / "x.json"))
    assert open_data(tmp_path / "set", task="describe_box").records[0].answers == ("cat",)
    with pytest.raises(UsageError, match="coco can be read for detect, segment, refer, describe_box, caption; 'answer' is none of them"):
        open_data(tmp_path / "set", task="answer")
    with pytest.raises(UsageError) as caught:
        open_data(tmp_path / "set", task="segmnt")
    assert caught.value.hint == "did you mean 'segment'?"
    with pytest.raises(BadData, match="has a box and no mask, which segment needs"):
        open_data(tmp_path / "set", task="segment")


def test_the_fingerprint_is_of_the_data(tmp_path):
    def made(folder: str, *rows: object) -> str:
        return open_data(write(tmp_path / folder, *rows), max_bad_share=1).fingerprint

    first = made("a", GOOD, GOOD)
    assert len(first) == 64
    assert made("b", GOOD, GOOD) == first  # wherever it lies
    others = [
        made("c", GOOD),
        made("d", GOOD, GOOD, BAD),
        made("e", GOOD, {**GOOD, "suffix": "z"}),
        made("f", GOOD, {**GOOD, "image": "b.png"}),
    ]
    assert len({first, *others}) == 5
    supervised(tmp_path / "in").as_yolo(
        str(tmp_path / "set" / "images"), str(tmp_path / "set" / "labels"), str(tmp_path / "set" / "data.yaml")
    )
    before = open_data(tmp_path / "set").fingerprint
    picture(tmp_path / "set" / "images" / "e.png")
    assert open_data(tmp_path / "set").fingerprint != before


def test_reading_twice_is_the_same(tmp_path):
    file = write(tmp_path, GOOD, BAD, {**GOOD, "id": "q"})
    assert open_data(file, max_bad_share=1) == open_data(str(file), max_bad_share=1)


def test_strict_pictures_and_limits(tmp_path):
    file = write(tmp_path, *[GOOD] * 3, {**GOOD, "image": "cut.jpg"})
    data = picture(tmp_path / "whole.jpg", (200, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    assert len(open_data(file)) == 4
    strict = open_data(file, strict_pictures=True, max_bad_share=1)
    assert [fault.code for fault in strict.faults] == ["picture"]
    assert [fault.code for fault in open_data(file, limits=Limits(max_side=100), max_bad_share=1).faults] == ["picture"]


def test_a_data_set_in_another_place_than_its_pictures(tmp_path):
    file = write(tmp_path / "set", {**GOOD, "image": "e.png"})
    picture(tmp_path / "store" / "e.png")
    picture(tmp_path / "e.png")
    assert open_data(file, pictures=tmp_path / "store").records[0].pictures == (tmp_path / "store" / "e.png",)
    with pytest.raises(BadData, match="1 path"):
        open_data(write(tmp_path / "set", {**GOOD, "image": "../e.png"}), pictures=tmp_path / "store")


def test_names_that_are_unknown(tmp_path):
    file = write(tmp_path, GOOD)
    with pytest.raises(UsageError, match="no task is called 'detct'") as caught:
        open_data(file, task="detct")
    assert caught.value.hint == "did you mean 'detect'?"
    with pytest.raises(InputError, match="no such folder of pictures"):
        open_data(file, pictures=tmp_path / "none")


def test_progress(tmp_path):
    seen: list[int] = []
    open_data(write(tmp_path, GOOD, BAD, GOOD), max_bad_share=1, progress=seen.append)
    assert sorted(set(seen)) == [1, 2, 3]
    assert seen == sorted(seen)


def test_names_of_a_terminals_nightmares(tmp_path):
    """Where a fault is shown, nothing steers the terminal."""
    file = write(tmp_path / "a\x1b[31mb", GOOD, {**GOOD, "image": "\x1b]0;x\x07.png", "suffix": "\x1b[2J"})
    with pytest.raises(BadData) as caught:
        open_data(file)
    assert "\x1b" not in caught.value.message
    assert "\x1b" not in str(caught.value.data.faults[0])


def test_importing_is_light():
    heavy = ("torch", "datasets", "pyarrow", "pandas", "yaml", "supervision", "pycocotools", "transformers")
    code = f"import sys, paligemma.data.opening; print(*sorted(set({heavy!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
