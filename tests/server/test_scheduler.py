"""The queue in front of the engine: bounded, fair, patient for a time, one adapter at a time."""

from __future__ import annotations

import asyncio
import time

import pytest

from paligemma.server.refusals import Refused
from paligemma.server.scheduler import COMING, IMPATIENT, Coming, Scheduler


def make(**more) -> Scheduler:
    return Scheduler(**({"rows": 2, "tokens": 1000, "waiting": 6, "waiting_each": 4, "patience": 5.0} | more))


async def work(scheduler: Scheduler, client: str, log: list, name: str, gate: asyncio.Event, **room) -> None:
    async with scheduler.enter(client) as place:
        await place.turn(**({"rows": 1, "tokens": 10, "adapter": None} | room))
        log.append(name)
        await gate.wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_clients_take_turns():
    async def run():
        scheduler, log, gate = make(rows=1), [], asyncio.Event()
        tasks = [asyncio.ensure_future(work(scheduler, "a", log, "a0", gate))]
        await settle()
        for i in range(1, 4):
            tasks.append(asyncio.ensure_future(work(scheduler, "a", log, f"a{i}", gate)))
            await settle()
        for i in range(2):
            tasks.append(asyncio.ensure_future(work(scheduler, "b", log, f"b{i}", gate)))
            await settle()
        assert log == ["a0"]
        assert (scheduler.depth, scheduler.busy) == (5, 1)
        gate.set()
        await asyncio.gather(*tasks)
        assert log == ["a0", "a1", "b0", "a2", "b1", "a3"]
        assert (scheduler.depth, scheduler.busy) == (0, 0)

    asyncio.run(run())


def test_who_comes_to_a_full_queue_is_refused_at_once():
    async def run():
        scheduler, gate = make(), asyncio.Event()
        tasks = [asyncio.ensure_future(work(scheduler, f"c{i % 2}", [], "", gate)) for i in range(8)]
        await settle()
        assert (scheduler.depth, scheduler.busy) == (6, 2)
        with pytest.raises(Refused) as refused:
            scheduler.enter("another")
        assert (refused.value.status, refused.value.code) == (429, "queue_full")
        gate.set()
        await asyncio.gather(*tasks)
        scheduler.enter("another")

    asyncio.run(run())


def test_a_place_is_kept_for_who_has_been_read():
    scheduler = make(rows=1, waiting=1)
    first, second = Coming(), Coming()
    first.expect(scheduler, "a")
    second.expect(scheduler, "b")
    with pytest.raises(Refused, match="1 questions are waiting already"):
        Coming().expect(scheduler, "c")
    with pytest.raises(Refused):
        scheduler.enter("c")
    token = COMING.set(first)
    try:
        scheduler.enter("a")
        with pytest.raises(Refused):
            scheduler.enter("a")  # one place, one question
    finally:
        COMING.reset(token)
    first.over()  # changes nothing any more
    with pytest.raises(Refused):
        scheduler.check_room("c")
    second.over()
    second.over()
    scheduler.check_room("c")


def test_one_client_cannot_fill_the_queue():
    async def run():
        scheduler, gate = make(), asyncio.Event()
        tasks = [asyncio.ensure_future(work(scheduler, "greedy", [], "", gate)) for _ in range(6)]
        await settle()
        with pytest.raises(Refused) as refused:
            scheduler.enter("greedy")
        assert refused.value.code == "client_queue_full"
        scheduler.enter("modest")
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_patience_ends_and_leaves_no_trace():
    async def run():
        scheduler, gate = make(rows=1, patience=0.05), asyncio.Event()
        first = asyncio.ensure_future(work(scheduler, "a", [], "", gate))
        await settle()
        begun = time.monotonic()
        with pytest.raises(Refused) as refused:
            await work(scheduler, "b", [], "", gate)
        assert time.monotonic() - begun < 5
        assert (refused.value.status, refused.value.code) == (503, "queue_timeout")
        assert scheduler.depth == 0
        gate.set()
        await first

    asyncio.run(run())


def test_a_turn_that_comes_as_patience_ends_is_taken():
    async def run():
        scheduler, log, gate = make(rows=1, patience=0.3), [], asyncio.Event()
        gate.set()
        async with scheduler.enter("a") as first:
            await first.turn(rows=1, tokens=10, adapter=None)
            second = asyncio.ensure_future(work(scheduler, "b", log, "second", gate))
            await settle()
            asyncio.get_running_loop().call_later(0.35, scheduler._leave, first)
            time.sleep(0.5)  # when the loop looks again, patience is over and there is room
            await second
        assert log == ["second"]
        assert (scheduler.depth, scheduler.busy) == (0, 0)

    asyncio.run(run())


@pytest.mark.parametrize("when", ["waiting", "inside"])
def test_who_leaves_gives_up_the_place(when):
    async def run():
        scheduler, log, gate = make(rows=1), [], asyncio.Event()
        first = asyncio.ensure_future(work(scheduler, "a", log, "first", gate))
        await settle()
        second = asyncio.ensure_future(work(scheduler, "a", log, "second", gate))
        third = asyncio.ensure_future(work(scheduler, "b", log, "third", gate))
        await settle()
        (second if when == "waiting" else first).cancel()
        await settle()
        gate.set()
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert log == (["first", "third"] if when == "waiting" else ["first", "second", "third"])
        assert (scheduler.depth, scheduler.busy) == (0, 0)

    asyncio.run(run())


def test_what_never_fits_is_refused_and_what_does_not_fit_yet_is_passed_by_nobody():
    async def run():
        scheduler, log, gate = make(rows=4, tokens=100), [], asyncio.Event()
        with pytest.raises(Refused) as refused:
            await work(scheduler, "a", log, "", gate, tokens=101)
        assert refused.value.status == 400
        tasks = []
        for name, tokens in (("half", 60), ("large", 80), ("small", 10)):
            tasks.append(asyncio.ensure_future(work(scheduler, name, log, name, gate, tokens=tokens)))
            await settle()
        assert log == ["half"]
        gate.set()
        await asyncio.gather(*tasks)
        assert log == ["half", "large", "small"]

    asyncio.run(run())


def test_one_adapter_works_at_a_time_and_none_waits_for_ever():
    async def run():
        switched: list = []
        scheduler, log = make(rows=2, switch=switched.append, waiting=20, waiting_each=20), []
        gates = [asyncio.Event() for _ in range(4)]
        tasks = [asyncio.ensure_future(work(scheduler, "a", log, "plain0", gates[0]))]
        await settle()
        tasks.append(asyncio.ensure_future(work(scheduler, "b", log, "birds", gates[1], adapter="birds")))
        await settle()
        tasks.append(asyncio.ensure_future(work(scheduler, "a", log, "plain1", gates[2])))
        await settle()
        assert log == ["plain0", "plain1"], "those of the adapter at work pass by, for a while"
        assert switched == []
        await asyncio.sleep(IMPATIENT + 0.05)
        gates[2].set()
        tasks.append(asyncio.ensure_future(work(scheduler, "a", log, "plain2", gates[3])))
        await settle()
        assert log == ["plain0", "plain1"], "now the other one's turn has come, as soon as the engine is empty"
        gates[0].set()
        await settle()
        assert (log[-1], switched) == ("birds", ["birds"])
        gates[1].set()
        gates[3].set()
        await asyncio.gather(*tasks)
        assert (log[-1], switched) == ("plain2", ["birds", None])

    asyncio.run(run())


def test_a_closed_scheduler_takes_nothing():
    scheduler = make()
    scheduler.open = False
    with pytest.raises(Refused) as refused:
        scheduler.enter("a")
    assert (refused.value.status, refused.value.code) == (503, "draining")
