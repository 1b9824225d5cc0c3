"""/labelstudio: the server as a machine-learning backend of Label Studio, whose projects say in XML what is wanted of each picture.

    <Image name="image" value="$photo"/>
    <RectangleLabels name="box" toName="image"> <Label value="cat"/> ...      boxes of these names: detect
    <BrushLabels ...>, <PolygonLabels ...>                                    masks of these names: segment
    <TextArea name="text" toName="image" model_prompt="ocr"/>                 words: a caption, or what the prompt says
    <Choices name="sky" toName="image" model_prompt="how is the sky?"> ...    an answer, where it is one of the choices

Label Studio's protocol: GET health, POST setup, predict and webhook, as of label-studio-ml 2. Pictures, places in the queue and answers are
those of /v1; the token that Label Studio sends along is not used. Coordinates are per cent of the picture.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..mask_formats import brush, simplified
from ..printable import printable
from ..results import Box, Detections, Mask, Masks, Result, Text
from ..tasks.detect import tidy
from . import prompts
from .bodies import checked, read_json
from .health import check_alive
from .media import Budget, read_picture
from .native import AT_ONCE, ERRORS
from .refusals import LOG, Refused, told
from .schemas import Words
from .service import Question, Service
from .streaming import while_there

DEFAULT_PROMPTS = {"TextArea": "caption en", "Choices": "what is this?"}
MOST_CONTROLS = 32
"""Of a project, each of which is a question about every picture."""
ALL_FAIL = 401
"""From this status on a refusal is about the server or the client, not about one picture."""
TOLERANCE = 1.0
"""Pixels that the outline of a polygon may be off, so that people can edit it: the exact one has a corner for every step of a pixel."""


class SetupBody(BaseModel):
    """Of what Label Studio sends, what is used. `schema`: the project's XML."""

    config: Annotated[Words, Field(alias="schema")] = ""


class EventBody(BaseModel):
    """What has happened in a project."""

    action: Words


class TaskBody(BaseModel):
    data: dict[str, Any]


class PredictBody(BaseModel):
    tasks: Annotated[list[TaskBody], Field(min_length=1, max_length=256)]
    label_config: Words


@dataclass(frozen=True)
class Control:
    """A tag that wants something of a picture. `field`: of a task's data, which has the picture; `labels`: name that is asked for -> the
    project's label, or choice; `asked`: what the model is asked."""

    tag: str
    name: str
    to_name: str
    field: str
    labels: dict[str, str]
    asked: prompts.Request


def controls(config: str) -> list[Control]:
    """The tags that can be answered, in order. Raises `Refused` (400) for what is no XML, or XML with definitions of its own."""
    if "<!DOCTYPE" in config or "<!ENTITY" in config:
        raise Refused(400, "the project's configuration has a DOCTYPE, which is not read", "invalid_config", "label_config")
    try:
        tags = list(ElementTree.fromstring(config or "<View/>").iter())
    except ElementTree.ParseError as error:
        line, column = error.position
        where = f"line {line}, column {column + 1}"
        raise Refused(400, f"the project's configuration is no XML: {where}", "invalid_config", "label_config") from None
    shown = {tag.get("name"): tag.get("value", "") for tag in tags if tag.tag == "Image"}
    known = []
    for tag in tags:
        field = shown.get(tag.get("toName"), "")
        if tag.tag in _LABELS and tag.get("name") and field.startswith("$") and tag.get("perRegion") != "true":
            labels = _labels(tag)
            if labels or tag.tag == "TextArea":
                known.append(Control(tag.tag, tag.get("name", ""), tag.get("toName", ""), field[1:], labels, _asked(tag, labels)))
    if len(known) > MOST_CONTROLS:
        raise Refused(400, f"the project has {len(known)} tags to answer, at most {MOST_CONTROLS} are", "invalid_config", "label_config")
    return known


_LABELS = {"RectangleLabels": "Label", "BrushLabels": "Label", "PolygonLabels": "Label", "Choices": "Choice", "TextArea": "Label"}
"""Tags that are answered -> what their labels are called."""


def _labels(tag: ElementTree.Element) -> dict[str, str]:
    """`predicted_values`: other words that the model knows a label by, as in Label Studio's own backends."""
    labels: dict[str, str] = {}
    for label in tag.iter(_LABELS[tag.tag]):
        value, known = label.get("value", ""), label.get("predicted_values")
        for name in known.split(",") if known else [value]:
            labels.setdefault(tidy(name), value)
    labels.pop("", None)
    return labels


def _asked(tag: ElementTree.Element, labels: dict[str, str]) -> prompts.Request:
    if tag.tag not in DEFAULT_PROMPTS:
        return prompts.Request("detect" if tag.tag == "RectangleLabels" else "segment", (list(labels),))
    asked = prompts.recognise(tag.get("model_prompt") or DEFAULT_PROMPTS[tag.tag])
    if asked.verb in ("detect", "segment"):
        what = f"{tag.get('name')}: {tag.tag} wants words, and its model_prompt asks for places"
        raise Refused(400, what, "invalid_config", "label_config")
    return prompts.Request("ask", (*asked.asked, list(labels))) if labels and asked.verb == "ask" else asked


# Pictures


def address(value: Any, field: str) -> str:
    """What a task says where its picture is, as the server knows addresses: files that Label Studio keeps are files of the media root."""
    if not isinstance(value, str):
        raise Refused(400, f"{field}: the task has no picture there", "no_image", field)
    if value.startswith("/data/upload/"):
        return f"file:{unquote(urlsplit(value).path).removeprefix('/data/')}"
    if value.startswith("/data/local-files/?"):
        return f"file:{parse_qs(urlsplit(value).query).get('d', [''])[0]}"
    return value


# Results


def regions(control: Control, result: Result) -> list[dict[str, Any]]:
    """What Label Studio keeps of an answer: nothing, or one thing, or several."""
    kind = control.tag.lower()
    if isinstance(result, Text):
        said = result.text if control.tag == "TextArea" else _choice(control, result.text)
        return [] if said is None else [_region(control, {"text" if control.tag == "TextArea" else kind: [said]}, result.score)]
    assert isinstance(result, Detections | Masks), "these are the answers that tags ask for"
    width, height = result.width, result.height
    placed = {"original_width": width, "original_height": height, "image_rotation": 0}
    found = []
    for thing in result.boxes if isinstance(result, Detections) else result.masks:
        if isinstance(thing, Box):
            shapes = [_rectangle(thing, width, height)]
        else:
            shapes = [_brush(thing)] if control.tag == "BrushLabels" else _polygons(thing, width, height)
        found += [_region(control, {**shape, kind: [control.labels[thing.label]]}, thing.score) | placed for shape in shapes]
    return found


def nothing_of(control: Control, result: Result) -> str | None:
    """Why nothing is kept of an answer in words; None where something is."""
    if not isinstance(result, Text) or regions(control, result):
        return None
    known = ", ".join(map(repr, control.labels))
    return printable(f"{control.name:.40}: the model answered {result.text!r:.80}, which is none of the choices {known:.200}")


def _region(control: Control, value: dict[str, Any], score: float | None) -> dict[str, Any]:
    head = {"id": secrets.token_hex(5), "from_name": control.name, "to_name": control.to_name, "type": control.tag.lower()}
    return {**head, "value": value, "score": score}


def _choice(control: Control, text: str) -> str | None:
    """The choice that a text names, whatever its capitals."""
    return {name.casefold(): value for name, value in control.labels.items()}.get(tidy(text).casefold())


def _rectangle(box: Box, width: int, height: int) -> dict[str, Any]:
    x, y = 100 * box.x0 / width, 100 * box.y0 / height
    return {"x": x, "y": y, "width": 100 * box.x1 / width - x, "height": 100 * box.y1 / height - y, "rotation": 0}


def _polygons(mask: Mask, width: int, height: int) -> list[dict[str, Any]]:
    outlines = [simplified(ring, TOLERANCE) for ring in mask.polygon]
    return [{"points": [[100 * x / width, 100 * y / height] for x, y in outline], "closed": True} for outline in outlines]


def _brush(mask: Mask) -> dict[str, Any]:
    return {"format": "rle", "rle": brush(mask.mask)}


# Routes


def label_studio_routes(service: Service) -> APIRouter:
    router, settings = APIRouter(prefix="/labelstudio", tags=["Label Studio"]), service.settings

    async def health() -> Response:
        check_alive(service)
        return JSONResponse({"status": "UP", "model_class": "paligemma"})

    async def setup(request: Request) -> Response:
        controls(checked(SetupBody, await read_json(request, settings)).config)
        return JSONResponse({"model_version": service.name})

    async def webhook(request: Request) -> Response:
        checked(EventBody, await read_json(request, settings))
        return JSONResponse({"status": "ok", "result": "this server learns nothing from annotations"})

    async def predict(request: Request) -> Response:
        body = checked(PredictBody, await read_json(request, settings))
        asked = controls(body.label_config)
        if not asked:
            what = f"nothing of this project can be answered: there is no {', '.join(_LABELS)} for an Image"
            raise Refused(400, what, "nothing_to_predict", "label_config")
        if len(body.tasks) * len(asked) > settings.limits.batch:
            what = f"{len(body.tasks)} tasks of {len(asked)} questions each are more than {settings.limits.batch}"
            raise Refused(400, what, "too_many_tasks", "tasks")
        work = _predictions(service, asked, [task.data for task in body.tasks], request.state.client)
        return JSONResponse({"results": await while_there(request, work), "model_version": service.name})

    router.add_api_route("/health", health, methods=["GET"], name="Label Studio: health", responses=ERRORS)
    for name, call, kind in (("setup", setup, SetupBody), ("predict", predict, PredictBody), ("webhook", webhook, EventBody)):
        # Parts are looked up from the root of the whole description, in which the body's own stand here.
        here = f"#/paths/~1labelstudio~1{name}/post/requestBody/content/application~1json/schema/$defs/{{model}}"
        body = {"required": True, "content": {"application/json": {"schema": kind.model_json_schema(ref_template=here)}}}
        more = {"openapi_extra": {"requestBody": body}, "responses": ERRORS}
        router.add_api_route(f"/{name}", call, methods=["POST"], name=f"Label Studio: {name}", **more)
    return router


async def _predictions(service: Service, asked: Sequence[Control], tasks: Sequence[dict[str, Any]], client: str) -> list[dict[str, Any]]:
    """One for each task, in order. A picture that cannot be answered about costs the others nothing: its prediction is empty and says why.

    Raises `Refused` where that is so for all of them, or where it is the server's state or the client's share of it.
    """
    turn, failed = asyncio.Semaphore(AT_ONCE), []

    async def one(data: dict[str, Any]) -> dict[str, Any]:
        async with turn:
            try:
                return await _prediction(service, asked, data, client)
            except Exception as error:
                refused = told(error)
                if refused.status >= ALL_FAIL:
                    raise refused from error
                failed.append(refused)
                return {"result": [], "score": None, "model_version": service.name, "error": refused.body()["error"]}

    try:
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(one(data)) for data in tasks]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    if len(failed) == len(tasks):
        raise failed[0]
    predictions = [answer.result() for answer in answers]
    notes = [note for one in predictions for note in one.get("notes", ())]
    if notes:
        LOG.warning("Label Studio: %d answers gave no prediction, the first is %s", len(notes), notes[0])
    return predictions


async def _prediction(service: Service, asked: Sequence[Control], data: dict[str, Any], client: str) -> dict[str, Any]:
    """`score`: of what the model is least sure of, so that such tasks can be looked at first. `notes`: why an answer gave nothing."""
    limits, found, notes, files = service.settings.limits, [], [], {}
    for control in asked:
        where, budget = f"data.{control.field}", Budget(limits)
        if control.field not in files:
            files[control.field] = await read_picture(address(data.get(control.field), where), where, Budget(limits), service.settings)
        budget.take_image(where)
        question = Question(control.asked.verb, [files[control.field]], control.asked.asked, budget=budget)
        answered = await service.answer(question, client)
        found += await asyncio.to_thread(regions, control, answered.result)
        notes += filter(None, [nothing_of(control, answered.result)])
    scores = [region["score"] for region in found if region["score"] is not None]
    said = {"result": found, "score": min(scores, default=None), "model_version": service.name}
    return said | ({"notes": notes} if notes else {})
