"""In front of the engine: who may wait, and whose turn it is. One event loop, no threads, nothing of models or HTTP.

    async with scheduler.enter(client) as place:            refused at once where too many wait
        ...                                                 what can be done while waiting: pictures are opened
        await place.turn(rows=1, tokens=300, adapter=None)  until there is room; refused where that takes too long
        ...                                                 the engine is asked

Fair between clients: those who wait take turns, however many questions one of them has. Room is rows of the engine's batch and tokens of
its cache. One adapter works at a time: questions for another one wait until the engine is empty, and go first after `IMPATIENT` seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType

from .refusals import Refused

IMPATIENT = 0.5
"""Seconds after which a question for another adapter is passed by no more."""


@dataclass
class Coming:
    """A request whose body has been read and whose questions have not entered yet: what is made of it meanwhile takes time, in which others
    come. `client`: for whom a place is kept until then."""

    scheduler: Scheduler | None = None
    client: str | None = None

    def expect(self, scheduler: Scheduler, client: str) -> None:
        """Raises `Refused` as `Scheduler.check_room` does."""
        scheduler.check_room(client)
        self.scheduler, self.client = scheduler, client
        scheduler._coming[client] += 1

    def over(self) -> None:
        """The place is taken, or not needed any more. A second time is one too many, and does nothing."""
        if self.scheduler is not None and self.client is not None:
            self.scheduler._coming[self.client] -= 1
            if not self.scheduler._coming[self.client]:
                del self.scheduler._coming[self.client]
            self.client = None


COMING: ContextVar[Coming | None] = ContextVar("coming", default=None)
"""The request that is being worked on."""


@dataclass(eq=False)
class Place:
    """One question's way through the queue. `waited`: seconds until its turn came."""

    scheduler: Scheduler
    client: str
    rows: int = 0
    tokens: int = 0
    adapter: str | None = None
    waited: float = 0.0
    _entered: float = field(default_factory=time.monotonic)
    _called: asyncio.Future[None] | None = None
    _inside: bool = False

    async def turn(self, *, rows: int, tokens: int, adapter: str | None) -> None:
        """Wait for room. Raises `Refused` (503) after the scheduler's patience, and (400) for what never fits."""
        self.rows, self.tokens, self.adapter = rows, tokens, adapter
        self.scheduler._check(self)
        self._called = asyncio.get_running_loop().create_future()
        self.scheduler._queue(self)
        try:
            async with asyncio.timeout(max(0.0, self.scheduler.patience - (time.monotonic() - self._entered))):
                await self._called
        except TimeoutError:
            if not self._inside:  # else its turn came at the same moment
                raise Refused(503, "no turn came in time: the server has more to do than it can", "queue_timeout", retry_after=5) from None
        self.waited = time.monotonic() - self._entered

    async def __aenter__(self) -> Place:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.scheduler._leave(self)


class Scheduler:
    """`rows`, `tokens`: what the engine has room for. `waiting`, `waiting_each`: places in all and of one client. `patience`: seconds.

    `switch`: makes an adapter, or None, the one at work; called while nothing is asked.
    """

    def __init__(
        self,
        *,
        rows: int,
        tokens: int,
        waiting: int,
        waiting_each: int,
        patience: float,
        adapter: str | None = None,
        switch: Callable[[str | None], object] = lambda adapter: None,
    ):
        self.rows, self.tokens = rows, tokens
        self.waiting, self.waiting_each, self.patience = waiting, waiting_each, patience
        self.open = True
        self._adapter, self._switch = adapter, switch
        self._coming = Counter[str]()  # by client: places kept
        self._entered: dict[str, int] = {}  # by client: places whose turn has not come
        self._queues: OrderedDict[str, deque[Place]] = OrderedDict()  # whose turn is next stands first
        self._inside: set[Place] = set()

    @property
    def depth(self) -> int:
        """Questions whose turn has not come."""
        return sum(self._entered.values())

    @property
    def busy(self) -> int:
        """Questions that are being answered."""
        return len(self._inside)

    def check_room(self, client: str) -> None:
        """Raises `Refused`: 429 where all places or all of this client's are taken, 503 where none are given."""
        if not self.open:
            raise Refused(503, "the server is shutting down", "draining", retry_after=5)
        # Room inside counts: an idle engine takes a whole batch at once, none of which will have to wait.
        room = max(0, self.rows - len(self._inside))
        if self.depth + self._coming.total() >= self.waiting + room:
            raise Refused(429, f"{self.waiting} questions are waiting already", "queue_full", retry_after=1)
        if self._entered.get(client, 0) + self._coming[client] >= self.waiting_each + room:
            raise Refused(429, f"{self.waiting_each} questions of yours are waiting already", "client_queue_full", retry_after=1)

    def enter(self, client: str) -> Place:
        """A place for one question. Raises `Refused` as `check_room` does."""
        if coming := COMING.get():
            coming.over()
        self.check_room(client)
        self._entered[client] = self._entered.get(client, 0) + 1
        return Place(self, client)

    def _check(self, place: Place) -> None:
        if place.rows > self.rows or place.tokens > self.tokens:
            found = f"{place.rows} answers side by side and {place.tokens:,} tokens"
            raise Refused(400, f"the request takes {found}; there is room for {self.rows} and {self.tokens:,}", "request_too_large")

    def _queue(self, place: Place) -> None:
        self._queues.setdefault(place.client, deque()).append(place)
        self._let_in()

    def _let_in(self) -> None:
        while (place := self._next()) is not None:
            queue = self._queues.pop(place.client)
            queue.remove(place)
            if queue:
                self._queues[place.client] = queue  # the client goes to the end of the row
            self._count_out(place)
            if place.adapter != self._adapter:
                self._switch(place.adapter)
                self._adapter = place.adapter
            self._inside.add(place)
            place._inside = True
            assert place._called is not None
            if not place._called.done():
                place._called.set_result(None)

    def _next(self) -> Place | None:
        """The first, client by client, that may come in. One that does not fit is passed by no one."""
        heads = [queue[0] for queue in self._queues.values()]
        if not heads:
            return None
        oldest = min(heads, key=lambda place: place._entered)
        insist = oldest.adapter != self._adapter and time.monotonic() - oldest._entered > IMPATIENT
        for place in [oldest] if insist else heads:
            if place.adapter != self._adapter and self._inside:
                continue
            return place if self._fits(place) else None
        return None

    def _fits(self, place: Place) -> bool:
        rows, tokens = (sum(getattr(one, name) for one in self._inside) for name in ("rows", "tokens"))
        return rows + place.rows <= self.rows and tokens + place.tokens <= self.tokens

    def _leave(self, place: Place) -> None:
        if place._inside:
            self._inside.discard(place)
        else:
            self._count_out(place)
            queue = self._queues.get(place.client)
            if queue is not None and place in queue:
                queue.remove(place)
                if not queue:
                    del self._queues[place.client]
        self._let_in()

    def _count_out(self, place: Place) -> None:
        self._entered[place.client] -= 1
        if not self._entered[place.client]:
            del self._entered[place.client]
