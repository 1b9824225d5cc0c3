"""Before and after: the difference, the records behind it, whether chance would do; and what cannot be compared."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from paligemma.errors import InputError, UsageError
from paligemma.evaluation.gain import earlier, gain
from paligemma.evaluation.plots import interval_plot
from paligemma.evaluation.predictions import appending
from paligemma.evaluation.report import write_report
from paligemma.evaluation.scores import Scores, score
from paligemma.evaluation.summary import summary
from tests.evaluation.making import answered
from tests.evaluation.test_report import Reader


def measured(folder: Path, right: int, count: int = 60, metric: str = "exact", start: int = 0) -> Scores:
    """A measurement in which the first so many answers are right."""
    folder.mkdir()
    with appending(folder / "predictions.jsonl") as add:
        add([answered(f"q{number}", "1" if number < right else "2") for number in range(start, start + count)])
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
    assert "-50.0, more than chance would do; 0 records better, 30 worse" in summary(after, found)


def test_a_small_difference_may_be_chance(tmp_path):
    measured(tmp_path / "before", 30)
    after = measured(tmp_path / "after", 32)
    found = gain(after, tmp_path / "before" / "scores.json")
    assert not found.apart
    assert "which may be chance" in summary(after, found)


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
    assert "+50.0 is more than chance would do" in text
    assert "30 came out better, 0 worse" in text
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
