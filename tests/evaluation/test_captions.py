"""CIDEr, BLEU and ROUGE-L: the numbers of pycocoevalcap on the same words, and what must hold of any of them."""

import contextlib
import io
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.evaluation.captions import bleu, cider, rouge_l
from paligemma.evaluation.ptb import words

VOCABULARY = ["a", "man", "dog", "the", "on", "is", "red", "big", "cat", "sits", "and", "of", "in", "'s", "n't", "u.s.", "-lrb-"]


def corpus(seed: int, *, shortest: int = 0) -> tuple[list[list[str]], list[list[list[str]]]]:
    rng = random.Random(seed)

    def caption() -> list[str]:
        return [rng.choice(VOCABULARY) for _ in range(rng.randint(shortest, 12))]

    count = rng.randint(1, 12)
    return [caption() for _ in range(count)], [[caption() for _ in range(rng.randint(1, 5))] for _ in range(count)]


def as_reference(guesses, references):
    known = {number: [" ".join(one) for one in each] for number, each in enumerate(references)}
    return known, {number: [" ".join(guess)] for number, guess in enumerate(guesses)}


@pytest.mark.parametrize("seed", range(12))
def test_they_are_the_references(seed):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    guesses, references = corpus(seed)
    known, given = as_reference(guesses, references)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs, _ = Bleu().compute_score(known, given)
    assert bleu(guesses, references) == pytest.approx(theirs, abs=1e-6)
    mean, each = Cider().compute_score(known, given)
    np.testing.assert_allclose(cider(guesses, references), each, atol=1e-6)
    assert cider(guesses, references).mean() == pytest.approx(mean, abs=1e-6)
    np.testing.assert_allclose(rouge_l(guesses, references), Rouge().compute_score(known, given)[1], atol=1e-6)


def test_captions_from_text_to_number():
    from pycocoevalcap.cider.cider import Cider

    texts = ["A man's dog can't swim.", "Two cats (asleep) on a bed.", "The U.S. flag."]
    truths = [["A dog is swimming.", "a man's dog"], ["two cats asleep on the bed"], ["an American flag", "the flag of the U.S."]]
    guesses, references = [words(text) for text in texts], [[words(text) for text in each] for each in truths]
    assert cider(guesses, references).mean() == pytest.approx(Cider().compute_score(*as_reference(guesses, references))[0], abs=1e-6)


captions = st.lists(st.sampled_from(VOCABULARY), min_size=4, max_size=9)
corpora = st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=3)), min_size=2, max_size=5)


@given(corpora, st.randoms())
def test_ranges_and_order(pairs, rng):
    guesses, references = map(list, zip(*pairs, strict=True))
    values = cider(guesses, references)
    assert ((values >= 0) & (values <= 10 + 1e-9)).all()
    assert all(0 <= value <= 1 for value in (*bleu(guesses, references), *rouge_l(guesses, references)))
    order = list(range(len(pairs)))
    rng.shuffle(order)
    again = cider([guesses[i] for i in order], [references[i] for i in order])
    np.testing.assert_allclose(again, values[order], atol=1e-9)
    assert bleu([guesses[i] for i in order], [references[i] for i in order]) == pytest.approx(bleu(guesses, references))
    turned = [list(reversed(each)) for each in references]
    np.testing.assert_allclose(cider(guesses, turned), values, atol=1e-9)


def test_the_truth_itself_scores_best():
    truths = [words(text) for text in ("a cat on a mat", "two dogs run over grass", "the red bus is late today")]
    references = [[truth] for truth in truths]
    np.testing.assert_allclose(cider(truths, references), 10)
    assert bleu(truths, references) == pytest.approx((1, 1, 1, 1), abs=1e-6)
    np.testing.assert_allclose(rouge_l(truths, references), 1)


def test_nothing_to_compare_with_scores_nothing():
    guess = ["a", "cat"]
    assert cider([guess, guess], [[], [guess]])[0] == 0
    assert rouge_l([guess], [[]])[0] == 0
    assert cider([guess], [[guess]])[0] == 0  # one picture says nothing about which words are rare
