"""A SigLIP on the command line: `info` says what it is, what asks it is refused in one sentence."""

from __future__ import annotations

import pytest

from paligemma.checkpoint.dual_load import save_dual_encoder
from paligemma.cli import main
from tests.encoders import our_encoder


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return save_dual_encoder(our_encoder(), tmp_path_factory.mktemp("models") / "siglip")


def test_info(call, siglip):
    out = call("info", str(siglip)).out
    assert "a SigLIP (image tower 3 of 24, text tower 2 of 32) at 30 px" in out
    assert "9 tokens of 97" in out


def test_info_as_json(call, siglip):
    (record,) = call("info", str(siglip), "--json").records
    assert (record["format"], record["vectors"], record["problems"]) == ("huggingface", "24 numbers", [])
    assert record["parameters"] == sum(p.numel() for p in our_encoder().parameters())


def test_info_of_one_that_does_not_fit(siglip, tmp_path, capsys):
    broken = tmp_path / "broken"
    save_dual_encoder(our_encoder(), broken)
    (broken / "config.json").write_text((siglip / "config.json").read_text().replace('"vocab_size": 97', '"vocab_size": 98'))
    assert main(["info", str(broken)]) == 4
    assert "expected (98, 32)" in capsys.readouterr().out


def test_pull(call, siglip, monkeypatch):
    monkeypatch.setattr("paligemma.checkpoint.hub.pull", lambda name: siglip)
    assert call("pull", "google/siglip2-base-patch16-224").out.splitlines()[1] == "use it: paligemma info google/siglip2-base-patch16-224"


@pytest.mark.parametrize("command", ["caption", "ocr"])
def test_asking_it_is_refused(siglip, tmp_path, capsys, command):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    assert main([command, str(tmp_path / "x.png"), "--model", str(siglip)]) == 4
    said = capsys.readouterr().err
    assert "is a SigLIP: it compares pictures with texts, and says nothing about a picture" in said
    assert "Traceback" not in said
