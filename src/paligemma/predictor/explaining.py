"""A predictor whose verbs explain their answers: the same results, with their tokens' probabilities and where the model looked.

    explainer = Explainer(predictor)
    explainer.detect("photo.jpg", ["cat"])  -> Explanation of Detections, and so on for every verb

The answer is generated as always, then read once more (`engine/looking.py`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.network import Network
from ..engine.options import Generation
from ..errors import ResourceError, UsageError, no_torch
from ..explanation import Explanation, Grid, Likely, Part, Step, mean_grid, rounded
from ..results import Detections, Mask, Masks, Result
from ..sequence import prompt_ids
from ..tasks import detect
from ..tokenizer import Tokenizer
from .asking import MAX_PROMPT, How, Query
from .pictures import EncodedImage
from .planning import Sharing
from .verbs import Predictor

if TYPE_CHECKING:
    from PIL import Image

    from ..model.paligemma import PaliGemma

LIKELY = 5
"""Tokens that are shown of every step."""


class Explainer(Sharing):
    """The verbs of a predictor, each of which returns an `Explanation`, or a list of them. It shares the model.

    Raises `ResourceError` for a model that is not in PyTorch, such as a pack: its attention cannot be seen. Verbs raise `UsageError`
    for `stream`, for `beams`, and for several pictures under one prompt.
    """

    def __init__(self, predictor: Predictor):
        if not can_look(predictor.network):
            if find_spec("torch") is None:
                raise no_torch("explaining an answer", otherwise="leave the explanation out")
            hint = "name the checkpoint, of a pack the one it was made of"
            raise ResourceError(
                "explaining an answer needs the model in PyTorch, and this one was loaded without", hint=hint, code="no_torch"
            )
        super().__init__(predictor)

    def _ask(self, query: Callable[[int, EncodedImage], Query[Any]], image: Any, stream: bool, how: How, max_tokens: int) -> Any:
        if stream:
            raise UsageError("an answer is explained when it is whole: it cannot be streamed", hint="leave stream out")
        if how.get("beams", 1) > 1:
            raise UsageError("beam search does not keep what else might have come, which an explanation shows", hint="leave beams out")

        def explained(place: int, seen: EncodedImage) -> Query[Explanation]:
            if seen.soft.shape[1] != self.config.vision.num_tokens:
                raise UsageError("only answers about one picture can be explained, not about several together or a film")
            asked = query(place, seen)
            return Query(asked.prompt, lambda generation: self._explained(asked, seen, generation), asked.constraint)

        return super()._ask(explained, image, False, How(**{"alternatives": LIKELY, **how}), max_tokens)  # pyright: ignore

    def _explained(self, asked: Query[Any], seen: EncodedImage, generation: Generation) -> Explanation:
        result = asked.read(generation)
        prompt = prompt_ids(self.tokenizer, asked.prompt, max_len=MAX_PROMPT)
        looked = grids_of(self.model, seen.soft, prompt, generation.ids)
        return explanation_of(result, generation, looked, self.tokenizer, seen.width, seen.height, seen.picture)


def can_look(network: Network) -> bool:
    """Whether it can be seen where a model looks: not in a pack, which has no PyTorch."""
    return hasattr(network, "model")


def grids_of(model: PaliGemma, soft: Any, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
    """Image tokens (1, P, D), ids of prompt and answer -> float32 (tokens of the answer, rows, columns): where the model looked. It reads
    them once more."""
    from ..engine.looking import looks, smoothed

    side = model.config.vision.grid
    return smoothed(looks(model, soft, prompt, answer).reshape(-1, side, side)) if answer else np.zeros((0, side, side), np.float32)


def explanation_of(
    result: Result, generation: Generation, looked: np.ndarray, tokenizer: Tokenizer, width: int, height: int,
    picture: Image.Image | None = None,
) -> Explanation:  # fmt: skip
    """A result, what it was read from, and what `grids_of` gave for that. `width`, `height`: of the original picture."""
    grids = [tuple(tuple(map(rounded, line)) for line in one) for one in looked.tolist()]
    plain = zip(steps_of(generation, tokenizer), grids, strict=True)
    steps = tuple(dataclasses.replace(step, heat=heat) for step, heat in plain)
    placed = isinstance(result, Detections | Masks)
    parts = tuple(_objects(result, generation.ids, grids, tokenizer) if placed else _words(steps))
    return Explanation(result, steps, parts, width, height, picture=picture)


def _objects(result: Detections | Masks, ids: Sequence[int], grids: Sequence[Grid], tokenizer: Tokenizer) -> Iterator[Part]:
    """Where each object of the result stands in the answer, of which some may have been left out; the order is the same."""
    written = iter(detect.parse_ids(ids, tokenizer).objects)
    for item in result:
        box = item.box.xyxy if isinstance(item, Mask) else item.xyxy
        one = next(one for one in written if one.box(result.width, result.height).xyxy == box)
        yield Part(item.label, one.start, one.end, mean_grid(grids[one.start : one.end]), item.score, box)


def steps_of(generation: Generation, tokenizer: Tokenizer) -> Iterator[Step]:
    """Its tokens, each with what else might have stood there where `alternatives` were asked for. Nothing of where the model looked."""

    def text(id: int) -> str:
        """As it reads; what is no text by itself (the end, a byte of a character) as it is written in the vocabulary."""
        read = tokenizer.decode([id])
        return read if read and "\ufffd" not in read else tokenizer.piece(id)

    besides = generation.alternatives or [()] * len(generation.ids)
    for id, logprob, beside in zip(generation.ids, generation.logprobs, besides, strict=True):
        yield Step(text(id), math.exp(logprob), tuple(Likely(text(other), math.exp(own)) for other, own in beside))


def _words(steps: Sequence[Step]) -> Iterator[Part]:
    """Tokens that make up a word together. Where letters know no case, as in Chinese, every token is one."""
    start = 0
    for stop in range(1, len(steps) + 1):
        if stop == len(steps) or not _joins(steps[stop - 1].text, steps[stop].text):
            own = steps[start:stop]
            word = "".join(step.text for step in own).strip()
            if any(map(str.isalnum, word)):
                yield Part(word, start, stop, mean_grid([step.heat for step in own]), math.prod(step.prob for step in own))
            start = stop


def _joins(before: str, after: str) -> bool:
    return bool(before and after) and _cased(before[-1]) and _cased(after[0])


def _cased(letter: str) -> bool:
    return letter.isdigit() or letter.lower() != letter.upper()
