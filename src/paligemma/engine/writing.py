"""One answer while it is being written, and the choice of the next token for some of them: what all ways to generate share. No tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .network import Choice, Rows
from .options import Allowed, Constraint, Generation, Options, Stop, next_allowed, only_end

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

    def take(self, choice: Choice) -> bool:
        """Write down what was chosen. Whether it is a token of the answer: the end is not."""
        self.logprob += choice.logprob
        if choice.id == self.eos_id:
            self.stop = "eos"
            return False
        self.ids.append(choice.id)
        self.probs.append(choice.prob)
        self.kind_probs.append(choice.kind_prob)
        return True

    @property
    def last(self) -> int:
        """What its row goes on with."""
        return self.ids[-1] if self.stop is None else ENDED

    def finished(self) -> Generation:
        assert self.stop is not None
        return Generation(tuple(self.ids), tuple(self.probs), tuple(self.kind_probs), self.logprob, self.stop)


def choose(rows: Rows, places: Sequence[int], answers: Sequence[Answer], loc: range) -> list[Choice]:
    """The next token of each answer, whose rows are at `places`.

    Answers that choose by other rules than their neighbours are offered apart, and so are those that may say anything: of the others only
    a few rows of the output matrix are computed.
    """
    groups: dict[tuple[float, float, bool], list[int]] = {}
    for number, answer in enumerate(answers):
        groups.setdefault((answer.options.temperature, answer.options.top_p, answer.allowed is None), []).append(number)
    chosen: dict[int, Choice] = {}
    for group in groups.values():
        members = [answers[number] for number in group]
        offer = rows.offer([places[number] for number in group], [answer.allowed for answer in members], loc)
        uniform = [float(answer.random.random(dtype=np.float32)) for answer in members if answer.random is not None]
        chosen.update(zip(group, offer.choose(members[0].options, uniform), strict=True))
    return [chosen[number] for number in range(len(answers))]


def best(answers: Sequence[Answer]) -> Generation:
    """The most probable of a prompt's answers, all of which ended."""
    return max((answer.finished() for answer in answers), key=lambda found: found.logprob)
