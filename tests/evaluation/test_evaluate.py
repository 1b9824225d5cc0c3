"""The whole way: a data set and a model -> one folder; broken off and gone on with; and the bundled model, which answers for real."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from paligemma.data.records import Record
from paligemma.errors import InputError, UsageError
from paligemma.evaluation.evaluate import evaluate, merged
from paligemma.evaluation.predictions import read_predictions
from paligemma.evaluation.scores import score
from tests.evaluation.making import StandIn, dataset, picture, question, thing


@pytest.fixture
def records(tmp_path):
    return [question(tmp_path / "pictures", n, ("1",) if n % 2 else ("2",)) for n in range(10)]


@pytest.fixture
def model_file(tmp_path) -> Path:
    path = tmp_path / "model.npz"
    path.write_bytes(b"weights")
    return path


def test_one_folder_holds_everything(records, tmp_path):
    steps = []
    scores = evaluate(StandIn(), dataset(records), out=tmp_path / "out", batch_size=4, progress=lambda *step: steps.append(step))
    assert (scores.metric, scores.value, scores.count) == ("exact", 0.5, 10)
    assert steps == [(0, 10), (4, 10), (8, 10), (10, 10)]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"predictions.jsonl", "run.json", "scores.json", "report.html"}
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["value"] == 0.5
    assert score(tmp_path / "out") == scores, "and again without the model"


def test_options_reach_the_model_and_the_report_may_be_left_out(records, tmp_path):
    model = StandIn()
    evaluate(model, dataset(records), out=tmp_path / "out", report=False, beams=3)
    assert model.options["beams"] == 3
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_run_that_was_broken_off_goes_on(records, tmp_path, model_file):
    dying = StandIn(path=model_file, dies_after=2)
    with pytest.raises(KeyboardInterrupt):
        evaluate(dying, dataset(records), out=tmp_path / "out", batch_size=2)
    with (tmp_path / "out" / "predictions.jsonl").open("a") as file:
        file.write('{"id": "q4", "task": "ans')
    again = StandIn(path=model_file)
    steps = []
    scores = evaluate(again, dataset(records), out=tmp_path / "out", batch_size=2, progress=lambda *step: steps.append(step))
    assert steps[0] == (4, 10)
    assert again.asked[0][2] == ["answer en question 4", "answer en question 5"]
    whole = evaluate(StandIn(path=model_file), dataset(records), out=tmp_path / "whole", batch_size=2)
    assert (scores.values, scores.interval, scores.each) == (whole.values, whole.interval, whole.each)
    finished = StandIn(path=model_file)
    evaluate(finished, dataset(records), out=tmp_path / "out")
    assert finished.asked == [], "what is finished is not asked again"


def test_records_that_failed_are_asked_again(records, tmp_path, model_file):
    missing = tmp_path / "pictures" / "3.png"
    data = missing.read_bytes()
    missing.unlink()
    scores = evaluate(StandIn(path=model_file), dataset(records), out=tmp_path / "out")
    assert [(one.id, one.code) for one in scores.failed] == [("q3", "not_found")]
    missing.write_bytes(data)
    model = StandIn(path=model_file)
    scores = evaluate(model, dataset(records), out=tmp_path / "out")
    assert (scores.count, scores.failed) == (10, ())
    assert len(model.asked) == 1


@pytest.mark.parametrize("change", ["model", "data", "options"])
def test_another_runs_predictions_are_not_taken_for_these(records, tmp_path, model_file, change):
    evaluate(StandIn(path=model_file), dataset(records), out=tmp_path / "out")
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    if change == "model":
        model_file.write_bytes(b"other weights")
    data = dataset(records, fingerprint="other" if change == "data" else "f")
    how = {"beams": 2} if change == "options" else {}
    with pytest.raises(UsageError, match=f"the {change} differ"):
        evaluate(StandIn(path=model_file), data, out=tmp_path / "out", **how)
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before, "nothing was lost"
    model = StandIn(path=model_file)
    evaluate(model, data, out=tmp_path / "out", fresh=True, **how)
    assert len(read_predictions(tmp_path / "out" / "predictions.jsonl")) == 10
    assert model.asked


def test_predictions_without_a_run_are_left_alone(records, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.jsonl").write_text("precious\n")
    with pytest.raises(UsageError, match=r"no run.json"):
        evaluate(StandIn(), dataset(records), out=tmp_path / "out")
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == "precious\n"


def test_a_model_that_is_no_file_is_always_asked(records, tmp_path):
    for _ in range(2):
        model = StandIn()
        evaluate(model, dataset(records), out=tmp_path / "out")
        assert model.asked, "its weights may have changed"
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 10


def test_a_limit_is_spread_over_the_data(records, tmp_path, model_file):
    scores = evaluate(StandIn(path=model_file), dataset(records), out=tmp_path / "out", limit=4)
    assert [id for id, _ in scores.each] == ["q0", "q2", "q5", "q7"]
    more = evaluate(StandIn(path=model_file), dataset(records), out=tmp_path / "out", limit=5)
    assert [id for id, _ in sorted(more.each)] == ["q0", "q2", "q4", "q6", "q8"]
    assert evaluate(StandIn(path=model_file), dataset(records), out=tmp_path / "out").count == 10
    with pytest.raises(UsageError, match="limit is at least 1"):
        evaluate(StandIn(), dataset(records), out=tmp_path / "none", limit=0)


def test_records_that_ask_the_same_are_one_with_all_answers(records):
    first = dataclasses.replace(records[0], answers=("a cat", "a cat"))
    other = dataclasses.replace(first, id="x", answers=("a dog", "a cat"))
    where = Record("d", "detect", first.pictures, "d", asked=("cat",))
    assert merged([first, other, records[1], where, dataclasses.replace(where, id="e")]) == [
        dataclasses.replace(first, answers=("a cat", "a cat", "a dog")),
        records[1],
        where,
        dataclasses.replace(where, id="e"),
    ]


@pytest.mark.parametrize(
    ("records_of", "how", "error", "words"),
    [
        (lambda records: [], {}, InputError, "no usable record"),
        (lambda records: records, {"metric": "ap"}, UsageError, "does not measure"),
        (lambda records: records, {"metric": "cidr"}, UsageError, "no metric"),
        (lambda records: [dataclasses.replace(r, pictures=(Path("none.png"),)) for r in records], {}, InputError, "all 10 records failed"),
    ],
)
def test_what_cannot_be_evaluated(records, tmp_path, records_of, how, error, words):
    with pytest.raises(error, match=words):
        evaluate(StandIn(), dataset(records_of(records)), out=tmp_path / "out", **how)


def test_a_wrong_metric_costs_nothing(records, tmp_path):
    model = StandIn()
    with pytest.raises(UsageError):
        evaluate(model, dataset(records), out=tmp_path / "out", metric="ap")
    assert model.asked == []
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_compared_is_said_before_anything_is_asked(records, tmp_path):
    evaluate(StandIn(), dataset(records), out=tmp_path / "before", metric="exact")
    for how, words in (({"metric": "anls"}, "by exact, this by anls"), ({"metric": "exact", "limit": 3}, "other records")):
        model = StandIn()
        with pytest.raises(UsageError, match=words):
            evaluate(model, dataset(records), out=tmp_path / "out", against=tmp_path / "before", **how)
        assert model.asked == []


def test_a_recipe_names_the_benchmark(records, tmp_path):
    scores = evaluate(StandIn(), dataset(records), out=tmp_path / "out", recipe="docvqa")
    assert (scores.metric, scores.benchmark, scores.published) == ("anls", "DocVQA", ())


def test_objects_from_the_data_sets_classes(tmp_path):
    record = Record("a", "detect", (picture(tmp_path),), "a", things=(thing("cat", 1, 2, 11, 12),))
    scores = evaluate(StandIn(), dataset([record], classes=("cat",)), out=tmp_path / "out")
    assert (scores.metric, scores.invalid) == ("ap", 1)
    assert scores.value == pytest.approx(1)


def test_the_bundled_model_answers_for_real(tmp_path):
    import paligemma
    from paligemma.demo import bundled_pictures, expected_places
    from paligemma.evaluation.scores import fit

    model = paligemma.load("bundled", device="cpu")
    answers, places = [], []
    for shown in bundled_pictures():
        path = tmp_path / shown.name
        shown.image.save(path)
        for number, item in enumerate(shown.items):
            id = f"{path.stem}-{number}"
            if item.task == "ask":
                prompt = f"answer en {item.arguments['question']}"
                answers.append(Record(id, "answer", (path,), id, prompt, (item.expect,), about={"picture": path.stem}))
            elif item.task == "detect":
                things = tuple(thing(box.label, *map(int, box.xyxy)) for box, _ in expected_places(item.expect))
                things = tuple(dataclasses.replace(one, outline=None) for one in things)
                places.append(Record(id, "detect", (path,), id, asked=tuple(item.arguments["classes"]), things=things))
    scores = evaluate(model, dataset(answers), out=tmp_path / "answers")
    assert scores.count > 10
    assert scores.value == 1, "the demo's pictures are those that it answers right"
    scores = evaluate(model, dataset(places), out=tmp_path / "places")
    assert scores.values["ap50"] > 0.9
    assert (tmp_path / "places" / "report.html").stat().st_size > 10_000
    with pytest.raises(UsageError, match="at least 40 guesses"):
        fit(tmp_path / "places")


def test_importing_is_light():
    heavy = ("torch", "transformers", "pycocotools", "jiwer", "jinja2", "matplotlib", "scipy", "av")
    code = f"import sys, paligemma.evaluation.evaluate, paligemma.evaluation.summary; print(*({{*{heavy!r}}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
