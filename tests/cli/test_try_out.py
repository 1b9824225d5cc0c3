"""What a finished run prints can be pasted into a shell, whatever folders, prompts and classes are called."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from paligemma.cli.try_out import try_out
from paligemma.data.records import DataSet, Record, Thing

PICTURE = Path("a folder/it's 1.png")
CAT = (Thing("cat", (0, 0, 1, 1)),)


def data(*records: Record, classes: tuple[str, ...] = ()) -> DataSet:
    return DataSet(Path("data"), "jsonl", "mixed", records, classes=classes)


def record(task: str, prompt: str = "", pictures=(PICTURE,), **more) -> Record:
    return Record("1", task, pictures, "line 1", prompt, ("yes",), **more)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (record("caption", "caption en"), ["caption", str(PICTURE)]),
        (record("caption", "caption de"), ["run", str(PICTURE), "caption de"]),
        (record("answer", 'answer en is it $5; "big"?'), ["run", str(PICTURE), 'answer en is it $5; "big"?']),
        (record("run", ""), ["run", str(PICTURE), ""]),
        (record("detect", things=CAT), ["detect", str(PICTURE), "cat ; hot dog"]),
        (record("segment", things=CAT, asked=("the cat",)), ["segment", str(PICTURE), "the cat"]),
        (record("refer", things=CAT, asked=("the cat on the left",)), ["refer", str(PICTURE), "the cat on the left"]),
        (record("run", "what changed?", (PICTURE, Path("b.png"))), ["run", str(PICTURE), "b.png", "what changed?", "--together"]),
        (record("caption", "caption en", (Path("-x.png"),)), ["caption", "./-x.png"]),
    ],
)
def test_it_reads_as_it_was_meant(asked, words):
    line = try_out(Path("my run") / "best", data(asked, classes=("cat", "hot dog")))
    assert "\n" not in line
    assert shlex.split(line) == ["paligemma", *words, "--model", "my run/best"]


def test_what_cannot_be_typed_is_passed_over():
    odd = [record("run", "two\nlines"), record("run", "--help"), record("run", "x", (Path("a\x1b.png"),)), record("run", "plain")]
    assert shlex.split(try_out(Path("m"), data(*odd)))[3] == "plain"
    assert try_out(Path("m"), data(*odd[:3])) == "paligemma run PICTURE PROMPT --model m"


def test_other_options_come_before_the_model():
    line = try_out(Path("m"), data(record("run", "x", (Path("a.png"),))), ["--tokenizer", "my tokenizer.model"])
    assert line == "paligemma run a.png x --tokenizer 'my tokenizer.model' --model m"
