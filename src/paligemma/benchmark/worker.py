"""One model in a process of its own, timed: reads commands from standard input, answers on standard output, a JSON object a line.

    python -m paligemma.benchmark.worker

    {"do": "load", "model": ..., "tokenizer": ..., "codec": ..., "device": ..., "dtype": ...}   -> {"seconds": ..., and what it is}
    {"do": "answer", "batch": 2, "tokens": 32}    -> {"image": ..., "first": ..., "last": ..., "cpu": ...}
    {"do": "settle"}                              -> {}     answers until the decoder's matrices lie as they stay
    {"do": "mask"}                                -> {"seconds": ...}
    {"do": "limits", "seconds": 1.0}              -> {"read": ..., "peak": ...}
    {"do": "memory"}                              -> {"peak": ...}

`answer`: seconds from the pixels to image tokens, to the first token and to the last one, and the CPU's seconds for all of it. Answers have
exactly so many tokens; pictures are noise. What cannot be done is answered as {"error": {"kind", "message", "hint", "code"}}.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

from ..checkpoint.memory import peak_memory
from ..edge.network import EdgeNetwork
from ..engine.generate import Options, Token, generate, stream
from ..errors import PaliGemmaError
from ..predictor import Predictor, load
from ..predictor.reading import Search
from ..sequence import prompt_ids
from ..tasks import refer
from . import limits
from .counts import work

TEXT_TOKENS = 8
"""Of the prompt: bos, six words, newline."""
NEVER = -1
"""The id of no token: answers end by their length."""
LONGEST = 512
"""Tokens after which every matrix is packed that ever will be (`model/fast_linear.py`, `model/strip_linear.py`)."""
PHOTO, PHRASE = (640, 480), "the cat"
"""The picture that `mask` asks about, and what for."""


class Subject:
    """A loaded model and what it is asked."""

    def __init__(self, **given: Any):
        self.predictor: Predictor = load(given.pop("model"), **given)
        self.network = self.predictor.network

    def facts(self) -> dict[str, Any]:
        network, config = self.network, self.predictor.config
        if isinstance(network, EdgeNetwork):
            numbers = network.index.quantize
            held = sum(entry.bytes for name, entry in network.index.entries.items() if name.startswith("text."))
            kept = "bfloat16" if network.decoder.narrow else "float32"
        else:
            numbers, held = str(self.predictor.model.dtype).removeprefix("torch."), None
            kept = numbers
        return {
            "name": config.name,
            "description": self.predictor.description.splitlines()[0],
            "engine": "pack" if isinstance(network, EdgeNetwork) else "PyTorch",
            "numbers": numbers,
            "products": limits.products_of(network),
            "threads": limits.threads_of(network),
            "masks": self.predictor.codec is not None,
            "work": asdict(work(config, TEXT_TOKENS, weight_bytes=held, numbers=numbers, cached=kept)),
        }

    def answer(self, batch: int, tokens: int) -> dict[str, float]:
        pixels, prompts = self._inputs(batch)
        times: list[float] = []

        def count(token: Token) -> None:
            if token.prompt == batch - 1:  # the others' have been chosen before it
                times.append(time.perf_counter() - start)

        cpu, start = time.process_time(), time.perf_counter()
        soft = self.network.encode(pixels)
        float(soft[-1, -1, -1])  # an accelerator has now computed it
        image = time.perf_counter() - start
        generate(self.network, soft, prompts, Options(max_tokens=tokens), eos_id=NEVER, loc=self.predictor.tokenizer.loc, on_token=count)
        return {"image": image, "first": times[0], "last": times[-1], "cpu": time.process_time() - cpu}

    def settle(self) -> dict[str, float]:
        if not self._settled():
            pixels, prompts = self._inputs(1)
            soft, options = self.network.encode(pixels), Options(max_tokens=LONGEST)
            tokens = stream(self.network, soft, prompts, options, eos_id=NEVER, loc=self.predictor.tokenizer.loc)
            any(self._settled() for _ in tokens)
        return {}

    def mask(self) -> dict[str, float]:
        """From an opened picture to its mask: four places and 16 codes, chosen among those that may come next; decoded and pasted, where
        there is a mask codec."""
        predictor, photo, start = self.predictor, self._photo(), time.perf_counter()
        if predictor.codec is not None:
            predictor.refer(photo, PHRASE)
        else:
            words, grammar = predictor.tokenizer, Search(max_objects=1).grammar(predictor.tokenizer, (), masks=True)
            asked, ids = [prompt_ids(words, refer.prompt(PHRASE))], {"eos_id": words.eos_id, "loc": words.loc}
            generate(self.network, predictor.encode(photo).soft, asked, constraints=[grammar], **ids)
        return {"seconds": time.perf_counter() - start}

    def memory(self) -> dict[str, int]:
        """Bytes: the most there ever were, of the accelerator where the model is on one, else of this process, mapped files included."""
        model = getattr(self.network, "model", None)
        if model is not None and model.device.type == "cuda":
            import torch

            return {"peak": torch.cuda.max_memory_reserved(model.device)}
        return {"peak": peak_memory()}

    def limits(self, seconds: float) -> dict[str, float]:
        return asdict(limits.measure(self.network, seconds))

    def _settled(self) -> bool:
        model = getattr(self.network, "model", None)
        if model is None:
            return True
        from ..model.fast_linear import FastLinear
        from ..model.strip_linear import StripLinear

        return all(layer.packed for layer in model.text.modules() if isinstance(layer, FastLinear | StripLinear))

    def _inputs(self, batch: int) -> tuple[np.ndarray, list[list[int]]]:
        """Pixels (B, 3, S, S) in [-1, 1] and the ids of as many prompts."""
        rng, words = np.random.default_rng(batch), self.predictor.tokenizer
        size = self.predictor.config.vision.image_size
        pixels = rng.uniform(-1, 1, (batch, 3, size, size)).astype(np.float32)
        middle = rng.integers(words.newline_id + 1, words.loc.start, (batch, TEXT_TOKENS - 2))
        return pixels, [[words.bos_id, *row, words.newline_id] for row in middle.tolist()]

    def _photo(self) -> Image.Image:
        return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*PHOTO[::-1], 3), np.uint8))


def reply(subject: Subject | None, command: Mapping[str, Any]) -> tuple[Subject, dict[str, Any]]:
    """What a command makes of the subject, and its answer."""
    arguments = {name: value for name, value in command.items() if name != "do"}
    if command["do"] == "load":
        start = time.perf_counter()
        subject = Subject(**arguments)
        return subject, {"seconds": time.perf_counter() - start} | subject.facts()
    assert subject is not None, "nothing is loaded"
    commands: dict[str, Callable[..., dict[str, Any]]] = {
        "answer": subject.answer, "settle": subject.settle, "mask": subject.mask, "limits": subject.limits, "memory": subject.memory
    }  # fmt: skip
    return subject, commands[command["do"]](**arguments)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    warnings.simplefilter("ignore")
    subject: Subject | None = None
    for line in sys.stdin:
        try:
            subject, answer = reply(subject, json.loads(line))
        except PaliGemmaError as error:
            answer = {"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint, "code": error.code}}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
