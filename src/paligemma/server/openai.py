"""/v1/chat/completions as OpenAI's clients speak it. The last turn of the user is the prompt; history is not used.

What a request asks for and cannot have is refused by name (tools, several choices, formats); what changes nothing is ignored.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..engine.options import MOST_ALTERNATIVES, Alternatives, Token
from ..tokenizer import Tokenizer
from . import prompts
from .bodies import checked, read_json
from .media import Budget, read_picture
from .native import ERRORS, dump
from .refusals import REQUEST_ID, Refused
from .schemas import Words
from .service import Answered, Question, Service
from .settings import Settings
from .streaming import DONE, WAIT, Answering, Piece, event, stream, while_there


class ImageUrl(BaseModel):
    url: str
    detail: str | None = None


class TextPart(BaseModel):
    type: Literal["text"]
    text: Words


class ImagePart(BaseModel):
    type: Literal["image_url"]
    image_url: ImageUrl


class Message(BaseModel):
    """Only the last one of role "user" is read."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Words | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]] | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatBody(BaseModel):
    """OpenAI's fields, and two of ours: `raw`: exactly these words; `allow_location_tokens`: `<loc0000>` among them is a location."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int | None, Field(ge=1, le=8192)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=8192)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2, description="0, the likeliest answer, unless told otherwise.")] = 0.0
    top_p: Annotated[float | None, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int | None, Field(ge=0, lt=2**62)] = None
    n: Annotated[int | None, Field(ge=1, le=1, description="One answer.")] = 1
    stop: (
        Annotated[str, Field(min_length=1, max_length=64)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=4)]
        | None
    ) = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=MOST_ALTERNATIVES)] = None
    raw: bool = False
    allow_location_tokens: bool = True


_NOTHING: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
    "logit_bias": (None, {}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "top_k": (None, 0, -1),
    "min_tokens": (None, 0),
    "min_p": (None, 0),
    "best_of": (None, 1),
    "echo": (None, False),
    "response_format": (None, {"type": "text"}),
    "guided_json": (None,),
    "guided_regex": (None,),
    "guided_choice": (None,),
    "guided_grammar": (None,),
    "structured_outputs": (None,),
}
"""Fields that would change the meaning of an answer and are not served, with the values that change nothing."""


def _refuse_what_is_not_served(body: ChatBody) -> None:
    for field, harmless in _NOTHING.items():
        given = (body.model_extra or {}).get(field)
        if not any(given == one and isinstance(given, bool) == isinstance(one, bool) for one in harmless):  # to Python False is 0
            raise Refused(400, f"{field}: this server does not do that", "not_supported", param=field)


@dataclass(frozen=True)
class Chat:
    """A request that has been understood. `stops`: where the text ends besides."""

    body: ChatBody
    question: Question
    stops: tuple[str, ...]


async def read_chat(request: Request, service: Service) -> Chat:
    body = checked(ChatBody, await read_json(request, service.settings))
    _refuse_what_is_not_served(body)
    place = next((i for i in reversed(range(len(body.messages))) if body.messages[i].role == "user"), None)
    if place is None:
        raise Refused(400, "messages: there is none of the user's", "invalid_value", param="messages")
    content, where = body.messages[place].content, f"messages[{place}].content"
    parts = [TextPart(type="text", text=content)] if isinstance(content, str) else content or []
    words = " ".join(part.text for part in parts if isinstance(part, TextPart)).strip()
    if not words:
        raise Refused(400, f"{where}: there is no text, which would be the prompt", "no_prompt", param=where)
    files, budget = await _pictures(parts, where, service.settings)
    asked = prompts.recognise(words, raw=body.raw)
    top = body.top_logprobs or 0
    if top and not body.logprobs:
        raise Refused(400, "top_logprobs: wants logprobs too", "invalid_value", param="top_logprobs")
    temperature = body.temperature or 0.0
    how = {
        "max_tokens": body.max_completion_tokens or body.max_tokens,
        "temperature": temperature,
        "top_p": (body.top_p or 1.0) if temperature else 1.0,  # among one there is nothing to choose
        "seed": body.seed,
        "alternatives": top,
    }
    adapter, locations = service.adapter_of(body.model), body.allow_location_tokens
    question = Question(asked.verb, files, asked.asked, how, adapter, locations, budget)
    return Chat(body, question, (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()))


async def _pictures(parts: Sequence[TextPart | ImagePart], where: str, settings: Settings) -> tuple[list[bytes], Budget]:
    budget, files = Budget(settings.limits), []
    for place, part in enumerate(parts):
        if isinstance(part, ImagePart):
            files.append(await read_picture(part.image_url.url, f"{where}[{place}]", budget, settings))
    if not files:
        raise Refused(400, f"{where}: there is no picture (a part of type image_url)", "no_image", param=where)
    return files, budget


# Answers


def finish(answered: Answered) -> str:
    return "length" if answered.generation.stop == "length" else "stop"


def usage(answered: Answered) -> dict[str, int]:
    return {name: answered.usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


class Stops:
    """Text up to the first of some words. `add`: what can be shown already; `ended`: one of the words has come."""

    def __init__(self, stops: Sequence[str]):
        self._stops, self._held, self.ended = stops, "", False

    def add(self, piece: str) -> str:
        if self.ended:
            return ""
        text = self._held + piece
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.ended, self._held = True, ""
            return text[: min(ends)]
        hold = max((size for stop in self._stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]

    def rest(self) -> str:
        held, self._held = self._held, ""
        return held


_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _token(tokenizer: Tokenizer, id: int) -> dict[str, Any]:
    piece = tokenizer.piece(id)
    if byte := _BYTE.fullmatch(piece):
        return {"token": f"bytes:\\x{byte[1].lower()}", "bytes": [int(byte[1], 16)]}
    text = piece.replace("\u2581", " ")
    return {"token": text, "bytes": list(text.encode())}


def _logprob(tokenizer: Tokenizer, id: int, logprob: float, beside: Alternatives) -> dict[str, Any]:
    top = [_token(tokenizer, other) | {"logprob": value} for other, value in beside]
    return _token(tokenizer, id) | {"logprob": logprob, "top_logprobs": top}


def whole(chat: Chat, answered: Answered, service: Service) -> dict[str, Any]:
    generation, tokenizer = answered.generation, service.planner.tokenizer
    stops = Stops(chat.stops)
    text = stops.add(tokenizer.decode(generation.ids))
    text += "" if stops.ended else stops.rest()
    logprobs = None
    if chat.body.logprobs:
        beside = generation.alternatives or [()] * len(generation.ids)
        each = zip(generation.ids, generation.logprobs, beside, strict=True)
        logprobs = {"content": [_logprob(tokenizer, *one) for one in each], "refusal": None}
    message = {"role": "assistant", "content": text, "refusal": None, "paligemma": answered.result.to_dict()}
    reason = "stop" if stops.ended else finish(answered)
    return {
        **_head(chat, service, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": logprobs}],
        "usage": usage(answered),
    }


def _head(chat: Chat, service: Service, kind: str) -> dict[str, Any]:
    name = chat.body.model or service.name
    return {"id": f"chatcmpl-{REQUEST_ID.get()}", "object": kind, "created": int(time.time()), "model": name}


async def chunks(chat: Chat, answering: Answering, service: Service) -> AsyncIterator[bytes]:
    head, tokenizer = _head(chat, service, "chat.completion.chunk"), service.planner.tokenizer
    stops = Stops(chat.stops)
    counted = bool(chat.body.stream_options and chat.body.stream_options.include_usage)

    def chunk(delta: dict[str, Any], reason: str | None = None, logprobs: dict[str, Any] | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": logprobs}
        return event(dump(head | {"choices": [choice]} | ({"usage": None} if counted else {})))

    def likelihoods(tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not chat.body.logprobs:
            return None
        return {"content": [_logprob(tokenizer, one.id, one.logprob, one.alternatives) for one in tokens], "refusal": None}

    yield chunk({"role": "assistant", "content": ""})
    async for found in answering.events():
        if found is None:
            yield WAIT
        elif isinstance(found, Piece):
            text = stops.add(found.text)
            if text:
                yield chunk({"content": text}, None, likelihoods(found.tokens))
            if stops.ended:
                yield chunk({}, "stop")
                break
        elif isinstance(found, Refused):
            yield event(dump(found.body()))
            return
        else:
            if text := stops.rest():
                yield chunk({"content": text})
            result = await asyncio.to_thread(found.result.to_dict)
            yield chunk({"paligemma": result}, finish(found))
            if counted:
                yield event(dump(head | {"choices": [], "usage": usage(found)}))
    yield DONE


# Routes


def chat_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    async def chat(request: Request) -> Response:
        asked = await read_chat(request, service)
        client = request.state.client
        if not asked.body.stream:
            answered = await while_there(request, service.answer(asked.question, client))
            return JSONResponse(await asyncio.to_thread(whole, asked, answered, service))
        answering = Answering(lambda watcher: service.answer(asked.question, client, watcher), service.settings.limits.heartbeat)
        await answering.begin(request)
        return stream(chunks(asked, answering, service))

    # Parts are looked up from the root of the whole description, in which the body's own stand here.
    here = "#/paths/~1v1~1chat~1completions/post/requestBody/content/application~1json/schema/$defs/{model}"
    body = {"required": True, "content": {"application/json": {"schema": ChatBody.model_json_schema(ref_template=here)}}}
    streamed: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}, "text/event-stream": {}}}}
    router.add_api_route(
        "/v1/chat/completions", chat, methods=["POST"], name="chat", responses={**streamed, **ERRORS}, openapi_extra={"requestBody": body}
    )
    return router
