"""A server's model, asked like one in this process: the same verbs, the same results, over HTTP. Needs nothing but the standard library.

model = paligemma.connect("http://127.0.0.1:8000")
model.detect("photo.jpg", ["cat", "dog"]).draw().save("boxes.png")
for piece in model.caption("photo.jpg", stream=True): print(piece, end="")
"""

from __future__ import annotations

import base64
import dataclasses
import http.client
import io
import json
import os
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast, overload

import numpy as np
from PIL import Image

from .errors import ResourceError, UsageError
from .explanation import Explanation
from .image import Clip, open_image
from .results import Answer, Box, Caption, Detections, Masks, Question, Reading, Result, Text
from .tasks import check_verb

R = TypeVar("R", bound=Result)

KEY_VARIABLE = "PALIGEMMA_API_KEY"
"""Environment variable that holds the key, where none is given."""
AT_ONCE = 4
"""Pictures of a list that are asked about at the same time: as many as a server lets one client wait with."""
TRIES = 4
LONGEST_WAIT = 30.0
"""Seconds between two tries, whatever the server says."""
KINDS: dict[str, type[Result]] = {
    "caption": Caption,
    "answer": Answer,
    "question": Question,
    "reading": Reading,
    "text": Text,
    "detections": Detections,
    "masks": Masks,
}
"""By the "type" of a result."""

Picture = str | Path | bytes | Image.Image | np.ndarray | Clip
"""A file's path or contents, a Pillow image, an array (H, W, 3), or several pictures for one prompt. An https URL is left to the server."""


class ServerError(ResourceError):
    """The server refused, or cannot be reached. `status`: of HTTP, None where there was no answer; `retry_after`: seconds, or None."""

    default_code = "server"

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None, **more: Any):
        super().__init__(message, **more)
        self.status, self.retry_after = status, retry_after


def connect(url: str, *, api_key: str | None = None, model: str | None = None, timeout: float = 300.0) -> Client:
    """A client for the server at `url`. Nothing is sent yet.

    api_key: by default what `PALIGEMMA_API_KEY` holds. model: which of the server's, by default the one without an adapter.
    timeout: seconds without a byte from the server. Raises `UsageError` for what is no http or https address.
    """
    return Client(url, api_key=api_key, model=model, timeout=timeout)


class Client:
    """See `connect`. Every verb takes what the predictor's takes by these names, one picture or a list of them, and raises `ServerError`
    where the server refuses.

    Where it is full (429, 503) it is asked again, up to `TRIES` times, when it says so. Where the connection breaks before the answer
    begins, it is asked once more: no verb changes anything on the server.
    """

    def __init__(self, url: str, *, api_key: str | None = None, model: str | None = None, timeout: float = 300.0):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UsageError(f"{url!r} is no address of a server", hint="for example http://127.0.0.1:8000")
        self.url, self.model, self.timeout = url.rstrip("/"), model, timeout
        self._parts = parts
        self._key = api_key if api_key is not None else os.environ.get(KEY_VARIABLE)

    def __repr__(self) -> str:
        return f"<Client: {self.url}{f', {self.model}' if self.model else ''}>"

    @property
    def models(self) -> list[str]:
        """What the server offers: names for `model`."""
        return [one["id"] for one in self._send("GET", "/v1/models")["data"]]

    @overload
    def caption(self, image: Picture, lang: str = ..., length: str = ..., *, stream: Literal[True], **how: Any) -> Stream[Caption]: ...
    @overload
    def caption(self, image: Picture, lang: str = ..., length: str = ..., *, stream: Literal[False] = ..., **how: Any) -> Caption: ...
    def caption(self, image: Picture, lang: str = "en", length: str = "normal", *, stream: bool = False, **how: Any) -> Any:
        """What the picture shows. See `Predictor.caption`."""
        return self._ask("caption", image, stream, {"lang": lang, "length": length}, how)

    @overload
    def ask(
        self, image: Picture, question: str, lang: str | None = ..., choices: Sequence[str] = ..., *, stream: Literal[True], **how: Any
    ) -> Stream[Answer]: ...
    @overload
    def ask(
        self, image: Picture, question: str, lang: str | None = ..., choices: Sequence[str] = ..., *, stream: Literal[False] = ...,
        **how: Any,
    ) -> Answer: ...  # fmt: skip
    def ask(
        self, image: Picture, question: str, lang: str | None = "en", choices: Sequence[str] = (), *, stream: bool = False, **how: Any
    ) -> Any:
        """The answer to a question. See `Predictor.ask`."""
        return self._ask("ask", image, stream, {"question": question, "lang": lang, "choices": list(choices)}, how)

    def question(self, image: Picture, answer: str, lang: str = "en", *, stream: bool = False, **how: Any) -> Any:
        """A question that has this answer. See `Predictor.question`."""
        return self._ask("question", image, stream, {"answer": answer, "lang": lang}, how)

    def ocr(self, image: Picture, *, stream: bool = False, **how: Any) -> Any:
        """The text in the picture. See `Predictor.ocr`."""
        return self._ask("ocr", image, stream, {}, how)

    def describe_box(self, image: Picture, box: Box | Sequence[float], *, stream: bool = False, **how: Any) -> Any:
        """What a box holds: left, top, right, bottom, in pixels. See `Predictor.describe_box`."""
        return self._ask("describe-box", image, stream, {"box": list(box.xyxy if isinstance(box, Box) else box)}, how)

    def run(self, image: Picture, prompt: str, *, stream: bool = False, **how: Any) -> Any:
        """Any prompt. See `Predictor.run`."""
        return self._ask("run", image, stream, {"prompt": prompt}, how)

    def detect(self, image: Picture, classes: str | Sequence[str], *, stream: bool = False, **how: Any) -> Any:
        """Boxes of everything that has one of these names. See `Predictor.detect`."""
        return self._ask("detect", image, stream, {"classes": _names(classes)}, how)

    def segment(self, image: Picture, classes: str | Sequence[str], *, stream: bool = False, **how: Any) -> Any:
        """Masks of everything that has one of these names. See `Predictor.segment`."""
        return self._ask("segment", image, stream, {"classes": _names(classes)}, how)

    def refer(self, image: Picture, sentence: str, *, stream: bool = False, **how: Any) -> Any:
        """The mask of what a sentence means. See `Predictor.refer`."""
        return self._ask("refer", image, stream, {"sentence": sentence}, how)

    def explain(self, verb: str, image: Picture, *asked: Any, **how: Any) -> Any:
        """The answer of another verb, and where the model looked for each word of it: an `Explanation`. See `Predictor.explain`.

        An answer that is longer than the server explains comes without: the verb's own result.
        """
        check_verb(verb)
        return getattr(self, verb)(image, *asked, explain=True, **how)

    # How they do it

    def _ask(self, task: str, image: Any, stream: bool, fields: dict[str, Any], how: dict[str, Any]) -> Any:
        if isinstance(image, list | tuple):
            if stream:
                raise UsageError("one answer can be streamed at a time, but there are several pictures")
            with ThreadPoolExecutor(AT_ONCE) as pool:
                return list(pool.map(lambda one: self._ask(task, one, False, fields, how), image))
        sent, picture = _sent(image)
        body = {**sent, **fields, **how, "stream": stream}
        if self.model is not None:
            body["model"] = self.model
        if stream:
            return Stream(self._open("POST", f"/v1/{task}", body), picture)
        return _result(self._send("POST", f"/v1/{task}", body), picture)

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        with self._open(method, path, body) as answer, _reading():
            return _parsed(answer.read())

    def _open(self, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        """The answer, where it is one; asked again while the server is full."""
        for attempt in range(1, TRIES + 1):
            answer = self._once(method, path, body)
            if answer.status == 200:
                return answer
            with answer, _reading():
                error = _refusal(answer)
            if answer.status not in (429, 503) or attempt == TRIES:
                raise error
            time.sleep(min(error.retry_after or 1.0, LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, body: Any, *, again: bool = True) -> http.client.HTTPResponse:
        """The beginning of an answer. `again`: whether to ask a second time where the connection breaks before it."""
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(cast(str, self._parts.hostname), self._parts.port, timeout=self.timeout)
        headers = {"Content-Type": "application/json", "User-Agent": "paligemma"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, data, headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if again and isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
                return self._once(method, path, body, again=False)
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ServerError(f"{self.url} does not answer ({reason})", hint="is `paligemma serve` running there?") from error


class Stream(Generic[R]):
    """The pieces of an answer as the server writes it: an iterator of text. `result`: the typed answer; it reads on to the end."""

    def __init__(self, answer: http.client.HTTPResponse, picture: Image.Image | None):
        self._answer, self._picture = answer, picture
        self._result: R | None = None
        self._pieces = self._run()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def result(self) -> R:
        for _ in self:
            pass
        if self._result is None:
            raise RuntimeError("the answer was broken off by an error, which was raised while it was read")
        return self._result

    def close(self) -> None:
        """Leave before the end: the server stops."""
        self._answer.close()

    def _run(self) -> Iterator[str]:
        with self._answer as answer, _reading():
            name = "message"
            for line in answer:
                field, _, value = line.decode().rstrip("\r\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data" and name == "token":
                    yield _parsed(value)["text"]
                elif field == "data" and name == "result":
                    self._result = _result(_parsed(value), self._picture)
                    return
                elif field == "data" and name == "error":
                    raise _error(_parsed(value), None, None)
        raise ServerError("the server ended the answer before its end")


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"the connection broke in the middle of the answer ({type(error).__name__})") from error


def _names(classes: str | Sequence[str]) -> str | list[str]:
    return classes if isinstance(classes, str) else list(classes)


def _sent(image: Picture) -> tuple[dict[str, Any], Image.Image | None]:
    """Fields of the request, and the picture that results are drawn on. Files go as they are."""
    if isinstance(image, str) and image.lower().startswith("https://"):
        return {"image": image}, None
    if isinstance(image, Clip):
        return {"images": [_as_text(_png(frame)) for frame in image.frames]}, image.frames[0]
    if isinstance(image, str | Path):
        opened = open_image(image)  # refuses here what the server would, and is what results are drawn on
        return {"image": _as_text(Path(image).read_bytes())}, opened
    if isinstance(image, bytes):
        return {"image": _as_text(image)}, open_image(image)
    opened = open_image(image)
    return {"image": _as_text(_png(opened))}, opened


def _as_text(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _png(image: Image.Image) -> bytes:
    written = io.BytesIO()
    image.save(written, "PNG", compress_level=1)
    return written.getvalue()


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ServerError("the server's answer is no JSON", hint="is it `paligemma serve` that answers there?") from error


def _result(answer: Mapping[str, Any], picture: Image.Image | None) -> Any:
    plain = answer["result"]
    kind = cast(Any, KINDS[plain["type"]])
    result = dataclasses.replace(kind.from_dict(plain), picture=picture)
    return Explanation.of(result, answer["explanation"], picture) if answer.get("explanation") else result


def _refusal(answer: http.client.HTTPResponse) -> ServerError:
    try:
        plain = json.loads(answer.read())
    except ValueError:
        plain = {}
    wait = answer.headers.get("Retry-After", "")
    return _error(plain, answer.status, float(wait) if wait.isdigit() else None)


def _error(plain: Any, status: int | None, retry_after: float | None) -> ServerError:
    error = plain.get("error", {}) if isinstance(plain, dict) else {}
    message = str(error.get("message") or f"the server answers {status}")
    hint = f"set {KEY_VARIABLE}, or connect(..., api_key=...)" if status == 401 else None
    return ServerError(message, status=status, retry_after=retry_after, hint=hint, code=error.get("code"))
