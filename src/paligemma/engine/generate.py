"""Prompts in, answers out, as token ids: a batch is read, then one token per row and step is chosen. Knows no text, pictures or tensors.

    prompts (ids), soft tokens -> begin -> [ offer -> choose -> extend ] until every row ends -> Generation per prompt

Rows that ended are dropped from the batch. What computes is a `Network`. Source: big_vision `trainers/proj/paligemma/predict_fns.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from ..errors import UsageError
from . import beam
from .network import Network
from .options import LOC_WINDOW, Constraint, Generation, Options, Stop, Token, refuse_nan
from .streams import streams
from .writing import Answer, best, choose

__all__ = ["LOC_WINDOW", "Constraint", "Generation", "Options", "Stop", "Token", "generate", "stream"]

KEEP = 0.75
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
        check_stream(options)
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
    check_stream(options)
    return _tokens(network, soft, prompts, options, eos_id=eos_id, loc=loc, constraints=constraints)


def check_stream(options: Options) -> None:
    if options.beams > 1 or options.best_of > 1:
        raise UsageError("tokens cannot be streamed with beams or best_of: the answer is known only at the end", hint="drop one of the two")


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
    owners = [prompt for prompt in range(len(prompts)) for _ in range(copies)]
    limits = [None] * len(prompts) if constraints is None else constraints
    randoms = streams(options, len(prompts), network.entropy)
    answers = [Answer(prompt, options, eos_id, limits[prompt], random) for prompt, random in zip(owners, randoms, strict=True)]
    rows = network.begin(soft, prompts, options.max_tokens)
    if copies > 1:
        rows = rows.select(owners)

    written = answers  # by the rows
    live = _live(written)
    while live:
        writing = [written[row] for row in live]
        chosen = choose(rows, live, writing, loc)
        refuse_nan((one.logprob for one, _ in chosen), rows.numbers)
        for answer, (one, beside) in zip(writing, chosen, strict=True):
            if (token := answer.take(one, beside)) is not None:
                yield token

        live = _live(written)
        if not live:
            break
        if len(live) <= KEEP * len(written):
            rows, written = rows.select(live), [written[row] for row in live]
            live = list(range(len(written)))
        rows.extend([answer.last for answer in written])
    return [best(answers[start : start + copies]) for start in range(0, len(answers), copies)]


def _live(written: Sequence[Answer]) -> list[int]:
    """The rows whose answer goes on."""
    return [row for row, answer in enumerate(written) if answer.look_ahead()]
