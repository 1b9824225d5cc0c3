"""The file of predictions: what is written is read, whatever it holds; torn, broken and doubled lines; two writers."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma.errors import InputError, UsageError
from paligemma.evaluation.places import Place
from paligemma.evaluation.predictions import Prediction, appending, read_predictions
from paligemma.results import Answer, Box, Mask
from tests.evaluation.making import answered, detected, rectangle, rle, segmented

KINDS = [
    answered("a", "two dogs", ("2", "two"), prompt="answer en how many?", where="val.jsonl:1", about={"type": "count", "n": 3}),
    Prediction("e", "answer", "val.jsonl:2", ("x.png",), error={"code": "not_found", "message": "x.png: no such file"}),
    detected(
        "d", [Place("cat", (1, 2, 3, 4)), Place("crowd", (1, 2, 3, 4), ignored=True)], [Box("cat", 1, 2, 3.5, 4, 0.25)], asked=("cat",)
    ),
    segmented(
        "s",
        [Place("cat", (1, 2, 9, 9), rle(rectangle(1, 2, 9, 9)))],
        [Mask("cat", Box("cat", 1, 2, 8, 8, 0.5), rectangle(1, 2, 8, 8), 0.25, tuple(range(16)))],
    ),
]


def write(path, *predictions):
    with appending(path) as add:
        add(predictions)


@pytest.mark.parametrize("prediction", KINDS, ids=lambda one: one.task)
def test_what_is_written_is_read(tmp_path, prediction):
    write(tmp_path / "p.jsonl", prediction)
    assert read_predictions(tmp_path / "p.jsonl") == [prediction]
    assert len((tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()) == 1


@settings(max_examples=60)
@given(st.text(max_size=20), st.text(max_size=20), st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3))
def test_any_text_survives(tmp_path_factory, text, answer, about):
    path = tmp_path_factory.mktemp("p") / "p.jsonl"
    one = answered("a\u2028\n", text + "\x85\r", (answer, "\udc80"), about=about)
    write(path, one, KINDS[1])
    assert read_predictions(path) == [one, KINDS[1]]


def test_results_come_back_whole():
    assert KINDS[0].answer() == Answer("two dogs", 0.5)
    assert KINDS[2].answer().to_dict() == KINDS[2].result
    (mask,) = KINDS[3].answer()  # type: ignore[misc]
    assert mask.area == 42
    assert KINDS[3].found[0].rle == rle(rectangle(1, 2, 8, 8))
    assert KINDS[3].found[0].score == 0.25
    with pytest.raises(InputError, match=r"x.png: no such file"):
        KINDS[1].answer()


@pytest.mark.parametrize("torn", ['{"id": "b", "ta', "{", "\0\0\0", '{"id": "b"}'])
def test_a_line_that_was_not_finished_is_cut_off(tmp_path, torn):
    path = tmp_path / "p.jsonl"
    write(path, KINDS[0])
    with path.open("a") as file:
        file.write(torn)
    assert read_predictions(path) == [KINDS[0]]
    write(path, KINDS[2])
    assert read_predictions(path) == [KINDS[0], KINDS[2]]
    write(tmp_path / "new.jsonl")
    assert read_predictions(tmp_path / "new.jsonl") == []


def test_of_two_lines_with_one_id_the_later_counts(tmp_path):
    path = tmp_path / "p.jsonl"
    write(path, Prediction("a", "answer", error={"code": "x", "message": "y"}), KINDS[2])
    write(path, KINDS[0])
    assert read_predictions(path) == [KINDS[0], KINDS[2]]


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        "1",
        "{}",
        '{"id": "a", "task": "answer"}',
        '{"id": "a", "task": "dance", "result": {}}',
        '{"id": "a", "task": "detect", "result": {}, "things": [{"label": "x", "box": [1, 2]}]}',
        '{"id": "a", "task": "detect", "result": {}, "things": [3]}',
        '{"id": "a", "task": "detect", "result": {}, "size": [3]}',
        '{"id": "a", "task": "detect", "result": {}, "seconds": "x"}',
        "\0",
        '{"id": "a", "task": "answer", "result": {"score": 0.5}}',
        '{"id": "a", "task": "answer", "result": {"text": "x", "score": 1.5}}',
        '{"id": "a", "task": "answer", "result": {"text": "x", "score": "high"}}',
        '{"id": "a", "task": "detect", "result": {"text": "", "boxes": [{"label": "x"}]}}',
        '{"id": "a", "task": "detect", "result": {"text": ""}, "things": [{"label": "x", "box": [NaN, 0, 1, 1]}]}',
        '{"id": "a", "task": "segment", "size": [4, 4], "result": {"text": ""}, "things": [{"label": "x", "box": [0, 0, 1, 1], "rle": 1}]}',
        '{"id": "a", "task": "segment", "size": [4, 4], "result": {"text": ""}, "things": [{"label": "x", "box": [0, 0, 1, 1], '
        '"rle": {"size": [4, 4], "counts": "1oo"}}]}',
        '{"id": "a", "task": "segment", "size": [4, 3], "result": {"text": ""}, "things": [{"label": "x", "box": [0, 0, 1, 1], '
        '"rle": {"size": [4, 4], "counts": "@"}}]}',
    ],
)
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "p.jsonl"
    path.write_text(f"{KINDS[0].to_line()}\n{line}\n{KINDS[2].to_line()}\n")
    with pytest.raises(InputError, match="line 2: not a prediction"):
        read_predictions(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_predictions(tmp_path / "p.jsonl")


def test_only_one_process_adds_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    with appending(tmp_path / "p.jsonl") as add:
        with pytest.raises(UsageError, match="another process"), appending(tmp_path / "p.jsonl"):
            pass
        add(KINDS)
    assert read_predictions(tmp_path / "p.jsonl") == KINDS


def test_empty_fields_are_left_out():
    assert set(json.loads(KINDS[1].to_line())) == {"id", "task", "where", "pictures", "error"}
    assert json.loads(answered("a", "x", tokens=0, seconds=0.0).to_line())["tokens"] == 0
