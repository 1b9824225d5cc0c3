"""Whether an answer in words is right: every rule that the question-answering benchmarks of PaliGemma are scored by.

Each takes the answer and those that people gave, and returns a share of right, 0 to 1. Blanks around an answer never count.
Rules as in big_vision `evaluators/proj/paligemma/transfers/*.py`, which follow the benchmarks' own programs to the letter, quirks included:
they are what published scores were computed with.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence

ANNOTATORS = 3
"""As many people who gave an answer make it wholly right (VQA)."""
ANLS_THRESHOLD = 0.5
"""A string that differs in this share of its characters or more is no reading of the other."""
TOLERANCE = 0.05
"""ChartQA: a number that is off by this share of the true one is right."""


def exact(answer: str, known: Sequence[str]) -> float:
    """Whether it is the one that is known; of several the one given most often, the first of equals."""
    if not known:
        return 0.0
    given = Counter(one.strip() for one in known)
    return float(answer.strip() == max(given, key=lambda one: given[one]))


def any_match(answer: str, known: Sequence[str]) -> float:
    """Whether anybody gave it."""
    return float(answer.strip() in {one.strip() for one in known})


def agreement(answer: str, known: Sequence[str]) -> float:
    """min(1, n / 3) where n people gave it (OK-VQA, A-OKVQA, VizWiz); plain equality where only one answer is known."""
    matches = sum(answer.strip() == one.strip() for one in known)
    return min(1.0, matches / ANNOTATORS) if len(known) > 1 else float(matches)


def anls(answer: str, known: Sequence[str], threshold: float = ANLS_THRESHOLD) -> float:
    """Average normalised Levenshtein similarity of one answer, for the known one it is most like (DocVQA; arXiv 1907.00490, equation 1)."""
    return max((_similarity(answer.strip(), one.strip(), threshold) for one in known), default=0.0)


def _similarity(answer: str, truth: str, threshold: float) -> float:
    if not truth:
        return float(not answer)
    share = edit_distance(answer, truth) / max(len(answer), len(truth))
    return 1 - share if share < threshold else 0.0


def edit_distance(a: Sequence[object], b: Sequence[object]) -> int:
    """Least number of elements (characters, words) inserted, removed or replaced."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


# VQA


def vqa_accuracy(answer: str, known: Sequence[str]) -> float:
    """VQAv2 and TextVQA: the mean, over leaving out one person each, of min(1, n / 3) where n of the others gave the answer.

    Texts are normalised (`vqa_normal`) only where people disagree. `known`: one a person, ten as a rule; fewer than four can never make an
    answer wholly right. https://visualqa.org/evaluation.html
    """
    answer, known = _one_line(answer), [_one_line(one) for one in known]
    if len(set(known)) > 1:
        answer, known = vqa_normal(answer), [vqa_normal(one) for one in known]
    matches = sum(answer == one for one in known)
    if not known:
        return 0.0
    # Leaving out one who agrees leaves one agreement less.
    agreeing, others = min(1.0, (matches - 1) / ANNOTATORS), min(1.0, matches / ANNOTATORS)
    return (matches * agreeing + (len(known) - matches) * others) / len(known) if matches else 0.0


@functools.lru_cache(maxsize=1 << 16)  # people give the same answers
def vqa_normal(text: str) -> str:
    """VQA's normal form: lower case, most punctuation and articles removed, small numbers as digits, apostrophes restored."""
    everywhere = re.search(r"\d,\d", text) is not None  # meant to spare the comma in 1,000; in fact it joins all words at punctuation
    normal = text
    for mark in _PUNCTUATION:
        normal = normal.replace(mark, "" if everywhere or f"{mark} " in text or f" {mark}" in text else " ")
    normal = re.sub(r"\.(?!\d)", "", normal)
    return " ".join(_VQA_WORDS.get(word, word) for word in normal.lower().split() if word not in ("a", "an", "the"))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = (
    "zero one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
)
_APOSTROPHES = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd how'll
    how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't
    should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
    something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"""
"""Words that get back an apostrophe that was left out."""


def _without_one(word: str) -> list[str]:
    """The word with each one of its apostrophes left out."""
    return [word[:i] + word[i + 1 :] for i, character in enumerate(word) if character == "'"]


_VQA_WORDS = {short: word for word in _APOSTROPHES.split() for short in _without_one(word)}
# Without the first apostrophe these are other words; the last line is a slip of the original.
_VQA_WORDS |= {"shed've": "she'd've", "she'dve": "she'd've", "wed've": "we'd've", "we'dve": "we'd've"}
_VQA_WORDS |= {"somebody'd": "somebodyd"}
_VQA_WORDS |= {word: str(number) for number, word in enumerate(_NUMBERS.split()[:11])} | {"none": "0"}


# Counting, charts, yes or no, multiple choice


def number_word(text: str) -> str:
    """TallyQA and CountBenchQA: a number's English name up to twenty, or "none", as digits; anything else as it is."""
    text = text.strip()
    return _DIGITS.get(text.lower(), text)


_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS.split())} | {"none": "0"}


def relaxed_match(answer: str, truth: str, tolerance: float = TOLERANCE) -> float:
    """ChartQA: a number may be off by 5 % of the true one; any other text, and a true 0, must be equal. `5%` is 0.05.

    arXiv 2203.10244, section 5.1.
    """
    answer, truth = answer.strip(), truth.strip()
    number, true = _number(answer), _number(truth)
    if number is None or not true:
        return float(answer == truth)
    return float(abs(number - true) / abs(true) <= tolerance)


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def yes_or_no(answer: str) -> str | None:
    """POPE: "yes" or "no", None for anything else."""
    answer = answer.strip().lower()
    return answer if answer in ("yes", "no") else None


def choice(answer: str) -> str | None:
    """ScienceQA: the letter in "the answer is x.", with which an answer must begin; else None."""
    match = re.match(r"the answer is ([a-z])\.", answer.lower())
    return match[1] if match else None


def mean_of_groups(values: Sequence[float], groups: Sequence[str]) -> dict[str, float]:
    """The mean of each group, in order of appearance (RSVQA: each type of question, whose mean is its average accuracy)."""
    means: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        means.setdefault(group, []).append(value)
    return {group: sum(each) / len(each) for group, each in means.items()}
