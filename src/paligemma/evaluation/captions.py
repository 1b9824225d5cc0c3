"""How well captions match those that people wrote: CIDEr-D, BLEU-1 to 4 and ROUGE-L, each on lists of words (see `ptb.words`).

They give the numbers of `pycocoevalcap`, the package behind every published COCO score, on the same words; it is a test dependency.
All are shares: published tables show a hundred times as much.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

Words = Sequence[str]
Gram = tuple[str, ...]

LONGEST = 4
"""Grams of one to four words are counted."""
SIGMA = 6.0
"""CIDEr-D's tolerance for captions of another length, in words."""
BETA = 1.2
"""ROUGE-L's weight of recall over precision."""


def cider(guesses: Sequence[Words], references: Sequence[Sequence[Words]]) -> np.ndarray:
    """CIDEr-D of each caption, 0 to 10; their mean is the data set's. Vedantam et al., arXiv 1411.5726, with the clipping and the length
    penalty of its appendix.

    Grams are weighed by how few pictures' references hold them, so a value depends on the whole data set: comparable only on the same
    pictures, and 0 for a data set of one. A caption without references scores 0.
    """
    weigh = _Weights(references)
    return np.array([_cider(weigh, guess, known) for guess, known in zip(guesses, references, strict=True)], float)


class _Weights:
    """Words -> their grams' counts times inverse document frequency, for each length of gram."""

    def __init__(self, references: Sequence[Sequence[Words]]):
        self.pictures = math.log(max(len(references), 1))
        self.holding = Counter(gram for known in references for gram in {gram for words in known for gram in _grams(words)})

    def __call__(self, words: Words) -> list[dict[Gram, float]]:
        vectors: list[dict[Gram, float]] = [{} for _ in range(LONGEST)]
        for gram, count in Counter(_grams(words)).items():
            vectors[len(gram) - 1][gram] = count * (self.pictures - math.log(max(self.holding[gram], 1)))
        return vectors


def _cider(weigh: _Weights, guess: Words, known: Sequence[Words]) -> float:
    if not known:
        return 0.0
    ours = weigh(guess)
    norms = [_norm(vector) for vector in ours]
    total = 0.0
    for words in known:
        difference = max(len(guess) - 1, 0) - max(len(words) - 1, 0)  # the reference counts grams of two words
        penalty = math.exp(-(difference**2) / (2 * SIGMA**2))
        for mine, norm, theirs in zip(ours, norms, weigh(words), strict=True):
            common = sum(min(weight, theirs[gram]) * theirs[gram] for gram, weight in mine.items() if gram in theirs)
            if common:
                total += penalty * common / (norm * _norm(theirs))
    return 10 * total / (LONGEST * len(known))


def _norm(vector: dict[Gram, float]) -> float:
    return math.sqrt(sum(weight * weight for weight in vector.values()))


def bleu(guesses: Sequence[Words], references: Sequence[Sequence[Words]]) -> tuple[float, float, float, float]:
    """BLEU-1 to BLEU-4 of the whole data set, 0 to 1 (Papineni et al. 2002), with the length of the closest reference.

    Zero counts are smoothed by nearly nothing, as in the reference implementation.
    """
    right, given = np.zeros(LONGEST), np.zeros(LONGEST)
    length = expected = 0
    for guess, known in zip(guesses, references, strict=True):
        length += len(guess)
        expected += min((abs(len(words) - len(guess)), len(words)) for words in known)[1] if known else 0
        most: Counter[Gram] = Counter()
        for words in known:
            most |= Counter(_grams(words))
        for gram, count in (Counter(_grams(guess)) & most).items():
            right[len(gram) - 1] += count
        given += [max(len(guess) - n, 0) for n in range(LONGEST)]
    ratio = (length + 1e-15) / (expected + 1e-9)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    shares = np.cumprod((right + 1e-15) / (given + 1e-9)) ** (1 / np.arange(1, LONGEST + 1))
    one, two, three, four = (float(share * penalty) for share in shares)
    return one, two, three, four


def rouge_l(guesses: Sequence[Words], references: Sequence[Sequence[Words]]) -> np.ndarray:
    """ROUGE-L of each caption, 0 to 1 (Lin 2004): the longest common subsequence, best precision and best recall of all references."""
    return np.array([_rouge(guess, known) for guess, known in zip(guesses, references, strict=True)], float)


def _rouge(guess: Words, known: Sequence[Words]) -> float:
    if not known:
        return 0.0
    guess = guess or ("",)  # to the reference no words are one word, the empty one
    common = [_common_subsequence(guess, words or ("",)) for words in known]
    precision = max(common) / len(guess)
    recall = max(length / max(len(words), 1) for length, words in zip(common, known, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if precision and recall else 0.0


def _common_subsequence(a: Words, b: Words) -> int:
    """Length of the longest one."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def _grams(words: Words) -> Iterator[Gram]:
    for n in range(1, LONGEST + 1):
        for start in range(len(words) - n + 1):
            yield tuple(words[start : start + n])
