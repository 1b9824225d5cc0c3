"""C9: more than it can do. Half, all and twice of what the server can, ten times for a while, and 500 connections that say nothing."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bench.served import served
from bench.serving import ALLOWED, RECOVERY_SECONDS, REFUSAL_SECONDS, Asked, keys, options
from bench.traffic import Outcome, answered, percentile, rate, recovery

from .frame import Trials

NAME = "C9"
TITLE = "more than it can do"
SECONDS = {"push": 5.0, "ci": 180.0, "release": 1080.0}
"""Of each of the three loads; ten times the capacity lasts a third of that."""
CAPACITY_SECONDS = 10.0
LATE = 3.0
"""At half of what it can: the 99th percentile of answers to their median."""
GOODPUT = 0.8
"""At ten times of what it can: answers a second, of those it can give."""
SILENT = 500

Point = tuple[str, float, float]


def points(tier: str, rng: random.Random) -> list[Point]:
    """(kind, times the capacity, seconds)"""
    long = SECONDS[tier]
    return [*(("steady", factor, long) for factor in (0.5, 1.0, 2.0)), ("burst", 10.0, long / 3), ("silent", 0.0, 0.0)]


@contextmanager
def stage() -> Iterator[Asked]:
    own = keys()
    with served(*options(own)) as server:
        ours = Asked(server, own)
        ours.warm()
        yield ours


def check(stage: Asked, point: Point, rng: random.Random) -> Trials:
    kind, factor, seconds = point
    if kind == "silent":
        return _silent(stage)
    capacity = stage.answers(CAPACITY_SECONDS)  # anew: a machine that others use is not the same for minutes
    outcomes = stage.load(seconds, rate=factor * capacity, seed=rng.randrange(1 << 30))
    after = recovery(outcomes, seconds)
    statuses = Counter(one.status for one in outcomes)
    name = f"at {factor:g} times the capacity"
    measured = {
        f"{name}: capacity before, answers/s": round(capacity, 1),
        f"{name}: statuses": dict(statuses),
        f"{name}: ms": _times(outcomes),
        f"{name}: first answer after it, s": round(after, 2),
    }
    assert set(statuses) <= ALLOWED, f"{name}: {dict(statuses)}"
    assert after < RECOVERY_SECONDS, f"{name}: the first answer came {after:.1f} s after the load"
    refused = [one.seconds for one in outcomes if one.status != 200]
    if refused:
        late = percentile(refused, 0.99)
        measured[f"{name}: 99 % of refusals within ms"] = round(late * 1000)
        assert late < REFUSAL_SECONDS, f"{name}: 99 % of refusals within {late:.3f} s"
    if factor < 1:
        times = [one.seconds for one in answered(outcomes)]
        half, most = percentile(times, 0.5), percentile(times, 0.99)
        assert most <= LATE * half, f"{name}: half of the answers within {half:.3f} s, 99 % within {most:.3f} s"
    if kind == "burst":
        share = rate(outcomes, seconds) / capacity
        measured[f"{name}: goodput"] = f"{share:.0%}"
        assert share >= GOODPUT, f"{name}: {share:.0%} of what it can"
    return Trials(len(outcomes), measured)


def _silent(stage: Asked) -> Trials:
    """Connections that send nothing take all places; they lose them when the time for headers is over."""
    server = stage.server
    with ExitStack() as stack:
        for _ in range(SILENT):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        began = time.monotonic()
        while _status(stage) != 200:
            assert time.monotonic() - began < 15, "nobody was served beside connections that say nothing"
            time.sleep(0.1)
    return Trials(SILENT, {f"first answer beside {SILENT} silent connections, s": round(time.monotonic() - began, 1)})


def _status(stage: Asked) -> int:
    try:
        return stage.server.ask("GET", "/v1/models", key=stage.keys[0])[0]
    except OSError:  # hung up on, for there are too many
        return 0


def _times(outcomes: Sequence[Outcome]) -> str:
    times = [one.seconds for one in answered(outcomes)]
    return ", ".join(f"p{share * 100:g} {percentile(times, share) * 1000:.0f}" for share in (0.5, 0.9, 0.99)) if times else "-"
