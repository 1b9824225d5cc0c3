"""C11: an hour of everything, a tenth of it wrong, some of it left halfway. What the server takes must not grow, nor its answers change."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from bench.served import Server, served
from bench.traffic import percentile
from tests.server.conftest import DEMO, LEAK

from .frame import Trials

NAME = "C11"
TITLE = "an hour of everything"
SECONDS = {"push": 60.0, "ci": 3600.0, "release": 8 * 3600.0}
RATE = 10.0
"""Requests a second."""
WRONG, LEFT = 0.10, 0.05
"""Shares of requests that are wrong, and whose client leaves."""
WARM_UP = 0.25
"""Share of the time after which memory is looked at."""
EVERY = 5.0
"""Seconds between two looks at the process."""
SLOPE = 8 << 20
"""Bytes an hour that memory may grow by, where it was watched for half an hour or more: a shorter time says nothing about an hour."""
GROWTH = 1.02
WATCHED = 1800.0
DRIFT = 1.2
"""The 99th percentile of answers in the last quarter to that in the second one. Only over eight hours: shorter runs have company."""
FILES, THREADS = 4, 1
"""Usually open in the last quarter beyond what was in the second: a connection more or less, and the thread that listens to it."""
POOL = min(32, (os.cpu_count() or 1) + 4)
"""Threads that asyncio's pool grows to, and no further: more that may come in runs too short to have filled it in their second quarter."""
CANARIES = 20
TEXTS = ("what is in the picture?", "what color is it?", "how many objects are there?", "where is it?")
NAMES = ("objects1", "objects2", "objects3", "colours1", "words1")
WRONG_BODIES: tuple[bytes, ...] = (
    *(b"", b"{", b"[]", b"[" * 100, b"\xff\xfe", bytes(1 << 16), b'{"image": 1}', b'{"image": "AAAA"}', b'{"image": "file:///etc/passwd"}'),
    *(b'{"image": "https://169.254.169.254/x.png"}', b'{"image": "data:image/png;base64,iVBORw0KGgo="}', b'{"image": "x", "image": "y"}'),
    *(b'{"image": "x", "max_tokens": -1}', b'{"image": "x", "question": "\\ud800"}', b'{"temperature": NaN}', b'{"model": "../../x"}'),
)

Question = tuple[str, dict[str, Any]]


def points(tier: str, rng: random.Random) -> list[float]:
    """Seconds."""
    return [SECONDS[tier]]


@contextmanager
def stage() -> Iterator[Server]:
    with served() as server:
        yield server


def questions() -> list[Question]:
    """Of all tasks, greedy; some as streams."""
    found: list[Question] = []
    for name in NAMES:
        asked: list[Question] = [("ask", {"question": text}) for text in TEXTS]
        asked += [("caption", {}), ("ocr", {}), ("detect", {"classes": "owl ; fish"}), ("segment", {"classes": ["owl"], "max_objects": 4})]
        asked += [("run", {"prompt": "<image> x <eos>", "max_tokens": 16}), ("ask", {"question": "where?", "beams": 2})]
        asked += [("caption", {"stream": True})]
        picture = base64.b64encode((DEMO / f"{name}.png").read_bytes()).decode()
        found += [(task, {"image": picture, **fields}) for task, fields in asked]
    return found


@dataclass
class Seen:
    statuses: Counter[str] = field(default_factory=Counter)
    times: list[tuple[float, float]] = field(default_factory=list)
    """Of right answers: when they were asked for, and how long they took."""
    memory: list[tuple[float, int]] = field(default_factory=list)
    handles: list[tuple[int, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def check(server: Server, seconds: float, rng: random.Random) -> Trials:
    before = canaries(server)
    seen = asyncio.run(_run(server, seconds, rng))
    after = canaries(server)
    total = sum(seen.statuses.values())
    watched = [(at, size) for at, size in seen.memory if at >= WARM_UP * seconds]
    slope = theil_sen(watched) * 3600
    tenth = max(1, len(watched) // 10)  # one look alone may be at a moment with many pictures
    begin, end = (statistics.median(size for _, size in part) for part in (watched[:tenth], watched[-tenth:]))
    growth = end / begin
    quarter = len(seen.handles) // 4
    first, last = _usual(seen.handles[quarter : 2 * quarter]), _usual(seen.handles[-quarter:])
    early, late = (
        percentile([took for at, took in seen.times if low <= at / seconds < high], 0.99) for low, high in ((0.25, 0.5), (0.75, 1.0))
    )
    measured = {
        "requests": total,
        "statuses": dict(seen.statuses),
        "memory, MiB": f"{begin / 2**20:.0f} after the warm-up, {end / 2**20:.0f} at the end ({growth - 1:+.1%})",
        "memory, MiB an hour (Theil-Sen)": round(slope / 2**20, 2),
        "open files and threads": f"{first} in the second quarter, {last} in the last",
        "99 % of answers within s": f"{early:.2f} early, {late:.2f} late",
        "canaries": f"{sum(a == b for a, b in zip(before, after, strict=True))} of {len(before)} the same",
    }
    assert not seen.wrong, f"{len(seen.wrong)} answers are wrong, such as {seen.wrong[0]}"
    assert before == after, "answers changed"
    assert last[0] <= first[0] + FILES, f"open files: {measured['open files and threads']}"
    long = seconds * (1 - WARM_UP) >= WATCHED
    assert last[1] <= first[1] + (THREADS if long else POOL), f"threads: {measured['open files and threads']}"
    if long:
        assert slope <= SLOPE, f"memory grows by {slope / 2**20:.1f} MiB an hour"
        assert growth <= GROWTH, f"memory: {measured['memory, MiB']}"
    if seconds >= SECONDS["release"]:
        assert late <= DRIFT * early, f"answers became slower: {measured['99 % of answers within s']}"
    return Trials(total, measured)


def canaries(server: Server) -> list[str]:
    """Answers that must not change."""
    found = []
    for task, body in [one for one in questions() if not one[1].get("stream")][:CANARIES]:
        status, answer = server.ask("POST", f"/v1/{task}", body)
        assert status == 200, answer
        found.append(json.dumps(json.loads(answer)["result"]))
    return found


async def _run(server: Server, seconds: float, rng: random.Random) -> Seen:
    seen, right, begun = Seen(), questions(), time.monotonic()
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=2.0)
    async with httpx2.AsyncClient(base_url=server.url, limits=limits, timeout=60.0, trust_env=False) as client:
        watching = asyncio.ensure_future(_watch(server, seen, begun))
        under_way: set[asyncio.Task[None]] = set()
        due = begun
        while (now := time.monotonic()) < begun + seconds:
            due += rng.expovariate(RATE)
            await asyncio.sleep(max(0.0, due - now))
            chance, question = rng.random(), rng.choice(right)
            if chance < WRONG:
                work = _wrong(client, rng.choice(WRONG_BODIES), seen)
            elif chance < WRONG + LEFT:
                work = _leave(client, question, rng.random() * 0.2, seen)
            else:
                work = _right(client, question, begun, seen)
            task = asyncio.ensure_future(work)
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if under_way:
            await asyncio.wait(under_way)
        watching.cancel()
    _look(server, seen, begun)
    return seen


async def _right(client: httpx2.AsyncClient, question: Question, begun: float, seen: Seen) -> None:
    """An answer, or being told that there are too many."""
    start = time.monotonic()
    try:
        answer = await client.post(f"/v1/{question[0]}", json=question[1])
    except httpx2.HTTPError as error:
        seen.wrong.append(f"{question[0]}: {type(error).__name__}")
        return
    seen.statuses[str(answer.status_code)] += 1
    if answer.status_code == 200:
        seen.times.append((start - begun, time.monotonic() - start))
        if question[1].get("stream") and not answer.content.endswith(b"data: [DONE]\n\n"):
            seen.wrong.append(f"{question[0]}: a stream without its end")
    elif answer.status_code not in (429, 503):
        seen.wrong.append(f"{question[0]}: {answer.status_code} {answer.text[:200]}")


async def _wrong(client: httpx2.AsyncClient, body: bytes, seen: Seen) -> None:
    try:
        answer = await client.post("/v1/ask", content=body, headers={"Content-Type": "application/json"})
    except httpx2.HTTPError as error:
        seen.wrong.append(f"{body[:40]!r}: {type(error).__name__}")
        return
    seen.statuses[f"{answer.status_code} to a wrong one"] += 1
    if not 400 <= answer.status_code < 500 or LEAK.search(answer.text):
        seen.wrong.append(f"{body[:40]!r}: {answer.status_code} {answer.text[:200]}")


async def _leave(client: httpx2.AsyncClient, question: Question, after: float, seen: Seen) -> None:
    seen.statuses["left"] += 1
    try:
        async with asyncio.timeout(after):
            await client.post(f"/v1/{question[0]}", json=question[1])
    except (TimeoutError, httpx2.HTTPError):
        pass


async def _watch(server: Server, seen: Seen, begun: float) -> None:
    while True:
        _look(server, seen, begun)
        await asyncio.sleep(EVERY)


def _look(server: Server, seen: Seen, begun: float) -> None:
    seen.memory.append((time.monotonic() - begun, server.memory()))
    seen.handles.append(server.handles())


def _usual(handles: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Medians: some connections are always open, now more and now fewer."""
    files, threads = (int(statistics.median(each)) for each in zip(*handles, strict=True))
    return files, threads


def theil_sen(points: Sequence[tuple[float, float]]) -> float:
    """The median slope between two of the points: a few that stand out do not move it."""
    slopes = [(b - a) / (t - s) for number, (s, a) in enumerate(points) for t, b in points[number + 1 :] if t > s]
    return statistics.median(slopes) if slopes else 0.0
