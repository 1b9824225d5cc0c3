"""`paligemma index` and `paligemma search` from the command line to a gallery."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

import paligemma
from paligemma.errors import CheckpointError
from paligemma.predictor import Predictor
from tests import tiny
from tests.index.making import ColourEncoder, paint

pytest.importorskip("lancedb")


@pytest.fixture
def album(tmp_path, monkeypatch):
    """Pictures in a folder that is not the current one, and an encoder and a model that are quickly loaded."""
    embedding = types.ModuleType("paligemma.embedding")
    embedding.load_encoder = lambda source=None, **how: ColourEncoder()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "paligemma.embedding", embedding)
    predictor = Predictor(tiny.tiny_model(version=1), tiny.tiny_tokenizer())
    monkeypatch.setitem(vars(paligemma), "load", lambda name=None, **options: predictor)
    monkeypatch.chdir(tmp_path)
    for name in ("red", "green", "blue"):
        paint(tmp_path / "album" / f"{name}.png", name)
    return tmp_path / "album"


def test_a_folder_is_indexed_and_searched(album, call):
    done = call("index", "album")
    assert (done.code, done.lines) == (0, ["paligemma-index: 3 pictures (3 added)"])
    assert call("index", "album").lines == ["paligemma-index: 3 pictures (3 unchanged)"]
    found = call("search", "green", "--top", "2")
    assert found.code == 0
    assert len(found.lines) == 2
    assert "green.png" in found.lines[0]
    (hit,) = call("search", "--picture", album / "blue.png", "--top", "1", "--json").records
    assert (hit["path"], hit["source"], hit["place"]) == ("blue.png", str(album / "blue.png"), 1)
    assert call("search", "red", "--where", "path LIKE 'b%'").lines[0].split()[-1] == "blue.png"


def test_a_part_of_a_picture(album, call, tmp_path):
    call("index", "album")
    picture = paint(tmp_path / "asked.png", "red", "green", size=(40, 20))
    assert "red.png" in call("search", "--picture", picture, "--region", "0,0,20,20").lines[0]
    assert "green.png" in call("search", "--picture", picture, "--region", "20,0,40,20").lines[0]


def test_what_a_model_says_can_be_searched_and_sorted_by(album, call):
    done = call("index", "album", "--what", "vectors,captions,text,objects", "--classes", "cat ; dog", "--lang", "en,de", "--json")
    (said,) = done.records
    assert (said["added"], said["failed"], said["pictures"]) == (3, 0, 3)
    found = call("search", "green", "--rerank", "--json")
    likelihoods = [hit["likelihood"] for hit in found.records]
    assert likelihoods == sorted(likelihoods, reverse=True)
    assert found.records[0]["captions"].keys() == {"en", "de"}
    counts = {count: len(call("search", "--has", "cat", "--count", count, "--json").records) for count in (">0", "0")}
    assert counts[">0"] + counts["0"] == 3


def test_galleries(album, call, tmp_path):
    call("index", "album")
    done = call("search", "red", "--out", "found.html")
    assert "written: found.html" in done.err
    assert "<h1>red</h1>" in (tmp_path / "found.html").read_text("utf-8")
    call("search", "red", "--out", "found.png")
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.format == "PNG"


def test_the_parser_finds_inherited_options_in_a_process_of_its_own():
    for command in ("index", "search"):
        done = subprocess.run([sys.executable, "-m", "paligemma", command, "--help"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, "--dtype" in done.stdout) == (0, True), done.stderr


def test_what_an_index_does_not_hold_is_said(album, call):
    call("index", "album")
    for arguments, what in ((("--has", "cat"), "objects"), (("--text", "stop"), "text")):
        done = call("search", *arguments)
        assert (done.code, done.lines) == (0, ["nothing found"])
        assert f"holds no {what}" in done.err
    assert '--what vectors,objects --classes "cat"' in call("search", "--has", "cat").err


def test_what_some_pictures_lack_is_said(album, call):
    call("index", "album", "--what", "vectors,captions,objects", "--classes", "cat")
    assert "note" not in call("index", "album").err, "nothing is lacking yet"
    paint(album / "more.png", "red", "blue", size=(30, 20))
    told = call("index", "album").err
    assert "note: no captions of 1 picture, " in told
    assert "note: no objects of 1 picture, " in told
    done = call("search", "--has", "tractor")
    assert done.lines == ["nothing found"]
    assert "no picture of this index was searched for 'tractor'" in done.err
    assert "searched for" not in call("search", "--has", "cat", "--count", ">99").err


def test_pictures_that_are_gone_cannot_be_sorted_again(album, call):
    call("index", "album")
    album.rename(album.with_name("elsewhere"))
    done = call("search", "green", "--rerank")
    assert (done.code, len(done.lines)) == (6, 3)
    assert f"3 pictures below {album} could not be looked at again" in done.err


def test_bad_pictures(album, call):
    (album / "bad.png").write_bytes(b"no picture")
    done = call("index", "album")
    assert done.code == 6
    assert "bad.png" in done.err
    assert "1 picture could not be read" in done.err
    for name in ("red", "green", "blue"):
        (album / f"{name}.png").unlink()
    assert call("index", "album", "--out", "other").code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("search", "red"), 3, "there is no index here"),
        (("search",), 2, "nothing is searched for"),
        (("search", "red", "--out", "found.gif"), 2, "gallery.html or gallery.png"),
        (("search", "--region", "1,2,3,4"), 2, "--region is a part of a picture"),
        (("search", "--has", "cat", "--count", "1", "--count", "2"), 2, "expected one for each"),
        (("search", "--has", "cat", "--count", "many"), 2, "is not a count"),
        (("search", "--text", "x", "--rerank"), 2, "there are no words"),
        (("index", "nowhere"), 3, "no such folder"),
        (("index", "album", "--what", "caption"), 2, "did you mean 'captions'"),
        (("index", "album", "--what", "objects"), 2, "objects need names"),
        (("index", "album", "--classes", "cat"), 2, "--classes is for objects"),
        (("index", "album", "--batch", "0"), 2, "--batch"),
        (("index", "album", "--what", "captions", "--lang", "xx"), 2, "language"),
        (("index", "album", "--what", "objects", "--classes", "cat", "--min-score", "30"), 2, "from 0 to 1"),
        (("index", "album", "--what", "objects", "--classes", "a <loc0001>"), 2, "location token"),
    ],
)
def test_wrong_calls(album, call, arguments, code, said):
    done = call(*arguments)
    assert done.code == code
    assert said in done.err


def test_a_call_that_is_refused_costs_no_index(album, call):
    call("index", "album", "--what", "vectors,objects", "--classes", "cat")
    refused = call("index", "album", "--what", "vectors,objects", "--classes", "cat", "--min-score", "30", "--overwrite")
    assert refused.code == 2
    assert call("index", "album").lines == ["paligemma-index: 3 pictures (3 unchanged)"]


def test_an_index_is_renewed_with_its_own_encoder_from_anywhere(album, call, tmp_path, monkeypatch):
    asked = []

    def load_encoder(source=None, **how):
        asked.append(source)
        if source is not None and not Path(source).exists():
            raise CheckpointError(f"{source}: no such file or folder", code="not_found")
        return ColourEncoder()

    monkeypatch.setattr(sys.modules["paligemma.embedding"], "load_encoder", load_encoder)
    (tmp_path / "siglip").mkdir()
    (tmp_path / "elsewhere").mkdir()
    where = tmp_path / "paligemma-index"
    assert call("index", "album", "--encoder", "./siglip").code == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call("index", album, "--out", where).lines == [f"{where}: 3 pictures (3 unchanged)"]
    assert call("search", "red", "--index", where).code == 0
    assert asked == ["./siglip", str(tmp_path / "siglip"), str(tmp_path / "siglip")]
    (tmp_path / "siglip").rename(tmp_path / "moved")
    lost = call("search", "red", "--index", where)
    assert (lost.code, "--encoder FOLDER" in lost.err) == (4, True)
    assert call("index", album, "--out", where, "--encoder", tmp_path / "moved").code == 0
    assert call("search", "red", "--index", where).code == 0
    assert call("index", album, "--out", where, "--overwrite").lines == [f"{where}: 3 pictures (3 added)"]
    assert asked[-2:] == [str(tmp_path / "moved")] * 2


def test_another_model_in_the_same_place_is_another(album, call, tmp_path):
    weights = tmp_path / "best" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"first")
    call("index", "album", "--what", "vectors,captions", "--model", "best")
    assert call("index", "album", "--what", "vectors,captions", "--model", weights.parent).lines[0].endswith("(3 unchanged)")
    weights.write_bytes(b"later")
    assert call("index", "album", "--what", "vectors,captions", "--model", "best").lines[0].endswith("(3 described)")


def test_what_another_model_said_is_not_lost_without_a_word(album, call, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").write_bytes(b"other")
    call("index", "album", "--what", "vectors,captions,text")
    told = call("index", "album", "--what", "vectors,text", "--model", "other").err
    assert "note: what another model said is gone, its captions too" in told
    assert "text too" not in told
    assert "gone" not in call("index", "album", "--what", "vectors,text", "--model", "./other").err
    for name in ("red", "green", "blue"):
        (album / f"{name}.png").unlink()
    paint(album / "new.png", "pink")
    assert "gone" not in call("index", "album", "--what", "vectors,captions", "--model", "other").err, (
        "the pictures are gone, not what was said"
    )


def test_a_gallery_that_cannot_be_written_costs_no_results(album, call, tmp_path):
    call("index", "album")
    (tmp_path / "file").write_bytes(b"")
    done = call("search", "red", "--out", "file/found.html")
    assert (done.code != 0, len(done.lines)) == (True, 3)
    assert "Traceback" not in done.err
