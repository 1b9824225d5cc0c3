"""One answer while it is being written, and the choice of the next token for some of them: what all ways to generate share. No tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .network import Choice, Rows
from .options import Allowed, Alternatives, Constraint, Generation, Options, Stop, Token, next_allowed, only_end

ENDED = 0
"""What a row goes on with whose answer has ended, until it is dropped: any token does, and this one every vocabulary has."""


@dataclass(eq=False)
class Answer:
    """`prompt`: whose it is, by its number. `random`: where its draws come from, None where nothing is left to chance."""

    prompt: int
    options: Options
    eos_id: int
    constraint: Constraint | None = None
    random: np.random.Generator | None = None
    ids: list[int] = field(default_factory=list)
    probs: list[float] = field(default_factory=list)
    kind_probs: list[float] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    logprob: float = 0.0
    allowed: Allowed | None = None
    stop: Stop | None = None

    def look_ahead(self) -> bool:
        """Whether another token is due; asked before the forward pass for it is paid. If not, `stop` says why."""
        if self.stop is None:
            self.allowed = next_allowed(self.constraint, self.ids, self.eos_id)
            if only_end(self.allowed, self.eos_id):
                self.stop = "grammar"
            elif len(self.ids) >= self.options.max_tokens:
                self.stop = "length"
        return self.stop is None

    def take(self, choice: Choice, beside: Alternatives = ()) -> Token | None:
        """Write down what was chosen, and what stood `beside` it. -> the token of the answer; None at its end, which is none."""
        self.logprob += choice.logprob
        if choice.id == self.eos_id:
            self.stop = "eos"
            return None
        self.ids.append(choice.id)
        self.probs.append(choice.prob)
        self.kind_probs.append(choice.kind_prob)
        self.logprobs.append(choice.logprob)
        if self.options.alternatives:
            self.alternatives.append(beside)
        return Token(self.prompt, choice.id, choice.prob, choice.kind_prob, choice.logprob, beside)

    @property
    def last(self) -> int:
        """What its row goes on with."""
        return self.ids[-1] if self.stop is None else ENDED

    def finished(self) -> Generation:
        assert self.stop is not None
        each = (tuple(self.ids), tuple(self.probs), tuple(self.kind_probs))
        return Generation(*each, self.logprob, self.stop, tuple(self.logprobs), tuple(self.alternatives))


def choose(rows: Rows, places: Sequence[int], answers: Sequence[Answer], loc: range) -> list[tuple[Choice, Alternatives]]:
    """The next token of each answer, whose rows are at `places`, and what else was likely, for those that ask.

    Answers that choose by other rules than their neighbours are offered apart, and so are those that may say anything: of the others only
    a few rows of the output matrix are computed.
    """
    groups: dict[tuple[float, float, int, bool], list[int]] = {}
    for number, answer in enumerate(answers):
        how = answer.options
        groups.setdefault((how.temperature, how.top_p, how.alternatives, answer.allowed is None), []).append(number)
    chosen: dict[int, tuple[Choice, Alternatives]] = {}
    for group in groups.values():
        members = [answers[number] for number in group]
        offer = rows.offer([places[number] for number in group], [answer.allowed for answer in members], loc)
        uniform = [float(answer.random.random(dtype=np.float32)) for answer in members if answer.random is not None]
        how = members[0].options
        likely, _ = offer.best(how.alternatives, members[0].eos_id) if how.alternatives else ([[] for _ in group], [])
        beside = (tuple((one.id, one.logprob) for one in few if one.logprob > float("-inf")) for few in likely)
        chosen.update(zip(group, zip(offer.choose(how, uniform), beside, strict=True), strict=True))
    return [chosen[number] for number in range(len(answers))]


def best(answers: Sequence[Answer]) -> Generation:
    """The most probable of a prompt's answers, all of which ended."""
    return max((answer.finished() for answer in answers), key=lambda found: found.logprob)
