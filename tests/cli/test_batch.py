"""Many inputs: what is shown, what fails, what is drawn, and the exit code."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

from paligemma.errors import InputError
from paligemma.results import Answer, Box, Detections


def test_one_picture(call, model, picture):
    done = call("ask", picture("a.png", 8, 6), "what is it?")
    assert (done.code, done.out, done.err) == (0, "8 x 6\n", "")
    assert model.asked[0][:3] == ("ask", 1, ("what is it?",))


def test_several_pictures_are_named_in_order(call, model, picture):
    paths = [picture("a.png", 8, 6), picture("b.png", 7, 5)]
    done = call("ask", *paths, "what?")
    assert done.lines == [f"{paths[0]}: 8 x 6", f"{paths[1]}: 7 x 5"]


def test_a_folder_with_five_broken_of_a_hundred(call, model, picture, tmp_path):
    for number in range(100):
        picture(f"album/{number}.png", 8 + number, 6)
    broken = [3, 14, 15, 92, 65]
    for number in broken:
        (tmp_path / f"album/{number}.png").write_bytes(b"no picture")
    done = call("caption", tmp_path / "album", "--json", "--batch", 8)
    assert done.code == 6
    assert len(done.records) == 100
    results = [record["result"]["text"] for record in done.records if "result" in record]
    assert results == [f"{8 + number} x 6" for number in range(100) if number not in broken]
    failed = [record for record in done.records if "error" in record]
    assert [Path(record["source"]).name for record in failed] == [f"{number}.png" for number in sorted(broken)]
    errors = [line for line in done.err.splitlines() if line.startswith("error[")]
    assert all(f"{number}.png" in line for number, line in zip(sorted(broken), errors, strict=True))
    assert done.err.splitlines()[-1] == "5 of 100 inputs failed"


def test_a_single_failure_and_nothing_but_failures_are_code_3(call, model, tmp_path):
    one = call("caption", tmp_path / "a.png")
    two = call("caption", tmp_path / "a.png", tmp_path / "b.png")
    assert (one.code, two.code) == (3, 3)
    assert one.err.startswith("error[")
    assert "a.png" in one.err
    assert one.err.count("error[") == 1
    assert model.loaded == {}, "the model was loaded for nothing"


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1, 1, 1]), (2, [2, 1]), (5, [3])])
def test_batches(batch, sizes, call, model, picture):
    for name in "abc":
        picture(f"album/{name}.png")
    done = call("caption", picture("album/a.png").parent, "--batch", batch)
    assert done.code == 0
    assert [asked[1] for asked in model.asked] == sizes


def test_json_lines_say_source_task_and_result(call, model, picture):
    path = picture("a.png")
    (record,) = call("detect", path, "cat", "--json").records
    assert record["source"] == str(path)
    assert record["task"] == "detect"
    assert record["result"]["type"] == "detections"
    assert record["result"]["boxes"] == [{"label": "cat", "x0": 1, "y0": 2, "x1": 8, "y1": 6, "score": 0.5}]


def test_together_is_one_question_about_all(call, model, picture):
    done = call("ask", picture("a.png"), picture("b.png"), "what changed?", "--together")
    assert done.lines == ["2 frames"]


def test_standard_input(call, model, picture, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(picture("a.png", 9, 4).read_bytes())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert call("caption", "-").lines == ["9 x 4"]


@pytest.mark.parametrize("command", ["ask", "detect", "segment", "refer", "question", "describe-box", "run"])
def test_a_picture_where_the_words_belong(command, call, model, picture):
    """The question was forgotten, or came first."""
    for words in (picture("b.png"), "what is it?"):
        done = call(command, words, picture("a.png"))
        assert done.code == 2
        assert "a.png is a picture, where the words were expected" in done.err
    assert not model.asked


@pytest.mark.parametrize(("words", "quoted"), [(["what", "color", "is", "it?"], "what color is it?"), (["owl", "fish"], "owl fish")])
def test_words_without_quotes(words, quoted, call, model, picture):
    done = call("ask", picture("a.png"), *words)
    assert (done.code, model.asked) == (2, [])
    assert f"no file or folder '{words[0]}'" in done.err
    assert f'quote them: "{quoted}"' in done.err


def test_a_missing_picture_among_others_is_no_word(call, model, picture, tmp_path):
    assert call("ask", picture("a.png"), tmp_path / "b.png", "c.png", "what?").code == 6


@pytest.mark.parametrize(
    ("command", "said"),
    [("ask", "what to ask: one of the two is missing"), ("describe-box", "one of the two is missing"), ("caption", "needs pictures\n")],
)
def test_what_is_missing(command, said, call, model):
    done = call(command, *([] if command == "caption" else ["a.png"]))
    assert done.code == 2
    assert said in done.err


def test_a_dash_is_standard_input_only_among_the_pictures(call, model, picture):
    call("ask", picture("a.png"), "-")
    assert model.asked[0][2] == ("-",)


def test_a_task_without_words(call, model, picture):
    call("run", picture("a.png"), "", "--task", "ocr")
    task, _, arguments, _ = model.asked[0]
    assert (task, len(arguments)) == ("task", 1), "the pictures alone"


def test_an_empty_model_is_no_choice_but_an_empty_variable_is(call, model, picture, monkeypatch):
    done = call("caption", picture("a.png"), "--model", "")
    assert (done.code, model.asked) == (2, [])
    monkeypatch.setenv("PALIGEMMA_MODEL", "")
    assert call("caption", picture("a.png")).code == 0


def test_where_drawings_went_is_said(call, model, picture, tmp_path):
    one, two = picture("a.png"), picture("b.png")
    assert call("caption", one, "--out", tmp_path / "x.png").err == f"drawn: {tmp_path / 'x.png'}\n"
    assert call("caption", one, two, "--out", tmp_path / "drawn").err == f"drawn: {tmp_path / 'drawn'} (2 pictures)\n"


def test_describe_box_as_a_task_of_run_and_edges_outside(call, model, picture):
    path = picture("a.png")
    call("run", path, "1,2,3,4", "--task", "describe-box")
    call("describe-box", path, "-1,2,3,4")
    assert [(task, arguments) for task, _, arguments, _ in model.asked] == [
        ("describe_box", ((1.0, 2.0, 3.0, 4.0),)),
        ("describe_box", ((-1.0, 2.0, 3.0, 4.0),)),
    ]


def test_out_must_name_something(call, model, picture):
    done = call("caption", picture("a.png"), "--out", "")
    assert (done.code, model.asked) == (2, [])
    assert "--out names no file or folder" in done.err


def test_options_reach_the_model(call, model, picture):
    how = ["--temperature", 0.5, "--top-p", 0.9, "--best-of", 3, "--seed", 7, "--max-tokens", 20]
    call("caption", picture("a.png"), "--lang", "de", "--length", "long", "--model", "m", "--dtype", "bfloat16", "--codec", "c.npz", *how)
    assert model.loaded == {"model": "m", "codec": Path("c.npz"), "dtype": "bfloat16"} | dict.fromkeys(
        ("tokenizer", "device", "engine", "quantize")
    )
    _, _, _, options = model.asked[0]
    assert options == {"lang": "de", "length": "long", "temperature": 0.5, "top_p": 0.9, "best_of": 3, "seed": 7, "max_tokens": 20} | {
        "beams": 1,
        "batch_size": 1,
    }


def test_the_environment_names_a_model_and_the_command_line_another(call, model, picture, monkeypatch):
    monkeypatch.setenv("PALIGEMMA_MODEL", "mine")
    assert call("caption", picture("a.png")).code == 0
    assert model.loaded["model"] == "mine"
    assert call("caption", picture("a.png"), "--model", "another").code == 0
    assert model.loaded["model"] == "another"


def test_no_model_is_named_by_an_empty_variable(call, model, picture, monkeypatch):
    monkeypatch.setenv("PALIGEMMA_MODEL", "")
    assert call("caption", picture("a.png")).code == 0
    assert not model.loaded["model"]


def test_options_of_places_reach_the_model(call, model, picture):
    call("detect", picture("a.png"), "cat", "--min-score", 0.5, "--max-objects", 3, "--unconstrained")
    _, _, _, options = model.asked[0]
    assert {name: options[name] for name in ("min_score", "max_objects", "constrained", "free_labels")} == {
        "min_score": 0.5,
        "max_objects": 3,
        "constrained": False,
        "free_labels": False,
    }


def test_a_stream_is_shown_as_it_comes(call, model, picture):
    done = call("ask", picture("a.png", 8, 6), "what?", "--stream")
    assert done.out == "8|x|6|\n"


def test_a_stream_of_boxes_ends_with_the_boxes(call, model, picture):
    paths = [picture("a.png"), picture("b.png")]
    done = call("detect", *paths, "cat", "--stream")
    assert done.lines == [line for path in paths for line in (f"{path}: <loc0001>|cat|", "cat  x 1-8, y 2-6  50%")]


def test_one_picture_that_does_not_suit_the_question_fails_alone(call, model, picture, monkeypatch):
    def describe_box(inputs, box, **how):
        if any(image.width < box[2] for image in inputs):
            raise InputError("the box lies outside the picture")
        return [model.answer("describe_box", image) for image in inputs]

    monkeypatch.setattr(model, "describe_box", describe_box, raising=False)
    done = call("describe-box", picture("a.png", 30), picture("b.png", 8), picture("c.png", 30), "1,2,20,4", "--batch", 3)
    assert done.code == 6
    assert [line.rpartition("/")[2] for line in done.lines] == ["a.png: 30 x 6", "c.png: 30 x 6"]
    assert "b.png" in done.err


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (["detect", "cat ; dog;"], (["cat", "dog"],)),
        (["segment", "the cat on the left"], (["the cat on the left"],)),
        (["question", "two"], ("two",)),
        (["describe-box", "1, 2,3 4.5"], ((1.0, 2.0, 3.0, 4.5),)),
        (["run", "  answer en what? "], ("  answer en what? ",)),
        (["refer", "the man in red"], ("the man in red",)),
        (["ocr"], ()),
    ],
)
def test_what_each_command_asks(command, arguments, call, model, picture):
    name, *text = command
    assert call(name, picture("a.png"), *text).code == 0
    task, _, asked, _ = model.asked[0]
    assert (task, asked) == (name.replace("-", "_"), arguments)


def test_a_task_by_name_gets_the_text(call, model, picture, monkeypatch):
    monkeypatch.setattr(
        model, "task", lambda name, inputs, text, **how: [Answer(f"{name}: {text}, {image.width}") for image in inputs], raising=False
    )
    assert call("run", picture("a.png", 8, 6), "two", "--task", "question").out == "question: two, 8\n"


def test_out_is_a_file_for_one(call, model, picture, tmp_path):
    assert call("detect", picture("a.png"), "cat", "--out", tmp_path / "new" / "boxes.png").code == 0
    assert Image.open(tmp_path / "new" / "boxes.png").width >= 8


def test_out_is_a_folder_for_several_and_no_name_is_used_twice(call, model, picture, tmp_path):
    paths = [picture("x/a.png"), picture("y/a.png"), picture("x/b c.png")]
    assert call("detect", *paths, "cat", "-o", tmp_path / "drawn").code == 0
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a-2.png", "a.png", "b_c.png"]


def test_no_drawing_replaces_an_input(call, model, picture, tmp_path, monkeypatch):
    paths = [picture("album/a.png"), picture("album/b.png")]
    before = [path.read_bytes() for path in paths]
    done = call("detect", paths[0], "cat", "--out", paths[0])
    assert (done.code, "would overwrite the input" in done.err) == (2, True)
    assert model.loaded == {}, "before anything is computed"
    assert call("detect", paths[0].parent, "cat", "--out", paths[0].parent).code == 0
    monkeypatch.chdir(paths[0].parent)
    assert call("detect", "a.png", "b.png", "cat", "--out", ".").code == 0
    assert [path.read_bytes() for path in paths] == before
    assert {path.name for path in paths[0].parent.iterdir()} == {"a.png", "b.png", "a-2.png", "b-2.png"}


def test_pictures_are_drawn_also_where_results_do_not_hold_them(call, model, picture, tmp_path, monkeypatch):
    """A predictor's results let go of the pictures of a long list."""
    monkeypatch.setattr(model, "answer", lambda task, image: Detections((Box("cat", 1, 2, 3, 4),), image.width, image.height))
    assert call("detect", picture("a.png", 9, 6), picture("b.png"), "cat", "--out", tmp_path / "drawn", "--batch", 2).code == 0
    assert len(list((tmp_path / "drawn").iterdir())) == 2


def test_a_video_that_cannot_be_read_here_spoils_no_picture(call, model, picture, monkeypatch):
    album = picture("album/a.png").parent
    (album / "b.mp4").write_bytes(b"video")
    picture("album/c.png")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = call("caption", album)
    assert done.code == 6
    assert [line.rpartition("/")[2] for line in done.lines] == ["a.png: 8 x 6", "c.png: 8 x 6"]
    assert "PyAV" in done.err


@pytest.mark.parametrize(
    ("pictures", "out", "says"),
    [
        (2, "boxes.png", "names one picture"),
        (1, "boxes.pdf", "ends in .pdf"),
        (2, "0.png/drawn", "is a file"),
        (1, "README", "is a file"),
    ],
)
def test_an_out_that_cannot_be_meant(pictures, out, says, call, model, picture, tmp_path):
    (tmp_path / "README").write_text("read me")
    done = call("detect", *[picture(f"{number}.png") for number in range(pictures)], "cat", "--out", tmp_path / out)
    assert done.code == 2
    assert says in done.err
    assert model.asked == [], "asked before looking at --out"


def test_a_name_that_would_steer_the_terminal_is_escaped(call, model, picture):
    paths = [picture("a\x1b[31m.png"), picture("b.png")]
    done = call("caption", *paths)
    assert "\x1b" not in done.out
    assert r"\x1b[31m.png: 8 x 6" in done.out


def test_no_note_about_the_bundled_model_where_nobody_watches(call, model, picture):
    assert call("caption", picture("a.png")).err == ""
