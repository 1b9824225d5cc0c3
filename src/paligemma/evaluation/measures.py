"""What the metrics count in a list of predictions: values, which predictions are good or bad, and which guesses were right.

The arithmetic is in `captions`, `answers`, `readings` and `places`; here predictions are taken apart for it. Every function takes
predictions that were answered, at least one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import UsageError
from ..sources import natural_order
from . import answers, captions, readings
from .places import Evaluation, Judged, Kind, Place, box_iou, mask_of, mask_overlap
from .predictions import Prediction
from .ptb import words

RIGHT_IOU = 0.5
"""A box or mask counts as found when it overlaps the true one this much."""


@dataclass(frozen=True)
class Group:
    """A part of the predictions: its value and how many there are."""

    value: float
    count: int


@dataclass(frozen=True)
class Measured:
    """`each`: one value a prediction, whose mean is the main value unless `statistic` makes that of rows' numbers; it also says which
    predictions are the worst. `judged`: by kind of score (`engine.scores.KINDS`), guesses with their score and how right they were.
    """

    values: Mapping[str, float]
    each: np.ndarray
    statistic: Callable[[np.ndarray], float] | None = None
    groups: Mapping[str, Mapping[str, Group]] = field(default_factory=dict)
    judged: Mapping[str, Sequence[Judged]] = field(default_factory=dict)


Rule = Callable[[str, Sequence[str]], float]


def by_rules(rules: Mapping[str, Rule], main: str, *, lower: bool = False) -> Callable[[Sequence[Prediction]], Measured]:
    """The mean of each rule over all predictions."""

    def measure(predictions: Sequence[Prediction]) -> Measured:
        texts = [(p.text, p.answers) for p in predictions]
        if lower:
            texts = [(text.lower(), tuple(known.lower() for known in answers)) for text, answers in texts]
        shares = {key: np.array([rule(text, known) for text, known in texts], float) for key, rule in rules.items()}
        return _shares(predictions, {key: float(each.mean()) for key, each in shares.items()}, shares[main])

    return measure


def _shares(predictions: Sequence[Prediction], values: Mapping[str, float], each: np.ndarray, **more: Any) -> Measured:
    """`each`: how right every answer in words is."""
    return Measured(values, each, judged=_judged(predictions, each), **more)


def _judged(predictions: Sequence[Prediction], right: np.ndarray) -> dict[str, list[Judged]]:
    scores = [p.score for p in predictions]
    return {"text": [Judged(row, score, float(right[row])) for row, score in enumerate(scores) if score is not None]}


ANSWER_RULES: dict[str, Rule] = {
    "exact": answers.exact,
    "agreement": answers.agreement,
    "any": answers.any_match,
    "anls": answers.anls,
}


def vqa(predictions: Sequence[Prediction]) -> Measured:
    few = next((p for p in predictions if len(p.answers) <= answers.ANNOTATORS), None)
    if few is not None:
        raise UsageError(
            f"VQA accuracy compares with what many people said, ten as a rule, but record {few.id} has {len(few.answers)} answer(s)",
            hint="--metric exact, any or agreement",
        )
    return by_rules({"vqa": answers.vqa_accuracy, "any": answers.any_match}, "vqa")(predictions)


def tallyqa(predictions: Sequence[Prediction]) -> Measured:
    truths = [answers.number_word(p.answers[0]) for p in predictions]
    each = np.array([answers.number_word(p.text) == truth for p, truth in zip(predictions, truths, strict=True)], float)
    return _shares(predictions, {"accuracy": float(each.mean())}, each, groups={"count": groups_of(each, truths)})


def pope(predictions: Sequence[Prediction]) -> Measured:
    each, valid = _readable(predictions, answers.yes_or_no, '"yes" or "no"')
    return _shares(predictions, {"accuracy": float(each.mean()), "valid": valid}, each)


def scienceqa(predictions: Sequence[Prediction]) -> Measured:
    each, valid = _readable(predictions, answers.choice, '"The answer is x."')
    return _shares(predictions, {"accuracy": float(each.mean()), "unread": 1 - valid}, each)


def _readable(predictions: Sequence[Prediction], read: Callable[[str], str | None], form: str) -> tuple[np.ndarray, float]:
    """Which answers are right, and how many are of a form that can be at all."""
    truths = [read(p.answers[0]) for p in predictions]
    if None in truths:
        strange = predictions[truths.index(None)]
        raise UsageError(f"the right answer of record {strange.id} is {strange.answers[0]!r:.80}, not {form}", hint="--metric exact")
    given = [read(p.text) for p in predictions]
    right = np.array([g == truth for g, truth in zip(given, truths, strict=True)], float)
    return right, float(np.mean([g is not None for g in given]))


RSVQA_NUMBERS = frozenset({"count", "area"})
"""Types of question whose answers are numbers."""
TYPE_NAMES = ("question_type", "type", "kind")
"""What a record's `about` may call the type of its question."""


def rsvqa(predictions: Sequence[Prediction]) -> Measured:
    types = [next((str(p.about[name]) for name in TYPE_NAMES if name in p.about), "") for p in predictions]
    if not all(types):
        where = predictions[types.index("")]
        raise UsageError(
            f"record {where.id} does not say its type of question, and RSVQA is scored type by type", hint="--metric exact-lower"
        )
    each = np.array([answers.any_match(p.text.lower(), [known.lower() for known in p.answers]) for p in predictions])
    numbers = {name: place for place, name in enumerate(dict.fromkeys(types))}
    of_row = np.array([numbers[name] for name in types])

    def average(rows: np.ndarray) -> float:
        counts = np.bincount(of_row[rows], minlength=len(numbers))
        sums = np.bincount(of_row[rows], each[rows], minlength=len(numbers))
        return float((sums[counts > 0] / counts[counts > 0]).mean())

    values = {"average": average(np.arange(len(each))), "accuracy": float(each.mean())}
    plain = np.flatnonzero([name not in RSVQA_NUMBERS for name in types])
    if 0 < len(plain) < len(types):
        values["average_without_numbers"] = average(plain)
    return _shares(predictions, values, each, statistic=average, groups={"question type": groups_of(each, types)})


def caption_scores(predictions: Sequence[Prediction]) -> Measured:
    guesses = [words(p.text) for p in predictions]
    references = [[words(known) for known in p.answers] for p in predictions]
    each = captions.cider(guesses, references)
    values = {"cider": float(each.mean()), "rouge_l": float(captions.rouge_l(guesses, references).mean())}
    values |= {f"bleu{n}": value for n, value in enumerate(captions.bleu(guesses, references), 1)}
    return Measured(values, each)


def reading_errors(predictions: Sequence[Prediction]) -> Measured:
    closest = [min((readings.compare(p.text, known) for known in p.answers), key=_rate) for p in predictions]
    table = np.array([(r.characters, r.character_edits, r.words, r.word_edits, r.common, r.guessed) for r in closest], float)

    def rate(rows: np.ndarray) -> float:
        return float(table[rows, 1].sum() / max(table[rows, 0].sum(), 1))

    characters, character_edits, count, word_edits, common, guessed = table.sum(0)
    values = {
        "cer": character_edits / max(characters, 1),
        "wer": word_edits / max(count, 1),
        "word_f1": readings.word_f1(common, guessed, count),
        "exact": float(np.mean([r.exact for r in closest])),
    }
    each = np.array([r.character_error_rate for r in closest])
    judged = _judged(predictions, np.array([r.exact for r in closest], float))
    return Measured({name: float(value) for name, value in values.items()}, each, rate, judged=judged)


def _rate(reading: readings.Reading) -> float:
    return reading.character_error_rate


def boxes(predictions: Sequence[Prediction]) -> Measured:
    return _objects(predictions, "box")


def masks(predictions: Sequence[Prediction]) -> Measured:
    boxes, masks = _objects(predictions, "box"), _objects(predictions, "mask")
    values = dict(masks.values) | {f"box_{key}": boxes.values[key] for key in ("ap", "ap50")}
    return Measured(values, masks.each, masks.statistic, masks.groups, {**masks.judged, **boxes.judged})


def _objects(predictions: Sequence[Prediction], kind: Kind) -> Measured:
    guesses = [_labelled(p, p.found if kind == "mask" else p.boxes) for p in predictions]
    evaluation = Evaluation([_labelled(p, p.things) for p in predictions], guesses, kind)
    there = Counter(thing.label for p in predictions for thing in p.things if not thing.ignored)
    groups = {label: Group(value, there[label]) for label, value in evaluation.by_class().items()}
    values = evaluation.values() | {"invalid": _invalid(predictions)}
    return Measured(values, evaluation.f1(), evaluation.resampled, {"class": groups}, {kind: evaluation.judged()})


def _labelled(prediction: Prediction, places: Sequence[Place]) -> list[Place]:
    """What a sentence means has no label but the sentence, so that all such things are one class."""
    return [dataclasses.replace(place, label="") for place in places] if prediction.task == "refer" else list(places)


def _invalid(predictions: Sequence[Prediction]) -> float:
    return float(sum((p.result or {}).get("invalid", 0) for p in predictions))


def referring(predictions: Sequence[Prediction]) -> Measured:
    overlaps, boxes, without = np.zeros((len(predictions), 2)), np.zeros(len(predictions)), 0
    judged: dict[str, list[Judged]] = {"mask": [], "box": []}
    for row, p in enumerate(predictions):
        truth, guess = p.things[0], next(iter(p.found), None)
        if truth.rle is None:
            raise UsageError(f"record {p.id} has no outline to compare a mask with", hint="measure its boxes: --metric ap")
        true = mask_of(truth.rle)
        if guess is None or guess.rle is None:
            overlaps[row], without = (0, true.sum()), without + 1
            continue
        overlaps[row], boxes[row] = mask_overlap(mask_of(guess.rle), true), box_iou(guess.box, truth.box)
        if guess.score is not None:
            judged["mask"].append(Judged(row, guess.score, float(overlaps[row, 0] >= RIGHT_IOU * overlaps[row, 1])))
        if (score := p.boxes[0].score) is not None:
            judged["box"].append(Judged(row, score, float(boxes[row] >= RIGHT_IOU)))
    each = overlaps[:, 0] / np.maximum(overlaps[:, 1], 1)
    values = {"miou": each.mean(), "overall_iou": overlaps[:, 0].sum() / max(overlaps[:, 1].sum(), 1)}
    values |= {"box50": (boxes >= 0.5).mean(), "box75": (boxes >= 0.75).mean(), "invalid": without}
    return Measured({key: float(value) for key, value in values.items()}, each, judged=judged)


_OF_TASK = {"detect": boxes, "segment": masks, "refer": referring}


def mixed(predictions: Sequence[Prediction]) -> Measured:
    """Every task by its own idea of right, as far as it is a share."""
    each = np.zeros(len(predictions))
    judged: dict[str, list[Judged]] = {}
    for task in dict.fromkeys(p.task for p in predictions):
        rows = [row for row, p in enumerate(predictions) if p.task == task]
        part = [predictions[row] for row in rows]
        measured = _OF_TASK.get(task, by_rules(ANSWER_RULES, "any"))(part)
        each[rows] = measured.each
        for kind, found in measured.judged.items():
            judged.setdefault(kind, []).extend(Judged(rows[one.row], one.score, one.right) for one in found)
    groups = {"task": groups_of(each, [p.task for p in predictions])}
    return Measured({"right": float(each.mean())}, each, groups=groups, judged=judged)


def groups_of(each: np.ndarray, names: Sequence[str]) -> dict[str, Group]:
    """In natural order of their names."""
    counts = Counter(names)
    means = answers.mean_of_groups(each.tolist(), names)
    return {name: Group(means[name], counts[name]) for name in sorted(means, key=natural_order)}
