"""Videos that are followed: numbers that stay with their things, scenes that end where the picture changes, rows in order."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paligemma.errors import InputError
from paligemma.jobs import work
from paligemma.jobs.asked import all_asked
from paligemma.jobs.items import items
from paligemma.jobs.videos import LONGEST, Scenes, Tracks, groups
from paligemma.jobs.work import Order, answer, open_item
from paligemma.predictor import Predictor
from paligemma.results import Box, Detections
from paligemma.video import WINDOW, frames_every

from .. import tiny

av = pytest.importorskip("av")


def film(path: Path, colours: list[str], rate: int = 2, side: int = 64) -> Path:
    """A frame of each colour, so many a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = side
        for colour in colours:
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (side, side), colour))))
        container.mux(stream.encode())
    return path


def test_a_frame_every_so_many_seconds(tmp_path):
    path = film(tmp_path / "a.mp4", ["black", "white"] * 4)  # four seconds
    found = list(frames_every(path, 0.5))
    assert [seconds for seconds, _ in found] == [0.25 + 0.5 * place for place in range(8)]
    assert [picture.getpixel((9, 9))[0] > 128 for _, picture in found] == [False, True] * 4
    assert [seconds for seconds, _ in frames_every(path, 3)] == [1.5]
    assert len(list(frames_every(path, 60))) == 1


def test_frames_come_window_by_window_without_a_seam(tmp_path):
    count = 2 * WINDOW + 3
    path = film(tmp_path / "a.mp4", ["black", "white"] * count, rate=10)
    found = list(frames_every(path, 0.1))
    assert len(found) == 2 * count
    assert [seconds for seconds, _ in found] == pytest.approx([0.05 + 0.1 * place for place in range(2 * count)])
    assert [picture.getpixel((9, 9))[0] > 128 for _, picture in found] == [False, True] * count
    exact = film(tmp_path / "b.mp4", ["black"] * WINDOW, rate=10)
    assert len(list(frames_every(exact, 0.1))) == WINDOW


def test_a_broken_video_says_so(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(InputError):
        list(frames_every(tmp_path / "a.mp4", 0.5))


# Scenes


def scenes(colours: list[object], every: float = 0.5) -> list[tuple[float, float, int]]:
    made: Scenes[int] = Scenes(every)
    found = [made.add((place + 0.5) * every, Image.new("RGB", (40, 30), colour), place) for place, colour in enumerate(colours)]  # type: ignore[arg-type]
    return [(scene.start, scene.stop, scene.middle) for scene in [*found, made.end()] if scene]


def test_a_scene_ends_where_the_picture_changes():
    assert scenes(["red"] * 4 + ["blue"] * 3) == [(0.0, 2.0, 2), (2.0, 3.5, 5)]
    assert scenes(["red"]) == [(0.0, 0.5, 0)]
    assert scenes([]) == []


def test_a_thing_that_moves_ends_no_scene():
    frames = []
    for place in range(8):
        pixels = np.full((112, 112, 3), 90, np.uint8)
        pixels[30:70, 8 * place : 8 * place + 40] = 255
        frames.append(Image.fromarray(pixels))
    made: Scenes[int] = Scenes(0.5)
    assert all(made.add(place / 2, frame, place) is None for place, frame in enumerate(frames))


def test_a_long_scene_is_several():
    found = scenes(["red"] * (LONGEST + 5))
    assert [(start, stop) for start, stop, _ in found] == [(0.0, LONGEST / 2), (LONGEST / 2, (LONGEST + 5) / 2)]


# Tracks


@pytest.fixture
def tracks() -> Tracks:
    pytest.importorskip("trackers")
    return Tracks(0.5)


def boxes(*found: tuple[str, float, float]) -> Detections:
    return Detections(tuple(Box(label, x, 10, x + 20, 30, score) for label, x, score in found), 200, 100)


def test_numbers_stay_with_their_things(tracks):
    ways: dict[str, list[int | None]] = {"right": [], "left": [], "late": []}
    for place in range(6):  # two that move towards each other, whose order in the answer changes, and a third that comes later
        there = {"right": 10 + 4 * place, "left": 150 - 4 * place} | ({"late": 80} if place > 2 else {})
        order = list(there) if place % 2 else list(there)[::-1]
        numbers = tracks.add(boxes(*(("cat", there[name], 0.9) for name in order)), (place + 0.5) * 0.5)
        for name, number in zip(order, numbers, strict=True):
            ways[name].append(number)
    assert [way[0] for way in ways.values()] == [None] * 3
    assert [len(set(way[1:])) for way in ways.values()] == [1] * 3
    assert sorted(way[-1] for way in ways.values()) == [1, 2, 3]
    assert ways["late"][-1] == 3


def test_other_names_are_other_things(tracks):
    for place in range(3):
        numbers = tracks.add(boxes(("cat", 10, 0.9), ("dog", 10, 0.9)), place / 2)
    assert sorted(numbers) == [1, 2]


def test_an_unsure_box_continues_a_track_and_begins_none(tracks):
    tracks.add(boxes(("cat", 10, 0.9)), 0.0)
    assert tracks.add(boxes(("cat", 10, 0.9), ("cat", 90, 0.2)), 0.5) == (1, None)
    assert tracks.add(boxes(("cat", 11, 0.2), ("cat", 90, 0.2)), 1.0) == (1, None)


def test_what_is_hidden_for_a_moment_is_the_same_and_for_long_another(tracks):
    for place in range(3):
        tracks.add(boxes(("cat", 10, 0.9)), place / 2)
    tracks.add(boxes(), 1.5)
    assert tracks.add(boxes(("cat", 10, 0.9)), 2.0) == (1,)
    for place in range(5, 20):
        tracks.add(boxes(), place / 2)
    for place in range(20, 23):
        numbers = tracks.add(boxes(("cat", 10, 0.9)), place / 2)
    assert numbers == (2,)


# A job


def test_a_video_is_followed(tmp_path):
    pytest.importorskip("trackers")
    predictor = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer())
    film(tmp_path / "a.mp4", ["red"] * 4 + ["blue"] * 4)
    Image.new("RGB", (8, 6)).save(tmp_path / "b.png")
    (tmp_path / "c.mp4").write_bytes(b"no video")
    order = Order(all_asked(["caption", "detect:cat"]), {"max_tokens": 12}, {"max_objects": 2}, every=0.5)
    done = answer(predictor, order, [open_item(item, predictor.config, order) for item in items(tmp_path)])
    assert [one.id for one in done] == ["a.mp4", "b.png", "c.mp4"]
    followed, picture, broken = done
    captions = [row for row in followed.rows if row["task"] == "caption"]
    frames = [row for row in followed.rows if row["task"] == "detect:cat"]
    assert [(row["seconds"], row["until"]) for row in captions] == [(0.0, 2.0), (2.0, 4.0)]
    assert [row["seconds"] for row in frames] == [0.25 + 0.5 * place for place in range(8)]
    assert all(len(row["tracks"]) == len(row["result"]["boxes"]) for row in frames)
    assert [row["task"] for row in picture.rows] == ["caption", "detect:cat"]
    assert "seconds" not in picture.rows[0]
    assert (broken.rows, broken.errors[0]["error"]["code"]) == ((), "video_damaged")


def test_of_a_video_that_breaks_off_what_came_before_is_kept(tmp_path, monkeypatch):
    predictor = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer())
    film(tmp_path / "a.mp4", ["red"] * 4 + ["blue"] * 4)

    def breaks_off(path, every):
        yield from itertools.islice(frames_every(path, every), 6)
        raise InputError("a.mp4: damaged here", code="video_damaged")

    monkeypatch.setattr(work, "frames_every", breaks_off)
    order = Order(all_asked(["caption"]), {"max_tokens": 3}, every=0.5)
    (done,) = answer(predictor, order, [open_item(item, predictor.config, order) for item in items(tmp_path)])
    assert [(row["seconds"], row["until"]) for row in done.rows] == [(0.0, 2.0), (2.0, 3.0)]
    assert [row["error"]["code"] for row in done.errors] == ["video_damaged"]


def test_words_alone_need_one_frame_a_scene(tmp_path, monkeypatch):
    predictor = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer())
    seen: list[int] = []
    encode = predictor.network.encode
    monkeypatch.setattr(predictor.network, "encode", lambda pixels: seen.append(len(pixels)) or encode(pixels))
    film(tmp_path / "a.mp4", ["red"] * 4 + ["blue"] * 4)
    order = Order(all_asked(["caption", "ocr"]), {"max_tokens": 3}, every=0.5)
    (done,) = answer(predictor, order, [open_item(item, predictor.config, order) for item in items(tmp_path)])
    assert [row["task"] for row in done.rows] == ["caption", "caption", "ocr", "ocr"]
    assert seen == [1, 1]


def test_groups():
    assert [len(group) for group in groups(iter([(0.0, None)] * 7), 3)] == [3, 3, 1]  # type: ignore[list-item]
