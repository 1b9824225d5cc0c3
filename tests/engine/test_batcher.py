"""One batch for many threads: answers, errors, refusals and the end of it, over an engine that is a table (`test_network.py`)."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest

from paligemma.engine.batcher import Batcher
from paligemma.engine.generate import Options, generate
from paligemma.engine.torch_network import TorchNetwork
from paligemma.errors import ResourceError, UsageError
from tests import tiny
from tests.engine.reference import LOC
from tests.engine.test_network import EOS, PROMPTS, table

SOFT = np.zeros((1, 1, 1))
WAIT = 30


class Held:
    """Limits that hold the batcher's thread until they are let go, so that what happens meanwhile is certain."""

    def __init__(self):
        self.reached, self.go = threading.Event(), threading.Event()

    def allowed(self, ids):
        self.reached.set()
        assert self.go.wait(WAIT)
        return None


def batcher(**how) -> Batcher:
    return Batcher(table(), eos_id=how.pop("eos_id", EOS), loc=range(0), **how)


def test_many_threads_ask_and_each_gets_its_own():
    options = [Options(max_tokens=6), Options(max_tokens=5, temperature=1.5, seed=4), Options(max_tokens=4, beams=3)]
    asked = [(PROMPTS[number % 4], options[number % 3]) for number in range(60)]
    with batcher(rows=7) as asking, ThreadPoolExecutor(8) as threads:
        futures = list(threads.map(lambda one: asking.submit(*one, soft=SOFT), asked))
        found = [future.result(WAIT) for future in futures]
    for (prompt, how), answer in zip(asked, found, strict=True):
        assert answer == generate(table(), None, [prompt], how, eos_id=EOS, loc=range(0))[0]


def test_pictures_go_in_as_pixels():
    model = tiny.random_model(tiny.TINY_1)
    network, pixels = TorchNetwork(model), tiny.random_pixels(model.config, 2).numpy()
    with Batcher(network, eos_id=3, loc=LOC) as asking:
        futures = [asking.submit([2, 9, 7], Options(max_tokens=5), pixels=pixels[row]) for row in (0, 1, 0)]
        found = [future.result(WAIT) for future in futures]
    expected = generate(network, network.encode(pixels), [[2, 9, 7]] * 2, Options(max_tokens=5), eos_id=3, loc=LOC)
    assert [answer.ids for answer in found] == [expected[row].ids for row in (0, 1, 0)]


def test_too_many_are_refused():
    held = Held()
    with batcher(rows=1, waiting=2, eos_id=-1) as asking:
        first = asking.submit([1], Options(max_tokens=1), soft=SOFT, constraint=held)
        assert held.reached.wait(WAIT)
        others = [asking.submit([1], Options(max_tokens=1), soft=SOFT) for _ in range(2)]
        assert asking.counts == {"waiting": 2, "writing": 1}
        with pytest.raises(ResourceError, match="2 questions are waiting") as refused:
            asking.submit([1], soft=SOFT)
        assert refused.value.code == "busy"
        held.go.set()
        assert len({future.result(WAIT).ids for future in (first, *others)}) == 1
    assert asking.counts == {"waiting": 0, "writing": 0}


def test_what_cannot_be_asked_is_refused_at_once():
    with batcher(rows=2) as asking:
        with pytest.raises(ValueError, match="a job needs"):
            asking.submit([1])
        with pytest.raises(UsageError, match="does not fit"):
            asking.submit([1], Options(beams=3), soft=SOFT)


def test_cancelled_at_any_time():
    held = Held()
    with batcher(rows=1, eos_id=-1) as asking:
        writing = asking.submit([1], Options(max_tokens=8000), soft=SOFT, constraint=held)
        waiting = asking.submit([1], Options(max_tokens=2), soft=SOFT)
        other = asking.submit([2], Options(max_tokens=2), soft=SOFT)
        assert held.reached.wait(WAIT)
        assert writing.cancel()
        assert waiting.cancel()
        held.go.set()
        assert len(other.result(WAIT).ids) == 2
        for future in (writing, waiting):
            with pytest.raises(CancelledError):
                future.result(WAIT)


def test_errors_reach_who_asked():
    class Broken:
        def allowed(self, ids):
            raise KeyError("the limits broke")

    with batcher() as asking:
        bad = asking.submit([1], Options(max_tokens=3), soft=SOFT, constraint=Broken())
        good = asking.submit([1], Options(max_tokens=3), soft=SOFT)
        with pytest.raises(KeyError, match="the limits broke"):
            bad.result(WAIT)
        assert good.result(WAIT).ids


def test_closing_answers_what_was_asked():
    asking = batcher(rows=2, eos_id=-1)
    futures = [asking.submit([1], Options(max_tokens=20), soft=SOFT) for _ in range(9)]
    asking.close()
    assert all(future.done() and len(future.result().ids) == 20 for future in futures)
    with pytest.raises(RuntimeError, match="closed"):
        asking.submit([1], soft=SOFT)
    asking.close()


def test_closing_at_once_cancels():
    held = Held()
    asking = batcher(rows=1, eos_id=-1)
    futures = [asking.submit([1], Options(max_tokens=8000), soft=SOFT, constraint=held) for _ in range(3)]
    assert held.reached.wait(WAIT)
    threading.Timer(0.05, held.go.set).start()
    asking.close(wait=False)
    assert all(future.cancelled() for future in futures)


def test_tokens_are_told_as_they_come():
    seen = []
    with batcher() as asking:
        answer = asking.submit([3], Options(max_tokens=6), soft=SOFT, on_token=seen.append).result(WAIT)
    assert tuple(token.id for token in seen) == answer.ids


def test_a_step_that_takes_long_can_be_seen():
    held = Held()
    with batcher() as asking:
        assert asking.stalled == 0
        future = asking.submit(PROMPTS[0], Options(max_tokens=2), soft=SOFT, constraint=held)
        assert held.reached.wait(WAIT)
        first = asking.stalled
        time.sleep(0.05)
        assert asking.stalled - first >= 0.04
        held.go.set()
        future.result(WAIT)
    assert asking.stalled == math.inf, "nobody takes steps any more"


def test_nobody_waits_where_the_thread_has_died(monkeypatch):
    held = Held()
    asking = batcher()
    broken = RuntimeError("broken")

    def step():
        assert held.go.wait(WAIT)
        raise broken

    monkeypatch.setattr(asking._batch, "step", step)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    futures = [asking.submit(prompt, Options(max_tokens=2), soft=SOFT) for prompt in PROMPTS]
    held.go.set()
    assert all(future.exception(WAIT) is broken for future in futures)
    asking._thread.join(WAIT)
    assert asking.stalled == math.inf
    with pytest.raises(RuntimeError, match="closed"):
        asking.submit(PROMPTS[0], Options(), soft=SOFT)


SHORT_OF_MEMORY = """
import resource
import psutil, torch
from paligemma.engine.batcher import Batcher
from paligemma.engine.options import Options
from paligemma.engine.torch_network import TorchNetwork
from paligemma.errors import lacks_memory
from tests import tiny

torch.set_num_threads(1)
model = tiny.random_model(tiny.tiny_config())
pixels = tiny.random_pixels(model.config, 1).numpy()
with Batcher(TorchNetwork(model), eos_id=-1, loc=range(0)) as batcher:
    ask = lambda pixels: batcher.submit([2, 7], Options(max_tokens=4), pixels=pixels)
    first = ask(pixels[0]).result(60)
    many = pixels.repeat(20_000, axis=0)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), used + (64 << 20)))
    hungry, other = ask(many), ask(1 - pixels[0])
    assert lacks_memory(hungry.exception(60)), hungry.exception()
    assert len(other.result(60).ids) == 4
    assert ask(pixels[0]).result(60) == first
print("went on")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a process's memory is Linux's")
def test_memory_that_runs_out_is_its_own_error():
    """The process may take 64 MB more; 20,000 pictures under one prompt take more. Who asks beside and after that is answered."""
    done = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "went on\n", done.stderr[-3000:]


def test_work_aside_is_done_between_steps_on_the_same_thread():
    held = Held()
    with batcher(rows=2) as asking:
        answer = asking.submit(PROMPTS[0], Options(max_tokens=3), soft=SOFT, constraint=held)
        assert held.reached.wait(WAIT)
        aside = asking.aside(lambda features: (features, threading.current_thread().name))
        assert not aside.done()  # a step is being taken
        held.go.set()
        features, name = aside.result(WAIT)
        assert name == "paligemma-batcher"
        assert features.network is asking.network
        assert answer.result(WAIT).ids
        with pytest.raises(ZeroDivisionError):
            asking.aside(lambda _: 1 / 0).result(WAIT)
        assert asking.aside(lambda _: 5).result(WAIT) == 5  # also where nothing is written
    with pytest.raises(RuntimeError):
        asking.aside(lambda _: 5)


def test_work_aside_that_nobody_wants_any_more_is_not_done():
    held, done = Held(), []
    with batcher() as asking:
        asking.submit(PROMPTS[0], Options(max_tokens=2), soft=SOFT, constraint=held)
        assert held.reached.wait(WAIT)
        assert asking.aside(lambda _: done.append(1)).cancel()
        held.go.set()
        asking.aside(lambda _: done.append(2)).result(WAIT)
    assert done == [2]
