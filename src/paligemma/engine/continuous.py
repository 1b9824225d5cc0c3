"""A batch that jobs join and leave between two tokens: short answers do not wait for long ones. Steps only; threads are in `batcher.py`.

    submit(job)     it waits, first come, first served
    step()          [ some of those that wait read their pictures and prompts, together, and join ] -> every answer gets one token
                    -> [ answers that ended leave ]

Each job's answer is that of `generate` alone, to the token where the network computes in float32: rows know nothing of each other, and
random numbers belong to the answer. An error of a job, of its limits or of its callback, ends that job only; after an error of the network
in the middle of a step each answer is begun again alone, up to where it was, and who fails alone is lost.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import UsageError
from . import beam
from .features import Features
from .generate import KEEP, check_stream
from .network import Choice, Network, Rows
from .options import Alternatives, Constraint, Generation, Options, Token, refuse_nan
from .streams import streams
from .writing import ENDED, Answer, best, choose

READ = 16 * (256 + 16)
"""Tokens read between two steps, unless one job alone has more: so long do the answers that are being written wait for those that join.
Sixteen pictures of 224 pixels with prompts of up to 16 tokens."""
COMPANY, PATIENCE = 4, 4
"""Jobs that read together, and steps of others that the first of them waits for that. Four small pictures read together take half the time
of four alone, and whoever writes is held up once. Where nobody writes, nobody waits."""


@dataclass(eq=False)
class Job:
    """One prompt about one picture, given as `pixels` (3, S, S) or (F, 3, S, S), or as image tokens `soft` (1, P, D) of the network's.

    `on_token`: called with each token as it is chosen. `owner`: whose picture it is; what was seen is kept for each owner apart.
    `outcome`: what came of it, None as long as nothing has.
    """

    prompt: Sequence[int]
    options: Options = field(default_factory=Options)
    soft: Any = None
    pixels: np.ndarray | None = None
    constraint: Constraint | None = None
    on_token: Callable[[Token], None] | None = None
    owner: str | None = None
    outcome: Generation | BaseException | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` for a job without a picture or a prompt, `UsageError` for one whose tokens are known only at the end."""
        if (self.soft is None) == (self.pixels is None) or not len(self.prompt):
            raise ValueError("a job needs image tokens or pixels, one of the two, and at least one id of a prompt")
        if self.on_token is not None:
            check_stream(self.options)

    @property
    def width(self) -> int:
        """Rows that it takes."""
        return max(self.options.beams, self.options.best_of)


@dataclass(eq=False)
class _Row:
    """An answer that is being written, and for whom. `again`: tokens that it had when it was last begun again."""

    job: Job
    answer: Answer
    again: int | None = None


class ContinuousBatch:
    """`rows`: the most that are written at a time. A job takes one; with `best_of` or `beams` as many as those say. `read`: see `READ`.

    Beams are rows of their own, which take their step when the others have taken theirs.
    """

    def __init__(self, network: Network, *, eos_id: int, loc: range, rows: int = 16, read: int = READ, features: Features | None = None):
        self.network, self.eos_id, self.loc, self.width, self.read = network, eos_id, loc, rows, read
        self.features = Features(network) if features is None else features
        self.waiting: deque[Job] = deque()
        self._rows: Rows | None = None
        self._written: list[_Row | None] = []  # by the rows; None where an answer has ended
        self._steps_waited = 0
        self._searches: dict[Job, Generator[None, None, list[Generation]]] = {}

    def submit(self, job: Job) -> None:
        """Raises `UsageError` as `check` does."""
        self.check(job)
        self.waiting.append(job)

    def check(self, job: Job) -> None:
        """`UsageError` for a job that needs more rows than there are."""
        if job.width > self.width:
            hint = "ask for fewer (beams, best_of)"
            raise UsageError(f"an answer that takes {job.width} rows does not fit into a batch of {self.width}", hint=hint)

    def cancel(self, job: Job) -> None:
        """Drop a job wherever it is. Its outcome is `CancelledError`, unless it has one."""
        if job in self.waiting:
            self.waiting.remove(job)
        self._end(job, CancelledError())

    @property
    def writing(self) -> list[Job]:
        """Jobs whose answers are being written."""
        return list(dict.fromkeys(row.job for row in self._written if row is not None)) + list(self._searches)

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self._searches) or any(self._written)

    def step(self) -> list[Job]:
        """One token for every answer, after those that wait have joined. Returns the jobs that have an outcome now."""
        at_work = self._admit() + self.writing
        self._write()
        self._search()
        return [job for job in dict.fromkeys(at_work) if job.outcome is not None]

    def _admit(self) -> list[Job]:
        """Let as many join as there is room for. The first in the queue is never passed by, however many rows it needs."""
        coming: list[Job] = []
        if self._company_may_come():
            return coming
        free = self.width - sum(row is not None for row in self._written) - sum(job.width for job in self._searches)
        tokens = 0
        while self.waiting and self.waiting[0].width <= free and (not coming or tokens + self._length(self.waiting[0]) <= self.read):
            coming.append(self.waiting.popleft())
            free -= coming[-1].width
            tokens += self._length(coming[-1])
        self._together(coming, self._see)
        seen = [job for job in coming if job.outcome is None]
        for size in dict.fromkeys(job.soft.shape[1] for job in seen):
            own = [job for job in seen if job.soft.shape[1] == size]
            self._together([job for job in own if job.options.beams == 1], self._join)
            for job in own:
                if job.options.beams > 1:
                    self._together([job], self._begin_search)
        return coming

    def _company_may_come(self) -> bool:
        if not self.waiting or not self.writing or len(self.waiting) >= COMPANY or self._steps_waited >= PATIENCE:
            self._steps_waited = 0
            return False
        self._steps_waited += 1
        return True

    def _length(self, job: Job) -> int:
        frames = 1 if job.pixels is None or job.pixels.ndim == 3 else len(job.pixels)
        return len(job.prompt) + (self.network.config.vision.num_tokens * frames if job.soft is None else job.soft.shape[1])

    def _together(self, jobs: list[Job], work: Callable[[list[Job]], None]) -> None:
        """Work for several at once; where that fails, one by one, so that an error finds the job it belongs to."""
        if not jobs:
            return
        try:
            work(jobs)
        except Exception as error:
            if len(jobs) == 1:
                self._end(jobs[0], error)
            else:
                for job in jobs:
                    self._together([job], work)

    def _see(self, jobs: list[Job]) -> None:
        new = [(job, job.pixels) for job in jobs if job.soft is None and job.pixels is not None]
        if new:
            found = self.features.of([pixels for _, pixels in new], [job.owner for job, _ in new])
            for (job, _), soft in zip(new, found, strict=True):
                job.soft, job.pixels = soft, None

    def _begin(self, jobs: list[Job]) -> Rows:
        shared = all(job.soft is jobs[0].soft for job in jobs)
        soft = jobs[0].soft if shared else self.network.join([job.soft for job in jobs])
        return self.network.begin(soft, [job.prompt for job in jobs], max(job.options.max_tokens for job in jobs))

    def _join(self, jobs: list[Job]) -> None:
        rows, written = self._begin(jobs), []
        for number, job in enumerate(jobs):
            for random in streams(job.options, 1, self.network.entropy):
                written.append((number, _Row(job, Answer(0, job.options, self.eos_id, job.constraint, random))))
        if len(written) > len(jobs):
            rows = rows.select([number for number, _ in written])
        self._leave(share=1.0)
        self._rows = rows if self._rows is None else self._rows.join(rows)
        self._written += [row for _, row in written]

    def _begin_search(self, jobs: list[Job]) -> None:
        (job,) = jobs
        rows = self._begin(jobs)
        self._searches[job] = beam.steps(rows, job.options, eos_id=self.eos_id, loc=self.loc, constraints=[job.constraint])

    def _write(self) -> None:
        """A token for every row that is due one; and on, where answers go on."""
        live = self._live()  # those that joined may have nothing to say
        if live and self._rows is not None:
            try:
                chosen = choose(self._rows, [place for place, _ in live], [row.answer for _, row in live], self.loc)
            except Exception as error:
                return self._begin_again(error)
            for (_, row), (one, beside) in zip(live, chosen, strict=True):
                if row.job.outcome is None:  # another of its copies may have failed just now
                    self._take(row, one, beside)
        try:
            going_on = bool(self._live())
            self._leave(share=KEEP if going_on else 1.0)
            if going_on and self._rows is not None:
                self._rows.extend([ENDED if row is None else row.answer.last for row in self._written])
        except Exception as error:
            self._begin_again(error)

    def _take(self, row: _Row, one: Choice, beside: Alternatives) -> None:
        assert self._rows is not None
        try:
            refuse_nan([one.logprob], self._rows.numbers)
            token = row.answer.take(one, beside)
            if token is not None and row.job.on_token is not None:
                row.job.on_token(token)
        except Exception as error:
            self._end(row.job, error)

    def _live(self) -> list[tuple[int, _Row]]:
        """The rows whose answers go on. A job all of whose answers have ended gets its outcome."""
        live: list[tuple[int, _Row]] = []
        ended: dict[Job, list[Answer]] = {}
        for place, row in enumerate(self._written):
            if row is None:
                continue
            try:
                if row.answer.look_ahead():
                    live.append((place, row))
                else:
                    ended.setdefault(row.job, []).append(row.answer)
            except Exception as error:
                self._end(row.job, error)
        for job, answers in ended.items():
            if job.outcome is None and len(answers) == job.options.best_of:
                self._end(job, best(answers))
        return [(place, row) for place, row in live if row.job.outcome is None]

    def _leave(self, share: float) -> None:
        """Drop the rows whose jobs have an outcome, once no more than this share of all is left: dropping may copy the others."""
        kept = [place for place, row in enumerate(self._written) if row is not None]
        if not kept:
            self._rows, self._written = None, []
        elif len(kept) < len(self._written) and len(kept) <= share * len(self._written):
            assert self._rows is not None
            self._rows, self._written = self._rows.select(kept), [self._written[place] for place in kept]

    def _search(self) -> None:
        for job, going_on in list(self._searches.items()):
            try:
                next(going_on)
            except StopIteration as end:
                self._end(job, end.value[0])
            except Exception as error:
                self._end(job, error)

    def _end(self, job: Job, outcome: Generation | BaseException) -> None:
        if job.outcome is None:
            job.outcome = outcome
        self._searches.pop(job, None)
        self._written = [None if row is not None and row.job is job else row for row in self._written]

    def _begin_again(self, error: Exception) -> None:
        """The network failed in the middle of a step: for one of its rows, or for want of memory. What it holds of them is dropped, and
        each is read again alone. Who fails alone has an error of its own; who has come no further since the last time, this one."""
        traceback.clear_frames(error.__traceback__)  # which hold the rows that failed, and their memory
        left, self._rows, self._written = [row for row in self._written if row is not None], None, []
        read: list[tuple[_Row, Rows]] = []
        for row in left:
            if row.job.outcome is not None:  # another of its copies failed just now
                continue
            if row.again == len(row.answer.ids):
                self._end(row.job, error)
                continue
            row.again = len(row.answer.ids)
            try:
                read.append((row, self._read_alone(row)))
            except Exception as own:
                self._end(row.job, own)
        read = [(row, rows) for row, rows in read if row.job.outcome is None]
        try:
            for row, rows in read:
                self._rows = rows if self._rows is None else self._rows.join(rows)
                self._written.append(row)
        except Exception as together:
            self._rows, self._written = None, []
            for row, _ in read:
                self._end(row.job, together)

    def _read_alone(self, row: _Row) -> Rows:
        rows = self._begin([row.job])
        for token in row.answer.ids:
            rows.extend([token])
        return rows
