"""Examples on disk: `open_data` reads every one, their truth is the scene's, no split shares a picture with another."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from paligemma.data.opening import open_data, splits
from paligemma.errors import InputError, UsageError
from paligemma.nano.examples import EXAMPLES, SPLITS, write_examples
from paligemma.nano.films import FRAMES


@pytest.fixture(scope="module", params=EXAMPLES)
def drawn(request, tmp_path_factory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    for split in SPLITS:
        write_examples(request.param, folder, split=split, count=6)
    return request.param, folder


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_every_example_is_read(drawn):
    kind, folder = drawn
    assert splits(folder) == ("train", "valid", "test")
    for split in SPLITS:
        data = open_data(folder, split=split)
        assert (data.format, data.task) == ("jsonl", {"refer": "refer", "video": "caption"}[kind])
        assert len(data) == 6
        assert not data.faults
        assert {len(record.pictures) for record in data.records} == {FRAMES if kind == "video" else 1}
        assert all(record.about["kind"] for record in data.records)


def test_the_box_is_around_the_mask(drawn):
    kind, folder = drawn
    if kind == "refer":
        for record in open_data(folder, split="test").records:
            thing = record.things[0]
            assert thing.outline is not None
            rows, columns = np.nonzero(thing.outline.mask(112, 112))
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == thing.box


def test_no_split_shares_a_picture_and_the_same_is_drawn_again(drawn, tmp_path):
    kind, folder = drawn
    first = files(folder)
    pictures = [content for name, content in first.items() if not name.endswith(".jsonl")]
    assert len(set(pictures)) == len(pictures)
    write_examples(kind, tmp_path / "same", split="valid", count=6)
    assert files(tmp_path / "same").items() <= first.items()
    write_examples(kind, tmp_path / "others", split="valid", count=6, seed=1)
    assert not set(files(tmp_path / "others").values()) & set(first.values())
    with pytest.raises(InputError, match="is there already"):
        write_examples(kind, tmp_path / "same", split="valid", count=6)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"kind": "refers"}, "refer"), ({"split": "tests"}, "test"), ({"count": 0}, "--count")],
)
def test_what_is_not_there_is_refused(wrong, said, tmp_path):
    asked = {"kind": "refer", "split": "train", "count": 1} | wrong
    with pytest.raises(UsageError) as raised:
        write_examples(asked["kind"], tmp_path / "out", split=asked["split"], count=asked["count"])
    assert said in f"{raised.value} {raised.value.hint}"
    assert not (tmp_path / "out").exists()
