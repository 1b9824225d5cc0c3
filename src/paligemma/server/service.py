"""Questions about pictures -> typed answers, through one engine for all: opened, put in line, asked, read. No HTTP.

    service = Service(predictor, settings)
    async with service:
        answered = await service.answer(question, client)

The predictor belongs to the service: nobody else may use it meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engine.batcher import Batcher
from ..engine.features import Features
from ..engine.generate import check_stream
from ..engine.options import Generation, Token
from ..image import as_floats
from ..predictor import Predictor
from ..predictor.asking import Pieces
from ..predictor.explaining import can_look, grids_of
from ..predictor.pictures import Prepared
from ..predictor.planning import Planned, Planner
from ..results import Result
from ..sequence import prompt_ids
from . import tracing
from .decoding import Decoded, Decoders
from .media import Budget
from .metrics import Metrics
from .refusals import Refused, told
from .room import tokens_that_fit
from .scheduler import Coming, Place, Scheduler
from .settings import Settings


@dataclass(frozen=True)
class Question:
    """`verb`: one of `tasks.VERBS`, with what it is `asked` and `how`. `pictures`: the bytes of files, several for one prompt.

    `adapter`: None for the model alone. `locations`: whether `<loc0000>` in the words is a location. `explain`: whether it is wanted to
    know where the model looked.
    """

    verb: str
    pictures: Sequence[bytes]
    asked: tuple[Any, ...] = ()
    how: dict[str, Any] = field(default_factory=dict)
    adapter: str | None = None
    locations: bool = True
    budget: Budget | None = None
    explain: bool = False


@dataclass(frozen=True)
class Answered:
    """`queued`, `first_token`, `total`: seconds since the question came; `first_token` is None where there was none. `width`, `height`: of
    the picture as it was sent. `looked`: see `grids_of`; None where nobody asked, or the answer is too long for it."""

    result: Result
    generation: Generation
    image_tokens: int
    prompt_tokens: int
    queued: float
    first_token: float | None
    total: float
    width: int
    height: int
    looked: np.ndarray | None = None

    @property
    def completion_tokens(self) -> int:
        return len(self.generation.ids) + (self.generation.stop == "eos")

    @property
    def usage(self) -> dict[str, int]:
        prompt = self.image_tokens + self.prompt_tokens
        return {
            "image_tokens": self.image_tokens,
            "prompt_tokens": prompt,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt + self.completion_tokens,
        }


class Watcher:
    """What a question's asker may want to know before the answer is there. Called on the event loop."""

    def accepted(self) -> None:
        """Its turn has come; nothing of the request is wrong."""

    def piece(self, text: str, tokens: Sequence[Token]) -> None:
        """A piece of the answer's text, and the tokens it is made of."""


class Service:
    """`name`: what clients call the model. Adapters are called `name:adapter`."""

    def __init__(self, predictor: Predictor, settings: Settings, *, name: str, metrics: Metrics | None = None):
        self.settings, self.name, self.metrics = settings, name, metrics or Metrics()
        self.planner = Planner(predictor)
        self.names = {name: None} | {f"{name}:{adapter}": adapter for adapter in self.planner.adapters}
        """What clients may call the model -> its adapter."""
        self.config = predictor.config
        limits, tokenizer = settings.limits, predictor.tokenizer
        self.batcher = Batcher(
            predictor.network, eos_id=tokenizer.eos_id, loc=tokenizer.loc, rows=settings.rows, keep=settings.pictures_kept
        )
        self.scheduler = Scheduler(
            rows=settings.rows,
            tokens=tokens_that_fit(self.config, settings.memory),
            waiting=limits.waiting,
            waiting_each=limits.waiting_each,
            patience=limits.queue_seconds,
            adapter=predictor.adapter,
            switch=self.planner.use_adapter,
        )
        self.decoders = Decoders(self.config.vision.image_size, self.config.resize, limits)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Service:
        await self._stack.enter_async_context(self.decoders)
        return self

    async def __aexit__(self, *what: object) -> None:
        await self._stack.aclose()
        await asyncio.to_thread(self.batcher.close, wait=False)

    def adapter_of(self, name: str | None) -> str | None:
        """Raises `Refused` (404) for a name that no model here has. Names are looked up; none becomes a path."""
        if name is None:
            return None
        if name not in self.names:
            raise Refused(404, f"there is no such model here; there are: {', '.join(self.names)}", "model_not_found", param="model")
        return self.names[name]

    @property
    def explains(self) -> bool:
        """Whether it can be seen where the model looks."""
        return can_look(self.batcher.network)

    def most_pictures(self, adapter: str | None) -> int:
        """Under one prompt: as many as the model was taught with, where that is written down. An adapter was taught something else."""
        taught = self.config.frames if adapter is None else 0
        return min(taught or self.settings.limits.images, self.settings.limits.images)

    def admit(self, client: str, coming: Coming | None = None) -> None:
        """Raises `Refused` where there is no place for another question of this client: known before anything of it is read. `coming`: it
        has been read, and a place is kept for it from now on."""
        try:
            if coming is None:
                self.scheduler.check_room(client)
            else:
                coming.expect(self.scheduler, client)
        except Refused as refused:
            self.metrics.refused(refused.code)
            raise

    @property
    def healthy(self) -> bool:
        return self.batcher.stalled < self.settings.limits.stall_seconds

    async def drain(self) -> None:
        """Take no more questions, and wait until those that are in have been answered, for as long as that is allowed to take."""
        self.scheduler.open = False
        end = time.monotonic() + self.settings.limits.drain_seconds
        while (self.scheduler.depth or self.scheduler.busy) and time.monotonic() < end:
            await asyncio.sleep(0.05)

    async def answer(self, question: Question, client: str, watcher: Watcher | None = None) -> Answered:
        """`watcher`: where the answer is wanted while it is written. Raises `Refused`.

        Cancelled, it gives up its place and its rows within a step of the engine.
        """
        start, limits = time.monotonic(), self.settings.limits
        try:
            async with asyncio.timeout(limits.request_seconds), self.scheduler.enter(client) as place:
                return await self._answer(question, place, watcher, start)
        except TimeoutError:
            late = Refused(504, f"the answer took longer than {limits.request_seconds:g} seconds", "deadline_exceeded")
            self.metrics.refused(late.code)
            raise late from None
        except Refused as refused:
            self.metrics.refused(refused.code)
            raise
        except Exception as error:
            raise told(error) from error

    async def _answer(self, question: Question, place: Place, watcher: Watcher | None, start: float) -> Answered:
        if question.explain:
            self._check_explained(question)
        with tracing.part("open pictures", count=len(question.pictures)):
            seen = await self._open(question)
        planned = self.planner.plan(question.verb, seen, *question.asked, **question.how)
        if watcher is not None:
            check_stream(planned.options)
        watcher = watcher or Watcher()
        ids = self._ids(planned, question, seen)
        image_tokens = self.config.vision.num_tokens * len(seen.pixels)
        rows = max(planned.options.beams, planned.options.best_of)
        with tracing.part("wait for a turn"):
            await place.turn(rows=rows, tokens=rows * (image_tokens + len(ids) + planned.options.max_tokens), adapter=question.adapter)
        watcher.accepted()
        if len(self.names) > 1:  # scores are calibrated by the adapter at work
            planned = self.planner.plan(question.verb, seen, *question.asked, **question.how)
        queued = time.monotonic() - start
        feed = Feed(self.planner, watcher)
        streamed = rows == 1
        with tracing.part(question.verb, image_tokens=image_tokens, prompt_tokens=len(ids)) as span:
            generation = await self._generate(planned, ids, seen.pixels, place.client, feed if streamed else None)
            span.set_attribute("tokens", len(generation.ids))
        if streamed:
            feed.end()
        self.metrics.answered(question.verb, generation, queued, feed.first, start)
        result = await asyncio.to_thread(planned.query.read, generation)
        looked = await self._look(ids, seen.pixels, place.client, generation) if question.explain else None
        total = time.monotonic() - start
        first = None if feed.first is None else feed.first - start
        return Answered(result, generation, image_tokens, len(ids), queued, first, total, seen.width, seen.height, looked)

    async def _open(self, question: Question) -> Prepared:
        budget = question.budget or Budget(self.settings.limits)
        fields = budget.images or ["image"] * len(question.pictures)
        if len(fields) > (most := self.most_pictures(question.adapter)):
            why = "this model was taught with" if most == self.config.frames else "a request may have"
            raise Refused(400, f"{len(fields)} pictures for one prompt: {why} {most}", "too_many_images", fields[most])
        jobs = [self.decoders.decode(data, where, budget) for data, where in zip(question.pictures, fields, strict=True)]
        frames: list[Decoded] = await asyncio.gather(*jobs)
        pixels = np.stack([as_floats(frame.pixels) for frame in frames])
        return Prepared(pixels, frames[0].width, frames[0].height)

    def _ids(self, planned: Planned[Any], question: Question, seen: Prepared) -> list[int]:
        limits = self.settings.limits
        ids = prompt_ids(self.planner.tokenizer, planned.query.prompt, locations=question.locations)
        if len(ids) > limits.prompt_tokens:
            what = f"the prompt has {len(ids):,} tokens, at most {limits.prompt_tokens:,} are allowed"
            raise Refused(400, what, "context_length_exceeded")
        whole = self.config.vision.num_tokens * len(seen.pixels) + len(ids) + planned.options.max_tokens
        if whole > limits.context:
            what = f"pictures, prompt and answer may come to {whole:,} tokens, the model holds {limits.context:,}"
            raise Refused(400, what, "context_length_exceeded")
        if planned.options.max_tokens > limits.most_tokens:
            raise Refused(400, f"max_tokens is at most {limits.most_tokens:,}", "invalid_value", param="max_tokens")
        return ids

    def _check_explained(self, question: Question) -> None:
        """Before anything is computed."""
        if not self.explains:
            raise Refused(400, "this model runs without PyTorch, and where it looks cannot be seen", "not_explained", param="explain")
        if question.how.get("beams", 1) > 1:
            raise Refused(400, "explain: beam search does not keep what else might have come", "not_explained", param="beams")
        if len(question.pictures) > 1:
            raise Refused(400, "explain: only answers about one picture can be explained", "not_explained", param="explain")

    async def _look(self, ids: list[int], pixels: np.ndarray, client: str, generation: Generation) -> np.ndarray | None:
        """Once the answer is there. Its place is held until the engine is done with it, so that no other adapter comes to work meanwhile.
        None: there would be too many numbers to tell."""
        if len(generation.ids) * self.config.vision.num_tokens > self.settings.limits.explained_numbers:
            return None
        model: Any = self.batcher.network

        def look(features: Features) -> np.ndarray:
            return grids_of(model.model, features.of([pixels[0]], [client])[0], ids, generation.ids)

        with _engine_at_work():
            looking = self.batcher.aside(look)
        waiting = asyncio.ensure_future(asyncio.wrap_future(looking))
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if not looking.cancel():
                await asyncio.wait([waiting])
            raise

    async def _generate(self, planned: Planned[Any], ids: list[int], pixels: np.ndarray, client: str, feed: Feed | None) -> Generation:
        loop = asyncio.get_running_loop()

        def pass_on(token: Token) -> None:  # called on the engine's thread
            assert feed is not None
            loop.call_soon_threadsafe(feed.take, token)

        on_token = None if feed is None else pass_on
        picture = pixels[0] if len(pixels) == 1 else pixels
        with _engine_at_work():
            constraint = planned.query.constraint
            future = self.batcher.submit(ids, planned.options, pixels=picture, constraint=constraint, on_token=on_token, owner=client)
        return await asyncio.wrap_future(future)


@contextmanager
def _engine_at_work() -> Iterator[None]:
    """Raises `Refused` (503) where the engine's thread has ended."""
    try:
        yield
    except RuntimeError as error:
        raise Refused(503, "the engine does not answer", "engine_dead", retry_after=30) from error


class Feed:
    """Tokens as they come, for a watcher. `first`: when the first one came."""

    def __init__(self, planner: Planner, watcher: Watcher):
        self._pieces, self._watcher = Pieces(planner.tokenizer), watcher
        self._tokens: list[Token] = []
        self.first: float | None = None

    def take(self, token: Token) -> None:
        self.first = self.first or time.monotonic()
        self._tokens.append(token)
        self._pass_on(self._pieces.add(token.id))

    def end(self) -> None:
        self._pass_on(self._pieces.rest())

    def _pass_on(self, text: str) -> None:
        if text:
            tokens, self._tokens = self._tokens, []
            self._watcher.piece(text, tokens)
