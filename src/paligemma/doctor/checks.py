"""The checks of a model in PyTorch: each a function that says what it found, or raises `Different`. To add one, add it to `CHECKS` too."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import CheckpointError
from .checking import DAMAGED_TOWER, PIXELS, WORDS, Different, Look, demand
from .patient import Patient, apart
from .reference import compare

ANSWER_TOKENS = 6


def image_tower(patient: Patient) -> str:
    config = patient.model.config
    shape = (1, config.vision.num_tokens, config.vision.width)
    demand(tuple(patient.tower.shape) == shape, f"image tokens of shape {tuple(patient.tower.shape)}, expected {shape}")
    moved = apart(patient.other_soft(), patient.soft)
    return demand(moved > 1e-3, f"{config.vision.num_tokens} tokens; another picture moves them by {moved:.0%}")


def finite(patient: Patient) -> str:
    dtype = str(patient.model.dtype).removeprefix("torch.")
    for name, value in patient.stages.items():
        demand(bool(value.isfinite().all()), f"{name}: NaN or infinity in {dtype}")
    logits = patient.stages["logits"]
    span = f"logits from {float(logits.min()):.1f} to {float(logits.max()):.1f}"
    return demand(float(logits.float().std()) > 1e-4, f"{len(patient.stages)} stages; {span}")


@torch.inference_mode()
def embedding_scale(patient: Patient) -> str:
    """What enters the decoder, against the image tokens and the rows of the table it is made of."""
    entering, count = patient.stages["decoder input"], patient.soft.shape[1]
    rows = patient.model.text.embed.weight[patient.stages["prompt ids"]]
    image, text, root = _ratio(entering[:count], patient.soft[0]), _ratio(entering[count:], rows), math.sqrt(rows.shape[1])
    detail = f"image x {image:.2f}, expected 1; text x {text:.2f}, expected {root:.2f}"
    return demand(abs(image - 1) < 0.01 and abs(text / root - 1) < 0.01, detail)


def _ratio(a: Tensor, b: Tensor) -> float:
    return float(a.float().norm() / b.float().norm())


def prefix_mask(patient: Patient) -> str:
    """Change a late prompt token: the states before it must move. Change an answer's token: no state before it may move."""
    prompt, newline = patient.prompts[1], patient.tokenizer.newline_id
    before = patient.states(prompt, [newline, newline])
    late = patient.states([*prompt[:-2], newline, prompt[-1]], [newline, newline])
    answer = patient.states(prompt, [newline, prompt[1]])
    early, last = slice(0, len(prompt) - 2), slice(0, len(prompt) + 1)
    seen, leaked = apart(late[early], before[early]), apart(answer[last], before[last])
    demand(seen > 1e-5, "a late prompt token does not reach the early ones: the prompt is read causally")
    demand(leaked < patient.tolerance / 10, f"the answer is seen before its time: earlier states move by {leaked:.1e}")
    return f"a late prompt token moves the early ones by {seen:.1e}, an answer's token those before it by {leaked:.0e}"


def cache(patient: Patient) -> str:
    """Log-probability of an answer as it was written step by step, against one pass over the whole of it."""
    (answer,) = patient.answers(patient.prompts[:1], ANSWER_TOKENS)
    tokens = patient.written(answer)
    again = patient.score(patient.prompts[0], tokens)
    difference = abs(answer.logprob / len(tokens) - again)
    return demand(difference <= 5 * patient.tolerance, f"{len(tokens)} tokens of log-probability {again:.3f}, {difference:.1e} apart")


def batch(patient: Patient) -> str:
    """Two prompts of unequal length together, against each alone: the same belief in the first choice."""
    together = patient.answers(patient.prompts, 1)
    alone = [patient.answers([prompt], 1)[0] for prompt in patient.prompts]
    difference = max(abs(a.logprob - b.logprob) for a, b in zip(together, alone, strict=True))
    lengths = " and ".join(str(len(prompt)) for prompt in patient.prompts)
    return demand(difference <= 5 * patient.tolerance, f"prompts of {lengths} tokens, {difference:.1e} apart")


def stored_outputs(patient: Patient) -> str | None:
    try:
        comparison = compare(patient)
    except CheckpointError as error:
        raise Different(error.message, error.hint or "") from error
    if comparison is None:
        return None
    for name, distance in comparison.stages.items():
        detail = f"{name} is the first stage that differs: {distance:.1%} from the stored values"
        demand(distance <= patient.tolerance, detail, STAGE_ADVICE.get(name, ""))
    worst = max(comparison.stages.values())
    detail = f"{len(comparison.stages)} stages at most {worst:.1e} apart; a stored answer's tokens {comparison.answer:.1e}"
    return demand(comparison.answer <= 5 * patient.tolerance, detail)


COMPUTE = "this device computes wrongly in this number type: try device='cpu' or dtype='float32', and update torch"
STAGE_ADVICE = {
    "prompt ids": "the tokenizer is not the one the model came with",
    "pixels": "pictures are resized differently here: install the Pillow of constraints.txt",
    "image tower": "the image tower's weights or its attention differ: verify the files, try another device or dtype",
    "projector": "the projector's weights differ: verify the files",
    "decoder input": "the embedding table or its scale differs: verify the files",
}
CHECKS: tuple[Look[Patient], ...] = (
    WORDS,
    PIXELS,
    ("image tower", image_tower, DAMAGED_TOWER),
    ("finite numbers", finite, "use dtype='bfloat16' or 'float32': float16 overflows in Gemma 2"),
    ("embedding scale", embedding_scale, "the model's code was changed: text embeddings, and only those, are scaled"),
    ("prefix mask", prefix_mask, "attention ignores its mask here: update torch, or try another device"),
    ("cache", cache, COMPUTE),
    ("batch", batch, COMPUTE),
    ("stored outputs", stored_outputs, COMPUTE),
)
