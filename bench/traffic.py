"""Load on a server, from a process of its own: how many ask at a time, or how often somebody comes, and what each of them got.

    drive(Plan(url, questions, seconds=10, clients=16))        so many ask, each again as soon as it has been answered
    drive(Plan(url, questions, seconds=10, rate=50.0))         somebody comes 50 times a second, at times of a Poisson process

The second does not wait for answers: a server that is slow gets no fewer requests for that. When its time is over one goes on asking until
there is an answer: `recovery` says how long that took.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ANSWER_SECONDS = 120.0
AGAIN_SECONDS = 0.05
"""Until somebody asks again who was refused after the load."""


@dataclass(frozen=True)
class Plan:
    """`questions`: (path, body) that are asked in turn. `keys`: of clients, in turn; a server counts them apart.

    One of `clients` and `rate` says how much; `limit`: requests that are under way at a time, those beyond it are not sent.
    """

    url: str
    questions: Sequence[tuple[str, dict[str, Any]]]
    seconds: float
    clients: int = 0
    rate: float = 0.0
    keys: Sequence[str] = ()
    limit: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """Of one request. `status`: 0 where the connection broke. `at`: seconds from the beginning; `first`, `seconds`: from the request to
    the first byte of the answer's body and to its last."""

    status: int
    at: float
    seconds: float
    first: float


def drive(plan: Plan) -> list[Outcome]:
    """In order of the requests' beginnings."""
    command = [sys.executable, "-m", "bench.traffic"]
    done = subprocess.run(
        command, input=json.dumps(dataclasses.asdict(plan)), capture_output=True, text=True, timeout=plan.seconds + 2 * ANSWER_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"the load failed: {done.stderr[-2000:]}")
    return [Outcome(*one) for one in json.loads(done.stdout)]


class Load:
    def __init__(self, plan: Plan, client: Any):
        self.plan, self.client = plan, client
        self.outcomes: list[Outcome] = []
        self._bodies = [(path, json.dumps(body).encode()) for path, body in plan.questions]
        self._asked = 0
        self._begun = time.perf_counter()

    async def ask(self) -> int:
        """The status."""
        number = self._asked
        self._asked += 1
        path, body = self._bodies[number % len(self._bodies)]
        headers = {"Content-Type": "application/json"}
        if self.plan.keys:
            headers["Authorization"] = f"Bearer {self.plan.keys[number % len(self.plan.keys)]}"
        start = time.perf_counter()
        first: float | None = None
        try:
            async with self.client.post(path, data=body, headers=headers) as answer:
                status = answer.status
                async for _ in answer.content.iter_any():
                    first = first or time.perf_counter()
        except Exception:
            status = 0
        end = time.perf_counter()
        self.outcomes.append(Outcome(status, start - self._begun, end - start, (first or end) - start))
        return status

    def over(self) -> bool:
        return time.perf_counter() - self._begun >= self.plan.seconds

    async def closed(self) -> None:
        async def one() -> None:
            while not self.over():
                await self.ask()

        await asyncio.gather(*(one() for _ in range(self.plan.clients)))

    async def open(self) -> None:
        rng, under_way = random.Random(self.plan.seed), set[asyncio.Task[int]]()
        due = self._begun
        while not self.over():
            due += rng.expovariate(self.plan.rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if len(under_way) < self.plan.limit:
                task = asyncio.ensure_future(self.ask())
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        while await self.ask() in (429, 503) and time.perf_counter() - self._begun < self.plan.seconds + ANSWER_SECONDS:
            await asyncio.sleep(AGAIN_SECONDS)
        if under_way:
            await asyncio.wait(under_way)


async def run(plan: Plan) -> list[Outcome]:
    import aiohttp  # parses in C: what the load takes of the cores, the server lacks

    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS, sock_read=ANSWER_SECONDS)
    async with aiohttp.ClientSession(plan.url, connector=connector, timeout=timeout) as client:
        load = Load(plan, client)
        await (load.closed() if plan.clients else load.open())
        return sorted(load.outcomes, key=lambda one: one.at)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed. Raises `ValueError` where there are none."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def answered(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if one.status == 200]


def rate(outcomes: Sequence[Outcome], seconds: float) -> float:
    """Answers a second, of those that were there in time."""
    return sum(one.at + one.seconds <= seconds for one in answered(outcomes)) / seconds


def recovery(outcomes: Sequence[Outcome], seconds: float) -> float:
    """Seconds from the end of the load to the first answer that was asked for after it; infinity where there is none."""
    return min((one.at + one.seconds - seconds for one in answered(outcomes) if one.at >= seconds), default=math.inf)


def main() -> None:
    plan = Plan(**json.load(sys.stdin))
    json.dump([dataclasses.astuple(one) for one in asyncio.run(run(plan))], sys.stdout)


if __name__ == "__main__":
    main()
