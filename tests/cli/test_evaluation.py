"""`paligemma eval` on the bundled model: numbers, files, and the same numbers again without a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paligemma.nano.scenes import write_scenes


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Scenes, and how many things each shows."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=6, seed=5, split="test")
    truths = [json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines()]
    (folder / "scenes.jsonl").unlink()
    rows = [{"image": t["image"], "prefix": "caption en", "suffix": t["captions"]["en"]} for t in truths if t["captions"]]
    assert len(rows) >= 3
    (folder / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_model_is_measured_and_scored_again_without_it(data, call, tmp_path):
    out = tmp_path / "measured"
    done = call("eval", "--data", data, "--out", out, "--metric", "exact", "--json")
    assert done.code == 0
    scores = json.loads(done.out)
    assert scores["value"] >= 0.5, "it knows this world"
    assert {path.name for path in out.iterdir()} >= {"predictions.jsonl", "scores.json", "report.html", "run.json"}
    again = call("eval", "--predictions", out / "predictions.jsonl", "--metric", "exact", "--json")
    assert json.loads(again.out)["value"] == scores["value"]
    assert "exact match" in call("eval", "--data", data, "--out", out, "--metric", "exact").out, "everything was asked already"
    compared = call("eval", "--data", data, "--out", tmp_path / "again", "--metric", "exact", "--against", out)
    assert "+0.0 [+0.0, +0.0], may be chance" in compared.out
    assert "0 records better, 0 worse" in (tmp_path / "again" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "--predictions"),
        (["--predictions", "nowhere.jsonl"], 3, "no such file"),
        (["--data", "nowhere"], 3, "nowhere"),
        (["--data", "DATA", "--metric", "cidre"], 2, "did you mean 'cider'"),
        (["--data", "DATA", "--limit", "0"], 2, "limit"),
        (["--data", "DATA", "--against", "nowhere"], 3, "no scores to compare with"),
    ],
)
def test_wrong_input_gets_a_line(words, code, says, data, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("eval", *(str(data) if word == "DATA" else word for word in words))
    assert done.code == code
    assert says in done.err
