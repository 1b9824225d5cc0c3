"""The metrics by name: for which tasks each is made, what numbers it returns, and which of them tells a better model.

To add one, write a function of predictions that returns `Measured` (see `measures`) and add a `Metric` to `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import UsageError, did_you_mean
from . import answers, measures
from .measures import ANSWER_RULES, Measured, by_rules
from .predictions import Prediction
from .published import benchmark_named

WORDS = frozenset({"caption", "answer", "question", "ocr", "describe_box", "run"})
"""Tasks that answer in words."""
PLACES = frozenset({"detect", "segment", "refer"})
"""Tasks that answer in boxes or masks."""


@dataclass(frozen=True)
class Metric:
    """`keys`: the numbers it returns and what they are, in order; a key may be missing where there is nothing to count. All are shares of
    one, shown as hundredths, but those in `counts`. `main`: the key that tells a better model. `fits`: whether a record has what it needs.
    `each`: what the value of one record is, where the main value is no mean of those; else "".
    """

    name: str
    title: str
    measure: Callable[[Sequence[Prediction]], Measured]
    tasks: frozenset[str]
    keys: Mapping[str, str]
    main: str
    higher_is_better: bool = True
    counts: frozenset[str] = frozenset()
    fits: Callable[[Asked], bool] = lambda record: True
    each: str = ""

    def shown(self, value: float, key: str | None = None) -> str:
        """As tables show it: hundredths with one decimal, or a plain count. Without `key`, of the main one."""
        return f"{value:,.0f}" if key in self.counts else f"{100 * value:.1f}"


class Asked(Protocol):
    """What of a record or a prediction tells its metric."""

    @property
    def task(self) -> str: ...
    @property
    def answers(self) -> Sequence[str]: ...
    @property
    def about(self) -> Mapping[str, Any]: ...


_ANSWER_KEYS = {
    "exact": "exact match", "agreement": "agreement with three people", "any": "match with anybody's answer", "anls": "ANLS",
}  # fmt: skip
_AP_KEYS = {
    "ap": "AP", "ap50": "AP at IoU 0.5", "ap75": "AP at IoU 0.75", "ap_small": "AP of small objects", "ap_medium": "AP of medium objects",
    "ap_large": "AP of large objects", "ar1": "AR with 1 guess", "ar10": "AR with 10 guesses", "ar100": "AR with 100 guesses",
    "invalid": "malformed objects",
}  # fmt: skip

_F1 = "F1 of its objects at IoU 0.5"


def _answering(name: str, title: str, main: str, *, lower: bool = False) -> Metric:
    return Metric(name, title, by_rules(ANSWER_RULES, main, lower=lower), WORDS, _ANSWER_KEYS, main)


_ALL = (
    _answering("exact", "exact match", "exact"),
    _answering("exact-lower", "exact match, capitals or not", "exact", lower=True),
    _answering("any", "match with any known answer", "any"),
    _answering("agreement", "agreement with three people", "agreement"),
    _answering("anls", "ANLS, capitals or not", "anls", lower=True),
    Metric("vqa", "VQA accuracy", measures.vqa, WORDS, {"vqa": "VQA accuracy", "any": "match with anybody's answer"}, "vqa",
           fits=lambda record: len(record.answers) > answers.ANNOTATORS),
    Metric(
        "chartqa", "relaxed accuracy",
        by_rules({"relaxed": lambda text, known: answers.relaxed_match(text, known[0]), "exact": answers.exact}, "relaxed", lower=True),
        WORDS, {"relaxed": "relaxed accuracy", "exact": "exact match"}, "relaxed",
    ),
    Metric("tallyqa", "counting accuracy", measures.tallyqa, WORDS, {"accuracy": "accuracy"}, "accuracy"),
    Metric("pope", "yes-or-no accuracy", measures.pope, WORDS, {"accuracy": "accuracy", "valid": "answers that are yes or no"}, "accuracy",
           fits=lambda record: answers.yes_or_no(record.answers[0]) is not None),
    Metric(
        "rsvqa", "average accuracy of question types", measures.rsvqa, WORDS,
        {"average": "average of types", "accuracy": "accuracy of all", "average_without_numbers": "average without numbers"}, "average",
        each="right or wrong",
        fits=lambda record: any(name in record.about for name in measures.TYPE_NAMES),
    ),
    Metric("scienceqa", "accuracy", measures.scienceqa, WORDS, {"accuracy": "accuracy", "unread": "answers without a choice"}, "accuracy",
           fits=lambda record: answers.choice(record.answers[0]) is not None),
    Metric(
        "cider", "CIDEr", measures.caption_scores, WORDS,
        {"cider": "CIDEr"} | {f"bleu{n}": f"BLEU-{n}" for n in range(1, 5)} | {"rouge_l": "ROUGE-L"}, "cider",
    ),
    Metric(
        "ocr", "character error rate", measures.reading_errors, WORDS,
        {"cer": "character error rate", "wer": "word error rate", "word_f1": "F1 of words", "exact": "exact match"}, "cer",
        higher_is_better=False, each="its own character error rate",
    ),
    Metric("ap", "COCO AP of boxes", measures.boxes, PLACES, _AP_KEYS, "ap", counts=frozenset({"invalid"}), each=_F1),
    Metric(
        "mask-ap", "COCO AP of masks", measures.masks, frozenset({"segment", "refer"}),
        _AP_KEYS | {"box_ap": "AP of boxes", "box_ap50": "AP of boxes at IoU 0.5"}, "ap", counts=frozenset({"invalid"}),
        each=_F1,
    ),
    Metric(
        "refer", "mean IoU of masks", measures.referring, frozenset({"refer", "segment"}),
        {"miou": "mean IoU", "overall_iou": "IoU of all pixels together", "box50": "boxes right at IoU 0.5",
         "box75": "boxes right at IoU 0.75", "invalid": "answers without a mask"}, "miou", counts=frozenset({"invalid"}),
    ),
    Metric(
        "mixed", "right answers of every task", measures.mixed, WORDS | PLACES,
        {"right": "answers that match, F1 of objects at IoU 0.5, IoU of what was meant"}, "right",
    ),
)  # fmt: skip
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}


def metric_named(name: str) -> Metric:
    """The metric of that name; an unknown one raises `UsageError` with the closest."""
    if name in METRICS:
        return METRICS[name]
    raise UsageError(f"no metric is called {name!r}", hint=did_you_mean(name, METRICS, "metrics: auto, " + ", ".join(METRICS)))


def metric_for(records: Sequence[Asked], *names: str | Path) -> Metric:
    """What `--metric auto` means: the metric of the benchmark that one of `names` (of the data set, of a recipe) speaks of, where it suits
    the tasks and fits all records; else the usual one of the task; `mixed` for records of several tasks. Questions with ten people's
    answers are VQA's.
    """
    tasks = {record.task for record in records}
    benchmark = benchmark_named(*names)
    if benchmark is not None and benchmark.metric:
        metric = METRICS[benchmark.metric]
        if tasks <= metric.tasks and all(metric.fits(record) for record in records):
            return metric
    if len(tasks) != 1:
        return METRICS["exact" if tasks <= {"answer", "run", "question"} else "mixed"]
    (task,) = tasks
    usual = {"detect": "ap", "segment": "mask-ap", "refer": "refer", "ocr": "ocr", "caption": "cider", "describe_box": "cider"}
    if task in usual:
        return METRICS[usual[task]]
    fewest = min(len(record.answers) for record in records)
    return METRICS["vqa" if fewest >= 10 else "any" if any(len(record.answers) > 1 for record in records) else "exact"]


def check_tasks(metric: Metric, records: Sequence[Asked]) -> None:
    """`UsageError` where a record's task is none that the metric can measure."""
    strange = next((record.task for record in records if record.task not in metric.tasks), None)
    if strange is not None:
        suiting = [name for name, other in METRICS.items() if strange in other.tasks]
        raise UsageError(f"the metric {metric.name!r} does not measure the task {strange!r}", hint=f"metrics for it: {', '.join(suiting)}")
