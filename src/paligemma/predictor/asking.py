"""Pictures and prompts -> batches -> answers, in order; or one answer piece by piece. Knows no task."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

from ..engine.generate import Constraint, Generation, Options, Token, generate, stream
from ..engine.network import Network
from ..errors import UsageError, did_you_mean
from ..sequence import prompt_ids
from ..tokenizer import Tokenizer
from .pictures import EncodedImage, Picture, encode, num_tokens

R = TypeVar("R")

BATCH_TOKENS = 4096
"""By default a batch holds as many pictures as have this many image tokens: 16 at 224 pixels, 4 at 448, 1 at 896."""
MAX_BATCH = 64
MAX_PROMPT = 8192
"""Text tokens of a prompt; a longer one raises `InputError`."""


class CutShort(UserWarning):
    """An answer reached `max_tokens`. Its `stop` is "length", which a streamed one says without this warning."""


class How(TypedDict, total=False):
    """How to generate; every verb of the predictor takes these by name. `engine.Options` says what they mean.

    `batch_size`: how many pictures go through the model at a time; by default as many as hold 4096 image tokens.
    """

    max_tokens: int | None
    temperature: float
    top_p: float
    beams: int
    best_of: int
    seed: int | None
    alternatives: int
    batch_size: int | None


def check_names(given: Mapping[str, Any], known: type) -> None:
    """`UsageError` for a name that is not one of the options `known`, a `TypedDict`."""
    for name in given:
        if name not in known.__annotations__:
            hint = did_you_mean(name, known.__annotations__, "options: " + ", ".join(known.__annotations__))
            raise UsageError(f"there is no option {name!r}", hint=hint)


def read_how(how: How, max_tokens: int) -> tuple[Options, int | None]:
    """-> options, batch size. `max_tokens` is the default. Raises `UsageError` for an unknown name or a value out of range."""
    check_names(how, How)
    batch_size = how.get("batch_size")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size}")
    chosen: dict[str, Any] = {name: value for name, value in how.items() if name != "batch_size"}
    if chosen.get("max_tokens") is None:
        chosen["max_tokens"] = max_tokens
    return Options(**chosen), batch_size


@dataclass(frozen=True)
class Query(Generic[R]):
    """A prompt about one picture, what its answer may be made of, and how to read it."""

    prompt: str
    read: Callable[[Generation], R]
    constraint: Constraint | None = None


def ask(
    network: Network,
    tokenizer: Tokenizer,
    pictures: Sequence[Picture],
    query: Callable[[int, EncodedImage], Query[R]],
    options: Options,
    batch_size: int | None,
) -> list[R]:
    """One result per picture. `query` is called with its place in the list and the picture; prompts of a batch may differ.

    Pictures are opened batch by batch, so that a long list of files does not fill the memory.
    """
    results: list[R] = []
    for batch in batches([num_tokens(network, picture) for picture in pictures], batch_size):
        seen = encode(network, [pictures[place] for place in batch], batch.start if len(pictures) > 1 else None)
        queries = [query(place, image) for place, image in zip(batch, seen, strict=True)]
        answers: dict[int, Generation] = {}
        for size in {image.soft.shape[1] for image in seen}:
            rows = [row for row, image in enumerate(seen) if image.soft.shape[1] == size]
            answers |= zip(
                rows, _generate(network, tokenizer, [seen[row] for row in rows], [queries[row] for row in rows], options), strict=True
            )
        results += [queries[row].read(answers[row]) for row in range(len(queries))]
    return results


def batches(tokens: Sequence[int], batch_size: int | None) -> Iterator[range]:
    """Consecutive ranges of pictures that go through the model together; `tokens`: image tokens of each."""
    start = 0
    while start < len(tokens):
        end, held = start + 1, tokens[start]
        most = start + (batch_size or MAX_BATCH)
        while end < min(len(tokens), most) and (batch_size or held + tokens[end] <= BATCH_TOKENS):
            held += tokens[end]
            end += 1
        yield range(start, end)
        start = end


def _generate(
    network: Network, tokenizer: Tokenizer, seen: Sequence[EncodedImage], queries: Sequence[Query[Any]], options: Options
) -> list[Generation]:
    shared = all(image is seen[0] for image in seen)
    return generate(
        network,
        seen[0].soft if shared else network.join([image.soft for image in seen]),
        [prompt_ids(tokenizer, query.prompt, max_len=MAX_PROMPT) for query in queries],
        options,
        eos_id=tokenizer.eos_id,
        loc=tokenizer.loc,
        constraints=[query.constraint for query in queries],
    )


class Pieces:
    """Tokens -> pieces of text, as they come: joined they are the text of all, and none ends inside a character."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._pending: list[int] = []

    def add(self, id: int) -> str:
        """ "" until a character of several byte tokens is whole."""
        self._pending.append(id)
        text = self._tokenizer.decode(self._pending)
        return "" if text.endswith("\ufffd") else self._taken(text)

    def rest(self) -> str:
        """What is left where no more tokens come."""
        return self._taken(self._tokenizer.decode(self._pending))

    def _taken(self, text: str) -> str:
        if text:
            self._pending = []
        return text


class Stream(Generic[R]):
    """The pieces of an answer as it is written: an iterator of text. Joined they are the raw answer; no piece ends inside a character.

    `result` is the finished, typed answer; asking for it before the end reads on to the end. After an error there is none: `RuntimeError`.
    """

    def __init__(self, network: Network, tokenizer: Tokenizer, image: EncodedImage, query: Query[R], options: Options):
        ids = {"eos_id": tokenizer.eos_id, "loc": tokenizer.loc, "constraints": [query.constraint]}
        self._tokens = stream(network, image.soft, [prompt_ids(tokenizer, query.prompt, max_len=MAX_PROMPT)], options, **ids)
        self._tokenizer = tokenizer
        self._read = query.read
        self._answers: list[Generation] = []
        self._result: list[R] = []
        self._pieces = self._run()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def result(self) -> R:
        for _ in self:
            pass
        if not self._result:
            raise RuntimeError("the answer was broken off by an error, which was raised while it was read")
        return self._result[0]

    def _run(self) -> Iterator[str]:
        pieces = Pieces(self._tokenizer)
        for token in self._chosen():
            if text := pieces.add(token.id):
                yield text
        if text := pieces.rest():
            yield text
        self._result = [self._read(self._answers[0])]

    def _chosen(self) -> Generator[Token, None, None]:
        self._answers = yield from self._tokens
