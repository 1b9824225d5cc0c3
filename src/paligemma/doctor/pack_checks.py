"""The checks of a pack, or of a checkpoint in memory, without PyTorch: its files, and that what is computed agrees with itself.

Numbers agree only so far: in each product the inputs are rounded to 8 bits, and where two ways to compute differ in the last bit of a
float32 number, one of them may be rounded the other way, a step of 1/127 of the largest beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import cast

import numpy as np
from PIL import Image

from ..edge import plain
from ..edge.network import EdgeNetwork
from ..edge.pack_file import INDEX
from ..edge.packing import Floats
from ..engine.generate import Generation, Options, generate
from ..image import to_pixels
from ..predictor import Predictor
from ..sequence import prompt_ids
from .checking import DAMAGED_TOWER, PIXELS, WORDS, Look, demand
from .pictures import golden_picture

PROMPTS = ("caption en", "answer en how many are there?")
"""Of unequal length."""
CLASSES = ("cat", "dog")
IMAGE_TOKENS = 16
ANSWER_TOKENS = 6
TOLERANCE = {"float32": 2e-3, "bf16": 2e-2, "int8": 5e-2, "int4": 5e-2}
"""How far log-probabilities and image tokens (as a share of their size) may be apart, computed in two ways."""


class PackPatient:
    """What is looked at. `soft` (1, n, D): some image tokens of one picture; `prompts`: ids."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.network = cast(EdgeNetwork, predictor.network)
        self.prompts = [prompt_ids(predictor.tokenizer, prompt) for prompt in PROMPTS]

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.network.index.quantize]

    @cached_property
    def in_numpy(self) -> EdgeNetwork:
        """The same arrays, computed with by `plain.py`."""
        return EdgeNetwork(self.network.arrays, plain)

    @property
    def picture(self) -> Image.Image:
        return golden_picture(48, 36)

    def encode(self, network: EdgeNetwork, picture: Image.Image) -> Floats:
        config = network.config
        return network.encode(to_pixels(picture, config.vision.image_size, config.resize)[None])

    @cached_property
    def all_soft(self) -> Floats:
        return self.encode(self.network, self.picture)

    @property
    def soft(self) -> Floats:
        return self.all_soft[:, :IMAGE_TOKENS]

    def answers(self, prompts: Sequence[Sequence[int]], max_tokens: int, network: EdgeNetwork | None = None) -> list[Generation]:
        """Greedy, token by token."""
        tokenizer = self.predictor.tokenizer
        options = Options(max_tokens=max_tokens)
        return generate(network or self.network, self.soft, prompts, options, eos_id=tokenizer.eos_id, loc=tokenizer.loc)

    def logits(self, network: EdgeNetwork) -> Floats:
        """Of the first token of an answer, (V,)."""
        rows = network.begin(self.soft, self.prompts[:1], 1)
        return network.decoder.logits(rows.hidden)[0]


def files(patient: PackPatient) -> str | None:
    index = patient.network.index
    if not all(entry.sha256 for entry in index.entries.values()):
        return None  # of a checkpoint, in memory
    damaged = patient.network.arrays.verify()
    found = ", ".join(damaged[:4]) + (f" and {len(damaged) - 4} more" if len(damaged) > 4 else "")
    demand(not damaged, f"not the bytes that were written: {found}")
    unsure = "" if index.sealed else f"; {INDEX} has no checksum, as older packs: what it says could not be checked"
    return f"{len(index.entries)} arrays of {index.bytes / 1e6:,.0f} MB, {index.quantize}, as they were written{unsure}"


def image_tower(patient: PackPatient) -> str:
    config = patient.network.config
    shape = (1, config.vision.num_tokens, config.text.width)
    demand(patient.all_soft.shape == shape, f"image tokens of shape {patient.all_soft.shape}, expected {shape}")
    moved = apart(patient.encode(patient.network, patient.picture.transpose(Image.Transpose.ROTATE_180)), patient.all_soft)
    return demand(moved > 1e-3, f"{config.vision.num_tokens} tokens; another picture moves them by {moved:.0%}")


def finite(patient: PackPatient) -> str:
    demand(bool(np.isfinite(patient.all_soft).all()), "image tokens: NaN or infinity")
    logits = patient.logits(patient.network)
    demand(bool(np.isfinite(logits).all()), "logits: NaN or infinity")
    return demand(float(logits.std()) > 1e-4, f"logits from {logits.min():.1f} to {logits.max():.1f}")


def kernels(patient: PackPatient) -> str:
    """The compiled kernels against the same functions in numpy: image tokens, and the logits of a first token."""
    isa = getattr(patient.network.kernels, "isa", None)
    if isa is None:
        return "none are compiled, numpy answers: slow (a C++ compiler, and paligemma installed again, make them)"
    tokens = apart(patient.encode(patient.in_numpy, patient.picture), patient.all_soft)
    logits = apart(patient.logits(patient.in_numpy), patient.logits(patient.network))
    return demand(max(tokens, logits) <= patient.tolerance, f"{isa} against numpy: image tokens {tokens:.1e}, logits {logits:.1e} apart")


def cache(patient: PackPatient) -> str:
    """Log-probability of an answer as it was written step by step, against one pass over the whole of it."""
    (answer,) = patient.answers(patient.prompts[:1], ANSWER_TOKENS)
    eos = patient.predictor.tokenizer.eos_id
    tokens = [*answer.ids, *([eos] if answer.stop == "eos" else [])]
    network, prompt = patient.network, patient.prompts[0]
    words = network.decoder.embed(np.asarray(prompt + tokens))
    states = network.decoder.states(np.concatenate([patient.soft[0], words]), len(patient.soft[0]) + len(prompt))
    logits = network.decoder.logits(np.ascontiguousarray(states[-len(tokens) - 1 : -1]))
    again = float(np.mean(logits[np.arange(len(tokens)), tokens] - plain.log_sum_exp(logits)))
    difference = abs(answer.logprob / len(tokens) - again)
    return demand(difference <= patient.tolerance, f"{len(tokens)} tokens of log-probability {again:.3f}, {difference:.1e} apart")


def batch(patient: PackPatient) -> str:
    """Two prompts of unequal length together, against each alone: the same belief in the first choice."""
    together = patient.answers(patient.prompts, 1)
    alone = [patient.answers([prompt], 1)[0] for prompt in patient.prompts]
    difference = max(abs(a.logprob - b.logprob) for a, b in zip(together, alone, strict=True))
    lengths = " and ".join(str(len(prompt)) for prompt in patient.prompts)
    return demand(difference <= patient.tolerance, f"prompts of {lengths} tokens, {difference:.1e} apart")


def grammar(patient: PackPatient) -> str:
    """What is found is written as it should be, whatever the model would like to write."""
    ask = patient.predictor
    boxes = ask.detect(patient.picture, CLASSES, max_objects=2)
    mask = None if ask.codec is None else ask.refer(patient.picture, CLASSES[0])  # whose answer is one mask always
    for result in (boxes, *(() if mask is None else (mask,))):
        demand(not result.leftover and not result.invalid, f"{result.text!r} is not well-formed")
        demand(result.stop != "length", f"{result.text!r} does not end")
    return f"{len(boxes.boxes)} boxes{'' if mask is None else f' and {len(mask.masks)} mask'}, well-formed"


def apart(a: Floats, b: Floats) -> float:
    """Distance as a share of the size."""
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12))


COMPUTE = "the compiled kernels compute wrongly here: install paligemma again, so that they are compiled anew"
PACK_CHECKS: tuple[Look[PackPatient], ...] = (
    ("files", files, "the pack is damaged: pack the model again"),
    WORDS,
    PIXELS,
    ("image tower", image_tower, DAMAGED_TOWER),
    ("finite numbers", finite, "the weights are damaged: pack the model again"),
    ("kernels", kernels, COMPUTE),
    ("cache", cache, COMPUTE),
    ("batch", batch, COMPUTE),
    ("grammar", grammar, "the tokenizer is not the model's, or the code was changed"),
)
