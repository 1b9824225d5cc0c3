"""Every metric by name: values by hand, perfect and wrong answers, what `auto` means, what is refused."""

import dataclasses

import numpy as np
import pytest

from paligemma.errors import UsageError
from paligemma.evaluation.metrics import METRICS, PLACES, WORDS, check_tasks, metric_for, metric_named
from paligemma.evaluation.places import Place
from paligemma.evaluation.predictions import Prediction
from paligemma.results import Box, Mask
from paligemma.tasks import TASKS
from tests.evaluation.making import answered, detected, rectangle, rle, segmented


def measure(name: str, predictions: list[Prediction]):
    found = METRICS[name].measure(predictions)
    assert found.values.keys() <= METRICS[name].keys.keys()
    assert METRICS[name].main in found.values
    assert len(found.each) == len(predictions)
    if found.statistic is not None:
        assert found.statistic(np.arange(len(predictions))) == pytest.approx(found.values[METRICS[name].main])
    else:
        assert found.each.mean() == pytest.approx(found.values[METRICS[name].main])
    for judged in found.judged.values():
        assert all(0 <= one.score <= 1 and 0 <= one.right <= 1 and 0 <= one.row < len(predictions) for one in judged)
    return found


BOX = (2.0, 2.0, 22.0, 22.0)
CAT = Place("cat", BOX, rle(rectangle(2, 2, 22, 22)))
PERFECT_MASK = Mask("cat", Box("cat", *BOX, 0.9), rectangle(2, 2, 22, 22), 0.8)
PERFECT = {
    "rsvqa": [answered("a", "Yes", ("yes",), about={"type": "presence"}), answered("b", "3", ("3",), about={"type": "count"})],
    "scienceqa": [answered("a", "The answer is A.", ("the answer is a.",))],
    "pope": [answered("a", "Yes", ("yes",))],
    "vqa": [answered("a", "yes", ("yes",) * 10)],
    "cider": [answered("a", "a cat on a mat here", ("A cat on a mat here.",)), answered("b", "two dogs run far", ("two dogs run far",))],
    "ap": [detected("a", [CAT], [Box("cat", *BOX, 0.9)])],
    "mask-ap": [segmented("a", [CAT], [PERFECT_MASK])],
    "refer": [segmented("a", [CAT], [PERFECT_MASK], "refer")],
    "mixed": [answered("a", "1"), detected("b", [CAT], [Box("cat", *BOX, 0.9)]), segmented("c", [CAT], [PERFECT_MASK], "refer")],
}
WRONG = {
    "ap": [detected("a", [CAT], [])],
    "mask-ap": [segmented("a", [CAT], [])],
    "refer": [segmented("a", [CAT], [], "refer")],
    "mixed": [answered("a", "2"), detected("b", [CAT], [])],
    "scienceqa": [answered("a", "b", ("the answer is a.",))],
    "pope": [answered("a", "maybe", ("yes",))],
}


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_answer_gets_the_best_value_and_a_wrong_one_the_worst(name):
    right = PERFECT.get(name, [answered("a", "1", ("1",)), answered("b", "two words", ("two words",))])
    wrong = WRONG.get(name, [dataclasses.replace(one, result={**one.result, "text": "zzzzzzzzz"}) for one in right])  # type: ignore[dict-item]
    metric = METRICS[name]
    best, worst = measure(name, right).values[metric.main], measure(name, wrong).values[metric.main]
    assert best == pytest.approx(10.0 if name == "cider" else float(metric.higher_is_better))
    assert worst == pytest.approx(0) if metric.higher_is_better else worst >= 1


def test_registry():
    assert all(name == metric.name and metric.main in metric.keys for name, metric in METRICS.items())
    assert TASKS.keys() == WORDS | PLACES
    assert all(any(task in metric.tasks for metric in METRICS.values()) for task in TASKS)


def test_capitals_count_where_the_benchmark_says_so():
    predictions = [answered("a", "Cat", ("cat",)), answered("b", "dog", ("dog",))]
    assert measure("exact", predictions).values == {"exact": 0.5, "agreement": 0.5, "any": 0.5, "anls": pytest.approx((1 + 2 / 3) / 2)}
    assert set(measure("exact-lower", predictions).values.values()) == {1.0}
    assert measure("anls", predictions).values["anls"] == 1
    assert measure("chartqa", predictions).values == {"relaxed": 1, "exact": 1}


def test_charts_and_counts():
    assert measure("chartqa", [answered("a", "10.4", ("10",)), answered("b", "5%", ("0.05",))]).values == {"relaxed": 1, "exact": 0}
    tally = measure("tallyqa", [answered("a", "two", ("2",)), answered("b", "3", ("10",)), answered("c", "2", ("two",))])
    assert tally.values == {"accuracy": pytest.approx(2 / 3)}
    assert {name: (one.value, one.count) for name, one in tally.groups["count"].items()} == {"2": (1, 2), "10": (0, 1)}
    assert list(tally.groups["count"]) == ["2", "10"], "by number, not by letter"


def test_yes_or_no_says_how_many_answers_are():
    found = measure("pope", [answered("a", "yes", ("yes",)), answered("b", "no", ("Yes",)), answered("c", "a cat", ("no",))])
    assert found.values == {"accuracy": pytest.approx(1 / 3), "valid": pytest.approx(2 / 3)}
    with pytest.raises(UsageError, match="record b is 'red', not"):
        METRICS["pope"].measure([answered("a", "yes", ("yes",)), answered("b", "no", ("red",))])


def test_choices_that_cannot_be_read_are_wrong():
    truth = ("The answer is b.",)
    found = measure("scienceqa", [answered("a", "the answer is b. since", truth), answered("b", "b", truth)])
    assert found.values == {"accuracy": 0.5, "unread": 0.5}


def test_remote_sensing_is_averaged_over_types():
    kinds = ["count"] * 1 + ["comp"] * 2 + ["presence"] * 1
    texts = ["x", "yes", "no", "Yes"]
    predictions = [
        answered(str(n), text, ("yes",), about={"question_type": kind}) for n, (kind, text) in enumerate(zip(kinds, texts, strict=True))
    ]
    found = measure("rsvqa", predictions)
    assert found.values == {"average": pytest.approx((0 + 0.5 + 1) / 3), "accuracy": 0.5, "average_without_numbers": 0.75}
    assert found.statistic is not None
    assert found.statistic(np.array([1, 1, 3])) == 1, "only types that were drawn"
    with pytest.raises(UsageError, match="type of question"):
        METRICS["rsvqa"].measure([answered("a", "yes")])


def test_vqa_needs_many_people():
    with pytest.raises(UsageError, match=r"record a has 3 answer"):
        METRICS["vqa"].measure([answered("a", "yes", ("yes",) * 3)])


def test_reading_takes_the_closest_truth():
    found = measure("ocr", [answered("a", "STOP", ("GO", "STOP")), answered("b", "ab", ("abcd",))])
    assert found.values == {"cer": pytest.approx(2 / 8), "wer": 0.5, "word_f1": 0.5, "exact": 0.5}
    assert [one.right for one in found.judged["text"]] == [1, 0]
    assert found.statistic is not None
    assert found.statistic(np.array([1, 1])) == 0.5


def test_answers_without_a_score_are_not_judged():
    assert measure("exact", [answered("a", "1", score=None), answered("b", "1", score=0.25)]).judged["text"][0].row == 1
    assert "text" not in measure("cider", [answered("a", "1"), answered("b", "2")]).judged, "a caption is not right or wrong"


def test_boxes():
    owl = Place("owl", (5, 5, 15, 15))
    found = measure("ap", [detected("a", [CAT, owl], [Box("cat", *BOX, 0.9)]), detected("b", [], [Box("cat", *BOX, 0.5)])])
    assert found.values["ap"] == pytest.approx(0.5)
    assert {name: (one.value, one.count) for name, one in found.groups["class"].items()} == {"cat": (pytest.approx(1), 1), "owl": (0, 1)}
    assert found.each.tolist() == [pytest.approx(2 / 3), 0]
    assert [(one.score, one.right) for one in found.judged["box"]] == [(0.9, 1), (0.5, 0)]


def test_what_a_sentence_means_is_compared_whatever_its_label():
    found = measure("ap", [segmented("a", [CAT], [dataclasses.replace(PERFECT_MASK, label="the cat on the mat")], "refer")])
    assert found.values["ap"] == pytest.approx(1)


def test_masks_are_measured_with_their_boxes():
    shifted = Mask("cat", Box("cat", *BOX, 0.9), rectangle(2, 2, 22, 10), 0.8)
    found = measure("mask-ap", [segmented("a", [CAT], [shifted])])
    assert (found.values["ap"], found.values["box_ap"]) == pytest.approx((0, 1))
    assert [(one.score, one.right) for kind in ("mask", "box") for one in found.judged[kind]] == [(0.8, 0), (0.9, 1)], (
        "each by its own score"
    )
    assert measure("ap", [segmented("a", [CAT], [shifted])]).judged["box"][0].score == 0.9


def test_referring():
    half = Mask("x", Box("x", 2, 2, 22, 12, 0.6), rectangle(2, 2, 22, 12), 0.7)
    found = measure("refer", [segmented("a", [CAT], [half, PERFECT_MASK], "refer"), segmented("b", [CAT], [], "refer")])
    assert found.values == {"miou": 0.25, "overall_iou": 0.25, "box50": 0.5, "box75": 0, "invalid": 1}
    assert {kind: [(one.score, one.right) for one in judged] for kind, judged in found.judged.items()} == {
        "mask": [(0.7, 1)],
        "box": [(0.6, 1)],
    }
    with pytest.raises(UsageError, match="no outline"):
        METRICS["refer"].measure([segmented("a", [Place("x", BOX)], [half], "refer")])


def test_order_does_not_matter():
    for name, predictions in PERFECT.items():
        more = [*predictions, *WRONG.get(name, [])]
        assert METRICS[name].measure(more[::-1]).values == pytest.approx(METRICS[name].measure(more).values)


@pytest.mark.parametrize(
    ("task", "answers", "names", "metric"),
    [
        ("answer", [("1",)], (), "exact"),
        ("answer", [("1",), ("1", "2")], (), "any"),
        ("answer", [("1",) * 10], (), "vqa"),
        ("answer", [("1",)], ("data/DocVQA/val.jsonl",), "anls"),
        ("run", [("1",)], ("chartqa",), "chartqa"),
        ("caption", [("1",)], (), "cider"),
        ("caption", [("1",)], ("docvqa",), "anls"),
        ("describe_box", [("1",)], (), "cider"),
        ("ocr", [("1",)], (), "ocr"),
        ("detect", [()], (), "ap"),
        ("detect", [()], ("docvqa",), "ap"),
        ("segment", [()], (), "mask-ap"),
        ("segment", [()], ("refcoco",), "refer"),
        ("refer", [()], (), "refer"),
        ("answer", [("1",)], ("mmvp",), "exact"),
        ("answer", [("1",)], ("vqav2",), "exact"),
        ("answer", [("1",) * 5], ("vqav2",), "vqa"),
        ("answer", [("1",)], ("rsvqa-lr",), "exact"),
        ("answer", [("yes",), ("No",)], ("pope",), "pope"),
        ("answer", [("a hat",)], ("pope",), "exact"),
        ("answer", [("The answer is b.",)], ("science-qa",), "scienceqa"),
        ("answer", [("b",)], ("science-qa",), "exact"),
    ],
)
def test_what_auto_means(task, answers, names, metric):
    records = [Prediction(str(n), task, answers=known) for n, known in enumerate(answers)]
    assert metric_for(records, *names).name == metric


def test_auto_knows_the_types_of_remote_sensing():
    assert metric_for([Prediction("a", "answer", answers=("1",), about={"type": "count"})], "rsvqa_hr").name == "rsvqa"


def test_auto_of_several_tasks():
    assert metric_for([Prediction("a", "answer", answers=("1",)), Prediction("b", "run", answers=("1",))]).name == "exact"
    assert metric_for([Prediction("a", "answer", answers=("1",)), Prediction("b", "detect")]).name == "mixed"


def test_what_does_not_exist_or_suit_is_refused():
    with pytest.raises(UsageError, match="no metric is called 'cidr'") as caught:
        metric_named("cidr")
    assert caught.value.hint == "did you mean 'cider'?"
    with pytest.raises(UsageError, match="does not measure the task 'detect'") as caught:
        check_tasks(METRICS["cider"], [Prediction("a", "detect")])
    assert caught.value.hint == "metrics for it: ap, mixed"
    check_tasks(METRICS["ap"], [Prediction("a", "detect"), Prediction("b", "segment")])


def test_numbers_as_tables_show_them():
    assert METRICS["cider"].shown(1.4189) == "141.9"
    assert METRICS["refer"].shown(1234.0, "invalid") == "1,234"
