"""Data sets of the small world: what is on disk, read by our readers and by others', is what was drawn; no picture is in two splits."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paligemma.cli import main
from paligemma.data.opening import open_data, splits
from paligemma.data.records import DataSet, Record
from paligemma.errors import InputError, UsageError
from paligemma.nano import datasets
from paligemma.nano.datasets import FORMATS, KINDS, inventory, kind, next_steps, write_data
from paligemma.nano.names import things
from paligemma.nano.world import Scene, Split, World

TRAIN, TEST = 4, 5
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def world() -> dict[str, list[Scene]]:
    """Split -> its scenes, drawn once more."""
    train, test = (World(split, seed=1, text_share=0.0) for split in (Split.TRAIN, Split.TEST))
    drawn = [train.scene(index) for index in range(TRAIN + 1)]
    return {"train": drawn[:TRAIN], "valid": drawn[TRAIN:], "test": [test.scene(index) for index in range(TEST)]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`folder("coco")` -> the data set in that format, written once."""
    top = tmp_path_factory.mktemp("sets")

    def written(format: str) -> Path:
        if not (top / format).exists():
            write_data(top / format, format=format, count=TRAIN, held_out=TEST, seed=1)
        return top / format

    return written


def read(folder: Path, split: str, task: str | None = None) -> DataSet:
    data = open_data(folder, split=split, task=task)
    assert not data.faults
    return data


def true_box(scene: Scene, index: int) -> tuple[int, int, int, int]:
    """From the mask's pixels."""
    rows, columns = np.nonzero(scene.mask(index))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def by_place(record: Record) -> list[tuple[str, tuple[float, ...]]]:
    return sorted(((thing.label, thing.box) for thing in record.things), key=lambda one: one[1][0] + one[1][2])


def test_every_thing_is_of_one_kind():
    assert sorted("".join(KINDS.values())) == sorted(thing.character for thing in things())


@pytest.mark.parametrize("format", FORMATS)
def test_the_format_is_recognised_and_the_pictures_are_those_of_the_world(format, folder, world):
    assert splits(folder(format)) == SPLITS
    for split, scenes in world.items():
        data = read(folder(format), split)
        assert data.format == format
        pictures = list(dict.fromkeys(record.pictures[0] for record in data.records))
        assert len(pictures) == len(scenes)
        for path, scene in zip(pictures, scenes, strict=True):
            assert np.array_equal(np.asarray(Image.open(path)), scene.pixels)


@pytest.mark.parametrize(("format", "within"), [("coco", 0), ("yolo", 0.01), ("voc", 0), ("labelme", 1)])
def test_things_are_called_by_their_kind_and_are_where_they_are(format, within, folder, world):
    """supervision writes outlines through the middles of pixels, so LabelMe's boxes are a pixel smaller."""
    for split, scenes in world.items():
        data = read(folder(format), split)
        assert set(data.classes) <= set(KINDS)
        for record, scene in zip(data.records, scenes, strict=True):
            found = by_place(record)
            assert [label for label, _ in found] == [kind(spot) for spot in scene.objects]
            for place, (_, box) in enumerate(found):
                assert box == pytest.approx(true_box(scene, place), abs=within + 1e-6)


def overlap(mask: np.ndarray, true: np.ndarray) -> float:
    return (mask & true).sum() / (mask | true).sum()


@pytest.mark.parametrize("format", ["coco", "labelme"])
def test_outlines_are_those_of_the_masks(format, folder, world):
    """Each of the thing whose box it has."""
    for record, scene in zip(read(folder(format), "test", "segment").records, world["test"], strict=True):
        side = len(scene.pixels)
        things = sorted(record.things, key=lambda thing: thing.box[0] + thing.box[2])
        assert len(things) == len(scene.objects)
        for place, thing in enumerate(things):
            assert thing.outline is not None
            assert thing.label == kind(scene.objects[place])
            assert overlap(thing.outline.mask(side, side), scene.mask(place)) > 0.7


def test_pycocotools_reads_the_same(folder, world):
    from pycocotools.coco import COCO

    coco = COCO(str(folder("coco") / "annotations" / "instances_test.json"))
    names = {one["id"]: one["name"] for one in coco.loadCats(coco.getCatIds())}
    for image, scene in zip(coco.loadImgs(coco.getImgIds()), world["test"], strict=True):
        found = sorted(coco.loadAnns(coco.getAnnIds(image["id"])), key=lambda one: 2 * one["bbox"][0] + one["bbox"][2])
        assert [names[one["category_id"]] for one in found] == [kind(spot) for spot in scene.objects]
        for place, one in enumerate(found):
            assert overlap(coco.annToMask(one).astype(bool), scene.mask(place)) > 0.7


def names(scene: Scene) -> list[str]:
    """From left to right."""
    return [things()[spot.thing].names["en"] for spot in sorted(scene.objects, key=lambda spot: spot.x0 + spot.x1)]


def test_questions_have_the_answers_that_the_scene_gives(folder, world):
    for split, scenes in world.items():
        data = read(folder("vqa"), split)
        assert len(data) == 2 * len(scenes)
        sides = []
        for place, record in enumerate(data.records):
            found = names(scenes[place // 2])
            assert len(record.answers) == 10
            (answer,) = set(record.answers)
            if record.about["question_type"] == "how many":
                assert (record.prompt, answer) == ("answer en how many in all?", str(len(found)))
            else:
                sides.append(record.prompt.removeprefix("answer en what is furthest to the "))
                assert answer == {"left?": found[0], "right?": found[-1]}[sides[-1]]
        assert len(sides) == len(scenes)


def test_lists_name_everything_from_left_to_right(folder, world):
    data = read(folder("jsonl"), "test")
    assert [record.answers for record in data.records] == [(", ".join(names(scene)),) for scene in world["test"]]
    assert {record.prompt for record in data.records} == {"caption en"}


@pytest.mark.parametrize(("characters", "said"), [("🐈", "cat"), ("❤🐈🐈", "red heart, cat, cat")])
def test_a_list_repeats_what_is_there_twice(characters, said, world):
    numbers = {thing.character: thing.index for thing in things()}
    spot = world["test"][0].objects[0]
    placed = tuple(dataclasses.replace(spot, thing=numbers[character]) for character in characters)
    assert inventory(dataclasses.replace(world["test"][0], objects=placed)) == said


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*.*"))]


def test_no_picture_is_in_two_splits_and_the_seed_decides(folder, tmp_path):
    pictures = [path.read_bytes() for path in sorted(folder("jsonl").rglob("*.png"))]
    assert len(set(pictures)) == TRAIN + 1 + TEST
    again, other = (write_data(tmp_path / str(seed), format="jsonl", count=TRAIN, held_out=TEST, seed=seed) for seed in (1, 2))
    assert contents(again) == contents(folder("jsonl"))
    assert not set(pictures) & {path.read_bytes() for path in other.rglob("*.png")}


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        write_data(tmp_path, format="coco", count=1, held_out=1, seed=1)
    with pytest.raises(InputError, match="is there already"):
        write_data(tmp_path / "mine.txt", format="coco", count=1, held_out=1, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("change", "says"), [({"format": "coko"}, "'coko'"), ({"count": 0}, "got 0"), ({"held_out": -1}, "and -1")])
def test_a_wrong_call_writes_nothing(change, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        write_data(tmp_path / "set", **({"format": "coco", "count": 1, "held_out": 1, "seed": 1} | change))
    assert not list(tmp_path.iterdir())


def test_the_command_prints_commands_that_are_ones(tmp_path, capsys, monkeypatch):
    """A name with a blank in it, and the parser asked whether it knows every word."""
    out = tmp_path / "my set"
    assert main(["nano", "data", str(out), "--format", "labelme", "--count", "1", "--held-out", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == next_steps(out, "labelme")
    words = [shlex.split(line) for line in printed]
    assert [line[:2] for line in words] == [["paligemma", command] for command in ("eval", "train", "eval")]
    assert all(str(out) in line and "segment" in line for line in words)
    assert main([*words[1][1:], "--print-recipe"]) == 0
    recipe = capsys.readouterr().out
    settings = shlex.split(datasets.SETTINGS)
    assert f"batch = {settings[settings.index('--batch') + 1]}" in recipe
