"""Beam search with the reference's scoring: the answer whose summed log-probability, end token included, is highest. No length penalty.

Under a grammar a token's probability is its share among the tokens that may come next (the reference knows no grammars).

Each step, every live beam is offered to end now, and the best ended answer so far is kept; each is also continued by its best tokens, and
the best `beams` continuations live on. The search is over when the best live beam scores below the best ended answer: log-probabilities
only fall. Source: big_vision `trainers/proj/paligemma/predict_fns.py`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from .network import Choice, Rows
from .options import Constraint, Generation, Options, Stop, next_allowed, only_end, refuse_nan


@dataclass(frozen=True)
class _Beam:
    """A beginning of an answer. `row`: where its past lies. `score`: its summed log-probability."""

    row: int
    ids: tuple[int, ...] = ()
    probs: tuple[float, ...] = ()
    kind_probs: tuple[float, ...] = ()
    logprobs: tuple[float, ...] = ()
    score: float = 0.0

    def grow(self, row: int, choice: Choice) -> _Beam:
        each = ((*self.ids, choice.id), (*self.probs, choice.prob), (*self.kind_probs, choice.kind_prob), (*self.logprobs, choice.logprob))
        return _Beam(row, *each, self.score + choice.logprob)

    def ended(self, stop: Stop, logprob: float = 0.0) -> Generation:
        return Generation(self.ids, self.probs, self.kind_probs, self.score + logprob, stop, self.logprobs)


def search(rows: Rows, options: Options, *, eos_id: int, loc: range, constraints: Sequence[Constraint | None]) -> list[Generation]:
    """All steps of `steps`, one after the other."""
    going_on = steps(rows, options, eos_id=eos_id, loc=loc, constraints=constraints)
    while True:
        try:
            next(going_on)
        except StopIteration as end:
            return end.value


def steps(
    rows: Rows, options: Options, *, eos_id: int, loc: range, constraints: Sequence[Constraint | None]
) -> Generator[None, None, list[Generation]]:
    """Continue each row, one a prompt, with up to `options.beams` beams; yields where every beam has one token more.

    The best ended answer, also where `max_tokens` cut the search short while a live beam could still have won; where none has ended, the
    best live beam, with stop reason "length".
    """
    best: list[Generation | None] = [None] * len(constraints)
    live = [[_Beam(row)] for row in range(len(constraints))]
    for step in range(options.max_tokens):
        allowed = [next_allowed(constraints[prompt], beam.ids, eos_id) for prompt, group in enumerate(live) for beam in group]
        # One more than the beams, since the end token may be among them.
        best_few, ends = rows.offer(range(len(allowed)), allowed, loc).best(options.beams + 1, eos_id)
        refuse_nan((one.logprob for few in best_few for one in few), rows.numbers)

        row = 0
        for prompt, group in enumerate(live):
            grown: list[_Beam] = []
            for beam in group:
                if ends[row] > float("-inf"):
                    ended = beam.ended("grammar" if only_end(allowed[row], eos_id) else "eos", ends[row])
                    best[prompt] = max((g for g in (best[prompt], ended) if g is not None), key=lambda g: g.logprob)
                grown += [beam.grow(row, one) for one in best_few[row] if one.id != eos_id and one.logprob > float("-inf")]
                row += 1
            grown = sorted(grown, key=lambda beam: beam.score, reverse=True)[: options.beams]
            ahead = best[prompt]
            live[prompt] = [] if ahead is not None and grown and grown[0].score < ahead.logprob else grown

        beams = [beam for group in live for beam in group]
        if not beams:
            break
        if step + 1 < options.max_tokens:
            rows = rows.select([beam.row for beam in beams])
            rows.extend([beam.ids[-1] for beam in beams])
            yield
    return [_result(ended, group) for ended, group in zip(best, live, strict=True)]


def _result(ended: Generation | None, live: list[_Beam]) -> Generation:
    return live[0].ended("length") if ended is None else ended
