"""Questions from any thread, one batch: a thread of its own takes the steps of a `ContinuousBatch`, and every question is a future.

with Batcher(network, eos_id=..., loc=..., rows=32) as batcher:
    futures = [batcher.submit(prompt, Options(max_tokens=64), pixels=pixels) for prompt, pixels in questions]
    answers = [future.result() for future in futures]
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np

from ..errors import ResourceError
from .continuous import READ, ContinuousBatch, Job
from .features import Features
from .network import Network
from .options import Constraint, Generation, Options, Token

T = TypeVar("T")

WAITING = 256


class Batcher:
    """`rows`: answers written at a time. `waiting`: questions that may wait for a place, `WAITING` unless told otherwise. `read`: see
    `continuous.READ`. `keep`: pictures whose image tokens are kept for the next question about them.

    First come, first served. The network belongs to the batcher until it is closed: nobody else may use it meanwhile.
    """

    def __init__(
        self, network: Network, *, eos_id: int, loc: range, rows: int = 16, waiting: int = WAITING, read: int = READ, keep: int = 32
    ):
        self.most, self.network = waiting, network
        self._batch = ContinuousBatch(network, eos_id=eos_id, loc=loc, rows=rows, read=read, features=Features(network, keep))
        self._wake = threading.Condition()
        self._inbox: list[tuple[Job, Future[Generation]]] = []
        self._asides: list[tuple[Callable[[Features], Any], Future[Any]]] = []
        self._open: dict[Job, Future[Generation]] = {}
        self._closing = False
        self._began: float | None = None
        self._thread = threading.Thread(target=self._run, name="paligemma-batcher", daemon=True)
        self._thread.start()

    def submit(
        self,
        prompt: Sequence[int],
        options: Options | None = None,
        *,
        pixels: np.ndarray | None = None,
        soft: Any = None,
        constraint: Constraint | None = None,
        on_token: Callable[[Token], None] | None = None,
        owner: str | None = None,
    ) -> Future[Generation]:
        """A prompt's ids about a picture: `pixels` (3, S, S) or (F, 3, S, S), float32 in [-1, 1], or image tokens `soft` (1, P, D).
        `owner`: see `Job`.

        `constraint` and `on_token` are called on the batcher's thread, where all answers wait for them. `cancel()` of the future works at
        any time. Raises `ResourceError` (code "busy") where too many wait already, `UsageError` and `ValueError` for what cannot be asked.
        """
        job = Job(prompt, options or Options(), soft, pixels, constraint, on_token, owner)
        self._batch.check(job)
        future: Future[Generation] = Future()
        with self._wake:
            if self._closing:
                raise RuntimeError("this batcher is closed")
            if len(self._inbox) + len(self._batch.waiting) >= self.most:
                raise ResourceError(f"{self.most} questions are waiting already", hint="ask again in a moment", code="busy")
            self._inbox.append((job, future))
            self._wake.notify()
        return future

    def aside(self, work: Callable[[Features], T]) -> Future[T]:
        """Something else that needs the network: `work` is called on the batcher's thread between two steps, and all answers wait for it.
        It is given the image tokens that are kept. Raises `RuntimeError` where the batcher is closed."""
        future: Future[T] = Future()
        with self._wake:
            if self._closing:
                raise RuntimeError("this batcher is closed")
            self._asides.append((work, future))
            self._wake.notify()
        return future

    @property
    def counts(self) -> dict[str, int]:
        """How many questions are `waiting` and `writing`, about."""
        with self._wake:
            waiting = len(self._inbox) + len(self._batch.waiting)
            return {"waiting": waiting, "writing": len(self._inbox) + len(self._open) - waiting}

    @property
    def stalled(self) -> float:
        """Seconds that the step which is being taken has taken so far; 0 between questions, infinity where no more will be taken."""
        began = self._began
        if not self._thread.is_alive():
            return math.inf
        return 0.0 if began is None else time.monotonic() - began

    def close(self, *, wait: bool = True) -> None:
        """Take no more questions. `wait`: until all are answered; else those that are not are cancelled."""
        with self._wake:
            self._closing = True
            if not wait:
                for future in self._left():
                    future.cancel()
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(wait=kind is None)

    def _run(self) -> None:
        try:
            while self._take_in():
                self._began = time.monotonic()
                self._work_aside()
                self._began = time.monotonic()
                for job, future in list(self._open.items()):
                    if future.cancelled():
                        self._batch.cancel(job)
                        self._hand_over(job)
                for job in self._batch.step():
                    self._hand_over(job)
                self._began = None
        except BaseException as error:
            self._break_off(error)
            raise

    def _break_off(self, error: BaseException) -> None:
        """Nobody waits for answers that nobody writes."""
        with self._wake:
            self._closing = True
            left = self._left()
            self._open.clear()
            self._inbox.clear()
            self._asides.clear()
        for future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _take_in(self) -> bool:
        """Wait for something to do. False: there is nothing more."""
        with self._wake:
            while not (self._inbox or self._asides or self._batch.busy or self._closing):
                self._wake.wait()
            for job, future in self._inbox:
                self._open[job] = future
                self._batch.submit(job)
            self._inbox.clear()
            return self._batch.busy or bool(self._asides)

    def _left(self) -> list[Future[Any]]:
        """What somebody waits for."""
        return [*self._open.values(), *(future for _, future in self._inbox), *(future for _, future in self._asides)]

    def _work_aside(self) -> None:
        """One of them: answers go on between two."""
        with self._wake:
            if not self._asides:
                return
            work, future = self._asides.pop(0)
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work(self._batch.features))
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, Exception):
                raise

    def _hand_over(self, job: Job) -> None:
        with self._wake:
            future = self._open.pop(job)
        if not future.set_running_or_notify_cancel():
            return
        if isinstance(job.outcome, Generation):
            future.set_result(job.outcome)
        else:
            future.set_exception(job.outcome)
