"""The family: a transfer made from its data to its card, at a size that learns nothing; and what is bundled."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import pytest
from PIL import Image

import paligemma
from paligemma.data.opening import open_data
from paligemma.errors import UsageError
from paligemma.nano import family
from paligemma.nano.family import COUNTS, MEMBERS, make, member_named
from paligemma.predictor import CutShort, loading
from paligemma.predictor.loading import BUNDLED, bundled_models

FEW = {"train": 6, "valid": 4, "test": 4}


@pytest.fixture(scope="module", params=MEMBERS)
def made(request, debug_run, tmp_path_factory) -> tuple[str, Path, list[str]]:
    member = dataclasses.replace(MEMBERS[request.param], steps=2, batch=2, max_tokens=8)
    run = tmp_path_factory.mktemp("family") / member.name
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutShort)
        assert make(member, run, base=str(debug_run / "model"), counts=FEW, tell=said.append) == run / "model"
    return member.name, run, said


def test_a_member_is_a_model_with_a_card_and_a_curve(made):
    name, run, _ = made
    model = run / "model"
    predictor = paligemma.load(model, device="cpu")
    assert predictor.model.config.name == name
    text = (model / "README.md").read_text()
    assert f"# {name}" in text
    assert f"--model {name}" in text
    assert "base_model: model" in text, "the base is named"
    assert "| before | from random weights | this model |" in text
    with Image.open(model / "curve.png") as curve:
        assert curve.width > 400
    scores = json.loads((model / "scores.json").read_text(), parse_constant=pytest.fail)
    assert scores.keys() == {"before", "after", "random"}
    assert all(found.keys() == set(MEMBERS[name].metrics) for found in scores.values())
    assert {found["count"] for who in scores.values() for found in who.values()} == {FEW["test"]}
    assert (model / "reference.json").is_file()


def test_both_trainings_see_the_same_and_differ_in_their_beginning_only(made):
    name, run, said = made
    data = open_data(run / "data", split="train")
    assert len(data) == FEW["train"]
    recipes = [(run / folder / "recipe.toml").read_text() for folder in ("taught", "taught-random")]
    assert recipes[0] == recipes[1]
    assert f'name = "{name}"' in recipes[0]
    weights = [(run / folder / "last" / "model.safetensors").read_bytes() for folder in ("taught", "taught-random")]
    assert weights[0] != weights[1]
    assert (run / "random" / "tokenizer.model").read_bytes() == (run / "model" / "tokenizer.model").read_bytes()
    assert [line.split(":")[0] for line in said if line.startswith(("before", "after", "random"))]


def test_what_is_there_is_not_made_again(made, debug_run, monkeypatch):
    name, run, _ = made
    member = dataclasses.replace(MEMBERS[name], steps=2, batch=2, max_tokens=8)
    before = {path: path.read_bytes() for path in (run / "data").rglob("*") if path.is_file()}
    said: list[str] = []
    monkeypatch.setattr(family, "write_examples", lambda *_, **__: pytest.fail("the data are there"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutShort)
        make(member, run, base=str(debug_run / "model"), counts=FEW, tell=said.append)
    assert {path: path.read_bytes() for path in (run / "data").rglob("*") if path.is_file()} == before
    assert not any("step" in line for line in said), "no update was made"
    with pytest.raises(UsageError, match="another recipe"):
        make(dataclasses.replace(member, learning_rate=1.0), run, base=str(debug_run / "model"), counts=FEW, tell=said.append)


def test_transfers_take_fewer_than_two_thousand_examples():
    assert COUNTS["train"] + COUNTS["valid"] < 2000


def test_an_unknown_member_names_the_closest():
    with pytest.raises(UsageError) as raised:
        member_named("nano-ft-vide")
    assert "nano-ft-video" in str(raised.value.hint)


def test_a_bundled_member_is_loaded_by_its_name(made, monkeypatch):
    name, run, _ = made
    monkeypatch.setattr(loading, "BUNDLED", run)
    assert "model" in loading.bundled_models()
    assert paligemma.load("model", device="cpu").model.config.name == name


def test_what_is_bundled_is_small_and_has_its_cards():
    models = bundled_models()
    assert loading.DEFAULT in models
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) < 60e6
    for name in models:
        assert f"# {name}" in (BUNDLED / name / "README.md").read_text(encoding="utf-8")
        assert json.loads((BUNDLED / name / "config.json").read_text())["paligemma"]["name"] == name
        assert (BUNDLED / name / "reference.json").is_file()
