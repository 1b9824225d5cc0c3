"""Top-p against a slow version of the reference's rule, and the draw against the distribution it draws from."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paligemma.engine.options import Options
from paligemma.engine.sampling import Temperature, TopP, draw, rules


def naive_top_p(logits: list[float], p: float) -> list[bool]:
    """Which tokens stay: walk down the sorted list until `p` is reached; the token that gets there stays, and whatever ties with it."""
    weights = torch.tensor(logits).softmax(0).tolist()
    total = 0.0
    for logit, weight in sorted(zip(logits, weights, strict=True), reverse=True):
        cutoff = logit
        total += weight
        if total >= p:
            break
    return [logit >= cutoff for logit in logits]


@given(st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12), st.floats(0.05, 0.97))
def test_top_p_equals_the_slow_rule(logits, p):
    sums = torch.tensor(sorted(logits, reverse=True)).softmax(0).cumsum(0)
    if (sums - p).abs().min() < 1e-5:
        return  # on the edge, rounding decides
    kept = TopP(p)(torch.tensor([logits])).isfinite()[0].tolist()
    assert kept == naive_top_p(logits, p)


@pytest.mark.parametrize(
    ("probs", "p", "kept"),
    [
        ([0.5, 0.3, 0.2], 0.4, [True, False, False]),  # the first token alone crosses
        ([0.5, 0.3, 0.2], 0.6, [True, True, False]),  # the crossing token is kept
        ([0.2, 0.5, 0.3], 0.95, [True, True, True]),
        ([0.4, 0.2, 0.2, 0.2], 0.5, [True, True, True, True]),  # ties of the crossing token are kept
    ],
)
def test_top_p_by_hand(probs, p, kept):
    assert TopP(p)(torch.tensor([probs]).log()).isfinite()[0].tolist() == kept


def test_temperature_comes_first():
    """At temperature 0.5 two tokens of 0.6 and 0.4 become 0.69 and 0.31, so that the first one reaches 0.65 alone."""
    logits = torch.tensor([[0.6, 0.4]]).log()
    for rule in rules(Options(temperature=0.5, top_p=0.65)):
        logits = rule(logits)
    assert logits.isfinite().tolist() == [[True, False]]
    assert rules(Options()) == ()
    assert rules(Options(temperature=2.0)) == (Temperature(2.0),)


def test_draw_follows_the_distribution():
    """Evenly spaced numbers must land in each column in proportion to its probability."""
    probs = torch.tensor([0.1, 0.0, 0.6, 0.3, 0.0])
    uniform = (torch.arange(1000) + 0.5) / 1000
    counts = draw(probs.log().expand(1000, -1), uniform).bincount(minlength=5)
    assert counts.tolist() == pytest.approx([100, 0, 600, 300, 0], abs=1)


@pytest.mark.parametrize("columns", [1, 7, 100_000])
def test_draw_never_picks_what_is_excluded(columns):
    logits = torch.full((2, columns + 2), float("-inf"))
    logits[:, 1:-1] = torch.randn(2, columns, generator=torch.Generator().manual_seed(0))
    picked = draw(logits, torch.tensor([0.0, 1 - 2**-24]))
    assert ((picked >= 1) & (picked <= columns)).all()
