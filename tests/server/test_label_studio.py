"""Label Studio's protocol: what a project's XML asks for, answered as the predictor answers, in per cent; and what it may not do."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from paligemma.server.label_studio import MOST_CONTROLS, address, controls
from paligemma.server.refusals import Refused
from paligemma.server.settings import Limits, Settings
from tests.server.conftest import DEMO, Served, live
from tests.test_mask_formats import unpacked

FILE = DEMO / "objects1.png"
URL = f"data:image/png;base64,{base64.b64encode(FILE.read_bytes()).decode()}"
PROJECT = """
<View>
  <Header value="What is there?"/> <!-- tags of all kinds -->
  <Image name="image" value="$photo"/>
  <RectangleLabels name="box" toName="image"><Label value="Owl" predicted_values="owl"/><Label value="green heart"/></RectangleLabels>
  <BrushLabels name="brush" toName="image"><Label value="owl"/></BrushLabels>
  <PolygonLabels name="outline" toName="image"><Label value="owl"/></PolygonLabels>
  <TextArea name="caption" toName="image"/>
  <TextArea name="printed" toName="image" model_prompt="ocr"/>
  <Choices name="crab" toName="image" model_prompt="is there a crab?"><Choice value="Yes"/><Choice value="No"/></Choices>
  <Choices name="none" toName="image" model_prompt="what color is the heart?"><Choice value="mauve"/><Choice value="beige"/></Choices>
  <TextArea name="each" toName="image" perRegion="true"/>
  <TextArea name="elsewhere" toName="words"/>
  <RectangleLabels name="empty" toName="image"/>
</View>
"""


def view(*tags: str) -> str:
    return f'<View><Image name="image" value="$photo"/>{"".join(tags)}</View>'


TEXT = view('<TextArea name="caption" toName="image"/>')


def post(served: Served, call: str, **fields: Any):
    return served.ask("POST", f"/labelstudio/{call}", json.dumps(fields).encode())


def predict(served: Served, *photos: Any, config: str = TEXT):
    tasks = [{"id": place, "data": {"photo": photo}, "predictions": []} for place, photo in enumerate(photos)]
    return post(served, "predict", tasks=tasks, label_config=config, project="1.17", model_version=None, params={"context": None})


def test_a_project_with_everything(nano, predictor):
    reply = predict(nano, URL, config=PROJECT)
    assert reply.status == 200, reply.body
    (prediction,) = reply.json()["results"]
    found: dict[str, list[dict]] = {}
    for region in prediction["result"]:
        assert region["to_name"] == "image"
        found.setdefault(region["from_name"], []).append(region)
    assert {name: region[0]["type"] for name, region in found.items()} == {
        "box": "rectanglelabels",
        "brush": "brushlabels",
        "outline": "polygonlabels",
        "caption": "textarea",
        "printed": "textarea",
        "crab": "choices",
    }, "an answer that is none of the choices is none"
    boxes = predictor.detect(FILE, ["owl", "green heart"])
    assert [region["value"]["rectanglelabels"] for region in found["box"]] == [["Owl"], ["green heart"]]
    for region, box in zip(found["box"], boxes.boxes, strict=True):
        x, y, width, height = (region["value"][name] / 100 for name in ("x", "y", "width", "height"))
        edges = (x * boxes.width, y * boxes.height, (x + width) * boxes.width, (y + height) * boxes.height)
        assert edges == pytest.approx((box.x0, box.y0, box.x1, box.y1), abs=1e-6)
        assert region["score"] == pytest.approx(box.score, abs=1e-3)
        assert (region["original_width"], region["original_height"], region["image_rotation"]) == (112, 112, 0)
    (mask,) = predictor.segment(FILE, "owl").masks
    assert (unpacked(found["brush"][0]["value"]["rle"]).reshape(112, 112, 4) == 255 * mask.mask[..., None]).all()
    assert found["brush"][0]["value"]["brushlabels"] == ["owl"]
    assert all(0 <= corner <= 100 for region in found["outline"] for point in region["value"]["points"] for corner in point)
    assert found["caption"][0]["value"] == {"text": [predictor.caption(FILE).text]}
    assert found["printed"][0]["value"] == {"text": [predictor.ocr(FILE).text]}
    assert found["crab"][0]["value"] == {"choices": ["No"]}
    (note,) = prediction["notes"]
    assert note.startswith("none: the model answered ")
    assert note.endswith(", which is none of the choices 'mauve', 'beige'")
    assert prediction["score"] == min(region["score"] for region in prediction["result"])
    assert prediction["model_version"] == reply.json()["model_version"] == "nano-112"
    assert len({region["id"] for region in prediction["result"]}) == len(prediction["result"])


def test_choices_that_the_model_does_not_know_are_said_in_the_response_and_the_log(nano, caplog):
    config = view('<Choices name="sky" toName="image"><Choice value="clear"/><Choice value="clouds&#10;x"/></Choices>')
    with caplog.at_level("WARNING", logger="paligemma.server"):
        reply = predict(nano, URL, URL, config=config)
    assert reply.status == 200
    for prediction in reply.json()["results"]:
        assert (prediction["result"], prediction["score"]) == ([], None)
        (note,) = prediction["notes"]
        assert note.startswith("sky: the model answered ")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"Label Studio: 2 answers gave no prediction, the first is {note}"
    assert "\n" not in line
    assert "notes" not in predict(nano, URL).json()["results"][0]


def test_setup_health_and_webhook(nano):
    assert nano.ask("GET", "/labelstudio/health").json()["status"] == "UP"
    secret = {"hostname": "http://localhost:8080", "access_token": "secret", "project": "1.17"}
    assert post(nano, "setup", schema=PROJECT, **secret).json() == {"model_version": "nano-112"}
    assert post(nano, "setup", schema="", **secret).status == 200, "a project that is new has no configuration"
    assert post(nano, "webhook", action="ANNOTATION_CREATED", project={"id": 1}).status == 200


def test_a_key_is_needed_and_may_be_a_password(predictor):
    with live(predictor, Settings(api_keys=("secret",))) as (served, _):
        for path in ("health", "setup", "predict", "webhook"):
            method, body = ("GET", None) if path == "health" else ("POST", b"{}")
            assert served.ask(method, f"/labelstudio/{path}", body).error()["code"] == "invalid_api_key"
        for user, password, status in (("label-studio", "secret", 200), ("secret", "wrong", 401), ("secret", "", 401)):
            key = base64.b64encode(f"{user}:{password}".encode()).decode()
            assert served.ask("GET", "/labelstudio/health", Authorization=f"Basic {key}").status == status
        assert served.ask("GET", "/labelstudio/health", Authorization="Basic secret").status == 401


def test_a_dead_engine_is_not_healthy(predictor):
    with live(predictor, Settings(limits=Limits(stall_seconds=1e-9))) as (served, service):
        service.batcher._began = time.monotonic() - 1
        assert served.ask("GET", "/labelstudio/health").error()["code"] == "engine_dead"


@pytest.mark.parametrize(
    "config",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><View>&b;</View>',
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><View/>',
        '<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1/x"> %a;]><View/>',
    ],
)
def test_no_definitions_in_the_configuration(nano, config):
    for reply in (post(nano, "setup", schema=config), predict(nano, URL, config=config)):
        assert (reply.status, reply.error()["code"]) == (400, "invalid_config")
        assert "DOCTYPE" in reply.error()["message"]


@pytest.mark.parametrize("config", ["no xml", "<View>", "<View>&unknown;</View>", "<View>\0</View>", "<View><View/>"])
def test_a_configuration_that_is_no_xml(nano, config):
    error = post(nano, "setup", schema=config).error()
    assert (error["code"], error["param"]) == ("invalid_config", "label_config")
    assert "no XML: line 1" in error["message"]


def test_a_configuration_is_bounded(nano):
    assert post(nano, "setup", schema="<View/>" + " " * 65_536).error()["code"] == "invalid_value"
    deep = "<a>" * 9000 + "</a>" * 9000
    assert post(nano, "setup", schema=deep).status == 200
    tag = '<TextArea name="t{}" toName="image"/>'
    assert len(controls(view(*map(tag.format, range(MOST_CONTROLS))))) == MOST_CONTROLS
    with pytest.raises(Refused, match="has 33 tags"):
        controls(view(*map(tag.format, range(MOST_CONTROLS + 1))))


@pytest.mark.parametrize(
    "tag",
    [
        '<TextArea name="x" toName="other"/>',
        '<TextArea toName="image"/>',
        '<TextArea name="x" toName="image" perRegion="true"/>',
        '<Choices name="x" toName="image"/>',
        '<RectangleLabels name="x" toName="image"><Label/></RectangleLabels>',
        '<Rectangle name="x" toName="image"/>',
    ],
)
def test_what_cannot_be_answered_is_left_out_and_nothing_is_refused(nano, tag):
    assert not controls(view(tag))
    reply = predict(nano, URL, config=view(tag))
    assert (reply.status, reply.error()["code"]) == (400, "nothing_to_predict")


def test_words_are_not_asked_for_with_prompts_of_places(nano):
    config = view('<TextArea name="x" toName="image" model_prompt="detect owl"/>')
    assert post(nano, "setup", schema=config).error()["code"] == "invalid_config"


def test_labels_with_what_the_model_cannot_write(nano):
    config = view('<RectangleLabels name="x" toName="image"><Label value="a;b"/></RectangleLabels>')
    reply = predict(nano, URL, config=config)
    assert (reply.status, reply.error()["code"]) == (400, "usage")
    (labels,) = controls(view('<RectangleLabels name="x" toName="image"><Label value="red, round"/></RectangleLabels>'))
    assert labels.labels == {"red, round": "red, round"}


@pytest.mark.parametrize(
    ("value", "means"),
    [
        ("/data/upload/3/0a-%C3%BCber%20.jpg", "file:upload/3/0a-über .jpg"),
        ("/data/upload/3/cat.jpg?d=../x", "file:upload/3/cat.jpg"),
        ("/data/local-files/?d=cats/my%20cat.jpg", "file:cats/my cat.jpg"),
        ("/data/local-files/?e=x", "file:"),
        ("https://example.com/cat.jpg", "https://example.com/cat.jpg"),
        (URL, URL),
    ],
)
def test_files_that_label_studio_keeps(value, means):
    assert address(value, "data.photo") == means


@pytest.mark.parametrize("value", [None, 3, ["a"], {"url": "a"}])
def test_a_task_without_a_picture(nano, value):
    reply = predict(nano, value)
    assert (reply.status, reply.error()["code"], reply.error()["param"]) == (400, "no_image", "data.photo")


def test_files_come_from_the_media_root_only(predictor, tmp_path):
    (tmp_path / "root" / "upload" / "1").mkdir(parents=True)
    (tmp_path / "root" / "upload" / "1" / "a.png").write_bytes(FILE.read_bytes())
    (tmp_path / "secret.png").write_bytes(FILE.read_bytes())
    with live(predictor, Settings(media_root=tmp_path / "root")) as (served, _):
        assert predict(served, "/data/upload/1/a.png").status == 200
        assert predict(served, "/data/local-files/?d=upload/1/a.png").status == 200
        for value in (
            "/data/upload/../../secret.png",
            "/data/upload/%2e%2e/%2E%2E%2fsecret.png",
            "/data/local-files/?d=../secret.png",
            f"/data/local-files/?d={tmp_path}/secret.png",
        ):
            assert predict(served, value).error()["code"] == "image_url_not_allowed"


@pytest.mark.parametrize("value", ["http://127.0.0.1:8080/data/upload/1/a.png", "https://example.com/a.png", "/data/upload/1/a.png"])
def test_addresses_are_those_of_the_server(nano, value):
    assert predict(nano, value).error()["code"] == "image_url_not_allowed"


def test_one_bad_picture_costs_the_others_nothing(nano):
    broken = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\nnonsense").decode()
    reply = predict(nano, URL, broken, URL)
    assert reply.status == 200
    first, second, third = reply.json()["results"]
    assert first["result"][0]["value"] == third["result"][0]["value"]
    assert (second["result"], second["score"], second["error"]["code"]) == ([], None, "image_invalid")
    assert predict(nano, broken, broken).error()["code"] == "image_invalid"


def test_a_full_server_is_said_of_the_whole_request(predictor, monkeypatch):
    with live(predictor) as (served, service):
        real, asked = service.answer, []

        async def answer(*arguments: Any):
            asked.append(arguments)
            if len(asked) == 2:
                raise Refused(429, "questions of yours are waiting already", "client_queue_full", retry_after=1)
            return await real(*arguments)

        monkeypatch.setattr(service, "answer", answer)
        reply = predict(served, URL, URL, URL)
        assert (reply.status, reply.error()["code"], reply.headers["retry-after"]) == (429, "client_queue_full", "1")


def test_so_many_questions_and_no_more(predictor):
    with live(predictor, Settings(limits=Limits(batch=3))) as (served, _):
        two = view('<TextArea name="a" toName="image"/>', '<TextArea name="b" toName="image" model_prompt="ocr"/>')
        assert predict(served, URL, config=two).status == 200
        assert predict(served, URL, URL, config=two).error()["code"] == "too_many_tasks"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tasks": []}, "tasks"),
        ({"tasks": [{"id": 1}]}, "tasks[0].data"),
        ({"tasks": "all"}, "tasks"),
        ({"label_config": 3}, "label_config"),
    ],
)
def test_what_is_no_request(nano, fields, param):
    whole = {"tasks": [{"data": {"photo": URL}}], "label_config": TEXT}
    error = post(nano, "predict", **(whole | fields)).error()
    assert (error["code"], error["param"]) == ("invalid_value", param)
