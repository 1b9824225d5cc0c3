"""`paligemma label` on a real, tiny model: folders that annotation tools import, what goes on, what is refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from paligemma.checkpoint import save_codec, save_huggingface
from paligemma.cli import build_app
from paligemma.cli.labelling import label
from paligemma.data.opening import open_data
from paligemma.labelling.export import DOUBTFUL
from paligemma.labelling.formats import FORMATS, FormatName

from ..jobs.making import album, lines, png, shard
from ..tiny import random_codec, tiny_model, tiny_tokenizer

ROOT = Path(__file__).parents[2]
COMMANDS = [line.strip() for line in (ROOT / "docs" / "labelling.md").read_text().splitlines() if line.startswith("    paligemma ")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = save_huggingface(tiny_model(), tmp_path_factory.mktemp("models") / "tiny")
    tiny_tokenizer().save(folder)
    save_codec(random_codec(), folder)
    return folder


@pytest.fixture
def ask(call, tiny):
    """Calls it with what is always the same."""

    def run(source: Path, to: str, out: Path, *more: object):
        return call("label", source, "--classes", "cat;dog", "--max-objects", 3, "--model", tiny, "--to", to, "--out", out, *more)

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_document_can_be_called_so(command):
    build_app().parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


def test_every_form_can_be_asked_for():
    assert get_args(get_type_hints(label)["to"]) == get_args(FormatName) == tuple(FORMATS)


def test_a_folder_is_labelled_once_for_all_forms(ask, tmp_path):
    folder, out = album(tmp_path / "a", 4), tmp_path / "out"
    done = ask(folder, "coco", out)
    assert done.code == 0, done.err
    assert done.lines[0] == "4 items, 4 results"
    assert done.lines[-1] == f"labels of 4 pictures: {out / 'coco'}"
    for format in (format for format in FORMATS if format != "coco"):
        (said,) = ask(folder, format, out, "--json").records
        assert (said["items_here"], said["written"], said["labels"]) == (0, 4, str(out / format))
    read = {format: open_data(out / format, split="all") for format in ("coco", "yolo", "voc", "cvat")}
    boxes = {format: {record.pictures[0].name: len(record.things) for record in data.records} for format, data in read.items()}
    rows = [json.loads(line) for line in (out / "coco" / DOUBTFUL).read_text().splitlines()]
    assert all(found == {row["file"]: len(row["things"]) for row in rows} for found in boxes.values())
    assert all(data.classes == ("cat", "dog") for data in read.values())


def test_masks(ask, tmp_path):
    folder, out = album(tmp_path / "a", 2), tmp_path / "out"
    assert ask(folder, "cvat", out, "--masks").code == 0
    found = open_data(out / "cvat", task="segment")
    assert {record.pictures[0].name for record in found.records} == {"0.png", "1.png"}


def test_tables_and_shards(ask, tmp_path):
    table = lines(album(tmp_path / "a", 2) / "t.jsonl", {"id": "x", "image": "0.png"}, {"id": "y", "image": "1.png"})
    assert ask(table, "coco", tmp_path / "table").code == 0
    assert ask(shard(tmp_path / "s.tar", {"one.png": png()}), "coco", tmp_path / "shard").code == 0
    assert {path.name for path in (tmp_path / "table" / "coco" / "images").iterdir()} == {"x.png", "y.png"}
    assert {path.name for path in (tmp_path / "shard" / "coco" / "images").iterdir()} == {"s.tar_one.png"}


def test_what_fails_is_left_out_and_said(ask, tmp_path):
    folder = album(tmp_path / "a", 3, broken=(1,))
    (folder / "film.mp4").write_bytes(b"a video")
    (said,) = ask(folder, "yolo", tmp_path / "out", "--json").records
    assert (said["written"], said["failed"], said["errors"]) == (2, 2, {"image_unknown_format": 1, "not_a_picture": 1})
    failed = ask(folder / "1.png", "yolo", tmp_path / "none")
    assert failed.code == 3
    assert failed.err.startswith(f"error[image_unknown_format]: {folder / '1.png'}")
    assert failed.err.endswith("mended or removed, the same command labels what lacks\n")
    assert not (tmp_path / "none" / "yolo").exists()


def test_corrections_are_not_lost_and_a_source_may_grow(ask, tmp_path):
    folder, out = album(tmp_path / "a", 2), tmp_path / "out"
    assert ask(folder, "yolo", out).code == 0
    (out / "yolo" / "labels" / "0.txt").write_text("0 0.5 0.5 1 1\n")
    again = ask(folder, "yolo", out)
    assert again.code == 2
    assert again.err.startswith("error[exists]")
    assert (out / "yolo" / "labels" / "0.txt").read_text() == "0 0.5 0.5 1 1\n"
    (folder / "2.png").write_bytes(png())
    (said,) = ask(folder, "yolo", out, "--overwrite", "--json").records
    assert (said["items_here"], said["items"], said["written"]) == (1, 3, 3)


def test_the_first_of_many_failures_are_named(ask, tmp_path):
    done = ask(album(tmp_path / "a", 9, broken=(0, 1, 2, 3, 4, 5, 6)), "yolo", tmp_path / "out")
    assert done.code == 6
    assert [f"{n}.png" in done.err for n in range(9)] == [True] * 5 + [False] * 4
    assert f"and 2 more: {tmp_path / 'out' / 'job' / 'errors.jsonl'}" in done.err


def test_a_source_may_change_anywhere(ask, tmp_path):
    folder, out = album(tmp_path / "a", 4, broken=(2,)), tmp_path / "out"
    assert ask(folder, "coco", out).code == 6
    (folder / "0a.png").write_bytes(png(20))
    (folder / "2.png").write_bytes(png(21))
    (folder / "3.png").unlink()
    (said,) = ask(folder, "coco", out, "--overwrite", "--json").records
    assert (said["items_here"], said["items"], said["failed"], said["written"]) == (2, 4, 0, 4)
    assert {path.name for path in (out / "coco" / "images").iterdir()} == {"0.png", "0a.png", "1.png", "2.png"}


def test_a_picture_of_another_size_is_labelled_anew(ask, tmp_path):
    folder, out = album(tmp_path / "a", 3), tmp_path / "out"
    assert ask(folder, "coco", out).code == 0
    (folder / "1.png").write_bytes(png(30, 20))
    (said,) = ask(folder, "coco", out, "--overwrite", "--json").records
    assert (said["items_here"], said["written"]) == (1, 3)
    found = json.loads((out / "coco" / "annotations" / "instances_default.json").read_text())["images"]
    assert {one["file_name"]: one["width"] for one in found}["1.png"] == 30


def test_another_least_score_asks_nothing_anew(ask, tmp_path):
    folder, out = album(tmp_path / "a", 3), tmp_path / "out"
    assert ask(folder, "coco", out).code == 0

    def scores() -> list[float]:
        return [thing["score"] for line in (out / "coco" / DOUBTFUL).read_text().splitlines() for thing in json.loads(line)["things"]]

    every = sorted(scores())
    least = every[-1]
    assert every[0] < least
    for min_score in (least, 0, 1):
        (said,) = ask(folder, "coco", out, "--min-score", min_score, "--overwrite", "--json").records
        assert (said["items_here"], said["written"]) == (0, 3)
        assert sorted(scores()) == [score for score in every if score >= min_score]


def test_commas_separate_no_classes(call, tiny, tmp_path):
    more = (album(tmp_path / "a", 1), "--model", tiny, "--max-objects", 1, "--to", "yolo", "--out", tmp_path / "out", "--classes")
    done = call("label", *more, "owl, fish")
    assert done.code == 2
    assert 'for several names: "owl;fish"; for this one: "owl, fish;"' in done.err
    assert not (tmp_path / "out").exists()
    assert call("label", *more, "owl, fish;").code == 0
    assert (tmp_path / "out" / "yolo" / "classes.txt").read_text() == "owl, fish\n"


def test_another_order_in_the_same_folder_is_refused(ask, tmp_path):
    folder, out = album(tmp_path / "a", 1), tmp_path / "out"
    assert ask(folder, "coco", out).code == 0
    other = ask(folder, "cvat", out, "--masks")
    assert (other.code, other.err.startswith("error[other_job]")) == (2, True)
    assert not (out / "cvat").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--to", "voc", "--masks", "--out", "out"), "no place for masks"),
        (("--to", "coco", "--out", "a/out"), "within the source"),
        (("--to", "coco", "--out", "out", "--limit", 0), "--limit"),
        (("--to", "coco", "--out", "out", "--max-objects", 0), "max_objects must be from 1"),
        (("--to", "coco", "--out", "out", "--max-tokens", 0), "max_tokens must be from 1"),
        (("--to", "coco", "--out", "out", "--tiles", "--masks"), "--tiles"),
        (("--to", "coc", "--out", "out"), "coco"),
        (("--to", "coco", "--out", "out", "--min-score", 2), "--min-score is from 0 to 1"),
    ],
)
def test_what_is_refused_leaves_no_labels(call, tmp_path, monkeypatch, more, says):
    album(tmp_path / "a", 1)
    monkeypatch.chdir(tmp_path)
    done = call("label", "a", "--classes", "cat", *more)
    assert done.code == 2
    assert says in done.err
    assert not Path("out").exists()
