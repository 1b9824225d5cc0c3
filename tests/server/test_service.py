"""Many clients at once: the same answers as alone, room given back by whoever leaves, one failure that stays one, and an end in order."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from PIL import Image

from paligemma.server.metrics import Metrics
from paligemma.server.refusals import Refused
from paligemma.server.service import Question, Service
from paligemma.server.settings import Limits, Settings
from tests.server.conftest import DEMO, eventually, live
from tests.server.test_native import OBJECTS, ask, compare, events

PICTURE = (DEMO / "objects1.png").read_bytes()


class Slow:
    """A network that takes its time, or fails, where a test says so."""

    def __init__(self, network):
        self.network, self.seconds, self.failing, self.hold = network, 0.0, None, threading.Event()
        self.hold.set()

    def __getattr__(self, name):
        return getattr(self.network, name)

    def begin(self, soft, prompts, max_tokens):
        self.hold.wait(20)
        if self.failing is not None and any(list(prompt) == self.failing[0] for prompt in prompts):
            raise self.failing[1]
        return _SlowRows(self, self.network.begin(soft, prompts, max_tokens))


class _SlowRows:
    def __init__(self, slow, rows):
        self.slow, self.rows = slow, rows

    @property
    def numbers(self):
        return self.rows.numbers

    def offer(self, *asked):
        time.sleep(self.slow.seconds)
        self.slow.hold.wait(20)
        return self.rows.offer(*asked)

    def extend(self, ids):
        self.rows.extend(ids)

    def select(self, places):
        return _SlowRows(self.slow, self.rows.select(places))

    def join(self, others):
        return _SlowRows(self.slow, self.rows.join(others.rows))


@contextmanager
def slowly(predictor, settings=None, **limits):
    """The service on a network that can be slowed down."""
    settings = settings or Settings(limits=Limits(**limits))
    with live(predictor, settings) as (served, service):
        slow = Slow(predictor.network)
        service.batcher._batch.network = slow
        yield served, service, slow


def idle(service: Service) -> bool:
    return not (service.scheduler.depth or service.scheduler.busy or service.batcher.counts["writing"] or service.batcher.counts["waiting"])


def test_many_at_once_get_what_each_gets_alone(predictor):
    with live(predictor, Settings(limits=Limits(waiting_each=64, waiting=64))) as (served, service):
        alone = {task: ask(served, task, **fields).json()["result"] for task, fields in MIXED}
        with ThreadPoolExecutor(24) as pool:
            together = list(pool.map(lambda one: (one[0], ask(served, one[0], **one[1]).json()["result"]), MIXED * 4))
        for task, result in together:
            compare(result, alone[task])
        assert idle(service)
        text = served.ask("GET", "/metrics").body.decode()
        assert f'paligemma_answers_total{{stop="eos",task="caption"}} {5:.1f}' in text


def test_explanations_among_other_answers_are_what_they_are_alone(predictor):
    with live(predictor, Settings(limits=Limits(waiting_each=64, waiting=64))) as (served, _):
        alone = ask(served, "caption", explain=True).json()["explanation"]
        with ThreadPoolExecutor(12) as pool:
            tasks = [("caption", {"explain": True})] * 4 + MIXED * 2
            together = list(pool.map(lambda one: ask(served, one[0], **one[1]).json(), tasks))
    for reply in together[:4]:
        compare(reply["explanation"], alone)


def test_what_cannot_be_explained_is_refused(predictor):
    with live(predictor, Settings(limits=Limits(explained_numbers=2 * 64))) as (served, service):
        assert "explanation" not in ask(served, "caption", explain=True).json(), "too long"
        error = ask(served, "caption", explain=True, image=None, images=[OBJECTS] * 2).error()
        assert (error["code"], error["param"]) == ("not_explained", "explain")
        assert "explanation" in ask(served, "ask", question="how many owls are there?", explain=True).json()
        assert ask(served, "ask", question="how many owls are there?", explain=True).status == 200
        service.batcher.network = object()  # such as a pack's
        assert ask(served, "ask", question="how many owls are there?", explain=True).error()["code"] == "not_explained"
        assert served.ask("GET", "/v1/models").json()["data"][0]["paligemma"]["explains"] is False


MIXED = [
    ("caption", {"lang": "de"}),
    ("ask", {"question": "what color is the heart?"}),
    ("detect", {"classes": ["owl", "fish"]}),
    ("segment", {"classes": ["owl"]}),
    ("ocr", {}),
]


@pytest.mark.parametrize("stage", ["queue", "prompt", "tokens", "stream"])
def test_who_leaves_gives_everything_back(predictor, stage):
    with slowly(predictor, Settings(rows=1)) as (served, service, slow):
        body = json.dumps({"image": OBJECTS, "lang": "en", "stream": stage == "stream"}).encode()
        head = f"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        first = None
        if stage in ("queue", "prompt"):
            slow.hold.clear()
        else:
            slow.seconds = 1.0  # so that the answer would not be over by itself
        if stage == "queue":
            first = socket.create_connection(("127.0.0.1", served.port))
            first.sendall(head.encode() + body)
            eventually(lambda: service.scheduler.busy == 1)
        with socket.create_connection(("127.0.0.1", served.port)) as leaving:
            leaving.sendall(head.encode() + body)
            if stage == "queue":
                eventually(lambda: service.scheduler.depth == 1)
            elif stage == "stream":
                assert b"event: token" in _until(leaving, b"event: token")
            else:
                eventually(lambda: service.scheduler.busy == 1)
                time.sleep(0.3)
        if stage == "queue":
            eventually(lambda: service.scheduler.depth == 0)
            first.close()
        slow.hold.set()
        eventually(lambda: idle(service))
        slow.seconds = 0
        assert ask(served, "caption").status == 200


def test_questions_of_a_client_share_what_the_model_sees_and_nothing_else(predictor):
    """Two pictures of one colour look the same to it; places are in the pixels of each."""

    def red(side: int) -> str:
        written = io.BytesIO()
        Image.new("RGB", (side, side), "red").save(written, "PNG")
        return base64.b64encode(written.getvalue()).decode()

    with live(predictor) as (served, service):
        for side in (20, 60, 20):
            result = ask(served, "detect", image=red(side), classes=["owl"]).json()["result"]
            assert (result["width"], result["height"]) == (side, side)
        assert len(service.batcher._batch.features._kept) == 1
        assert ask(served, "caption").json()["result"]["text"] != ask(served, "caption", image=red(20)).json()["result"]["text"]
        assert len(service.batcher._batch.features._kept) == 2


def _until(connection: socket.socket, what: bytes) -> bytes:
    data = b""
    while what not in data:
        piece = connection.recv(65536)
        assert piece
        data += piece
    return data


def test_one_that_fails_fails_alone(predictor):
    """Its neighbours, read in the same pass, get their answers; the words of the error stay here."""
    from paligemma.sequence import prompt_ids

    bad = prompt_ids(predictor.tokenizer, "answer en what is wrong?")
    with slowly(predictor, waiting_each=64, waiting=64) as (served, service, slow):
        slow.failing = (bad, RuntimeError("secret words at 0x7f0012345678"))
        slow.hold.clear()
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, served, "ask", question="what color is the heart?") for _ in range(7)]
            wrong = pool.submit(ask, served, "ask", question="what is wrong?")
            eventually(lambda: service.scheduler.busy == 8)
            slow.hold.set()
            assert {one.result().json()["result"]["text"] for one in asked} == {"green"}
        assert wrong.result().status == 500
        assert "secret" not in wrong.result().body.decode()
        assert wrong.result().error()["code"] == "internal_error"
        slow.failing = (bad, MemoryError())
        assert ask(served, "ask", question="what is wrong?").status == 503
        slow.failing = None
        assert ask(served, "ask", question="what is wrong?").status == 200
        assert served.ask("GET", "/healthz").status == 200


def test_a_full_queue_refuses_quickly_and_recovers(predictor):
    with slowly(predictor, Settings(rows=1, limits=Limits(waiting=16, waiting_each=4))) as (served, service, slow):
        slow.hold.clear()
        with ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(ask, served, "caption") for _ in range(16)]
            eventually(lambda: sum(one.done() for one in asked) >= 11)
            refused = [one.result() for one in asked if one.done()]
            assert {one.status for one in refused} == {429}
            assert all(int(one.headers["retry-after"]) >= 1 for one in refused)
            assert served.ask("POST", "/v1/caption", b"{").status == 429  # before anything of it is read
            eventually(lambda: service.scheduler.depth == 4 and service.scheduler.busy == 1)
            slow.hold.set()
            assert sum(one.result().status == 200 for one in asked) == 16 - len(refused)
        assert ask(served, "caption").status == 200
        assert 'paligemma_refusals_total{code="client_queue_full"}' in served.ask("GET", "/metrics").body.decode()


def test_patience_and_deadline(predictor):
    with slowly(predictor, Settings(rows=1, limits=Limits(queue_seconds=0.3, request_seconds=4))) as (served, service, slow):
        slow.hold.clear()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(ask, served, "caption")
            eventually(lambda: service.scheduler.busy == 1)
            assert ask(served, "caption").error()["code"] == "queue_timeout"
            assert (first.result().status, first.result().error()["code"]) == (504, "deadline_exceeded")
        slow.hold.set()
        eventually(lambda: idle(service))
        assert ask(served, "caption").status == 200
        counted = served.ask("GET", "/metrics").body.decode()
        for code in ("queue_timeout", "deadline_exceeded"):
            assert f'paligemma_refusals_total{{code="{code}"}} 1.0' in counted


def test_a_stream_lives_while_nothing_comes(predictor):
    with slowly(predictor, heartbeat=0.1) as (served, _, slow):
        slow.seconds = 0.25
        reply = ask(served, "ask", question="what color is the heart?", stream=True)
        assert b": wait\n\n" in reply.body
        assert events(reply.body)[-1] == (None, "[DONE]")


def test_an_error_in_a_stream_is_its_last_event(predictor):
    with slowly(predictor, request_seconds=3) as (served, _, slow):
        slow.seconds = 0.6
        first, *_, (name, data) = events(ask(served, "caption", stream=True).body)
        assert first[0] == "token"
        assert (name, json.loads(data)["error"]["code"]) == ("error", "deadline_exceeded")


def test_the_engines_health_is_the_servers(predictor):
    with slowly(predictor, stall_seconds=0.2) as (served, service, slow):
        assert served.ask("GET", "/healthz").json() == {"status": "ok"}
        assert served.ask("GET", "/readyz").json() == {"status": "ready"}
        slow.hold.clear()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask, served, "caption")
            eventually(lambda: served.ask("GET", "/healthz").status == 503)
            slow.hold.set()
            assert asked.result().status == 200
        assert served.ask("GET", "/healthz").status == 200
        service.batcher.close()
        assert (served.ask("GET", "/healthz").error()["code"], served.ask("GET", "/readyz").status) == ("engine_dead", 503)
        assert ask(served, "caption").error()["code"] == "engine_dead"


def test_draining_answers_what_is_in_and_takes_nothing_more(predictor):
    with slowly(predictor) as (served, service, slow):
        slow.seconds = 0.1
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(ask, served, "caption", stream=True)
            eventually(lambda: service.scheduler.busy == 1)
            service.scheduler.open = False
            assert served.ask("GET", "/readyz").error()["code"] == "draining"
            assert ask(served, "caption").error()["code"] == "draining"
            assert events(under_way.result().body)[-1] == (None, "[DONE]")


@pytest.mark.parametrize("ends", [True, False])
def test_draining_waits_for_what_is_in_but_not_for_ever(predictor, ends: bool):
    with slowly(predictor, drain_seconds=20 if ends else 0.3) as (served, service, slow):
        slow.hold.clear()
        with ThreadPoolExecutor(2) as pool:
            under_way = pool.submit(ask, served, "caption")
            eventually(lambda: service.scheduler.busy == 1)
            draining = pool.submit(asyncio.run, service.drain())
            eventually(lambda: not service.scheduler.open)
            assert ask(served, "caption").status == 503
            time.sleep(0.2)
            if ends:
                assert not draining.done()
                slow.hold.set()
            draining.result(10)
            assert service.scheduler.busy == (not ends)
            slow.hold.set()
            assert under_way.result().status == 200


def test_the_service_without_http(predictor):
    async def run():
        service = Service(predictor, Settings(), name="nano")
        async with service:
            answered = await service.answer(Question("ask", [PICTURE], ("what color is the heart?", "en", [])), "me")
            assert answered.result.text == "green"
            assert answered.usage["image_tokens"] == predictor.config.vision.num_tokens
            pair = Question("caption", [PICTURE, PICTURE], ("en", "normal"))
            with pytest.raises(Refused, match="2 pictures for one prompt: this model was taught with 1"):
                await service.answer(pair, "me")
            service.config = dataclasses.replace(service.config, frames=0)  # as of a model that does not say
            both = await service.answer(pair, "me")
            assert both.image_tokens == 2 * predictor.config.vision.num_tokens
            with pytest.raises(Refused, match="no such model"):
                service.adapter_of("other")
        assert "paligemma_answer_tokens_total" in service.metrics.text().decode()

    asyncio.run(run())
    assert Metrics().registry is not Metrics().registry, "two services count apart"
