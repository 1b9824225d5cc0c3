"""A trained model made fit to ship: the card says what was measured and what was missed, and all files come from one measurement."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from paligemma import doctor
from paligemma.nano.evaluate import Examination
from paligemma.nano.metrics import Score
from paligemma.nano.names import LANGUAGES
from paligemma.nano.publish import TARGETS, card, curve, finish, ship
from paligemma.nano.recipes import RECIPES, Phase
from paligemma.predictor import CutShort, load
from paligemma.tasks import detect, ocr, segment

TRAINED = dataclasses.replace(RECIPES["nano-112"], phases=(Phase(500, 128, vision_only=True), Phase(4000, 64)), seed=3)
RECIPE = json.loads(json.dumps(dataclasses.asdict(TRAINED)))
SEEN = {"thing_accuracy": 0.5, "letter_accuracy": 0.25, "edges": 0.125}
LOG = [
    *({"phase": 0, "step": step, "seconds": 10.0 * step, **SEEN} for step in range(20, 501, 20)),
    {"phase": 1, "step": 20, "seconds": 5100.0, "edges": 0.1, "short_right": 0.9, "long_right": 0.6},  # no thing and no letter in sight
    {"phase": 1, "step": 4000, "seconds": 8130.4, **SEEN, "short_right": 0.7, "long_right": 0.4},
]


def some_scores(value: float) -> dict[str, Any]:
    """All targets scored with `value`, one thing without a target, and what is no score."""
    scores: dict[str, Any] = {name: Score(value, value - 0.0123, value + 0.0089, 321, 0.1357) for name in TARGETS}
    scores["presence questions"] = Score(0.25, 0.125, 0.375, 12, 0.5)
    return scores | {
        "box score ECE before fitting": 0.1234,
        "box score ECE after fitting": 0.0456,
        "calibration": {"box": {"a": 1.0, "b": 0.0}},
    }


def rows_of(text: str) -> dict[str, list[str]]:
    """Task -> the other cells of its row."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.split("## How it learnt")[0].splitlines()
        if line.startswith("|")
    ]
    assert found[0] == ["task", "score", "interval", "samples", "baseline", "target"]
    assert set("".join(found[1])) == {"-"}
    return {name: cells for name, *cells in found[2:]}


def test_the_card_shows_every_score():
    scores = some_scores(0.9)
    rows = rows_of(card(RECIPE, scores, LOG))
    assert list(rows) == [name for name, score in scores.items() if isinstance(score, Score)]
    assert rows["detection AP50"][:4] == ["0.900", "0.888 to 0.909", "321", "0.136"]
    assert rows["presence questions"] == ["0.250", "0.125 to 0.375", "12", "0.500", ""], "no target was set"


def test_the_card_marks_what_was_missed():
    for value in (0.0, 0.85, 0.9, 1.0):
        rows = rows_of(card(RECIPE, some_scores(value), LOG))
        for name, target in TARGETS.items():
            assert rows[name][-1] == (f"{target:.2f} (missed)" if value < target else f"{target:.2f}")


def test_the_card_says_what_it_took():
    text = card(RECIPE, some_scores(0.9), LOG)
    assert 500 * 128 + 4000 * 64 == 320_000
    assert "320,000 pictures, 136 minutes on 2 CPU cores" in " ".join(text.split())
    assert "# nano-112\n" in text
    assert "recipe `nano-112`, seed 3" in text
    assert f"{TRAINED.vision.width} wide and {TRAINED.vision.depth} deep" in text
    assert f"{TRAINED.text_width} wide and {TRAINED.text_depth} deep" in text
    assert "0.123 raw, 0.046 after fitting" in text
    assert "target 0.05" in text


def test_pictures_and_minutes_are_of_the_same_steps():
    """Of a run that began at a later phase there are no entries of those before; of one that is not done, fewer steps."""
    later = [entry for entry in LOG if entry["phase"] == 1]
    assert "256,000 pictures" in card(RECIPE, some_scores(0.9), later)
    assert "65,280 pictures" in card(RECIPE, some_scores(0.9), LOG[:-1])


def test_the_card_names_the_model_that_it_began_with():
    assert "trained from random weights" in card(RECIPE, some_scores(0.9), LOG)
    assert "trained from the weights of `nano-pt-112`" in card(RECIPE, some_scores(0.9), LOG, "nano-pt-112")


def test_the_card_shows_how_it_learnt():
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in curve(LOG).splitlines()]
    assert rows[0] == ["phase", "steps", "minutes", "things", "letters", "edges, loss", "short texts", "long texts"]
    assert [row[:3] for row in rows[2:]] == [
        *(["0", str(step), minutes] for step, minutes in ((100, "17"), (200, "33"), (300, "50"), (400, "67"), (500, "83"))),
        ["1", "20", "85"],
        ["1", "4000", "136"],
    ]
    assert rows[2][3:] == ["0.500", "0.250", "0.125", "", ""]
    assert rows[-2][3:] == ["", "", "0.100", "0.900", "0.600"]
    assert curve(LOG) in card(RECIPE, some_scores(0.9), LOG)


def test_the_card_warns_of_photographs_and_is_read_by_the_hub():
    text = card(RECIPE, some_scores(0.9), LOG)
    assert text.startswith("---\nlicense: apache-2.0\n")
    assert text.index("It knows only its small drawn world") < text.index("## Measured")
    assert "{" not in text.replace("caption {" + "|".join(LANGUAGES) + "}", ""), "nothing is left to be filled in"


# A whole model, though one that has learnt nothing


@pytest.fixture(scope="module")
def finished(debug_run, tmp_path_factory) -> Path:
    run = shutil.copytree(debug_run, tmp_path_factory.mktemp("published") / "debug")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(ocr, "max_tokens", 8)  # the untrained model never ends
        patch.setattr(detect, "max_tokens", 40)
        patch.setattr(segment, "max_tokens", 40)
        warnings.simplefilter("ignore", CutShort)
        finish(run / "model", run, samples=2)
    return run


def test_everything_is_written(finished, debug_run):
    new = {path.name for path in (finished / "model").iterdir()} - {path.name for path in (debug_run / "model").iterdir()}
    assert new == {"README.md", "calibration.json", "scores.json", "reference.json"}
    assert (finished / "model" / "model.safetensors").read_bytes() == (debug_run / "model" / "model.safetensors").read_bytes()


def test_card_scores_and_calibration_are_of_one_measurement(finished):
    model = finished / "model"
    scores = json.loads((model / "scores.json").read_text(), parse_constant=pytest.fail)
    assert TARGETS.keys() < scores.keys()
    assert scores["calibration"] == json.loads((model / "calibration.json").read_text())
    read_back = {name: Score(**score) if isinstance(score, dict) and "baseline" in score else score for name, score in scores.items()}
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert (log[-1]["phase"], log[-1]["step"]) == (1, RECIPES["debug"].phases[1].steps)
    assert (model / "README.md").read_text(encoding="utf-8") == card(json.loads((finished / "recipe.json").read_text()), read_back, log)


def test_the_calibration_is_used_and_the_reference_holds(finished):
    predictor = load(finished / "model", device="cpu")
    fitted = json.loads((finished / "model" / "calibration.json").read_text())["box"]
    assert predictor.calibration.parameters == {"box": (fitted["a"], fitted["b"])}
    assert "scores of box calibrated" in predictor.description
    checks = {check.name: check for check in doctor.check(predictor)}
    assert checks["stored outputs"].ok, checks["stored outputs"]


@pytest.mark.filterwarnings("ignore::paligemma.predictor.CutShort")
def test_a_model_that_is_measured_again_gets_the_same_calibration(finished, monkeypatch):
    """It is fitted on raw scores, not on those that the last calibration made."""
    monkeypatch.setattr(detect, "max_tokens", 40)
    fitted = json.loads((finished / "model" / "calibration.json").read_text())
    again = Examination(load(finished / "model", device="cpu"), 2).detection()["calibration"]
    assert again["box"] == pytest.approx(fitted["box"])


def test_without_samples_nothing_is_claimed(finished_run):
    finish(finished_run / "model", finished_run, samples=0)
    names = {path.name for path in (finished_run / "model").iterdir()}
    assert "reference.json" in names
    assert not names & {"README.md", "scores.json", "calibration.json"}


def test_models_that_are_shipped_together_share_a_mask_codec(tmp_path):
    """Only where it is the same one."""
    model, codec = tmp_path / "made", "mask_codec.safetensors"
    model.mkdir()
    (model / codec).write_bytes(b"codec")
    (model / "config.json").write_bytes(b"{}")
    alone = ship(model, tmp_path / "bundled" / "one")
    assert sorted(path.name for path in alone.iterdir()) == ["config.json", codec]
    (tmp_path / "bundled" / codec).write_bytes(b"codec")
    assert [path.name for path in ship(model, tmp_path / "bundled" / "two").iterdir()] == ["config.json"]
    (tmp_path / "bundled" / codec).write_bytes(b"other")
    assert len(list(ship(model, tmp_path / "bundled" / "three").iterdir())) == 2
