"""From a file of predictions to scores, without a model: values, intervals, groups, the worst, lengths, failures, what was published."""

import json

import numpy as np
import pytest

from paligemma.errors import InputError, UsageError
from paligemma.evaluation.places import Place
from paligemma.evaluation.predictions import Prediction, appending
from paligemma.evaluation.run_file import Run
from paligemma.evaluation.scores import fit, score
from paligemma.evaluation.summary import summary
from paligemma.results import Box
from tests.evaluation.making import answered, detected

RUN = Run(
    model="paligemma-3b",
    model_path="/models/paligemma-3b-mix-448",
    model_fingerprint="m",
    description="PaliGemma 1 3B at 448 px",
    resolution=448,
    calibration={},
    data_path="/data/docvqa/val.jsonl",
    data_format="jsonl",
    data_split="val",
    data_fingerprint="d",
    records=3,
    faults=1,
)


def write(folder, predictions, run: Run | None = None):
    with appending(folder / "predictions.jsonl") as add:
        add(predictions)
    if run:
        run.save(folder)
    return folder / "predictions.jsonl"


FAILED = Prediction("bad", "answer", "val.jsonl:9", error={"code": "not_found", "message": "x.png: no such file"})


def some(count: int = 60, right: float = 0.7) -> list[Prediction]:
    rng = np.random.default_rng(0)
    found = []
    for n in range(count):
        good, kind = rng.random() < right, "count" if n % 3 else "colour"
        about = {"type": kind, "number": n, "same": "x"} | ({"hard": True} if n % 2 else {})
        found.append(answered(f"r{n:02d}", "1" if good else "two words", about=about, score=float(rng.uniform(0.5, 1))))
    return found


def test_a_file_becomes_scores(tmp_path):
    predictions = some()
    scores = score(write(tmp_path, [*predictions, FAILED]))
    right = np.array([one.text == "1" for one in predictions])
    assert (scores.metric, scores.value, scores.count) == ("exact", right.mean(), 60)
    assert scores.interval[0] < scores.value < scores.interval[1]
    assert [(one.id, one.where, one.code) for one in scores.failed] == [("bad", "val.jsonl:9", "not_found")]
    assert dict(scores.each) == {one.id: float(good) for one, good in zip(predictions, right, strict=True)}
    assert set(scores.groups) == {"type", "hard"}, "neither what differs for every record nor what never does"
    assert scores.groups["type"]["count"].count == 40
    assert scores.groups["hard"].keys() == {"True", "(not said)"}
    assert sum(one.value * one.count for one in scores.groups["hard"].values()) == pytest.approx(right.sum())
    assert scores.reliability["text"].count == 60
    assert scores.stops == {"eos": 60}
    assert sum(count for *_, count in scores.lengths.histogram) == 60
    assert scores.lengths.longest == 9
    assert scores.speed.records_per_second == pytest.approx(10)


def test_the_same_file_gives_the_same_scores_and_a_folder_will_do(tmp_path):
    path = write(tmp_path, some())
    assert score(path) == score(tmp_path)
    assert score(path).to_dict() == score(path).to_dict()


def test_only_some_are_counted(tmp_path):
    path = write(tmp_path, [*some(), FAILED])
    scores = score(path, only={"r00", "r01"})
    assert (scores.count, scores.failed) == (2, ())


def test_worst_first(tmp_path):
    path = write(tmp_path, some())
    scores = score(path)
    values = dict(scores.each)
    assert [values[id] for id in scores.worst(5)] == [0.0] * 5
    assert len(scores.worst(1000)) == 60
    reading = score(path, "ocr")
    assert dict(reading.each)[reading.worst(1)[0]] == max(value for _, value in reading.each), "less is better here"
    assert reading.better_than(reading.value + 0.1)
    assert scores.better_than(scores.value - 0.1)
    assert not scores.better_than(scores)


def test_scores_are_saved_as_json(tmp_path):
    scores = score(write(tmp_path, [*some(), FAILED], RUN))
    read = json.loads(scores.save(tmp_path).read_text())
    assert read["value"] == scores.value == read["values"][read["main"]]
    assert read["interval"] == list(scores.interval)
    assert read["run"]["model"] == "paligemma-3b"
    assert read["published"][0]["value"] == 78.0


def test_what_was_published_for_the_same_model_is_beside(tmp_path):
    scores = score(write(tmp_path, [answered("a", "Yes", ("yes",))], RUN))
    assert (scores.metric, scores.benchmark, scores.title) == ("anls", "DocVQA", "val.jsonl val")
    assert [str(row) for row in scores.published] == ["DocVQA, ANLS: 78 (paligemma-3b-448)"]
    text = summary(scores)
    assert "100.0" in text
    assert "published  DocVQA, ANLS: 78 (paligemma-3b-448)" in text


def test_groups_of_objects_are_measured_too(tmp_path):
    cat = Place("cat", (2, 2, 22, 22))
    path = write(
        tmp_path,
        [
            detected("a", [cat], [Box("cat", 2, 2, 22, 22, 0.9)], about={"light": "day"}),
            detected("b", [cat], [], about={"light": "night"}),
            detected("c", [cat], [Box("cat", 2, 2, 22, 22, 0.9)], about={"light": "night"}),
        ],
    )
    groups = score(path).groups["light"]
    assert (groups["day"].value, groups["night"].value) == pytest.approx((1, 0.5), abs=0.01)


def test_the_summary_says_it_all(tmp_path):
    scores = score(write(tmp_path, [*some(), *[FAILED.__class__(f"b{n}", "answer", error=FAILED.error) for n in range(5)]]))
    text = summary(scores)
    for words in ("60 answers, 5 failed", "exact match", "in 95 of 100 draws", "by type: count", "expected calibration error", "0 cut off"):
        assert words in text, words
    assert text.count("no such file") == 3
    assert "and 2 more" in text
    assert "\x1b" not in summary(score(write(tmp_path / "..", [answered("\x1b[31m", "1", about={"\x1b": "\x1b[1m"}), answered("b", "1")])))


@pytest.mark.parametrize(
    ("predictions", "metric", "error", "words"),
    [
        ([], "auto", InputError, "there are none"),
        ([FAILED], "auto", InputError, "all 1 records failed, the first one: x.png"),
        ([answered("a", "1")], "best", UsageError, "no metric is called"),
        ([answered("a", "1")], "ap", UsageError, "does not measure the task"),
        ([answered("a", "1", ())], "auto", InputError, r"record a .* has nothing that its answer"),
        ([detected("a", [], [])], "auto", UsageError, "no true object"),
    ],
)
def test_what_cannot_be_scored(tmp_path, predictions, metric, error, words):
    with pytest.raises(error, match=words):
        score(write(tmp_path, predictions), metric)


def test_a_fit_from_a_file(tmp_path):
    rng = np.random.default_rng(0)
    predictions = []
    for n in range(400):
        predictions.append(answered(f"r{n}", "1" if rng.random() < 0.6 else "2", score=0.9 + 0.05 * rng.random()))
    fitted = fit(write(tmp_path, [*predictions, FAILED]))
    assert fitted.fits["text"].before.ece > 0.25
    assert fitted.fits["text"].after.ece < 0.12
    with pytest.raises(UsageError, match="at least 40 guesses"):
        fit(tmp_path, "cider")
