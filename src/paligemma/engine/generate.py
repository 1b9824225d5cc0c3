"""Prompts in, answers out, as token ids: a batch is read, then one token per row and step is chosen. Knows no text, pictures or tensors.

    prompts (ids), soft tokens -> begin -> [ offer -> choose -> extend ] until every row ends -> Generation per prompt

Rows that ended are dropped from the batch. What computes is a `Network`. Source: big_vision `trainers/proj/paligemma/predict_fns.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError
from . import beam
from .network import Network
from .options import LOC_WINDOW, Allowed, Constraint, Generation, Options, Stop, Token, next_allowed, only_end, refuse_nan
from .streams import Streams

__all__ = ["LOC_WINDOW", "Constraint", "Generation", "Options", "Stop", "Token", "generate", "stream"]

_KEEP = 0.75
"""Ended rows are dropped once no more than this share of the batch is alive: dropping copies what is left of the cache."""


def generate(
    network: Network,
    soft: Any,
    prompts: Sequence[Sequence[int]],
    options: Options | None = None,
    *,
    eos_id: int,
    loc: range,
    constraints: Sequence[Constraint | None] | None = None,
    on_token: Callable[[Token], None] | None = None,
) -> list[Generation]:
    """Answer every prompt.

    soft: image tokens (B, P, D) of the network's own kind, one row per prompt, or (1, P, D) for one picture under all prompts.
    prompts: ids of image-less prompts, as `sequence.prompt_ids` makes them; at least one id each.
    loc: ids of the location tokens, whose probabilities are summed over neighbouring bins.
    constraints: one per prompt, None where anything may follow.
    on_token: called with each token when it is chosen; `UsageError` with beams or best_of, whose tokens are known only at the end.

    Raises `CheckpointError` where the model computes NaN.
    """
    options = options or Options()
    if on_token is None and options.beams > 1:
        rows = network.begin(soft, prompts, options.max_tokens)
        return beam.search(rows, options, eos_id=eos_id, loc=loc, constraints=constraints or [None] * len(prompts))
    if on_token is not None:
        _check_stream(options)
    tokens = _tokens(network, soft, prompts, options, eos_id=eos_id, loc=loc, constraints=constraints)
    while True:
        try:
            token = next(tokens)
        except StopIteration as end:
            return end.value
        if on_token is not None:
            on_token(token)


def stream(
    network: Network,
    soft: Any,
    prompts: Sequence[Sequence[int]],
    options: Options | None = None,
    *,
    eos_id: int,
    loc: range,
    constraints: Sequence[Constraint | None] | None = None,
) -> Generator[Token, None, list[Generation]]:
    """As `generate`, but an iterator over the tokens as they are chosen; what it returns at the end is the list of answers."""
    options = options or Options()
    _check_stream(options)
    return _tokens(network, soft, prompts, options, eos_id=eos_id, loc=loc, constraints=constraints)


def _check_stream(options: Options) -> None:
    if options.beams > 1 or options.best_of > 1:
        raise UsageError("tokens cannot be streamed with beams or best_of: the answer is known only at the end", hint="drop one of the two")


@dataclass
class _Answer:
    """One answer while it is being written."""

    constraint: Constraint | None
    ids: list[int] = field(default_factory=list)
    probs: list[float] = field(default_factory=list)
    kind_probs: list[float] = field(default_factory=list)
    logprob: float = 0.0
    allowed: Allowed | None = None
    stop: Stop | None = None

    def look_ahead(self, options: Options, eos_id: int) -> None:
        """Find out whether another token is due, before the forward pass for it is paid."""
        self.allowed = next_allowed(self.constraint, self.ids, eos_id)
        if only_end(self.allowed, eos_id):
            self.stop = "grammar"
        elif len(self.ids) >= options.max_tokens:
            self.stop = "length"

    def finished(self) -> Generation:
        assert self.stop is not None
        return Generation(tuple(self.ids), tuple(self.probs), tuple(self.kind_probs), self.logprob, self.stop)


def _tokens(
    network: Network,
    soft: Any,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    eos_id: int,
    loc: range,
    constraints: Sequence[Constraint | None] | None,
) -> Generator[Token, None, list[Generation]]:
    """Greedy, sampled and best-of-n generation."""
    copies = options.best_of
    answers = [_Answer(None if constraints is None else constraints[prompt]) for prompt in range(len(prompts)) for _ in range(copies)]
    streams = Streams(options, len(prompts), network.entropy)
    rows = network.begin(soft, prompts, options.max_tokens)
    if copies > 1:
        rows = rows.select([prompt for prompt in range(len(prompts)) for _ in range(copies)])

    owners = list(range(len(answers)))  # which answer each row is of
    live = _live(answers, owners, options, eos_id)
    while live:
        current = [owners[row] for row in live]
        offer = rows.offer(live, [answers[answer].allowed for answer in current], loc)
        chosen = offer.choose(options, streams.draw(current))
        refuse_nan((one.logprob for one in chosen), rows.numbers)
        for answer, one in zip(current, chosen, strict=True):
            writing = answers[answer]
            writing.logprob += one.logprob
            if one.id == eos_id:
                writing.stop = "eos"
                continue
            writing.ids.append(one.id)
            writing.probs.append(one.prob)
            writing.kind_probs.append(one.kind_prob)
            yield Token(answer // copies, one.id, one.prob, one.kind_prob)

        live = _live(answers, owners, options, eos_id)
        if not live:
            break
        if len(live) <= _KEEP * len(owners):
            rows, owners = rows.select(live), [owners[row] for row in live]
            live = list(range(len(owners)))
        rows.extend([answers[answer].ids[-1] if answers[answer].stop is None else eos_id for answer in owners])

    results = [answer.finished() for answer in answers]
    return [max(results[start : start + copies], key=lambda g: g.logprob) for start in range(0, len(results), copies)]


def _live(answers: Sequence[_Answer], owners: Sequence[int], options: Options, eos_id: int) -> list[int]:
    """The rows whose answer goes on."""
    for answer in owners:
        if answers[answer].stop is None:
            answers[answer].look_ahead(options, eos_id)
    return [row for row, answer in enumerate(owners) if answers[answer].stop is None]
