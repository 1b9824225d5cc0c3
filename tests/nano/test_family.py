"""The family: a transfer made from its data to its card, at a size that learns nothing; and what is bundled."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

import paligemma
from paligemma.checkpoint import finding, load_codec, load_model, save_huggingface
from paligemma.checkpoint.finding import BUNDLED, bundled_models
from paligemma.data.opening import open_data
from paligemma.errors import UsageError
from paligemma.nano import family
from paligemma.nano.family import COUNTS, MEMBERS, make, member_named, random_twin
from paligemma.nano.recipes import RECIPES
from paligemma.nano.train import Trainer
from paligemma.predictor import CutShort
from paligemma.tokenizer import Tokenizer

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
    assert "base_model: debug" in text, "the base is named as it names itself"
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
    told = [line.split(":")[0] for line in said if line.startswith(("before", "after", "random"))]
    assert told == [who for who in ("before", "after", "random") for _ in MEMBERS[name].metrics]


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


def test_the_claim_is_of_values(made):
    """Not of the text that shows them, whose comments may be put otherwise."""
    name, run, _ = made
    claimed = json.loads((run / "member.json").read_text())["recipe"]
    assert claimed["name"] == name
    assert claimed["steps"] == 2


def test_a_random_twin_has_learnt_nothing(debug_run, tmp_path):
    """Every number is what a new run begins with, whatever the base has learnt."""
    other = shutil.copytree(debug_run / "model", tmp_path / "base")
    model = load_model(other, dtype=torch.float32)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.25)
    save_huggingface(model.bfloat16(), other)
    first, second = (random_twin(base, tmp_path / f"of-{base.name}") for base in (debug_run / "model", other))
    one, two = load_model(first).state_dict(), load_model(second).state_dict()
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    tokenizer, codec = Tokenizer.load(debug_run / "tokenizer.model"), load_codec(debug_run / "mask_codec.safetensors")
    new = Trainer(RECIPES["debug"], tmp_path, tokenizer, codec, compiled=False, log=lambda line: None).model.state_dict()
    new["text.embed.weight"] = new.pop("text.embed.parametrizations.weight.original")
    assert [name for name in one if not torch.equal(one[name], new[name].to(one[name].dtype))] == []


def test_a_signal_ends_all_of_it_and_not_the_training_at_hand_only(debug_run, tmp_path):
    member = dataclasses.replace(MEMBERS["nano-ft-refer"], steps=3, batch=2, max_tokens=8)

    def stop(line: str) -> None:
        if line.startswith("taught step 1 "):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(UsageError, match="stopped before its end"):
        make(member, tmp_path / "run", base=str(debug_run / "model"), counts=FEW, tell=stop)
    assert not (tmp_path / "run" / "taught-random").exists()


def test_transfers_take_fewer_than_two_thousand_examples():
    assert COUNTS["train"] + COUNTS["valid"] < 2000


def test_an_unknown_member_names_the_closest():
    with pytest.raises(UsageError) as raised:
        member_named("nano-ft-vide")
    assert "nano-ft-video" in str(raised.value.hint)


def test_a_bundled_member_is_loaded_by_its_name(made, monkeypatch):
    name, run, _ = made
    monkeypatch.setattr(finding, "BUNDLED", run)
    assert "model" in finding.bundled_models()
    assert paligemma.load("model", device="cpu").model.config.name == name


def test_what_is_bundled_is_small_and_has_its_cards():
    models = bundled_models()
    assert finding.DEFAULT in models
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) < 60e6
    for name in models:
        assert f"# {name}" in (BUNDLED / name / "README.md").read_text(encoding="utf-8")
        assert json.loads((BUNDLED / name / "config.json").read_text())["paligemma"]["name"] == name
        assert (BUNDLED / name / "reference.json").is_file()


def test_the_page_says_which_of_the_family_are_bundled():
    page = (Path(__file__).parents[2] / "docs" / "nano.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `nano-")]
    assert {name.strip("`") for name, *_ in rows} == {*(name for name in RECIPES if name != "debug"), *MEMBERS}
    assert {name.strip("`") for name, _, there, _ in rows if there == "yes"} == set(bundled_models())
    assert {there for _, _, there, _ in rows} <= {"yes", "no"}
    assert set(re.findall(r"src/paligemma/bundled/(nano-[\w-]+)", page)) <= set(bundled_models()), "a folder that is not there"
