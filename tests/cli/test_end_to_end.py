"""The command line on a real, tiny, random model: every task, every option that changes how it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from paligemma.checkpoint import save_codec, save_huggingface
from paligemma.checkpoint.finding import BUNDLED

from ..tiny import random_codec, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = save_huggingface(tiny_model(), tmp_path_factory.mktemp("models") / "tiny")
    tiny_tokenizer().save(folder)
    save_codec(random_codec(), folder)
    return folder


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["caption", "--lang", "de", "--length", "short"], "caption"),
        (["ask", "how many dogs are there?"], "answer"),
        (["ask", "how many?", "--temperature", "1", "--best-of", "2", "--seed", "1"], "answer"),
        (["detect", "cat ; dog", "--max-objects", "2"], "detections"),
        (["detect", "cat", "--unconstrained"], "detections"),
        (["segment", "cat", "--max-objects", "1"], "masks"),
        (["ocr", "--beams", "2"], "reading"),
        (["question", "two"], "question"),
        (["describe-box", "1,1,20,20"], "caption"),
        (["run", "any prompt"], "text"),
    ],
)
def test_every_task(command, kind, tiny, call, picture, tmp_path):
    name, *rest = command
    pictures = [picture("a.png", 30, 22), picture("b.png", 25, 40), picture("c.png", 22, 22)]
    done = call(name, *pictures, *rest, "--model", tiny, "--max-tokens", 24, "--json", "--batch", 2, "--out", tmp_path / "drawn")
    assert done.code == 0
    cut = sum(record["result"]["stop"] == "length" for record in done.records)
    drawn = f"drawn: {tmp_path / 'drawn'} (3 pictures)\n"
    warning = f"warning: {cut} of 3 answers reached --max-tokens and {'was' if cut == 1 else 'were'} cut off\n" if cut else ""
    assert done.err == drawn + warning
    assert [record["result"]["type"] for record in done.records] == [kind] * 3
    assert [Path(record["source"]).name for record in done.records] == ["a.png", "b.png", "c.png"]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("command", [["caption"], ["detect", "cat", "--max-objects", "1"]])
def test_what_is_streamed_is_the_answer(command, tiny, call, picture):
    name, *rest = command
    arguments = (name, picture("a.png"), *rest, "--model", tiny, "--max-tokens", 8)
    streamed, (record,) = call(*arguments, "--stream"), call(*arguments, "--json").records
    assert streamed.code == 0
    assert streamed.lines[0].strip() == record["result"]["text"].strip()


@pytest.mark.parametrize(
    ("command", "parts"), [(["caption"], None), (["ask", "how many?"], None), (["ocr"], None), (["run", "any prompt"], None),
                           (["detect", "cat", "--max-objects", "1"], 1), (["segment", "cat", "--max-objects", "1"], 1)],
)  # fmt: skip
def test_answers_are_explained(command, parts, tiny, call, picture, tmp_path):
    name, *rest = command
    pictures = [picture("a.png", 30, 22), picture("b.png", 25, 40)]
    arguments = (name, *pictures, *rest, "--model", tiny, "--max-tokens", 24)
    plain = call(*arguments, "--json").records
    done = call(*arguments, "--json", "--explain", "--batch", 2, "--out", tmp_path / "drawn")
    assert done.code == 0
    for record, before in zip(done.records, plain, strict=True):
        more = record["result"].pop("explanation")
        assert record["result"]["text"] == before["result"]["text"]
        assert more["grid"] == ([2, 2] if more["tokens"] else [0, 0])
        assert all(len(token["likely"]) <= 5 and len(token["heat"]) == 2 for token in more["tokens"])
        assert parts is None or len(more["parts"]) <= parts
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.png", "b.png"]


def test_explained_for_people(call):
    picture = BUNDLED / "demo" / "objects1.png"
    done = call("ask", picture, "what color is the heart?", "--explain", "--model", "bundled", "--device", "cpu")
    assert done.lines == ["green", "  green  100%  looked at x 49, y 63"]


def test_a_clip_of_two_pictures(tiny, call, picture):
    done = call("ask", picture("a.png"), picture("b.png"), "what?", "--together", "--model", tiny, "--max-tokens", 3, "--json")
    assert [" + " in record["source"] for record in done.records] == [True]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["caption", "--model", "{tmp}/nowhere"], 4, "error[not_found]"),
        (["caption", "--model", "{tmp}/a.png"], 4, "error["),
        (["caption", "--model", "owner/model"], 4, "paligemma pull owner/model"),
        (["caption", "--lang", "xx"], 2, "'xx'"),
        (["caption", "--top-p", "0.5"], 2, "top_p"),
        (["caption", "--device", "abacus"], 2, "'abacus'"),
        (["ask", " "], 2, "the question is empty"),
        (["describe-box", "100,100,200,200"], 3, "a.png: "),
        (["caption", "--tokenizer", "{tmp}/a.png"], 4, "error["),
        (["caption", "--frames", "0"], 2, "--frames must be at least 1, got 0"),
        (["caption", "--model", "paligemma2-3b-224"], 4, "for example google/paligemma2-3b-pt-224"),
        (["caption", "--explain", "--stream"], 2, "leave one of them out"),
        (["caption", "--explain", "--beams", "2"], 2, "leave beams out"),
        (["caption", "{tmp}/a.png", "--together", "--explain"], 2, "only answers about one picture"),
        (["ask"], 2, 'for example: paligemma ask photo.jpg "how many dogs are there?"'),
    ],
)
def test_wrong_input_at_every_door(arguments, code, says, tiny, call, picture, tmp_path):
    name, *rest = (argument.format(tmp=tmp_path) for argument in arguments)
    model = [] if "--model" in rest else ["--model", tiny]
    done = call(name, picture("a.png"), *rest, *model)
    assert done.code == code
    assert says in done.err
    assert len(done.err.splitlines()) <= 2
    assert done.out == ""


def test_a_comma_in_a_name_is_pointed_out(tiny, call, picture):
    done = call("detect", picture("a.png"), "owl, fish", "--model", tiny, "--max-objects", 1)
    assert done.code == 0
    assert done.err.startswith("note: 'owl, fish' is looked for as one name; `;` separates several")


def test_a_model_named_in_the_environment_is_named_as_such(call, picture, monkeypatch, tmp_path):
    monkeypatch.setenv("PALIGEMMA_MODEL", str(tmp_path / "nonsense"))
    done = call("caption", picture("a.png"))
    assert done.code == 4
    assert "PALIGEMMA_MODEL: " in done.err


def test_a_text_file_is_no_picture(tiny, call, tmp_path):
    (tmp_path / "a.jpg").write_text("hello")
    done = call("caption", tmp_path / "a.jpg", "--model", tiny)
    assert done.code == 3
    assert "a.jpg" in done.err
    assert len(done.err.splitlines()) <= 2


def test_a_drawing_is_larger_than_a_small_picture(tiny, call, picture, tmp_path):
    assert call("detect", picture("a.png", 30, 20), "cat", "--model", tiny, "--max-objects", 1, "--out", tmp_path / "x.jpg").code == 0
    assert Image.open(tmp_path / "x.jpg").width > 30
