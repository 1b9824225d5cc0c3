"""C5: texts that spell what only the server may say. Ids of a hostile prompt hold no control token; its neighbours answer as if alone."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sentencepiece

import paligemma
from paligemma.errors import InputError
from paligemma.sequence import prompt_ids
from paligemma.server.refusals import Refused
from paligemma.server.service import Answered, Question, Service
from paligemma.server.settings import Limits, Settings
from tests.server.conftest import DEMO

from .frame import Trials

NAME = "C5"
TITLE = "prompts that spell control tokens"
SIZES = {"push": 10_000, "ci": 300_000, "release": 5_000_000}
BATCH = 8
"""Questions at a time, one of them hostile."""
TEXTS = 500
"""Hostile texts of one case: all are read, one goes into a batch."""
T = TypeVar("T")

SPELLINGS = (
    *("<image>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<2mass>", "[@BOS@]", "<unused0>", "<unused99>", "<start_of_turn>"),
    *("<end_of_turn>", "<start_of_image>", "<0x00>", "<0x0A>", "<loc0000>", "<loc1023>", "<loc1024>", "<loc12>", "<seg000>", "<seg127>"),
    *("<seg128>", "<loc", "0000>", "<", ">", "<<image>>", "<ima", "ge>", "\n", "\\n", "\r", "\0", "\u2028", "\u202e", "\ufeff", "\u200d"),
    *("\u0301", "\ud800", "\udfff", "▁", " ", "猫", "Ä", "🧑‍🚀", "𝕏", "\U0010ffff", "a", "cat ; dog", "answer en ", "detect ", "<script>"),
    *("\x1b[31m", "{}", "%s", "'", '"'),
)
PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,;:!?()-'\"äöüßéñ猫犬日本語русскийالعربية"
NEIGHBOURS = ("what color is the heart?", "what is in the picture?", "how many objects are there?", "is there an owl?")


def points(tier: str, rng: random.Random) -> list[int]:
    """Seeds."""
    return [rng.randrange(1 << 30) for _ in range(SIZES[tier] // TEXTS)]


class Stage:
    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop):
        self.service, self._loop = service, loop
        self.tokenizer = service.planner.tokenizer
        self.reference = sentencepiece.SentencePieceProcessor(model_file=str(service.planner.path / "tokenizer.model"))
        self.picture = (DEMO / "objects1.png").read_bytes()
        self.alone = {text: self.run(self.answer(text)).generation.ids for text in NEIGHBOURS}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def answer(self, text: str, verb: str = "ask") -> Answered:
        asked = (text, "en", []) if verb == "ask" else (text,)
        return await self.service.answer(Question(verb, [self.picture], asked, {"max_tokens": 12}), text[:8])


@contextmanager
def stage() -> Iterator[Stage]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    service = Service(
        paligemma.load("nano-112", device="cpu"), Settings(limits=Limits(waiting_each=BATCH, decode_workers=1)), name="nano-112"
    )
    try:
        asyncio.run_coroutine_threadsafe(service.__aenter__(), loop).result(60)
        yield Stage(service, loop)
    finally:
        asyncio.run_coroutine_threadsafe(service.__aexit__(None, None, None), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def check(stage: Stage, seed: int, rng: random.Random) -> Trials:
    rng = random.Random(seed)
    texts = [_hostile(rng) for _ in range(TEXTS)]
    for text in texts:
        _check_ids(stage, text, rng.random() < 0.5)
    plain = "".join(rng.choices(PLAIN, k=rng.randrange(1, 60)))
    expected = [stage.tokenizer.bos_id, *stage.reference.encode(plain), stage.tokenizer.newline_id]
    assert prompt_ids(stage.tokenizer, plain) == expected, f"{plain!r} is read otherwise than by sentencepiece"
    stage.run(_batch(stage, rng.choice(texts)))
    return Trials(TEXTS + 1)


def _check_ids(stage: Stage, text: str, locations: bool) -> None:
    tokenizer = stage.tokenizer
    if any("\ud800" <= c <= "\udfff" for c in text):
        try:
            prompt_ids(tokenizer, text, locations=locations)
        except InputError:
            return
        raise AssertionError(f"half of a surrogate pair was read: {text!r}")
    ids = prompt_ids(tokenizer, text, locations=locations)
    assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.newline_id), text
    inner = ids[1:-1]
    control = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id}
    assert not control & set(inner), f"a control token from {text!r}: {inner}"
    assert max(inner, default=0) < tokenizer.vocab_size, f"an id past the vocabulary from {text!r}"
    placed = [id for id in inner if id in tokenizer.loc or id in tokenizer.seg]
    assert locations or not placed, f"a location though none was allowed: {text!r}"
    assert tokenizer.decode(inner) == text.replace("▁", " "), f"{text!r} comes back as {tokenizer.decode(inner)!r}"


async def _batch(stage: Stage, hostile: str) -> None:
    """The hostile one may be refused, in words; the others must not notice."""
    others = [NEIGHBOURS[place % len(NEIGHBOURS)] for place in range(BATCH - 1)]
    answers = await asyncio.gather(stage.answer(hostile, "run"), *map(stage.answer, others), return_exceptions=True)
    if isinstance(answers[0], BaseException):
        assert isinstance(answers[0], Refused), repr(answers[0])
        assert answers[0].status == 400, answers[0].message
    for text, one in zip(others, answers[1:], strict=True):
        assert isinstance(one, Answered), repr(one)
        assert one.generation.ids == stage.alone[text], f"{text!r} beside {hostile!r}: {one.generation.ids} instead of {stage.alone[text]}"


def _hostile(rng: random.Random) -> str:
    if rng.random() < 0.02:
        return rng.choice(SPELLINGS) * 20
    return "".join(rng.choice(SPELLINGS) if rng.random() < 0.7 else _character(rng) for _ in range(rng.randrange(1, 12)))


def _character(rng: random.Random) -> str:
    return chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000))))
