"""`paligemma demo`: says first what the model does not know, then what it answers, and where the page is."""

from __future__ import annotations

import json

import pytest
from PIL import Image

import paligemma
from paligemma.demo import HONEST, pictures
from paligemma.results import Answer, Detections


@pytest.fixture
def small_demo(tmp_path, monkeypatch):
    folder = tmp_path / "bundle"
    folder.mkdir()
    Image.new("RGB", (20, 20)).save(folder / "scene.png")
    items = [
        {"task": "ask", "question": "how many?", "expect": "1"},
        {"task": "detect", "classes": ["cat"], "expect": {"cat": [[1, 2, 3, 4]]}},
    ]
    (folder / "demo.json").write_text(json.dumps([{"image": "scene.png", "items": items}]))
    monkeypatch.setattr("paligemma.demo.bundled_pictures", lambda: pictures(folder))

    class Model:
        description = "a model\nfrom somewhere"

        def encode(self, image):
            return image

        def ask(self, image, question):
            return Answer("1")

        def detect(self, image, classes):
            return Detections((), image.width, image.height, picture=image)

    monkeypatch.setitem(vars(paligemma), "load", lambda *_, **__: Model())
    return tmp_path / "out"


def test_the_first_lines_are_honest_and_the_last_says_where(small_demo, call):
    done = call("demo", "--out", small_demo)
    assert done.code == 0
    assert tuple(done.lines[: len(HONEST)]) == HONEST
    assert "--model" in done.lines[len(HONEST)]
    assert "  ok  how many?" in done.lines
    assert "  --  detect cat" in done.lines
    assert done.lines[-1] == f"1 of 2 as expected. Drawings are in {small_demo}, the page to look at is {small_demo / 'index.html'}"
    assert (small_demo / "index.html").is_file()


def test_as_json(small_demo, call):
    records = call("demo", "--out", small_demo, "--json").records
    assert [(record["task"], record["right"]) for record in records] == [("ask", True), ("detect", False)]


def test_without_bundled_pictures_it_says_so(call, monkeypatch, tmp_path):
    monkeypatch.setattr("paligemma.demo.resources.files", lambda _: tmp_path)
    done = call("demo", "--out", tmp_path / "out")
    assert done.code == 4
    assert "no demo pictures" in done.err
