"""Questions and answers, each data set's JSON as its authors publish it, in small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paligemma.data.opening import open_data, splits
from paligemma.data.records import DataSet
from paligemma.errors import InputError, UsageError
from tests.annotations.world import codes, picture, pictures


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def vqav2(folder: Path, split: str = "train2014", questions: list[Any] | None = None, annotations: list[Any] | None = None) -> Path:
    for number in (42, 7):
        picture(folder / split / f"COCO_{split}_{number:012d}.jpg")
    answers = ["two", "2", "two", "two", "three", "two", "two", "two", "2", "two"]
    asked = [{"image_id": 42, "question": "How many?", "question_id": 42000}, {"image_id": 7, "question": "Is it?", "question_id": 7001}]
    number = {"question_type": "how many", "multiple_choice_answer": "two", "answer_type": "number", "image_id": 42, "question_id": 42000}
    yes = {"question_type": "is", "answer_type": "yes/no", "image_id": 7, "question_id": 7001, "answers": [{"answer": "yes"}]}
    said = [{"answer": answer, "answer_confidence": "yes", "answer_id": i} for i, answer in enumerate(answers, 1)]
    known = [{**number, "answers": said}, yes]
    head = {"info": {}, "data_type": "mscoco", "data_subtype": split, "license": {}}
    write(folder / f"v2_mscoco_{split}_annotations.json", {**head, "annotations": known if annotations is None else annotations})
    return write(
        folder / f"v2_OpenEnded_mscoco_{split}_questions.json",
        {**head, "questions": asked if questions is None else questions, "task_type": "x"},
    )


def test_vqav2(tmp_path):
    data = open_data(vqav2(tmp_path))
    assert (data.format, data.task) == ("vqa", "answer")
    first, second = data.records
    assert (first.id, first.prompt, first.pictures[0].name) == ("42000", "answer en How many?", "COCO_train2014_000000000042.jpg")
    assert first.answers == ("two", "2", "two", "two", "three", "two", "two", "two", "2", "two")  # as often as people said so
    assert first.about == {"question_type": "how many", "answer_type": "number", "image_id": 42}
    assert second.answers == ("yes",)


def test_a_folder_of_pairs(tmp_path):
    vqav2(tmp_path, "train2014")
    vqav2(tmp_path, "val2014")
    assert splits(tmp_path) == ("train", "valid")
    data = open_data(tmp_path, split="val")
    assert [record.pictures[0].parent.name for record in data.records] == ["val2014"] * 2
    assert [record.id for record in data.records] == ["valid/42000", "valid/7001"]


def test_the_file_of_annotations_finds_its_questions(tmp_path):
    vqav2(tmp_path)
    vqav2(tmp_path, "val2014")
    data = open_data(tmp_path / "v2_mscoco_val2014_annotations.json")
    assert [record.pictures[0].parent.name for record in data.records] == ["val2014"] * 2


@pytest.mark.parametrize(
    ("questions", "annotations", "expected"),
    [
        ([{"image_id": 42, "question": "?", "question_id": 1}], [], {"1": "answer"}),
        ([], [{"question_id": 1, "answers": [{"answer": "yes"}]}], {"answer 1": "field"}),
        ([{"image_id": 42, "question": "", "question_id": 1}], [{"question_id": 1, "answers": ["yes"]}], {"1": "field"}),
        ([{"image_id": 42, "question_id": 1}], [{"question_id": 1, "answers": ["yes"]}], {"1": "field"}),
        ([{"image_id": 42, "question": "?", "question_id": 1}], [{"question_id": 1, "answers": []}], {"1": "answer"}),
        ([{"image_id": 42, "question": "?", "question_id": 1}], [{"question_id": 1, "answers": [{"answer": " "}]}], {"1": "answer"}),
        ([{"image_id": 99, "question": "?", "question_id": 1}], [{"question_id": 1, "answers": ["yes"]}], {"1": "missing"}),
        ([{"question": "?", "question_id": 1}], [{"question_id": 1, "answers": ["yes"]}], {"1": "field"}),
    ],
)
def test_broken_pairs(tmp_path, questions, annotations, expected):
    good = [{"image_id": 42, "question": "How many?", "question_id": 2}], [{"question_id": 2, "answers": [{"answer": "two"}]}]
    file = vqav2(tmp_path, questions=[*good[0], *questions], annotations=[*good[1], *annotations])
    data = open_data(file, max_bad_share=1)
    assert codes(data) == expected
    assert [record.id for record in data.records] == ["2"]


def test_the_same_question_twice(tmp_path):
    question = {"image_id": 42, "question": "How many?", "question_id": 2}
    data = open_data(vqav2(tmp_path, questions=[question, question], annotations=[{"question_id": 2, "answers": ["two"]}]), max_bad_share=1)
    assert [fault.id for fault in data.faults] == ["2"]
    assert len(data) == 1


def single(folder: Path, value: object, name: str = "x.json", **options) -> DataSet:
    pictures(folder)
    return open_data(write(folder / name, value), max_bad_share=1, **options)


ASKED = {"image": "a.png", "question": "what?"}
BY_ID = {"image_id": "a", "question": "what?", "question_id": 3}
CHOICES = {**ASKED, "choices": ["p", "x"]}
WHAT, CHOOSE = "answer en what?", "answer en  what? choose from: p \t x"


@pytest.mark.parametrize(
    ("value", "name", "prompt", "answers"),
    [
        ({"dataset_name": "textvqa", "data": [{**BY_ID, "answers": ["x", "y"]}]}, "textvqa", WHAT, ("x", "y")),
        ({"dataset_name": "docvqa", "data": [{**ASKED, "questionId": 3, "answers": ["x"]}]}, "train_v1", "what?", ("x",)),
        ([{"imgname": "a.png", "query": "what?", "label": "x"}], "test_human", "what?", ("x",)),
        ([{**ASKED, "answers": [{"answer": "x", "answer_confidence": "yes"}], "answerable": 1}], "vizwiz", WHAT, ("x",)),
        ([{**ASKED, "answer": 3, "question_id": 7, "data_source": "imported"}], "tallyqa", WHAT, ("3",)),
        ({"17": {"imageId": "a", "question": "what?", "answer": "x", "fullAnswer": "it is x"}}, "gqa", WHAT, ("x",)),
        ([{**BY_ID, "choices": ["p", "x"], "correct_choice_idx": 1, "direct_answers": ["x", "x"]}], "aokvqa", WHAT, ("x", "x")),
        ([{**CHOICES, "correct_choice_idx": 1}], "choices", CHOOSE, ("x",)),
        ([{**CHOICES, "answer": 1}], "numbered_choice", CHOOSE, ("x",)),
        ({"data": [{"file_path": "a.png", "question": "what?", "answers": ["x"], "question_id": 1}]}, "stvqa", WHAT, ("x",)),
        ({"questions": [{**ASKED, "answer": "x"}]}, "questions", WHAT, ("x",)),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_single_files(tmp_path, value, name, prompt, answers):
    (record,) = single(tmp_path, value, f"{name}.json").records
    assert (record.task, record.prompt, record.answers) == ("answer", prompt, answers)
    assert record.pictures[0].name == "a.png"


def test_the_bare_question(tmp_path):
    (record,) = single(tmp_path, [{"image": "a.png", "question": " what? ", "answer": "x"}], task="run").records
    assert (record.task, record.prompt) == ("run", "what?")


def test_a_number_that_two_pictures_have_is_nobodys(tmp_path):
    picture(tmp_path / "x_7.png")
    picture(tmp_path / "y_07.png")
    good = {"image": "a.png", "question": "?", "answer": "x"}
    assert codes(single(tmp_path, [good, {"image_id": 7, "question": "?", "answer": "x"}])) == {"1": "missing"}


@pytest.mark.parametrize(("name", "code"), [("/etc/passwd", "path"), ("../x.png", "path"), (["a"], "field"), ("none.png", "missing")])
def test_names_of_pictures(tmp_path, name, code):
    good = {"image": "a.png", "question": "?", "answer": "x"}
    assert codes(single(tmp_path, [good, {**good, "image": name}, 5])) == {"1": code, "2": "field"}


def test_questions_without_answers(tmp_path):
    pictures(tmp_path)
    file = write(tmp_path / "x_questions.json", {"questions": [{"image_id": 1, "question": "?", "question_id": 1}]})
    with pytest.raises(InputError, match="no answers") as caught:
        open_data(file)
    assert caught.value.code == "no_answers"
    for name in ("x_one_annotations.json", "x_two_annotations.json"):
        write(tmp_path / name, {"annotations": [{"question_id": 1, "image_id": 1, "answers": []}]})
    with pytest.raises(UsageError, match="several files could hold the annotations"):
        open_data(file)
