"""Prompts in, answers out, as token ids: prefill a batch, then choose one token per row and step. Knows no text and no pictures.

    prompts (ids), soft tokens -> prefill -> [ candidates -> choose -> extend ] until every row ends -> Generation per prompt

Rows that ended are dropped from the batch. Prompts of unequal length are padded on the right and masked, prompts of equal length need no
mask at all. Source: big_vision `trainers/proj/paligemma/predict_fns.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import UsageError
from ..model.kv_cache import KVCache
from ..model.paligemma import PaliGemma
from ..sequence import pad
from . import beam
from .candidates import candidates, refuse_nan
from .options import LOC_WINDOW, Allowed, Constraint, Generation, Options, Stop, Token, next_allowed, only_end
from .sampling import Sampler

__all__ = ["LOC_WINDOW", "Constraint", "Generation", "Options", "Stop", "Token", "generate", "prefill", "stream"]

_KEEP = 0.75
"""Ended rows are dropped once no more than this share of the batch is alive: dropping copies what is left of the cache."""


@torch.inference_mode()
def generate(
    model: PaliGemma,
    soft: Tensor,
    prompts: Sequence[Sequence[int]],
    options: Options | None = None,
    *,
    eos_id: int,
    loc: range,
    constraints: Sequence[Constraint | None] | None = None,
    on_token: Callable[[Token], None] | None = None,
) -> list[Generation]:
    """Answer every prompt.

    soft: image tokens (B, P, D) from `encode_image`, one row per prompt, or (1, P, D) for one picture under all prompts.
    prompts: ids of image-less prompts, as `sequence.prompt_ids` makes them; at least one id each.
    loc: ids of the location tokens, whose probabilities are summed over neighbouring bins.
    constraints: one per prompt, None where anything may follow.
    on_token: called with each token when it is chosen; `UsageError` with beams or best_of, whose tokens are known only at the end.

    Raises `CheckpointError` where the model computes NaN.
    """
    options = options or Options()
    if on_token is None and options.beams > 1:
        hidden, cache = prefill(model, soft, prompts, options.max_tokens)
        return beam.search(model, hidden, cache, options, eos_id=eos_id, loc=loc, constraints=constraints or [None] * len(prompts))
    if on_token is not None:
        _check_stream(options)
    tokens = _tokens(model, soft, prompts, options, eos_id=eos_id, loc=loc, constraints=constraints)
    while True:
        try:
            token = next(tokens)
        except StopIteration as end:
            return end.value
        if on_token is not None:
            on_token(token)


def stream(
    model: PaliGemma,
    soft: Tensor,
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
    return _tokens(model, soft, prompts, options, eos_id=eos_id, loc=loc, constraints=constraints)


def _check_stream(options: Options) -> None:
    if options.beams > 1 or options.best_of > 1:
        raise UsageError("tokens cannot be streamed with beams or best_of: the answer is known only at the end", hint="drop one of the two")


def prefill(model: PaliGemma, soft: Tensor, prompts: Sequence[Sequence[int]], max_tokens: int) -> tuple[Tensor, KVCache]:
    """Read pictures and prompts -> the state that predicts each row's first token (B, D), and a cache with room for `max_tokens` more."""
    lengths = [len(prompt) for prompt in prompts]
    if not lengths or min(lengths) == 0:
        raise ValueError("generation needs at least one prompt, and at least one id in each")
    if soft.shape[0] not in (1, len(prompts)):
        raise ValueError(f"{soft.shape[0]} pictures for {len(prompts)} prompts: expected one for all, or one each")
    longest = max(lengths)
    ids = torch.tensor(pad(prompts, 0), device=model.device)
    valid = None
    if min(lengths) < longest:
        valid = torch.arange(longest, device=ids.device) < torch.tensor(lengths, device=ids.device)[:, None]
    cache = model.new_cache(len(prompts), soft.shape[1] + longest + max_tokens)
    return model.prefill(soft.expand(len(prompts), -1, -1), ids, valid, cache), cache


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


@torch.inference_mode()
def _tokens(
    model: PaliGemma,
    soft: Tensor,
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
    sampler = Sampler(options, len(prompts))
    hidden, cache = prefill(model, soft, prompts, options.max_tokens)
    if copies > 1:
        repeat = torch.arange(len(prompts), device=hidden.device).repeat_interleave(copies)
        hidden, cache = hidden[repeat], cache.select(repeat)

    rows = list(range(len(answers)))  # which answer each row of the cache belongs to
    live = _live(answers, rows, options, eos_id)
    while live:
        if len(live) < len(rows):
            hidden = hidden[torch.tensor(live, device=hidden.device)]
        current = [rows[row] for row in live]
        choice = candidates(model, hidden, [answers[answer].allowed for answer in current], loc)
        columns = sampler.choose(choice.logits, current)[:, None]
        ids = choice.token(columns)
        # One transfer a step. Ids are exact in float32 up to 2 ** 24.
        facts = torch.stack([ids.float(), *choice.measure(columns)]).squeeze(-1).tolist()
        refuse_nan(facts[1], model.dtype)
        for answer, id, logprob, prob, kind_prob in zip(current, *facts, strict=True):
            writing = answers[answer]
            writing.logprob += logprob
            if int(id) == eos_id:
                writing.stop = "eos"
                continue
            writing.ids.append(int(id))
            writing.probs.append(prob)
            writing.kind_probs.append(kind_prob)
            yield Token(answer // copies, int(id), prob, kind_prob)

        before, live = live, _live(answers, rows, options, eos_id)
        if not live:
            break
        if len(live) <= _KEEP * len(rows):
            keep = torch.tensor(live, device=hidden.device)
            chosen = {row: place for place, row in enumerate(before)}
            ids = ids[torch.tensor([chosen[row] for row in live], device=hidden.device)]
            cache, rows, live = cache.select(keep), [rows[row] for row in live], list(range(len(live)))
        elif len(before) < len(rows):
            full = torch.full((len(rows), 1), eos_id, device=hidden.device)
            full[torch.tensor(before, device=hidden.device)] = ids
            ids = full
        hidden = model.extend(ids[:, 0], cache)

    results = [answer.finished() for answer in answers]
    return [max(results[start : start + copies], key=lambda g: g.logprob) for start in range(0, len(results), copies)]


def _live(answers: Sequence[_Answer], rows: Sequence[int], options: Options, eos_id: int) -> list[int]:
    """The rows of the cache whose answer goes on."""
    for answer in rows:
        if answers[answer].stop is None:
            answers[answer].look_ahead(options, eos_id)
    return [row for row, answer in enumerate(rows) if answers[answer].stop is None]
