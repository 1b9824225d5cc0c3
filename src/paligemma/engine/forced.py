"""How probable a network finds answers that it did not write: it is told their tokens, one by one, instead of choosing them.

    prompts (ids), soft tokens -> begin -> [ offer -> given -> extend ] until every answer is told -> log-probabilities

The numbers are those of generation: an answer that `generate` wrote without a constraint comes back with its own `logprobs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .network import Network
from .options import refuse_nan


def logprobs(
    network: Network, soft: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], *, loc: range
) -> list[tuple[float, ...]]:
    """Natural log-probability of every token of each answer, over the whole vocabulary, given its prompt and what stands before it.

    soft, prompts, loc: see `generate`. answers: ids, at least one in each; the end token is one of them where it is to count.

    Raises `CheckpointError` where the model computes NaN.
    """
    if len(answers) != len(prompts) or not all(map(len, answers)):
        raise ValueError("expected an answer of at least one id for every prompt")
    found: list[list[float]] = [[] for _ in answers]
    rows, live = network.begin(soft, prompts, max(map(len, answers))), list(range(len(answers)))
    for step in range(max(map(len, answers))):
        if step:
            going = [place for place, answer in enumerate(live) if step < len(answers[answer])]
            if len(going) < len(live):
                rows, live = rows.select(going), [live[place] for place in going]
            rows.extend([answers[answer][step - 1] for answer in live])
        offer = rows.offer(range(len(live)), [None] * len(live), loc)
        chosen = offer.given([answers[answer][step] for answer in live])
        refuse_nan((one.logprob for one in chosen), rows.numbers)
        for answer, one in zip(live, chosen, strict=True):
            found[answer].append(one.logprob)
    return [tuple(each) for each in found]
