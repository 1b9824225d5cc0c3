"""OpenAI's clients, unchanged: the Python package against the bundled model; and what such requests may not ask for."""

from __future__ import annotations

import base64
import json

import openai
import pytest

from paligemma.server.openai import Stops
from tests.server.conftest import DEMO

URL = "data:image/png;base64," + base64.b64encode((DEMO / "objects1.png").read_bytes()).decode()


def turn(text: str, *, url: str | None = URL):
    picture = [] if url is None else [{"type": "image_url", "image_url": {"url": url}}]
    return {"role": "user", "content": [*picture, {"type": "text", "text": text}]}


@pytest.fixture(scope="module")
def client(nano):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{nano.port}/v1", api_key="none", max_retries=0)


def test_models(client):
    (model,) = client.models.list().data
    assert model.id == "nano-112"
    assert "detect" in model.paligemma["tasks"]
    assert client.models.retrieve("nano-112").id == "nano-112"
    for name in ("../etc", "nano", "nano-112:birds"):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(name)


def test_a_caption_is_streamed(client, predictor):
    chunks = list(
        client.chat.completions.create(model="nano-112", messages=[turn("caption en")], stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == predictor.caption(DEMO / "objects1.png").text
    assert len(chunks) > 4
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens > 3


def test_boxes_come_with_a_completion(client, predictor):
    answer = client.chat.completions.create(model="nano-112", messages=[turn("detect owl ; fish")]).choices[0].message
    assert answer.content.startswith("<loc")
    expected = predictor.detect(DEMO / "objects1.png", ["owl", "fish"])
    found = [(box["label"], box["x0"], box["y1"]) for box in answer.paligemma["boxes"]]
    assert found == [(box.label, box.x0, box.y1) for box in expected]


def test_history_is_not_used_and_plain_words_are_a_question(client):
    history = [{"role": "system", "content": "answer in verse"}, turn("ocr"), {"role": "assistant", "content": "nothing"}]
    answer = client.chat.completions.create(model="nano-112", messages=[*history, turn("what color is the heart?")])
    assert answer.choices[0].message.content == "green"


def test_likelihoods(client):
    answer = client.chat.completions.create(model="nano-112", messages=[turn("caption en")], logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    assert "".join(one.token for one in tokens).strip() == answer.choices[0].message.content
    for one in tokens:
        assert one.logprob <= 0
        assert [other.logprob for other in one.top_logprobs] == sorted((other.logprob for other in one.top_logprobs), reverse=True)
        assert (one.top_logprobs[0].token, one.top_logprobs[0].logprob) == (one.token, pytest.approx(one.logprob))


def test_stop_words_end_the_text(client):
    for streamed in (False, True):
        answer = client.chat.completions.create(model="nano-112", messages=[turn("caption en")], stop=[" and"], stream=streamed)
        if streamed:
            chunks = [chunk.choices[0] for chunk in answer]
            text, reason = "".join(chunk.delta.content or "" for chunk in chunks), chunks[-1].finish_reason
        else:
            text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert (text, reason) == ("an owl, a green heart", "stop")


@pytest.mark.parametrize("pieces", [["ab", "cde"], ["a", "b", "c", "d", "e"], ["abcde"]])
def test_stop_words_are_found_across_pieces(pieces):
    stops = Stops(["cd", "zzz"])
    assert "".join(map(stops.add, pieces)) == "ab"
    assert stops.ended
    unstopped = Stops(["cx"])
    assert "".join(map(unstopped.add, pieces)) + unstopped.rest() == "abcde"


def test_a_cut_answer_says_so(client):
    answer = client.chat.completions.create(model="nano-112", messages=[turn("caption en")], max_completion_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"300000": 5}}, "logit_bias"),
        ({"n": 2}, "n"),
        ({"n": 10**9}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"min_tokens": 5, "max_tokens": 2}, "min_tokens"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_k": 10**9}, "top_k"),
        ({"min_tokens": False}, "min_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop": ["x"] * 5}, "stop"),
        ({"stop": "x" * 65}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": 3}, "temperature"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "hello"}]}, "messages"),
        ({"messages": [turn("caption en", url=None)]}, "messages[0].content"),
        ({"messages": [turn(" ")]}, "messages[0].content"),
        ({"messages": [turn("<image>what is this?", url=None)]}, "messages[0].content"),
        ({"messages": [turn("caption en", url="http://127.0.0.1/")]}, "messages[0].content[0]"),
    ],
)
def test_what_is_not_served_is_refused_by_name(nano, more, param):
    body = {"model": "nano-112", "messages": [turn("caption en")]} | more
    reply = nano.ask("POST", "/v1/chat/completions", json.dumps(body).encode())
    assert reply.status == 400, reply.body
    assert (reply.error()["param"] or "").startswith(param)


def test_a_million_stop_words_are_not_even_looked_at(nano):
    body = {"messages": [turn("caption en")], "stop": ["x"] * 1_000_000}
    reply = nano.ask("POST", "/v1/chat/completions", json.dumps(body).encode())
    assert (reply.status, reply.error()["code"], reply.error()["param"]) == (400, "json_too_large", "stop")


def test_fields_that_change_nothing_are_ignored(nano):
    body = {
        "messages": [turn("what color is the heart?")],
        "user": "me",
        "mm_processor_kwargs": {"size": 9},
        "tools": [],
        "top_p": 0.5,
        "n": 1,
    }
    reply = nano.ask("POST", "/v1/chat/completions", json.dumps(body).encode())
    assert reply.json()["choices"][0]["message"]["content"] == "green"


def test_locations_may_be_words(nano):
    def counted(**more):
        body = {"messages": [turn("<loc0001><loc0002>")], "raw": True, "max_tokens": 1} | more
        return nano.ask("POST", "/v1/chat/completions", json.dumps(body).encode()).json()["usage"]["prompt_tokens"]

    assert counted() < counted(allow_location_tokens=False)
