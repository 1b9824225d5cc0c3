"""Formats are recognised, or the person is told what was found and what could have been."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from paligemma import data as package
from paligemma.data.formats import FORMATS, detect_format
from paligemma.errors import InputError, UsageError
from paligemma.tasks import TASKS
from tests.annotations.world import picture, pictures, supervised


def test_the_registry_is_whole():
    for name, reader in FORMATS.items():
        assert name == reader.name
        assert reader.description
        assert reader.recognised
        assert set(reader.tasks) <= TASKS.keys()


def test_readers_do_not_know_each_other():
    """But for what they share: rows of a table, and what a line of YOLO looks like."""
    names = {Path(reader.__file__).stem for reader in FORMATS.values()}  # pyright: ignore[reportAttributeAccessIssue]
    allowed = {("huggingface", "table"), ("caption_folder", "yolo")}
    for name in names:
        tree = ast.parse((Path(package.__path__[0]) / f"{name}.py").read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1}
        assert {(name, other) for other in imported & names} <= allowed


def test_nothing_and_nonsense(tmp_path):
    with pytest.raises(InputError, match="no such file") as caught:
        detect_format(tmp_path / "none")
    assert caught.value.code == "not_found"
    with pytest.raises(InputError, match="an empty folder"):
        detect_format(tmp_path)
    pictures(tmp_path)
    (tmp_path / "sub").mkdir()
    with pytest.raises(InputError, match=r"a folder with a\.png, b\.png, c\.png, d\.png, sub/") as caught:
        detect_format(tmp_path)
    assert caught.value.code == "unknown_format"
    assert all(name in str(caught.value.hint) for name in FORMATS)
    with pytest.raises(InputError, match=r"a file \.png, of "):
        detect_format(tmp_path / "a.png")
    with pytest.raises(UsageError) as caught:
        detect_format(tmp_path, format="cooc")
    assert caught.value.hint == "did you mean 'coco'?"
    with pytest.raises(InputError, match=r"expected for coco: a \.json file with images"):
        detect_format(tmp_path, format="coco")


def test_several_formats(tmp_path):
    supervised(tmp_path / "images").as_coco(annotations_path=str(tmp_path / "x.json"))
    supervised(tmp_path / "images").as_yolo(str(tmp_path / "images"), str(tmp_path / "labels"), str(tmp_path / "data.yaml"))
    with pytest.raises(UsageError, match=r"coco \(x\.json .*; yolo \(data\.yaml") as caught:
        detect_format(tmp_path)
    assert caught.value.hint == "say which: --format coco"
    assert detect_format(tmp_path, format="yolo").format == "yolo"
    assert detect_format(tmp_path / "data.yaml").format == "yolo"


def test_what_told_is_said(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "train.jsonl").write_text(json.dumps({"image": "a.png", "prefix": "x", "suffix": "y"}))
    found = detect_format(tmp_path)
    assert (found.format, found.why) == ("jsonl", "it holds train.jsonl")


@pytest.mark.parametrize("text", ["{}", "[]", "7", '{"a": [1, 2]}', '[{"a": 1}]', "{", "", '{"shapes": 1}', '{"annotations": []}'])
def test_other_json(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="no known format"):
        detect_format(tmp_path / "x.json")
    with pytest.raises(InputError, match="no known format"):
        detect_format(tmp_path)
