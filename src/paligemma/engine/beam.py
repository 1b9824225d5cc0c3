"""Beam search with the reference's scoring: the answer whose summed log-probability, end token included, is highest. No length penalty.

Under a grammar a token's probability is its share among the tokens that may come next (the reference knows no grammars).

Each step, every live beam is offered to end now, and the best ended answer so far is kept; each is also continued by its best tokens, and
the best `beams` continuations live on. The search is over when the best live beam scores below the best ended answer: log-probabilities
only fall. Source: big_vision `trainers/proj/paligemma/predict_fns.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.kv_cache import KVCache
from ..model.paligemma import PaliGemma
from .candidates import candidates, refuse_nan
from .options import Constraint, Generation, Options, Stop, next_allowed, only_end


@dataclass(frozen=True)
class _Beam:
    """A beginning of an answer. `row`: where in the cache its past lies. `score`: its summed log-probability."""

    row: int
    ids: tuple[int, ...] = ()
    probs: tuple[float, ...] = ()
    kind_probs: tuple[float, ...] = ()
    score: float = 0.0

    def grow(self, row: int, id: int, logprob: float, prob: float, kind_prob: float) -> _Beam:
        return _Beam(row, (*self.ids, id), (*self.probs, prob), (*self.kind_probs, kind_prob), self.score + logprob)

    def ended(self, stop: Stop, logprob: float = 0.0) -> Generation:
        return Generation(self.ids, self.probs, self.kind_probs, self.score + logprob, stop)


def search(
    model: PaliGemma,
    hidden: Tensor,
    cache: KVCache,
    options: Options,
    *,
    eos_id: int,
    loc: range,
    constraints: Sequence[Constraint | None],
) -> list[Generation]:
    """Continue each row of a prefilled cache with up to `options.beams` beams; `hidden` (B, D) predicts the first tokens.

    The best ended answer, also where `max_tokens` cut the search short while a live beam could still have won; where none has ended, the
    best live beam, with stop reason "length".
    """
    best: list[Generation | None] = [None] * len(constraints)
    live = [[_Beam(row)] for row in range(len(constraints))]
    for step in range(options.max_tokens):
        allowed = [next_allowed(constraints[prompt], beam.ids, eos_id) for prompt, group in enumerate(live) for beam in group]
        choice = candidates(model, hidden, allowed, loc)
        logprobs = choice.logits.log_softmax(-1)
        # One more than the beams, since the end token may be among them.
        top = logprobs.topk(min(options.beams + 1, logprobs.shape[-1]), dim=-1).indices
        columns = torch.arange(logprobs.shape[-1], device=top.device)
        ends = logprobs.masked_fill(choice.token(columns) != eos_id, float("-inf")).amax(-1).tolist()
        facts = torch.stack([choice.token(top).float(), *choice.measure(top)], dim=-1).tolist()
        refuse_nan((logprob for beam in facts for _, logprob, *_ in beam), model.dtype)

        row = 0
        for prompt, group in enumerate(live):
            grown: list[_Beam] = []
            for beam in group:
                if ends[row] > float("-inf"):
                    ended = beam.ended("grammar" if only_end(allowed[row], eos_id) else "eos", ends[row])
                    best[prompt] = max((g for g in (best[prompt], ended) if g is not None), key=lambda g: g.logprob)
                for id, logprob, prob, kind_prob in facts[row]:
                    if id != eos_id and logprob > float("-inf"):
                        grown.append(beam.grow(row, int(id), logprob, prob, kind_prob))
                row += 1
            grown = sorted(grown, key=lambda beam: beam.score, reverse=True)[: options.beams]
            ahead = best[prompt]
            live[prompt] = [] if ahead is not None and grown and grown[0].score < ahead.logprob else grown

        beams = [beam for group in live for beam in group]
        if not beams:
            break
        if step + 1 < options.max_tokens:
            cache = cache.select(torch.tensor([beam.row for beam in beams], device=hidden.device))
            hidden = model.extend(torch.tensor([beam.ids[-1] for beam in beams], device=hidden.device), cache)
    return [_result(ended, group) for ended, group in zip(best, live, strict=True)]


def _result(ended: Generation | None, live: list[_Beam]) -> Generation:
    return live[0].ended("length") if ended is None else ended
