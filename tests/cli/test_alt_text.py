"""`paligemma alt-text` on a real, tiny model: where texts go, what is kept, and that no kill costs more than a moment."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest

from paligemma.checkpoint import save_huggingface
from paligemma.jobs import alt_texts, job
from paligemma.jobs.items import items

from ..jobs.making import album, lines, png
from ..tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = save_huggingface(tiny_model(), tmp_path_factory.mktemp("models") / "tiny")
    tiny_tokenizer().save(folder)
    return folder


@pytest.fixture
def alt(call, tiny):
    return lambda *arguments: call("alt-text", *arguments, "--model", tiny, "--batch", 2)


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*.txt")}


def test_files_beside_pictures_in_several_languages(alt, call, tiny, tmp_path):
    folder = album(tmp_path / "a", 3)
    done = alt(folder, "--lang", "en,de", "--doubt", 0)
    assert done.code == 0, done.err
    assert done.lines[0] == "6 alt texts of 3 pictures"
    assert sorted(texts(folder)) == [f"{n}.png.{lang}.txt" for n in range(3) for lang in ("de", "en")]
    (said,) = call("caption", folder / "1.png", "--lang", "de", "--model", tiny, "--json").records
    begins = texts(folder)["1.png.de.txt"].removesuffix("\n").removesuffix("…")
    assert " ".join(re.sub(r"<(loc|seg)\d+>", " ", said["result"]["text"]).split()).startswith(begins)
    assert max(map(len, texts(folder).values())) <= 126
    assert sorted(os.listdir(folder / ".alt-text.job")) == ["lock"]


def test_only_what_lacks_a_text_is_asked_and_what_is_there_is_kept(alt, tmp_path):
    folder = album(tmp_path / "a", 3)
    (folder / "1.png.en.txt").write_text("a person's words")
    (said,) = alt(folder, "--json").records
    assert (said["pictures"], said["texts"], said["had_theirs"]) == (2, 2, 1)
    assert texts(folder)["1.png.en.txt"] == "a person's words"
    (said,) = alt(folder, "--json").records
    assert (said["texts"], said["had_theirs"]) == (0, 3)
    (folder / "0a.png").write_bytes(png())
    (said,) = alt(folder, "--json").records
    assert (said["texts"], said["had_theirs"]) == (1, 3), "a site grows anywhere"
    (said,) = alt(folder, "--overwrite", "--json").records
    assert (said["texts"], said["had_theirs"]) == (4, 0)
    assert texts(folder)["1.png.en.txt"] != "a person's words"


def test_a_language_has_one_spelling(alt, tmp_path):
    folder = album(tmp_path / "a", 1)
    assert alt(folder, "--lang", "EN").code == 0
    assert list(texts(folder)) == ["0.png.en.txt"]
    (said,) = alt(folder, "--lang", "en, EN,en", "--json").records
    assert said["had_theirs"] == 1
    (said,) = alt(folder, "--lang", "en", "--json").records
    assert (said["texts"], said["had_theirs"]) == (0, 1)


def test_doubtful_and_cut_ones_are_said(alt, tmp_path):
    folder = album(tmp_path / "a", 2)
    out = tmp_path / "alt.csv"
    done = alt(folder, "--doubt", 1, "--most", 10, "--out", out)
    assert done.code == 0
    assert "2 doubtful, to be looked at: 0.png (en, " in done.out
    assert done.lines[-1] == f"table: {out}"
    found = list(csv.DictReader(out.open()))
    assert [row["doubtful"] for row in found] == ["true", "true"]
    cut = [row for row in found if row["cut"] == "true"]
    assert ("cut to 10 characters" in done.out) == bool(cut)
    assert all(len(row["alt"]) <= 10 for row in found)
    assert not texts(folder)


def test_pages_give_a_table_by_page_and_source(alt, tmp_path):
    folder = album(tmp_path / "site", 2)
    (folder / "index.html").write_text("<img src=1.png><img src=0.png alt='mine'><img src=/1.png><img src=none.png>")
    out = tmp_path / "alt.csv"
    done = alt(folder, "--html", "--out", out)
    assert done.code == 6
    assert done.err.startswith("error[missing]: index.html: none.png")
    assert [(row["page"], row["src"], row["lang"]) for row in csv.DictReader(out.open())] == [
        ("index.html", "1.png", "en"),
        ("index.html", "/1.png", "en"),
    ]
    assert alt(folder, "--html", "--out", out).lines[0] == "0 alt texts of 0 pictures; 1 had theirs"


@pytest.mark.parametrize("uses", [7, "page", [{"page": "a.html"}]])
def test_a_column_of_any_name_is_the_users_own(alt, tmp_path, uses):
    source = lines(album(tmp_path / "a", 1) / "t.jsonl", {"id": "x", "image": "0.png", "uses": uses})
    for texts in (1, 0):
        (said,) = alt(source, "--out", tmp_path / "alt.csv", "--json").records
        assert said["texts"] == texts
    assert [row["id"] for row in csv.DictReader((tmp_path / "alt.csv").open())] == ["x"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("source", ["tables", "tables/*"])
def test_a_table_may_lie_among_the_tables_it_is_about(alt, tmp_path, ending, source):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    album(tmp_path / "pictures", 1)
    (tmp_path / "tables").mkdir()
    lines(tmp_path / "tables" / "t.jsonl", {"id": "x", "image": "../pictures/0.png"})
    for texts in (1, 0):
        done = alt(tmp_path / source, "--image-root", tmp_path, "--out", tmp_path / "tables" / f"alt.{ending}", "--json")
        assert (done.code, done.records[0]["texts"]) == (0, texts), done.err


def test_the_source_is_not_written_over(alt, tmp_path):
    source = lines(album(tmp_path / "a", 1) / "t.jsonl", {"id": "x", "image": "0.png", "lang": "en", "alt": "mine"})
    before = source.read_bytes()
    done = alt(source, "--out", source)
    assert (done.code, "is the source" in done.err) == (2, True)
    assert source.read_bytes() == before


def test_some_and_all_failed(alt, tmp_path):
    folder = album(tmp_path / "a", 2, broken=(1,))
    done = alt(folder)
    assert (done.code, list(texts(folder))) == (6, ["0.png.en.txt"])
    assert done.err.startswith("error[image_unknown_format]")
    assert alt(folder).code == 6
    assert alt(folder / "1.png").code == 3


class Killed(BaseException):
    """As if the process ended here."""


@pytest.fixture
def asked(monkeypatch):
    """Ids of what the model is asked about; `die_before`: the process ends at that batch."""
    real = job.answer

    class Asked(list):
        die_before = 99

    seen = Asked()

    def answer(predictor, order, opened):
        seen.die_before -= 1
        if seen.die_before < 0:
            raise Killed
        seen.extend(one.item.id for one in opened)
        return real(predictor, order, opened)

    monkeypatch.setattr(job, "answer", answer)
    monkeypatch.setattr(job, "ITEMS", 2)
    return seen


def killed(alt, *arguments) -> None:
    """The command line makes a bug's exit code of what ends the process."""
    assert alt(*arguments).code == 1


@pytest.mark.parametrize("table", [False, True])
def test_a_killed_job_goes_on_and_asks_nothing_twice(alt, asked, tmp_path, table):
    whole, folder = album(tmp_path / "whole", 6), album(tmp_path / "a", 6)
    more = ("--out", tmp_path / "alt.csv") if table else ()
    alt(whole, *(("--out", tmp_path / "whole.csv") if table else ()))
    asked.clear()
    asked.die_before = 2
    killed(alt, folder, *more)
    assert not texts(folder)
    asked.die_before = 99
    assert alt(folder, *more).code == 0
    assert sorted(asked) == [f"{n}.png" for n in range(6)]
    assert texts(folder) == texts(whole)
    if table:
        assert (tmp_path / "alt.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("table", [False, True])
def test_a_site_that_changed_meanwhile_loses_nothing(alt, asked, tmp_path, table, overwrite):
    folder = album(tmp_path / "a", 6)
    more = [*(["--out", tmp_path / "alt.csv"] if table else []), *(["--overwrite"] if overwrite else [])]
    asked.die_before = 2
    killed(alt, folder, *more)
    asked.die_before = 99
    (folder / "0a.png").write_bytes(png())
    (folder / "3.png").unlink()
    asked.clear()
    (said,) = alt(folder, *more, "--json").records
    assert sorted(asked) == ["0a.png", "4.png", "5.png"]
    assert (said["finished"], said["pictures"], said["texts"]) == (True, 6, 6)
    if table:
        assert sorted(row["id"] for row in csv.DictReader((tmp_path / "alt.csv").open())) == [item.id for item in items(folder)]
    else:
        assert sorted(texts(folder)) == [f"{item.id}.en.txt" for item in items(folder)]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_place_that_came_meanwhile_has_its_row(alt, asked, tmp_path, overwrite):
    folder, out = album(tmp_path / "site", 3), tmp_path / "alt.csv"
    (folder / "b.html").write_text("<img src=0.png><img src=1.png><img src=2.png>")
    more = ["--html", "--out", out, *(["--overwrite"] if overwrite else [])]
    asked.die_before = 1
    killed(alt, folder, *more)
    asked.die_before = 99
    asked.clear()
    (folder / "c.html").write_text("<img src=0.png>")
    (said,) = alt(folder, *more, "--json").records
    assert (asked, said["texts"]) == (["2.png"], 3)
    found = [(row["page"], row["src"]) for row in csv.DictReader(out.open())]
    assert found == [("b.html", "0.png"), ("c.html", "0.png"), ("b.html", "1.png"), ("b.html", "2.png")]


def test_what_failed_before_the_end_is_tried_again(alt, asked, tmp_path):
    folder = album(tmp_path / "a", 4, broken=(0,))
    asked.die_before = 1
    killed(alt, folder)
    asked.die_before = 99
    asked.clear()
    (folder / "0.png").write_bytes(png())
    assert alt(folder).code == 0
    assert sorted(asked) == ["0.png", "2.png", "3.png"]
    assert len(texts(folder)) == 4


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_while_files_are_written(alt, asked, tmp_path, monkeypatch, overwrite):
    folder = album(tmp_path / "a", 6)
    real, left = alt_texts.replace_file, iter(range(3))

    def replace_file(*arguments):
        if next(left, None) is None:
            raise Killed
        real(*arguments)

    more = ["--overwrite"] if overwrite else []
    monkeypatch.setattr(alt_texts, "replace_file", replace_file)
    killed(alt, folder, *more)
    assert len(texts(folder)) == 3
    monkeypatch.setattr(alt_texts, "replace_file", real)
    asked.clear()
    assert alt(folder, *more).code == 0
    assert not asked
    assert len(texts(folder)) == 6
    assert os.listdir(folder / ".alt-text.job") == ["lock"]


def test_a_folder_that_cannot_be_written_stops_no_other(alt, asked, tmp_path, monkeypatch):
    folder = album(tmp_path / "a", 3)
    real = alt_texts.replace_file

    def replace_file(disk, path, data):
        if path.name.startswith("1."):
            raise PermissionError(13, "Permission denied")
        real(disk, path, data)

    monkeypatch.setattr(alt_texts, "replace_file", replace_file)
    done = alt(folder)
    assert (done.code, done.lines[0], done.lines[-1]) == (6, "2 alt texts of 2 pictures", "1 failed")
    assert f"{folder / '1.png.en.txt'}: Permission denied\nhint: what was answered is kept" in done.err
    assert alt(album(tmp_path / "b", 2) / "1.png").code == 3, "all failed"
    monkeypatch.setattr(alt_texts, "replace_file", real)
    asked.clear()
    assert alt(folder).code == 0
    assert not asked
    assert sorted(texts(folder)) == [f"{n}.png.en.txt" for n in range(3)]
    assert os.listdir(folder / ".alt-text.job") == ["lock"]


def test_a_table_that_is_edited_meanwhile(alt, asked, tmp_path, monkeypatch):
    folder, out = album(tmp_path / "a", 3), tmp_path / "alt.csv"
    out.write_text("id,lang,alt\n0.png,en,mine\n")
    real = job.answer

    def answer(*arguments):
        out.write_text("id,lang,alt,by\n0.png,en,mine and better,ann\n2.png,en,mine too,ann\n")
        return real(*arguments)

    monkeypatch.setattr(job, "answer", answer)
    assert alt(folder, "--out", out).code == 0
    found = [(row["id"], row["by"]) for row in csv.DictReader(out.open())]
    assert found == [("0.png", "ann"), ("2.png", "ann"), ("1.png", "")]
    assert "mine and better" in out.read_text()


def test_another_order_is_told_what_can_be_done(alt, asked, tmp_path):
    folder = album(tmp_path / "a", 4)
    asked.die_before = 1
    killed(alt, folder)
    done = alt(folder, "--lang", "de")
    assert done.code == 2
    assert done.err.startswith("error[other_job]")
    assert f"remove {folder / '.alt-text.job'}" in done.err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--most", 5), "--most at least 10"),
        (("--batch", 0), "--batch"),
        (("--lang", "xx"), "'xx' is not the code"),
        (("--lang", ","), "names no language"),
        (("--html",), "--html makes a table"),
        (("--out", "alt.txt"), "the table is one of"),
        (("--image-root", "."), "pictures that a table names"),
        (("--allow-urls",), "pictures that a table names"),
        (("--html", "--out", "alt.csv", "--allow-urls"), "pictures that a table names"),
    ],
)
def test_what_is_refused_leaves_no_trace(alt, tmp_path, more, says):
    folder = album(tmp_path / "a", 1)
    done = alt(folder, *more)
    assert (done.code, says in done.err) == (2, True), done.err
    assert os.listdir(folder) == ["0.png"]


def test_nothing_lies_beside_standard_input(alt):
    done = alt("-")
    assert done.code == 2
    assert "beside standard input no text can lie" in done.err


def test_no_such_source_and_no_pictures(alt, tmp_path):
    assert alt(tmp_path / "none").code == 3
    assert alt(tmp_path).code == 3
    assert not os.listdir(tmp_path)
