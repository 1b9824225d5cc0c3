"""`paligemma.connect`: results of the same types and values as the predictor's, streams, lists, and errors in words."""

from __future__ import annotations

import json
import re
import socket
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

import paligemma
import paligemma.client
from paligemma.server.settings import Settings
from tests.server.conftest import DEMO, live, serving
from tests.server.test_native import TASKS, compare

PICTURE = DEMO / "objects1.png"


@pytest.fixture(scope="module")
def remote(nano):
    return paligemma.connect(f"http://127.0.0.1:{nano.port}")


@pytest.mark.parametrize("task", TASKS)
def test_verbs_are_the_predictors(remote, predictor, task):
    found, expected = TASKS[task][1](remote, PICTURE), TASKS[task][1](predictor, PICTURE)
    assert type(found) is type(expected)
    compare(found.to_dict(), expected.to_dict())
    assert found.draw().size == expected.draw().size


@pytest.mark.parametrize(("verb", "asked"), [("caption", ()), ("detect", (["owl", "fish"],)), ("ask", ("what color is the heart?",))])
def test_explanations_are_the_predictors(remote, predictor, verb, asked):
    found, expected = remote.explain(verb, PICTURE, *asked), predictor.explain(verb, PICTURE, *asked)
    compare(found.to_dict(), expected.to_dict())
    assert str(found) == str(expected)
    assert found.draw().size == expected.draw().size


def test_verbs_that_are_misspelt_are_not_explained(remote):
    with pytest.raises(paligemma.UsageError, match="no verb 'detekt'") as caught:
        remote.explain("detekt", PICTURE, "owl")
    assert "detect" in caught.value.hint


def test_streams(remote):
    stream = remote.caption(PICTURE, stream=True)
    pieces = list(stream)
    assert len(pieces) > 3
    assert "".join(pieces).strip() == stream.result.text
    assert isinstance(stream.result, paligemma.Caption)


@pytest.mark.parametrize("kind", ["bytes", "image", "array"])
def test_whatever_is_a_picture(remote, kind):
    image = Image.open(PICTURE).convert("RGB")
    picture = {"bytes": PICTURE.read_bytes(), "image": image, "array": np.asarray(image)}[kind]
    assert remote.ask(picture, "what color is the heart?").text == "green"


def test_lists_are_answered_in_order(remote):
    pictures = sorted(DEMO.glob("*.png"))
    texts = [answer.text for answer in remote.caption(pictures)]
    assert texts == [remote.caption(picture).text for picture in pictures]
    with pytest.raises(paligemma.UsageError):
        remote.caption(pictures, stream=True)


def test_errors_are_the_servers_words(remote):
    with pytest.raises(paligemma.ServerError, match="'xx' is not the code") as error:
        remote.caption(PICTURE, lang="xx")
    assert (error.value.status, error.value.code) == (400, "usage")
    with pytest.raises(paligemma.InputError):
        remote.caption("missing.png")
    with pytest.raises(paligemma.ServerError, match="does not answer"):
        paligemma.connect("http://127.0.0.1:9").caption(PICTURE)
    for address in ("127.0.0.1:8000", "ftp://a", "http://", "http://a/?b"):
        with pytest.raises(paligemma.UsageError):
            paligemma.connect(address)


def test_a_key_is_sent(predictor, monkeypatch):
    with live(predictor, Settings(api_keys=("secret",))) as (served, _):
        address = f"http://127.0.0.1:{served.port}"
        monkeypatch.delenv("PALIGEMMA_API_KEY", raising=False)
        with pytest.raises(paligemma.ServerError) as error:
            print(paligemma.connect(address).models)
        assert error.value.status == 401
        assert "PALIGEMMA_API_KEY" in error.value.hint
        assert paligemma.connect(address, api_key="secret").models == ["nano-112"]
        monkeypatch.setenv("PALIGEMMA_API_KEY", "secret")
        assert paligemma.connect(address).models == ["nano-112"]


def test_a_full_server_is_asked_again(monkeypatch):
    asked = []

    async def app(scope, receive, send):
        asked.append(scope["path"])
        full = len(asked) < 3
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"7")]
        await send({"type": "http.response.start", "status": 429 if full else 200, "headers": headers})
        body = b'{"error": {"message": "full", "type": "", "param": null, "code": "queue_full"}}' if full else b'{"data": [{"id": "m"}]}'
        await send({"type": "http.response.body", "body": body})

    slept = []
    with serving(app) as served:
        monkeypatch.setattr(paligemma.client, "time", types.SimpleNamespace(sleep=slept.append))
        assert paligemma.connect(f"http://127.0.0.1:{served.port}").models == ["m"]
    assert (len(asked), slept) == (3, [7.0, 7.0])


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n" + b'{"data": [{"id": "m"}]}'


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that says one of these on each connection, whatever is asked, and hangs up. Its address, and what it was asked."""
    asked: list[bytes] = []

    def run() -> None:
        for answer in answers:
            connection, _ = listening.accept()
            with connection:
                data = connection.recv(1 << 16)
                while (size := re.search(rb"Content-Length: (\d+)", data)) and len(data.partition(b"\r\n\r\n")[2]) < int(size[1]):
                    data += connection.recv(1 << 16)
                asked.append(data)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        thread.join(5)
    assert not thread.is_alive()


def test_a_connection_that_breaks_before_the_answer_is_tried_once_more():
    with answering(b"", OK) as (address, asked):
        assert paligemma.connect(address).models == ["m"]
    assert len(asked) == 2
    assert asked[0] == asked[1]


def test_the_same_question_is_asked_again(predictor):
    """With its whole body."""
    answer = predictor.caption(PICTURE)
    told = json.dumps({"result": answer.to_dict()}).encode()
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(told) + told
    with answering(b"", whole) as (address, asked):
        assert paligemma.connect(address).caption(PICTURE).text == answer.text
    assert asked[0] == asked[1]
    assert asked[0].startswith(b"POST /v1/caption")


@pytest.mark.parametrize("answers", [(b"", b""), (OK[:60],), (OK[:-5],)])
def test_it_is_not_asked_for_ever_nor_once_an_answer_has_begun(answers: tuple[bytes, ...]):
    with answering(*answers) as (address, asked), pytest.raises(paligemma.ServerError):
        print(paligemma.connect(address).models)
    assert len(asked) == len(answers)
