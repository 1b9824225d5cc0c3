"""The training loss against formulas written out one token at a time."""

from __future__ import annotations

import math

import pytest
import torch

from paligemma.config import NUM_LOC
from paligemma.nano.objective import CoordinateCode, bell_targets, selected_loss, suffix_loss, suffix_weights

MASK_LOSS = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 0, 0, 0], [0, 0, 0, 1, 1]])


def example(vocab: int = 13) -> tuple[torch.Tensor, torch.Tensor]:
    """logits (3, 5, V) and targets (3, 5)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 5, vocab, generator=generator) * 3, torch.randint(0, vocab, (3, 5), generator=generator)


def written_out(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean over examples of the mean over each example's suffix tokens of minus the log-probability of the target."""
    per_example = []
    for row in range(len(targets)):
        tokens = [
            math.log(sum(math.exp(x) for x in logits[row, place].tolist())) - logits[row, place, targets[row, place]].item()
            for place in range(targets.shape[1])
            if MASK_LOSS[row, place]
        ]
        per_example.append(sum(tokens) / len(tokens))
    return sum(per_example) / len(per_example)


def test_every_example_weighs_the_same_however_long_its_suffix():
    logits, targets = example()
    assert suffix_loss(logits, targets, MASK_LOSS).item() == pytest.approx(written_out(logits, targets), abs=1e-5)
    by_token = torch.nn.functional.cross_entropy(logits[MASK_LOSS == 1], targets[MASK_LOSS == 1]).item()
    assert by_token != pytest.approx(written_out(logits, targets), abs=1e-2), "the mean over tokens is another loss"


def test_weights_are_shares():
    weights = suffix_weights(MASK_LOSS)
    assert weights.sum().item() == pytest.approx(1)
    assert weights[0].tolist() == pytest.approx([0, 0, 1 / 9, 1 / 9, 1 / 9])
    assert weights[1].tolist() == pytest.approx([0, 1 / 3, 0, 0, 0])


def test_an_example_without_suffix_is_no_division_by_zero():
    logits, targets = example()
    empty = MASK_LOSS.clone()
    empty[1] = 0
    assert suffix_weights(empty).isfinite().all()
    assert suffix_loss(logits, targets, empty).isfinite()


def test_only_suffix_tokens_move_the_loss():
    logits, targets = example()
    changed = torch.where(MASK_LOSS[..., None] == 1, logits, torch.zeros_like(logits))
    assert suffix_loss(changed, targets, MASK_LOSS).item() == pytest.approx(suffix_loss(logits, targets, MASK_LOSS).item(), abs=1e-6)


def test_the_loss_is_the_same_when_only_the_counted_tokens_are_computed():
    generator = torch.Generator().manual_seed(1)
    table, hidden = torch.randn(40 + NUM_LOC, 6, generator=generator), torch.randn(3, 5, 6, generator=generator)
    targets = torch.randint(0, 40, (3, 5), generator=generator)
    chosen = MASK_LOSS == 1
    weights = suffix_weights(MASK_LOSS)
    found, right = selected_loss(table, hidden[chosen], targets[chosen], weights[chosen], range(40, 40 + NUM_LOC), sigma=3.0)
    logits = hidden @ table.T
    assert found.item() == pytest.approx(suffix_loss(logits, targets, MASK_LOSS).item(), rel=1e-5)
    assert torch.equal(right, logits[chosen].argmax(-1) == targets[chosen])


def test_a_location_is_aimed_at_with_a_bell():
    generator = torch.Generator().manual_seed(1)
    loc = range(40, 40 + NUM_LOC)
    table, hidden = torch.randn(40 + NUM_LOC, 6, generator=generator), torch.randn(2, 6, generator=generator)
    targets, weights = torch.tensor([40 + 500, 7]), torch.tensor([0.5, 0.5])
    found, _ = selected_loss(table, hidden, targets, weights, loc, sigma=3.0)
    logp = (hidden @ table.T).log_softmax(-1)
    bell = [math.exp(-0.5 * ((b - 500) / 3.0) ** 2) for b in range(NUM_LOC)]
    aimed = sum(w * logp[0, 40 + b].item() for b, w in enumerate(bell)) / sum(bell)
    assert found.item() == pytest.approx(-0.5 * aimed - 0.5 * logp[1, 7].item(), rel=1e-4)
    sharp, _ = selected_loss(table, hidden, targets, weights, loc, sigma=1e-3)
    assert sharp.item() == pytest.approx(-0.5 * (logp[0, 540] + logp[1, 7]).item(), rel=1e-4), "a narrow bell is the plain target"


def test_bells_are_distributions_that_stay_inside():
    bells = bell_targets(4.0)
    assert bells.shape == (NUM_LOC, NUM_LOC)
    torch.testing.assert_close(bells.sum(1), torch.ones(NUM_LOC))
    assert torch.equal(bells.argmax(1), torch.arange(NUM_LOC))


def test_the_coordinate_code_leaves_text_rows_alone_and_orders_locations():
    torch.manual_seed(0)
    code = CoordinateCode(32, loc_start=40, codebook=torch.randn(128, 8))
    table = torch.zeros(40 + NUM_LOC + 128, 32)
    coded = code(table)
    assert torch.equal(coded[:40], table[:40])
    rows = coded[40 : 40 + NUM_LOC]
    near, far = (rows[100] - rows[104]).norm(), (rows[100] - rows[900]).norm()
    assert near < 0.5 * far
