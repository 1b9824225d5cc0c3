"""Before and after: the difference, the records behind it, whether chance would do; and what cannot be compared."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from paligemma.errors import InputError, UsageError
from paligemma.evaluation.gain import earlier, gain
from paligemma.evaluation.metrics import METRICS
from paligemma.evaluation.places import Place
from paligemma.evaluation.plots import interval_plot
from paligemma.evaluation.predictions import Prediction, appending
from paligemma.evaluation.report import write_report
from paligemma.evaluation.scores import Scores, score
from paligemma.evaluation.summary import summary
from tests.evaluation.making import answered, detected, rectangle, rle, segmented
from tests.evaluation.test_report import Reader


def measured(
    folder: Path, right: int, count: int = 60, metric: str = "exact", start: int = 0, failed: tuple[str, ...] = (), pictures: int = 1000
) -> Scores:
    """A measurement in which the first so many answers are right. `failed`: ids that could not be asked; `pictures`: there are so many."""

    def one(number: int) -> Prediction:
        asked = answered(f"q{number}", "1" if number < right else "2", pictures=(f"{number % pictures}.png",))
        return dataclasses.replace(asked, result=None, error={"code": "x", "message": "no"}) if asked.id in failed else asked

    folder.mkdir()
    with appending(folder / "predictions.jsonl") as add:
        add([one(number) for number in range(start, start + count)])
    scores = score(folder, metric)
    scores.save(folder)
    return scores


def test_what_was_gained(tmp_path):
    measured(tmp_path / "before", 15)
    found = gain(measured(tmp_path / "after", 45), tmp_path / "before")
    assert (found.value, found.difference) == (0.25, 0.5)
    assert (found.better, found.worse) == (30, 0)
    assert found.apart
    assert found.interval[0] < 0.25 < found.interval[1]


def test_what_was_lost_is_said_too(tmp_path):
    measured(tmp_path / "before", 45)
    after = measured(tmp_path / "after", 15)
    found = gain(after, tmp_path / "before")
    assert (found.difference, found.better, found.worse, found.apart) == (-0.5, 0, 30, True)
    low, high = found.spread
    assert low < -0.5 < high < 0
    assert f"-50.0 [{100 * low:.1f}, {100 * high:.1f}], more than chance would do: " in summary(after, found)
    assert "; 0 records better, 30 worse" in summary(after, found)


def test_a_small_difference_may_be_chance(tmp_path):
    measured(tmp_path / "before", 30)
    after = measured(tmp_path / "after", 32)
    found = gain(after, tmp_path / "before" / "scores.json")
    assert not found.apart
    assert "may be chance: only 2 pictures to tell by" in summary(after, found)


def test_pairs_tell_what_two_intervals_cannot(tmp_path):
    """Twelve records better and none worse: each record is compared with itself, however much records differ from each other."""
    before, after = measured(tmp_path / "before", 24), measured(tmp_path / "after", 36)
    assert before.interval[1] > after.interval[0]
    found = gain(after, tmp_path / "before")
    assert found.apart
    assert found.spread[0] > 0
    differences = [1.0] * 12 + [0.0] * 48
    rng = np.random.default_rng(1)
    low, high = np.percentile([rng.choice(differences, 60).mean() for _ in range(4000)], [2.5, 97.5])
    assert found.spread == pytest.approx((low, high), abs=0.02)


def test_as_many_better_as_worse_may_be_chance(tmp_path):
    with appending(tmp_path / "predictions.jsonl") as add:
        add([answered(f"q{number}", "2" if number < 15 else "1") for number in range(60)])
    measured(tmp_path / "before", 45)
    found = gain(score(tmp_path, "exact"), tmp_path / "before")
    assert (found.difference, found.better, found.worse, found.apart) == (0, 15, 15, False)
    assert found.verdict == "may be chance: the interval of the difference holds 0"


def test_questions_about_one_picture_are_one_piece_of_evidence(tmp_path):
    measured(tmp_path / "before", 0, pictures=5)
    found = gain(measured(tmp_path / "after", 60, pictures=5), tmp_path / "before")
    assert (found.better, found.pictures, found.apart) == (60, 5, False)
    assert "only 5 pictures" in found.verdict


def test_what_only_one_answered_is_left_out(tmp_path):
    before = measured(tmp_path / "before", 20, failed=("q0", "q1"))
    after = measured(tmp_path / "after", 40, failed=("q1", "q59"))
    found = gain(after, tmp_path / "before")
    assert found.left_out == 2
    assert (found.better, found.worse) == (20, 0)
    assert found.difference == pytest.approx(20 / 57)
    assert found.value == pytest.approx(18 / 57)
    assert found.value != before.value
    assert "; 2 that only one of the two answered are not compared" in summary(after, found)


def test_nothing_in_common_is_said(tmp_path):
    measured(tmp_path / "before", 1, count=2, failed=("q0",))
    with pytest.raises(InputError, match="no record was answered both times"):
        gain(measured(tmp_path / "after", 1, count=2, failed=("q1",)), tmp_path / "before")


def test_a_metric_that_is_no_mean_compares_intervals_and_says_what_is_counted(tmp_path):
    found = {}
    for when, text in (("before", "2"), ("after", "1")):
        (tmp_path / when).mkdir()
        with appending(tmp_path / when / "predictions.jsonl") as add:
            add([answered(f"q{number}", "1" if number % 2 else text) for number in range(40)])
        found[when] = score(tmp_path / when, "ocr")
        found[when].save(tmp_path / when)
    compared = gain(found["after"], tmp_path / "before")
    assert compared.spread is None
    assert (compared.apart, compared.better) == (True, 20)
    assert "more than chance would do: the two intervals do not touch" in compared.shown(METRICS["ocr"])
    assert "20 records better, 0 worse (each by its own character error rate, not by the main value)" in compared.shown(METRICS["ocr"])


@pytest.mark.parametrize("name", METRICS)
def test_what_is_no_mean_says_what_a_record_is_judged_by(name):
    """`each` of a metric is said exactly where its main value is made otherwise than as a mean."""
    kind = METRICS[name]
    thing = Place("cat", (1, 2, 11, 12), rle(rectangle(1, 2, 11, 12)))
    if kind.tasks == frozenset({"segment", "refer"}):
        asked = [segmented("a", [thing], [])] * 3
    elif "detect" in kind.tasks and name != "mixed":
        asked = [detected("a", [thing], [])] * 3
    else:
        words = {"scienceqa": "the answer is a.", "pope": "yes"}.get(name, "1")
        asked = [answered("a", words, (words,) * 10, about={"type": "x"})] * 3
    assert (kind.measure(asked).statistic is not None) == bool(kind.each)


def test_less_is_better_for_errors(tmp_path):
    measured(tmp_path / "before", 15, metric="ocr")
    found = gain(measured(tmp_path / "after", 45, metric="ocr"), tmp_path / "before")
    assert found.difference < 0
    assert (found.better, found.worse) == (30, 0)


def test_the_report_shows_it(tmp_path):
    measured(tmp_path / "before", 15)
    after = measured(tmp_path / "after", 45)
    page = write_report(after, tmp_path / "after", before=gain(after, tmp_path / "before")).read_text(encoding="utf-8")
    text = Reader(page).text
    assert "+50.0 [+" in " ".join(text.split())
    assert "is more than chance would do: the interval of the difference does not hold 0." in " ".join(text.split())
    assert "30 records better, 0 worse." in text
    assert "before: 25.0" in page
    assert "Gain" not in Reader(write_report(after, tmp_path / "after").read_text(encoding="utf-8")).text


def test_intervals_are_drawn_inside_their_frame():
    plot = interval_plot([("before", 0.0, (0.0, 0.1)), ("now", 1.0, (0.9, 1.0))], 1.0, "{:.1f}".format, "share")
    root = ElementTree.fromstring(plot)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter("circle")]
    assert len(dots) == 2
    assert all(0 <= x <= width and 0 <= y <= height for x, y in dots)
    assert dots[0][0] < dots[1][0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"metric": "anls"}, "by anls, this by exact"),
        ({"start": 1}, "2 are in one of the two only, such as q0"),
        ({"count": 9}, "51 are in"),
    ],
)
def test_other_measurements_cannot_be_compared(change, says, tmp_path):
    measured(tmp_path / "before", 15, **change)
    with pytest.raises(UsageError, match=says):
        gain(measured(tmp_path / "after", 45), tmp_path / "before")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"interval": [0], "each": []}', '{"interval": [0, 1], "each": [["a", "b"]]}', "[" * 9999]
)
def test_what_holds_no_scores_is_refused(text, tmp_path):
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(InputError, match="does not hold scores"):
        earlier(tmp_path)


def test_a_folder_without_scores_is_said(tmp_path):
    with pytest.raises(InputError, match="no scores to compare with"):
        earlier(tmp_path)
    with pytest.raises(InputError, match=r"no scores to compare with \(No such file"):
        earlier(tmp_path / "nowhere")


def test_an_older_file_without_its_run_will_do(tmp_path):
    measured(tmp_path / "before", 15)
    path = tmp_path / "before" / "scores.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "run"}))
    assert earlier(tmp_path / "before").model == ""
