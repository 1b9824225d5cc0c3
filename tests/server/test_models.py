"""/v1/models: what each name can be asked, by what its model was taught."""

from __future__ import annotations

import base64
import dataclasses
import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from paligemma.server.models import model_routes
from paligemma.server.schemas import TASKS
from paligemma.server.service import Service
from paligemma.server.settings import Limits, Settings
from paligemma.tasks.languages import LANGUAGES
from tests import tiny
from tests.server.conftest import DEMO


def listed(
    taught: tuple[str, ...] = (), *, frames: int = 0, codec: Any = True, names: dict[str, str | None] | None = None
) -> dict[str, dict[str, Any]]:
    """Name -> what is said of it."""
    service: Any = SimpleNamespace(
        settings=Settings(),
        config=dataclasses.replace(tiny.TINY_1, taught=taught, frames=frames),
        planner=SimpleNamespace(codec=codec),
        names=names or {"tiny": None},
        explains=True,
    )
    service.most_pictures = partial(Service.most_pictures, service)
    app = FastAPI()
    app.include_router(model_routes(service, ["a note"]))
    return {one["id"]: one["paligemma"] for one in TestClient(app).get("/v1/models").json()["data"]}


def test_of_a_model_that_says_nothing_everything_is_offered():
    said = listed()["tiny"]
    assert said["tasks"] == list(TASKS)
    assert said["languages"] == {task: list(LANGUAGES) for task in ("caption", "ask", "question")}
    assert said["lengths"] == ["short", "normal", "long"]
    assert (said["notes"], said["search"], said["image_size"]) == (["a note"], False, tiny.TINY_1.vision.image_size)


def test_what_was_taught_is_offered_and_nothing_else():
    said = listed(("describe de", "caption fr", "answer en", "segment", "caption <box>"))["tiny"]
    assert said["tasks"] == ["caption", "ask", "segment", "describe-box", "run"]
    assert said["languages"] == {"caption": ["de", "fr"], "ask": ["en"]}
    assert said["lengths"] == ["normal", "long"]


def test_without_captions_there_are_no_lengths():
    said = listed(("detect",))["tiny"]
    assert (said["tasks"], said["languages"], said["lengths"]) == (["detect", "run"], {}, [])


def test_without_a_codec_there_are_no_masks():
    assert listed(("detect", "segment"), codec=None)["tiny"]["tasks"] == ["detect", "run"]


@pytest.mark.parametrize(("frames", "images"), [(0, Limits().images), (1, 1), (4, 4), (100, Limits().images)])
def test_a_prompt_may_have_as_many_pictures_as_the_model_was_taught_with(frames, images):
    assert listed(frames=frames)["tiny"]["limits"]["images"] == images


def test_what_an_adapter_was_taught_is_not_known():
    said = listed(("detect",), frames=1, names={"tiny": None, "tiny:birds": "birds"})
    assert said["tiny"]["tasks"] == ["detect", "run"]
    assert said["tiny:birds"] == listed()["tiny"]


def test_what_is_not_offered_is_answered_all_the_same(nano):
    said = nano.ask("GET", "/v1/models").json()["data"][0]["paligemma"]
    assert "question" not in said["tasks"]
    assert "it" not in said["languages"]["caption"]
    picture = base64.b64encode((DEMO / "objects1.png").read_bytes()).decode()
    for task, fields in (("question", {"answer": "green"}), ("caption", {"lang": "it", "length": "long"})):
        assert nano.ask("POST", f"/v1/{task}", json.dumps({"image": picture, "max_tokens": 2, **fields}).encode()).status == 200
