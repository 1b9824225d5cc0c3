"""The loss: the reference's and Hugging Face's formulas written out, and the fused form, which must equal them without all logits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from paligemma.errors import UsageError
from paligemma.training import objective
from paligemma.training.objective import fused_loss, loss_weights, plain_loss, size_of

MASK = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0]])
WIDTH, VOCAB = 6, 50


def states(dtype: torch.dtype = torch.float64, vocab: int = VOCAB) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (3, 5, 6), table (vocab, 6), targets (3, 5)."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 5, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    table = torch.randn(vocab, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randint(0, vocab, (3, 5), generator=generator)
    return hidden.requires_grad_(), table.requires_grad_(), targets


def capped(hidden: Tensor, table: Tensor, softcap: float | None) -> Tensor:
    logits = hidden @ table.T
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def written_out(logits: Tensor, targets: Tensor, smoothing: float) -> list[list[float]]:
    """Per example, the loss of each of its answer tokens, number by number."""
    found = []
    for row, mask in enumerate(MASK.tolist()):
        losses = []
        for place, counts in enumerate(mask):
            if counts:
                values = logits[row, place].tolist()
                log_sum = math.log(sum(map(math.exp, values)))
                off = smoothing / (len(values) - 1)
                q = [1 - smoothing if v == targets[row, place] else off for v in range(len(values))]
                losses.append(-sum(share * (value - log_sum) for share, value in zip(q, values, strict=True)))
        found.append(losses)
    return found


@pytest.fixture(params=[7, 100, 10_000], ids=["slices of one or two rows", "a few slices", "one slice"])
def slices(request, monkeypatch) -> None:
    monkeypatch.setattr(objective, "MAX_LOGITS", request.param)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_by_example_every_answer_weighs_the_same(smoothing):
    hidden, table, targets = states()
    logits = capped(hidden, table, None)
    loss = plain_loss(logits, targets, loss_weights(MASK), smoothing=smoothing)
    means = [sum(losses) / len(losses) for losses in written_out(logits, targets, smoothing)]
    assert loss.per_example.tolist() == pytest.approx(means, rel=1e-6)
    assert loss.total.item() == pytest.approx(sum(means) / 3, rel=1e-6)
    assert loss.tokens == 6


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_by_token_every_token_weighs_the_same(smoothing):
    hidden, table, targets = states()
    logits = capped(hidden, table, None)
    loss = plain_loss(logits, targets, loss_weights(MASK, "token"), smoothing=smoothing)
    every = [loss for losses in written_out(logits, targets, smoothing) for loss in losses]
    assert loss.total.item() == pytest.approx(sum(every) / 6, rel=1e-6)
    by_example = plain_loss(logits, targets, loss_weights(MASK), smoothing=smoothing).total.item()
    assert loss.total.item() != pytest.approx(by_example, rel=1e-3), "the two means differ where lengths do"


def test_by_token_is_what_hugging_face_takes():
    from transformers.loss.loss_utils import ForCausalLMLoss

    hidden, table, targets = states(torch.float32)
    logits = capped(hidden, table, None)
    labels = torch.where(MASK == 1, targets, -100)
    shifted = F.pad(labels, (1, 0), value=-100)  # theirs are at the token itself, and its prediction one place before
    theirs = ForCausalLMLoss(F.pad(logits, (0, 0, 0, 1)), shifted, VOCAB)
    assert plain_loss(logits, targets, loss_weights(MASK, "token")).total.item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("mean", ["example", "token"])
def test_fused_equals_plain(slices, mean, smoothing, softcap):
    results = []
    for fused in (True, False):
        hidden, table, targets = states()
        weights = loss_weights(MASK, mean)
        if fused:
            loss = fused_loss(hidden, table, targets, weights, smoothing=smoothing, softcap=softcap)
        else:
            loss = plain_loss(capped(hidden, table, softcap), targets, weights, smoothing=smoothing)
        (2 * loss.total).backward()
        results.append((loss.total, loss.per_example, loss.right, loss.tokens, hidden.grad, table.grad))
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain)


@pytest.mark.parametrize(("smoothing", "softcap"), [(0.0, None), (0.3, 2.0)])
def test_gradients_are_those_of_the_loss(slices, smoothing, softcap):
    hidden, table, targets = states(vocab=11)

    def total(hidden: Tensor, table: Tensor) -> Tensor:
        return fused_loss(hidden, table, targets, loss_weights(MASK).double(), smoothing=smoothing, softcap=softcap).total

    assert torch.autograd.gradcheck(total, (hidden, table))
    assert torch.autograd.gradcheck(lambda hidden: total(hidden, table.detach()), hidden)


@pytest.mark.parametrize("quick", [True, False], ids=["products in bfloat16", "products in float32"])
def test_half_precision_weights_are_summed_up_in_single(slices, monkeypatch, quick):
    monkeypatch.setattr(objective.cpu, "multiplies", lambda tensor: quick)
    hidden, table, targets = states(torch.bfloat16)
    loss = fused_loss(hidden, table, targets, loss_weights(MASK), smoothing=0.1)
    loss.total.backward()
    exact_hidden, exact_table = hidden.detach().double().requires_grad_(), table.detach().double().requires_grad_()
    exact = plain_loss(capped(exact_hidden, exact_table, None), targets, loss_weights(MASK), smoothing=0.1)
    exact.total.backward()
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(exact.total.item(), rel=2e-3 if quick else 1e-6)
    assert hidden.grad is not None
    assert table.grad is not None
    for found, wanted in ((hidden.grad, exact_hidden.grad), (table.grad, exact_table.grad)):
        assert found.dtype == torch.bfloat16
        assert wanted is not None
        # Rounded once where products are float32.
        torch.testing.assert_close(found.double(), wanted, rtol=2**-8, atol=2**-6 * wanted.abs().max().item() if quick else 1e-6)


def test_autocast_asks_for_products_in_half_precision(monkeypatch):
    monkeypatch.setattr(objective.cpu, "multiplies", lambda tensor: True)
    hidden, table, targets = states(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = fused_loss(hidden, table, targets, loss_weights(MASK)).total
    loss.backward()
    narrow = fused_loss(hidden.detach().bfloat16(), table.detach().bfloat16(), targets, loss_weights(MASK)).total
    assert torch.equal(loss, narrow)
    assert hidden.grad is not None
    assert table.grad is not None
    assert (hidden.grad.dtype, table.grad.dtype) == (torch.float32, torch.float32)


def test_a_frozen_table_gets_no_gradient_and_other_positions_none():
    hidden, table, targets = states()
    fused_loss(hidden, table.detach(), targets, loss_weights(MASK)).total.backward()
    assert table.grad is None
    assert hidden.grad is not None
    assert torch.equal(hidden.grad.abs().sum(-1) > 0, MASK == 1)


def test_the_gradient_may_be_taken_twice():
    hidden, table, targets = states()
    loss = fused_loss(hidden, table, targets, loss_weights(MASK))
    loss.total.backward(retain_graph=True)
    assert hidden.grad is not None
    once = hidden.grad.clone()
    loss.total.backward()
    torch.testing.assert_close(hidden.grad, 2 * once)


@pytest.mark.parametrize("mean", ["example", "token"])
@pytest.mark.parametrize("cuts", [[1, 2], [2, 1], [1, 1, 1]])
def test_parts_of_a_batch_add_up_to_the_whole(mean, cuts):
    hidden, table, targets = states()
    whole = fused_loss(hidden, table, targets, loss_weights(MASK, mean))
    whole.total.backward()
    assert hidden.grad is not None
    grad, hidden.grad = hidden.grad, None
    size = size_of(MASK, mean)
    total, start = 0.0, 0
    for count in cuts:
        rows = slice(start, start + count)
        part = fused_loss(hidden[rows], table, targets[rows], loss_weights(MASK[rows], mean, size))
        part.total.backward()
        total, start = total + part.total.item(), start + count
    assert total == pytest.approx(whole.total.item())
    torch.testing.assert_close(hidden.grad, grad)


@pytest.mark.parametrize("mean", ["example", "token"])
def test_nothing_to_learn_is_no_division_by_zero(mean):
    hidden, table, targets = states()
    weights = loss_weights(torch.zeros_like(MASK), mean)
    for loss in (fused_loss(hidden, table, targets, weights), plain_loss(capped(hidden, table, None), targets, weights)):
        assert loss.total.item() == 0
        assert loss.per_example.tolist() == [0, 0, 0]
        assert loss.tokens == 0
    fused_loss(hidden, table, targets, weights).total.backward()
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_right_answers_are_counted(slices):
    hidden, table, targets = states()
    best = capped(hidden, table, None).argmax(-1)
    targets = torch.where(torch.tensor([[1, 0, 1, 0, 1]]) == 1, best, (best + 1) % VOCAB)
    assert fused_loss(hidden, table, targets, loss_weights(MASK)).right == 3


def test_no_more_logits_at_once_than_allowed(monkeypatch):
    monkeypatch.setattr(objective, "MAX_LOGITS", 60)
    sizes = []
    monkeypatch.setattr(objective, "_capped", lambda logits, softcap: sizes.append(logits.numel()) or logits)
    hidden, table, targets = states()
    fused_loss(hidden, table, targets, loss_weights(MASK)).total.backward()
    assert max(sizes) == 60
    assert sum(sizes) == 2 * 6 * VOCAB, "answer tokens only, once forwards and once backwards"


def test_another_mean_is_refused():
    with pytest.raises(UsageError, match="tokens") as raised:
        loss_weights(MASK, "tokens")  # pyright: ignore[reportArgumentType]
    assert "'token'" in str(raised.value.hint)
