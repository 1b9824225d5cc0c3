"""Slow, independent versions of what the engine does: no cache, every token scored by a forward pass over everything before it."""

from __future__ import annotations

import itertools

import torch

from paligemma.model.paligemma import PaliGemma

LOC = range(100, 164)
SEG = range(164, 180)


def next_logprobs(
    model: PaliGemma, soft: torch.Tensor, prompt: list[int], answer: list[int], allowed: list[range] | None = None
) -> torch.Tensor:
    """Log-probabilities (V,) of the token after `answer`, of the allowed tokens among themselves. soft (1, P, D)."""
    ids = torch.tensor([[*prompt, *answer]])
    mask_ar = torch.tensor([[0] * len(prompt) + [1] * len(answer)])
    with torch.inference_mode():
        logits = model(soft, ids, mask_ar)[0, -1]
        if allowed is not None:
            fill = torch.full_like(logits, float("-inf"))
            for r in allowed:
                fill[r.start : r.stop] = logits[r.start : r.stop]
            logits = fill
        return logits.log_softmax(-1)


def greedy(model: PaliGemma, soft: torch.Tensor, prompt: list[int], max_tokens: int, eos_id: int) -> tuple[list[int], float, str]:
    """Ids without the end token, summed log-probability, why it stopped."""
    answer: list[int] = []
    total = 0.0
    while True:
        logprobs = next_logprobs(model, soft, prompt, answer)
        id = int(logprobs.argmax())
        total += float(logprobs[id])
        if id == eos_id:
            return answer, total, "eos"
        answer.append(id)
        if len(answer) == max_tokens:
            return answer, total, "length"


def logprob(model: PaliGemma, soft: torch.Tensor, prompt: list[int], tokens: list[int]) -> float:
    """Summed log-probability of `tokens`, all in one pass."""
    ids = torch.tensor([[*prompt, *tokens]])
    mask_ar = torch.tensor([[0] * len(prompt) + [1] * len(tokens)])
    with torch.inference_mode():
        logprobs = model(soft, ids, mask_ar)[0, len(prompt) - 1 : -1].log_softmax(-1)
    return float(logprobs.gather(1, torch.tensor(tokens)[:, None]).sum())


def best_answer(model: PaliGemma, soft: torch.Tensor, prompt: list[int], vocabulary: list[int], max_tokens: int, eos_id: int):
    """The most probable ended answer of at most `max_tokens` tokens, end included, over all there are: (ids, log-probability)."""
    answers = [list(ids) for length in range(max_tokens) for ids in itertools.product(vocabulary, repeat=length)]
    allowed = [range(id, id + 1) for id in sorted([*vocabulary, eos_id])]

    def score(ids: list[int]) -> float:
        tokens = [*ids, eos_id]
        return sum(float(next_logprobs(model, soft, prompt, tokens[:i], allowed)[id]) for i, id in enumerate(tokens))

    return max(((ids, score(ids)) for ids in answers), key=lambda pair: pair[1])
