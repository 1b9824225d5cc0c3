"""What goes into generation and what comes out of it: frozen values and the constraint's protocol. No tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..errors import CheckpointError, UsageError

Stop = Literal["eos", "length", "grammar"]
"""Why an answer ended: the model ended it; it ran into `max_tokens`; the constraint left nothing but the end."""

LOC_WINDOW = 16
"""Bins on either side of a location token that count as the same answer: 16 of 1023, about 1.6 % of the picture's side."""


MOST = {"max_tokens": 8192, "beams": 64, "best_of": 64}
"""Upper bounds; 8192 tokens is what Gemma was trained to hold."""
MOST_ALTERNATIVES = 20
COLDEST = 1e-3
"""Least temperature above 0: a smaller one is greedy in all but name, and far smaller ones overflow."""


@dataclass(frozen=True)
class Options:
    """How to choose tokens. Greedy by default.

    `max_tokens` counts the end token, as the reference does. `temperature` 0 is greedy. `top_p` keeps the most probable tokens up to and
    including the one that crosses `top_p`. `beams` searches for the most probable whole answer, which among boxes and masks is often the
    empty one: their many tokens multiply, and the reference's score has no length penalty. `best_of` samples that many answers and
    keeps the most probable one. With a `seed` an answer depends on the prompt alone, not on its neighbours in a batch; without one it
    follows the global random state of what computes: torch's, or of a pack numpy's. `alternatives`: so many of the likeliest tokens are
    kept of every step, with what was chosen among them or not. A value out of range, or two that contradict each other, raise
    `UsageError`.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    beams: int = 1
    best_of: int = 1
    seed: int | None = None
    alternatives: int = 0

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise UsageError(f"{name} must be from 1 to {most:,}, got {getattr(self, name)}")
        if self.temperature != 0 and not COLDEST <= self.temperature < float("inf"):
            raise UsageError(f"temperature must be 0 (greedy) or a number from {COLDEST} on, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.temperature == 0:
            for name in ("top_p", "best_of"):
                if getattr(self, name) != 1:
                    raise UsageError(
                        f"{name} chooses among random answers, but temperature is 0 (greedy)", hint="set a temperature, for example 1.0"
                    )
        if not 0 <= self.alternatives <= MOST_ALTERNATIVES:
            raise UsageError(f"alternatives must be from 0 to {MOST_ALTERNATIVES}, got {self.alternatives}")
        if self.alternatives and self.beams > 1:
            raise UsageError("beam search keeps no alternatives: it compares whole answers", hint="drop beams or alternatives")
        if self.beams > 1 and (self.temperature > 0 or self.best_of > 1):
            raise UsageError("beam search draws no random numbers: it cannot be combined with temperature or best_of")


Alternatives = tuple[tuple[int, float], ...]
"""(id, log-probability) of what might have come, the likeliest first."""


@dataclass(frozen=True)
class Token:
    """One chosen token of one prompt, as it is chosen. All but its prompt's number: see `Generation`."""

    prompt: int
    id: int
    prob: float
    kind_prob: float
    logprob: float = 0.0
    alternatives: Alternatives = ()


@dataclass(frozen=True)
class Generation:
    """One answer. Probabilities are the model's own: temperature and top-p are not in them.

    `ids`: without the end token.
    `probs[i]`: probability of token i among the tokens allowed at its step; for a location token the probability of all allowed
    locations within `LOC_WINDOW` bins of it.
    `kind_probs[i]`: probability, among the tokens allowed, of getting this kind of token: a location, or anything else. At the first
    location of a box this is the model's belief that there is a box to report, rather than the end.
    `logprob`: sum of the tokens' log-probabilities, the end token's included where the model chose it. Each is taken over the whole
    vocabulary, or over the allowed tokens at steps where the constraint allowed only some.
    `logprobs[i]`: that of token i. `alternatives[i]`: (id, log-probability) of the likeliest at its step, where they were asked for.
    """

    ids: tuple[int, ...]
    probs: tuple[float, ...]
    kind_probs: tuple[float, ...]
    logprob: float
    stop: Stop
    logprobs: tuple[float, ...] = ()
    alternatives: tuple[Alternatives, ...] = ()


class Allowed(Protocol):
    """The tokens that may come next, as sorted, disjoint, non-empty ranges of ids."""

    @property
    def ranges(self) -> Sequence[range]: ...


class Constraint(Protocol):
    """Which token may follow `ids`, the answer so far; None: any. No range at all: the answer ends here."""

    def allowed(self, ids: Sequence[int]) -> Allowed | None: ...


@dataclass(frozen=True)
class Only:
    """Exactly these ranges of ids."""

    ranges: tuple[range, ...]


def next_allowed(constraint: Constraint | None, ids: Sequence[int], eos_id: int) -> Allowed | None:
    """What may follow `ids`; where the constraint leaves nothing, that is the end token."""
    allowed = None if constraint is None else constraint.allowed(ids)
    return Only((range(eos_id, eos_id + 1),)) if allowed is not None and not allowed.ranges else allowed


def only_end(allowed: Allowed | None, eos_id: int) -> bool:
    """Whether nothing but the end token may follow."""
    return allowed is not None and tuple(allowed.ranges) == (range(eos_id, eos_id + 1),)


def refuse_nan(logprobs: Iterable[float], numbers: str) -> None:
    """`CheckpointError` if one of them is no number: every answer would be made up, and its score too."""
    if any(map(math.isnan, logprobs)):
        hint = "`paligemma doctor --model` says where, and whether a pack is damaged; a checkpoint in float16 may need bfloat16 or float32"
        raise CheckpointError(f"the model computes NaN in {numbers}", hint=hint, code="not_finite")
