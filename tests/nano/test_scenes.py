"""Scenes on disk: the pictures are those of the world, the truth beside them is true, and the demo can be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from paligemma import demo
from paligemma.errors import PaliGemmaError, UsageError
from paligemma.nano import scenes as module
from paligemma.nano.names import LANGUAGES, things
from paligemma.nano.scenes import DEMO, write_demo, write_scenes
from paligemma.nano.world import Scene, Split, World
from paligemma.results import Caption

from .answering import Blind, Knowing, name_of


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def entries_of(listing: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in listing.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def listing(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "a" / "b", count=12, seed=1, split="test")


def test_as_many_pictures_as_asked_for(listing, test_scenes):
    assert listing.name == "scenes.jsonl"
    entries = entries_of(listing)
    assert [entry["image"] for entry in entries] == [f"scene{index:03d}.png" for index in range(12)]
    assert {path.name for path in listing.parent.iterdir()} == {"scenes.jsonl", *(entry["image"] for entry in entries)}
    for entry, scene in zip(entries, test_scenes, strict=False):
        assert np.array_equal(pixels_of(listing.parent / entry["image"]), scene.pixels)


def test_boxes_are_where_the_masks_are(listing, test_scenes):
    """The truth again, from the mask pixels."""

    def seen(scene: Scene, index: int) -> dict[str, Any]:
        rows, columns = np.nonzero(scene.mask(index))
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return {"label": things()[scene.objects[index].thing].names["en"], "box": [int(edge) for edge in box]}

    for entry, scene in zip(entries_of(listing), test_scenes, strict=False):
        assert entry["objects"] == [seen(scene, index) for index in range(len(scene.objects))]


def test_captions_name_everything_and_texts_are_what_is_printed(listing, test_scenes):
    for entry, scene in zip(entries_of(listing), test_scenes, strict=False):
        assert tuple(entry["captions"]) == (LANGUAGES if scene.objects else ())
        for lang, caption in entry["captions"].items():
            assert all(things()[spot.thing].names[lang] in caption for spot in scene.objects)
        assert entry["text"] == "\n".join(line.text for line in scene.lines)
    assert "\\u" not in listing.read_text(encoding="utf-8"), "Chinese and umlauts stay readable"


def test_a_split_is_a_world_of_its_own(tmp_path, listing):
    drawn = write_scenes(tmp_path, count=1, seed=1, split="train").parent / "scene000.png"
    assert np.array_equal(pixels_of(drawn), World(Split.TRAIN, seed=1).scene(0).pixels)
    assert not np.array_equal(pixels_of(drawn), pixels_of(listing.parent / "scene000.png"))


def test_an_unknown_split_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match="'validation'") as raised:
        write_scenes(tmp_path / "out", count=1, seed=1, split="validation")
    assert str(raised.value.hint) == "one of: train, test"
    assert not (tmp_path / "out").exists()


# The demo


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo") / "a" / "b", seed=7)


@pytest.fixture(scope="module")
def shown(written) -> list[demo.Picture]:
    return demo.pictures(written.parent)


def test_the_demo_has_pictures_of_every_kind(written, shown):
    assert written.name == "demo.json"
    assert [picture.name for picture in shown] == [f"{kind}{n}.png" for kind, count in DEMO.items() for n in range(1, count + 1)]
    assert {path.name for path in written.parent.iterdir()} == {"demo.json", *(picture.name for picture in shown)}
    objects, twins, colours = ([p for p in shown if p.name.startswith(kind)] for kind in ("objects", "twins", "colours"))
    for picture, most in [(p, 1) for p in objects] + [(p, 2) for p in twins]:
        (boxes,) = (item.expect for item in picture.items if item.task == "detect")
        assert max(map(len, boxes.values())) >= most
        assert (most == 1) == (max(map(len, boxes.values())) == 1)
        assert sum(map(len, boxes.values())) >= 3
    for picture in colours:
        (boxes,) = (item.expect for item in picture.items if item.task == "detect")
        assert sum(label in {thing.label for thing in things() if thing.colour} for label in boxes) > 1


def test_between_them_they_show_every_task_and_language(shown):
    items = [item for picture in shown for item in picture.items]
    assert {item.task for item in items} == {"caption", "ask", "detect", "segment", "describe_box", "ocr"}
    assert {item.arguments["lang"] for item in items if item.task == "caption"} == set(LANGUAGES)
    for picture in shown:
        asked = [(item.task, json.dumps(item.arguments)) for item in picture.items]
        assert len(set(asked)) == len(asked), "nothing is asked twice"
        assert all(item.expect for item in picture.items)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    world = World(Split.TEST, seed=7)
    return [world.scene(index) for index in range(60)]


def test_who_knows_the_truth_has_every_answer_right(shown, scenes):
    """Which are test scenes, and are asked and judged as `paligemma demo` does it."""
    knowing, blind = Knowing(scenes), Blind("rubbish")
    for picture in shown:
        assert all(answered.right for answered in demo.answer(knowing, picture))  # pyright: ignore[reportArgumentType]
        assert not any(answered.right for answered in demo.answer(blind, picture))  # pyright: ignore[reportArgumentType]


def test_scenes_that_a_model_errs_on_are_passed_over_and_counted(written, scenes, tmp_path):
    class Weak(Knowing):
        """Cannot tell what is in the first picture of the demo."""

        def _caption(self, picture: str, lang: str) -> Caption:
            return Caption("?") if picture == name_of(first) else super()._caption(picture, lang)

    first = pixels_of(written.parent / "objects1.png")
    chosen = write_demo(tmp_path / "weak", seed=7, model=Weak(scenes))  # pyright: ignore[reportArgumentType]
    assert not any(np.array_equal(pixels_of(path), first) for path in chosen.parent.glob("*.png"))
    assert np.array_equal(pixels_of(chosen.parent / "objects1.png"), pixels_of(written.parent / "objects2.png"))
    told = (chosen.parent / "README.md").read_text()
    assert "8 were taken and\n1 passed over" in told
    everything = write_demo(tmp_path / "knowing", seed=7, model=Knowing(scenes))  # pyright: ignore[reportArgumentType]
    assert everything.read_bytes() == written.read_bytes()


def test_a_model_that_errs_everywhere_makes_no_demo(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_SCENES", 20)
    with pytest.raises(PaliGemmaError, match="20 scenes do not make a demo"):
        write_demo(tmp_path, seed=7, model=Blind("rubbish"))  # pyright: ignore[reportArgumentType]


def test_the_demo_is_the_same_every_time(written, tmp_path):
    again, other = write_demo(tmp_path / "again", seed=7), write_demo(tmp_path / "other", seed=8)
    assert again.read_bytes() == written.read_bytes() != other.read_bytes()
    for path in written.parent.glob("*.png"):
        assert np.array_equal(pixels_of(path), pixels_of(again.parent / path.name))
