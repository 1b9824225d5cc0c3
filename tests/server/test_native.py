"""Tasks over HTTP: the answers of the predictor, whole, streamed and in batches, as JSON and as forms."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from paligemma.mask_formats import decompress, from_run_lengths
from paligemma.sequence import prompt_ids
from paligemma.server.schemas import Response
from tests.server.conftest import DEMO, Served

OBJECTS = base64.b64encode((DEMO / "objects1.png").read_bytes()).decode()
BOX = [1.0, 23.0, 18.0, 43.0]
TASKS = {
    "caption": ({"lang": "de"}, lambda model, image: model.caption(image, lang="de")),
    "ask": ({"question": "what color is the heart?"}, lambda model, image: model.ask(image, "what color is the heart?")),
    "ocr": ({}, lambda model, image: model.ocr(image)),
    "detect": ({"classes": ["owl", "fish"]}, lambda model, image: model.detect(image, ["owl", "fish"])),
    "segment": ({"classes": "owl ; green heart"}, lambda model, image: model.segment(image, ["owl", "green heart"])),
    "refer": ({"sentence": "the owl"}, lambda model, image: model.refer(image, "the owl")),
    "describe-box": ({"box": BOX}, lambda model, image: model.describe_box(image, BOX)),
    "question": ({"answer": "green"}, lambda model, image: model.question(image, "green")),
    "run": ({"prompt": "caption fr"}, lambda model, image: model.run(image, "caption fr")),
}


def ask(served: Served, task: str, **fields):
    return served.ask("POST", f"/v1/{task}", json.dumps({"image": OBJECTS} | fields).encode())


def events(body: bytes) -> list[tuple[str | None, str]]:
    """(name, data) of each."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in lines:
            found.append((lines.get("event"), lines["data"]))
    return found


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_the_predictors(nano, predictor, task):
    fields, local = TASKS[task]
    reply = ask(nano, task, **fields)
    assert reply.status == 200, reply.body
    answer = reply.json()
    Response.model_validate(answer, strict=True)
    expected = local(predictor, DEMO / "objects1.png").to_dict()
    compare(answer["result"], expected)
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert 0 <= answer["timing"]["queued"] <= answer["timing"]["total"]


def compare(found, expected) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            compare(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            compare(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-3) if isinstance(expected, float) else expected)


def test_what_else_might_have_come_is_told_where_it_is_asked_for(nano, predictor):
    assert "tokens" not in ask(nano, "caption").json()
    expected = [step.to_dict() for step in predictor.explain("caption", DEMO / "objects1.png", alternatives=3).steps]
    for reply in (ask(nano, "caption", alternatives=3).json(), streamed(nano, "caption", alternatives=3)):
        Response.model_validate(reply, strict=True)
        assert [token["text"] for token in reply["tokens"]] == [step["text"] for step in expected]
        for token, step in zip(reply["tokens"], expected, strict=True):
            assert [one["text"] for one in token["likely"]] == [one["text"] for one in step["likely"]]
            assert [one["prob"] for one in token["likely"]] == pytest.approx([one["prob"] for one in step["likely"]], abs=1e-4)
    refused = ask(nano, "caption", alternatives=3, beams=2)
    assert refused.status == 400
    assert "beam" in refused.json()["error"]["message"]
    assert ask(nano, "caption", alternatives=21).status == 400


@pytest.mark.parametrize(
    ("task", "more"), [("caption", {}), ("detect", {"classes": "owl ; fish"}), ("ask", {"question": "how many owls are there?"})]
)
def test_where_the_model_looked_is_told_where_it_is_asked_for(nano, predictor, task, more):
    """The same as in this process, whole and streamed."""
    asked = list(more.values())
    expected = predictor.explain(task, DEMO / "objects1.png", *asked).to_dict()["explanation"]
    for reply in (ask(nano, task, explain=True, **more).json(), streamed(nano, task, explain=True, **more)):
        Response.model_validate(reply, strict=True)
        compare(reply["explanation"], expected)
        assert "tokens" not in reply
    assert "explanation" not in ask(nano, task, **more).json()


def test_what_cannot_be_explained_is_refused(nano):
    error = ask(nano, "caption", explain=True, beams=2).error()
    assert (error["code"], error["param"]) == ("not_explained", "beams")


def streamed(served: Served, task: str, **fields):
    """The response at the end of a stream."""
    found = events(ask(served, task, stream=True, **fields).body)
    return json.loads(next(data for name, data in found if name == "result"))


@pytest.mark.parametrize("task", ["caption", "detect"])
def test_streams_say_the_same(nano, task):
    fields = TASKS[task][0]
    whole = ask(nano, task, **fields).json()
    reply = ask(nano, task, **fields, stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    found = events(reply.body)
    assert [name for name, _ in found] == ["token"] * (len(found) - 2) + ["result", None]
    assert found[-1][1] == "[DONE]"
    assert "".join(json.loads(data)["text"] for name, data in found if name == "token").strip() == whole["result"]["text"].strip()
    compare(json.loads(found[-2][1])["result"], whole["result"])


def test_masks_come_in_three_kinds(nano):
    answers = {kind: ask(nano, "segment", classes=["owl"], masks=kind).json()["result"] for kind in ("rle", "polygon", "png")}
    rle = answers["rle"]["masks"][0]["rle"]
    mask = from_run_lengths(decompress(rle["counts"]), *rle["size"])
    head, _, data = answers["png"]["masks"][0]["png"].partition(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), mask)
    ring = answers["polygon"]["masks"][0]["polygon"][0]
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)) / 2
    assert abs(area) == mask.sum()


def form(fields: dict[str, str], picture: bytes) -> tuple[bytes, str]:
    parts = [f'--xx\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    head = b'--xx\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    return b"".join([*parts, head, picture, b"\r\n--xx--\r\n"]), "multipart/form-data; boundary=xx"


@pytest.mark.parametrize(
    ("task", "fields", "same"),
    [
        ("caption", {"lang": "es", "max_tokens": "20"}, {"lang": "es", "max_tokens": 20}),
        ("detect", {"classes": "owl ; fish", "min_score": "0.1"}, {"classes": "owl ; fish", "min_score": 0.1}),
        ("detect", {"classes": '["owl", "fish"]'}, {"classes": ["owl", "fish"]}),
        ("describe-box", {"box": "[1, 23, 18, 43]"}, {"box": [1, 23, 18, 43]}),
        ("describe-box", {"box": "1, 23,18,43"}, {"box": [1, 23, 18, 43]}),
        ("ask", {"question": "what color?", "choices": "red ; green"}, {"question": "what color?", "choices": ["red", "green"]}),
        ("ask", {"question": "what color?", "lang": "null"}, {"question": "what color?", "lang": None}),
    ],
)
def test_forms_say_the_same_as_json(nano, task, fields, same):
    body, kind = form(fields, (DEMO / "objects1.png").read_bytes())
    reply = nano.ask("POST", f"/v1/{task}", body, Content_Type=kind)
    assert reply.status == 200, reply.body
    compare(reply.json()["result"], ask(nano, task, **same).json()["result"])


def test_a_form_that_nests_deeply_is_refused(nano):
    body, kind = form({"classes": "[" * 20_000}, (DEMO / "objects1.png").read_bytes())
    assert nano.ask("POST", "/v1/detect", body, Content_Type=kind).error()["code"].startswith("json")


@pytest.mark.parametrize(
    ("task", "fields", "code", "param"),
    [
        ("caption", {"lnag": "de"}, "invalid_value", "lnag"),
        ("caption", {"lang": "xx"}, "usage", None),
        ("caption", {"temperature": "hot"}, "invalid_value", "temperature"),
        ("caption", {"max_tokens": True}, "invalid_value", "max_tokens"),
        ("caption", {"max_tokens": 8192}, "context_length_exceeded", None),
        ("caption", {"max_tokens": 4000}, "invalid_value", "max_tokens"),
        ("caption", {"image": None}, "no_image", "image"),
        ("caption", {"images": [OBJECTS]}, "no_image", "image"),
        ("caption", {"stream": True, "beams": 4}, "usage", None),
        ("ask", {}, "invalid_value", "question"),
        ("ask", {"qestion": "who?"}, "invalid_value", "qestion"),
        ("ask", {"question": "a " * 600}, "context_length_exceeded", None),
        ("detect", {"classes": []}, "invalid_value", "classes"),
        ("detect", {"classes": "<loc0001>"}, "usage", None),
        ("describe-box", {"box": [200, 0, 300, 10]}, "bad_input", None),
        ("caption", {"model": "../../etc/passwd"}, "model_not_found", "model"),
        ("caption", {"model": "x" * 10_000}, "model_not_found", "model"),
        ("caption", {"model": "nano-112\0"}, "model_not_found", "model"),
        ("caption", {"size": 9}, "invalid_value", "size"),
        ("caption", {"fps": 1}, "invalid_value", "fps"),
        ("caption", {"mm_processor_kwargs": {"size": 9}}, "invalid_value", "mm_processor_kwargs"),
        ("run", {"prompt": "x" * 65_537}, "invalid_value", "prompt"),
        ("caption", {"images": [OBJECTS] * 9, "image": None}, "too_many_images", "images[8]"),
        ("caption", {"images": [OBJECTS] * 2, "image": None}, "too_many_images", "images[1]"),
    ],
)
def test_what_is_wrong_is_named(nano, task, fields, code, param):
    reply = ask(nano, task, **fields)
    assert reply.status == (404 if code == "model_not_found" else 400), reply.body
    error = reply.error()
    assert (error["code"], error["param"]) == (code, param)


def test_a_misspelt_field_is_told_with_the_one_that_was_meant(nano):
    assert ask(nano, "detect", clases="owl").error()["message"] == "clases: there is no such field (did you mean 'classes'?)"
    assert ask(nano, "detect").error()["message"] == "classes: must be given"


def test_fields_in_the_address_are_refused(nano):
    error = nano.ask("POST", "/v1/caption?lang=de", json.dumps({"image": OBJECTS}).encode()).error()
    assert (error["code"], "in the body" in error["message"]) == ("invalid_value", True)


def test_lengths_are_refused_with_both_numbers(nano, predictor):
    def words(tokens: int) -> str:
        text = "1" * (tokens - 2)  # beside the first and the last, which are ours
        assert len(prompt_ids(predictor.tokenizer, text)) == tokens
        return text

    assert ask(nano, "run", prompt=words(512), max_tokens=1).status == 200
    error = ask(nano, "run", prompt=words(513), max_tokens=1).error()
    assert error["code"] == "context_length_exceeded"
    assert "513" in error["message"]
    assert "512" in error["message"]
    left = 8192 - predictor.config.vision.num_tokens - 10
    error = ask(nano, "run", prompt=words(10), max_tokens=left + 1).error()
    assert error["code"] == "context_length_exceeded"
    assert "8,193" in error["message"]
    assert "8,192" in error["message"]
    assert ask(nano, "run", prompt=words(10), max_tokens=left).error()["param"] == "max_tokens"  # it fits, and is too long an answer


def test_a_nul_in_words_is_a_character(nano):
    assert ask(nano, "ask", question="what color\0is the heart?").status == 200


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        (17 * [("lang", "de")], "invalid_form"), ([("lang", "x" * 66_000)], "invalid_form"),
        ([("image", b"\x89PNG" + bytes(21 << 20))], "image_too_large"), ([("picture", b"\x89PNG")], "invalid_value"),
        (9 * [("images", b"\x89PNG")], "invalid_form"),
    ],
)  # fmt: skip
def test_forms_are_bounded(nano, parts: list[tuple[str, str | bytes]], code: str):
    body = b""
    for name, value in parts:
        file = "" if isinstance(value, str) else '; filename="a.png"'
        body += f'--xx\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        body += (value.encode() if isinstance(value, str) else value) + b"\r\n"
    answer = nano.ask("POST", "/v1/caption", body + b"--xx--\r\n", Content_Type="multipart/form-data; boundary=xx")
    assert (answer.status, answer.error()["code"]) == (400, code)


def test_pictures_that_are_none(nano):
    reply = ask(nano, "caption", image=base64.b64encode(b"\x89PNG\r\n\x1a\nnonsense").decode())
    assert (reply.status, reply.error()["code"]) == (400, "image_invalid")
    reply = ask(nano, "caption", image="http://169.254.169.254/")
    assert (reply.status, reply.error()["code"]) == (400, "image_url_not_allowed")


def test_control_tokens_in_words_are_words(nano, predictor):
    text = "<image>" * 20 + "<bos><eos><pad>"
    reply = ask(nano, "run", prompt=text, max_tokens=1)
    assert reply.status == 200
    ids = predictor.tokenizer.encode(text)
    assert reply.json()["usage"]["prompt_tokens"] == predictor.config.vision.num_tokens + len(ids) + 2
    assert not {predictor.tokenizer.bos_id, predictor.tokenizer.eos_id, predictor.tokenizer.pad_id} & set(ids)


def test_a_batch_answers_each_and_names_what_is_wrong(nano):
    requests = [
        {"task": "caption", "image": OBJECTS},
        {"task": "dance", "image": OBJECTS},
        {"task": "detect", "image": OBJECTS, "classes": ["owl"]},
        {"task": "ask", "image": OBJECTS},
        *({"task": "ask", "image": OBJECTS, "question": "is there a crab?"} for _ in range(8)),
    ]
    reply = nano.ask("POST", "/v1/batch", json.dumps({"requests": requests}).encode())
    found = events(reply.body)
    assert found[-1] == (None, "[DONE]")
    answers = {one["index"]: one for one in (json.loads(data) for _, data in found[:-1])}
    assert sorted(answers) == list(range(12))
    assert answers[0]["result"]["type"] == "caption"
    assert answers[1]["error"]["param"] == "requests[1].task"
    assert answers[2]["result"]["boxes"][0]["label"] == "owl"
    assert answers[3]["error"]["param"] == "question"
    assert {answers[i]["result"]["text"] for i in range(4, 12)} == {"no"}


def test_answers_of_a_batch_come_whole(nano):
    reply = nano.ask("POST", "/v1/batch", json.dumps({"requests": [{"task": "caption", "image": OBJECTS, "stream": True}]}).encode())
    (_, data), _ = events(reply.body)
    assert json.loads(data)["error"]["param"] == "requests[0].stream"


@pytest.mark.parametrize("requests", [[], [{}] * 257, "all"])
def test_a_batch_that_is_none(nano, requests):
    reply = nano.ask("POST", "/v1/batch", json.dumps({"requests": requests}).encode())
    assert (reply.status, reply.error()["code"]) == (400, "invalid_value")
