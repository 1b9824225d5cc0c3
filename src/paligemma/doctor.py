"""Does this model compute what it should, on this machine? A dozen checks of a loaded predictor, each with what to do when it fails.

The decoder is checked with few image tokens and short prompts, so that a 3B model takes seconds: what is checked does not depend on the
number of tokens. Where the model's folder holds `reference.json`, outputs are also compared with those stored there, stage by stage, and
the first stage that differs says where to look. `write_reference` makes that file, in float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .config import GEMMA_VOCAB, NUM_LOC, NUM_SEG, Resize
from .engine.generate import Generation, Options, generate
from .errors import CheckpointError
from .image import to_pixels
from .model.paligemma import PaliGemma
from .predictor import Predictor
from .sequence import prompt_ids

REFERENCE = "reference.json"
TOLERANCE = {torch.float32: 2e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}
"""How far two ways to compute the same may be apart, as a share of the size of the numbers."""
SOFT_TOKENS = 16
STORED_TOKENS = 4
ANSWER_TOKENS = 6
PROMPTS = ("caption en", "answer en how many are there?")


@dataclass(frozen=True)
class Check:
    """`detail`: what was found, with numbers. `advice`: what to do about it; empty when `ok`."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def examine(predictor: Predictor) -> Iterator[Check]:
    """Every check, each as soon as it is done. A check that breaks down counts as failed; nothing is raised."""
    for name, check, advice in _CHECKS:
        try:
            detail = check(predictor)
        except _Different as difference:
            yield Check(name, False, str(difference), difference.advice or advice)
        except Exception as error:  # whatever keeps a check from running is what the user needs to know
            yield Check(name, False, f"could not be checked: {type(error).__name__}: {error}", advice)
        else:
            if detail:
                yield Check(name, True, detail)


def check(predictor: Predictor) -> list[Check]:
    """All checks of `examine`."""
    return list(examine(predictor))


class _Different(Exception):
    """A check found something wrong."""

    def __init__(self, detail: str, advice: str = ""):
        super().__init__(detail)
        self.advice = advice


def _demand(condition: bool, detail: str, advice: str = "") -> str:
    if not condition:
        raise _Different(detail, advice)
    return detail


# Tokenizer and pictures


def _tokenizer(predictor: Predictor) -> str:
    tokenizer = predictor.tokenizer
    expected: dict[str, Any] = {"locations": NUM_LOC, "mask codes": NUM_SEG, "locations follow each other": True, "text comes back": True}
    text = "a Cat, 2 dogs & größer 猫; <bos> <image>"
    found: dict[str, Any] = {
        "locations": len(tokenizer.loc),
        "mask codes": len(tokenizer.seg),
        "locations follow each other": tokenizer.encode("<loc0000><loc1023><seg127>")
        == [tokenizer.loc[0], tokenizer.loc[-1], tokenizer.seg[-1]],
        "text comes back": tokenizer.decode(tokenizer.encode(text)) == text,
    }
    if tokenizer.vocab_size > GEMMA_VOCAB:
        expected |= {"<pad>": 0, "<eos>": 1, "<bos>": 2, "newline": 108, "<loc0000>": GEMMA_VOCAB, "<seg000>": GEMMA_VOCAB + NUM_LOC}
        found |= {"<pad>": tokenizer.pad_id, "<eos>": tokenizer.eos_id, "<bos>": tokenizer.bos_id, "newline": tokenizer.newline_id}
        found |= {"<loc0000>": tokenizer.loc.start, "<seg000>": tokenizer.seg.start}
    wrong = [f"{name}: {found[name]}, expected {value}" for name, value in expected.items() if found[name] != value]
    control = {tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id}
    if control & set(tokenizer.encode("<pad><eos><bos>")):
        wrong.append("typed text becomes a control token")
    _demand(not wrong, "; ".join(wrong))
    rows = predictor.model.config.text.vocab_size
    return _demand(tokenizer.vocab_size <= rows, f"{tokenizer.vocab_size} tokens, {rows} rows in the model")


def golden_picture(width: int = 12, height: int = 9) -> Image.Image:
    """The same small colourful picture on every machine: slopes, a hard edge and a dot."""
    y, x = np.mgrid[:height, :width]
    red, green = 255 * x // (width - 1), 255 * y // (height - 1)
    blue = np.where((x + y) % 5 < 2, 230, 20)
    pixels = np.stack([red, green, blue], axis=-1)
    pixels[height // 2 :, width // 3] = (10, 200, 90)
    pixels[height // 4, width // 2] = 255
    return Image.fromarray(pixels.astype(np.uint8))


# fmt: off
GOLDEN_PIXELS: dict[Resize, tuple[int, ...]] = {
    "bicubic": (
        25, 94, 169, 229, 24, 89, 172, 229, 25, 63, 162, 230, 25, 64, 163, 230, 21, 24, 31, 20, 89, 102, 105, 88, 165, 176, 163,
        165, 233, 222, 233, 233, 93, 125, 90, 143, 95, 116, 139, 69, 123, 97, 92, 131, 70, 99, 103, 90,
    ),
    "bilinear": (
        23, 92, 162, 231, 23, 92, 162, 231, 23, 10, 162, 231, 23, 10, 162, 231, 19, 19, 19, 19, 91, 91, 91, 91, 163, 200, 163,
        163, 235, 200, 235, 235, 98, 151, 20, 230, 20, 46, 203, 20, 203, 90, 20, 230, 20, 90, 98, 20,
    ),
    "bilinear-antialias": (
        28, 94, 167, 225, 28, 88, 168, 225, 28, 65, 161, 225, 28, 64, 161, 225, 25, 30, 34, 25, 90, 101, 101, 90, 163, 174, 163,
        163, 228, 218, 228, 228, 96, 124, 90, 140, 95, 113, 131, 76, 121, 99, 95, 127, 71, 98, 102, 89,
    ),
}
# fmt: on
"""`golden_picture()` at 4 x 4 as Pillow 13 makes it: all of red row by row, then green, then blue."""


def resized(resize: Resize) -> list[int]:
    """`golden_picture()` at 4 x 4 as bytes, in the order of `GOLDEN_PIXELS`."""
    return np.rint((to_pixels(golden_picture(), 4, resize) + 1) * 127.5).astype(int).ravel().tolist()


def _resize(predictor: Predictor) -> str:
    resize = predictor.model.config.resize
    apart = {name: int(np.abs(np.subtract(resized(name), golden)).max()) for name, golden in GOLDEN_PIXELS.items()}
    worst = max(apart, key=apart.__getitem__)
    return _demand(apart[worst] <= 1, f"{resize}; {worst} is at most {apart[worst]} of 255 levels from the stored pixels")


# The model


def _soft(predictor: Predictor) -> Tensor:
    """A few image tokens (1, n, D) of the golden picture."""
    return predictor.encode(golden_picture(48, 36)).soft[:, :SOFT_TOKENS]


def _prompts(predictor: Predictor) -> list[list[int]]:
    return [prompt_ids(predictor.tokenizer, prompt) for prompt in PROMPTS]


def _tolerance(model: PaliGemma) -> float:
    return TOLERANCE[model.dtype]


def _apart(a: Tensor, b: Tensor) -> float:
    """Distance as a share of the size."""
    a, b = a.float(), b.float()
    return float((a - b).norm() / b.norm().clamp(min=1e-12))


@torch.inference_mode()
def _image_tower(predictor: Predictor) -> str:
    soft = predictor.encode(golden_picture(48, 36)).soft
    other = predictor.encode(golden_picture(48, 36).transpose(Image.Transpose.ROTATE_180)).soft
    config = predictor.model.config
    shape = (1, config.vision.num_tokens, config.text.width)
    _demand(tuple(soft.shape) == shape, f"image tokens of shape {tuple(soft.shape)}, expected {shape}")
    _demand(bool(soft.isfinite().all()), "image tokens hold NaN or infinity")
    moved = _apart(other, soft)
    return _demand(moved > 1e-3, f"{config.vision.num_tokens} tokens; another picture moves them by {moved:.0%}")


@torch.inference_mode()
def _embedding(predictor: Predictor) -> str:
    """What enters the decoder, against the image tokens and the rows of the table it is made of."""
    model, soft = predictor.model, _soft(predictor)
    ids = torch.tensor([_prompts(predictor)[0]], device=model.device)
    entering: list[Tensor] = []
    hook = model.text.blocks[0].register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0][0]))
    try:
        model.prefill(soft, ids, None, model.new_cache(1, soft.shape[1] + ids.shape[1]))
    finally:
        hook.remove()
    image, text = entering[0].split([soft.shape[1], ids.shape[1]])
    root = math.sqrt(model.config.text.width)
    scales = {"image": _ratio(image, soft[0]), "text": _ratio(text, model.text.embed.weight[ids[0]])}
    detail = f"image x {scales['image']:.2f}, expected 1; text x {scales['text']:.2f}, expected {root:.2f}"
    return _demand(abs(scales["image"] - 1) < 0.01 and abs(scales["text"] / root - 1) < 0.01, detail)


def _ratio(a: Tensor, b: Tensor) -> float:
    return float(a.float().norm() / b.float().norm())


@torch.inference_mode()
def _mask(predictor: Predictor) -> str:
    """Flip a late prompt token: the states before it must move. Flip a suffix token: nothing before it may move."""
    model, soft, prompt = predictor.model, _soft(predictor), _prompts(predictor)[1]
    newline = predictor.tokenizer.newline_id

    def states(prompt: list[int], suffix: list[int]) -> Tensor:
        ids = torch.tensor([prompt + suffix], device=model.device)
        mask_ar = torch.tensor([[0] * len(prompt) + [1] * len(suffix)], device=model.device)
        return model.hidden_states(soft, ids, mask_ar)[0]

    before = states(prompt, [newline, newline])
    late = states([*prompt[:-2], newline, prompt[-1]], [newline, newline])
    answer = states(prompt, [newline, prompt[1]])
    early, last = slice(0, len(prompt) - 2), slice(0, len(prompt) + 1)
    seen, leaked = _apart(late[early], before[early]), _apart(answer[last], before[last])
    _demand(seen > 1e-5, "a late prompt token does not reach the early ones: the prompt is read causally")
    _demand(leaked < _tolerance(model) / 10, f"the answer is seen before its time: earlier states move by {leaked:.1e}")
    return f"a late prompt token moves the early ones by {seen:.1e}, an answer's token the earlier ones by {leaked:.0e}"


def _answers(predictor: Predictor, soft: Tensor, prompts: list[list[int]], options: Options | None = None) -> list[Generation]:
    options = options or Options(max_tokens=ANSWER_TOKENS)
    return generate(predictor.model, soft, prompts, options, eos_id=predictor.tokenizer.eos_id, loc=predictor.tokenizer.loc)


@torch.inference_mode()
def _cache(predictor: Predictor) -> str:
    """Log-probability of an answer written step by step, against one pass over the whole of it."""
    model, soft, prompt = predictor.model, _soft(predictor), _prompts(predictor)[0]
    (answer,) = _answers(predictor, soft, [prompt])
    tokens = [*answer.ids, *([predictor.tokenizer.eos_id] if answer.stop == "eos" else [])]
    again = _score(model, soft, prompt, tokens) / len(tokens)
    apart = abs(answer.logprob / len(tokens) - again)
    return _demand(apart <= 5 * _tolerance(model), f"{len(tokens)} tokens; log-probability a token {again:.3f}, {apart:.1e} apart")


def _score(model: PaliGemma, soft: Tensor, prompt: list[int], tokens: list[int]) -> float:
    """Summed log-probability of `tokens` after `prompt`, in one pass."""
    ids = torch.tensor([prompt + tokens], device=model.device)
    mask_ar = torch.tensor([[0] * len(prompt) + [1] * len(tokens)], device=model.device)
    logprobs = model(soft, ids, mask_ar)[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    return float(logprobs.gather(1, torch.tensor(tokens, device=model.device)[:, None]).sum())


@torch.inference_mode()
def _batch(predictor: Predictor) -> str:
    """Two prompts of unequal length together, against each alone: the same first choice, and almost the same belief in it."""
    soft, prompts = _soft(predictor), _prompts(predictor)
    first = Options(max_tokens=1)
    together = _answers(predictor, soft, prompts, first)
    alone = [_answers(predictor, soft, [prompt], first)[0] for prompt in prompts]
    apart = max(abs(a.logprob - b.logprob) for a, b in zip(together, alone, strict=True))
    return _demand(
        apart <= 5 * _tolerance(predictor.model), f"prompts of {len(prompts[0])} and {len(prompts[1])} tokens, {apart:.1e} apart"
    )


@torch.inference_mode()
def _finite(predictor: Predictor) -> str:
    values = stages(predictor)
    for name, value in values.items():
        _demand(bool(value.isfinite().all()), f"{name}: NaN or infinity in {str(predictor.model.dtype).removeprefix('torch.')}")
    logits = values["logits"]
    return _demand(float(logits.std()) > 1e-4, f"{len(values)} stages; logits from {float(logits.min()):.1f} to {float(logits.max()):.1f}")


# Stored outputs


@torch.inference_mode()
def stages(predictor: Predictor) -> dict[str, Tensor]:
    """What the model makes of one picture and prompt, from the pixels to the logits, in the order of computation."""
    model, tokenizer = predictor.model, predictor.tokenizer
    pixels = torch.from_numpy(to_pixels(golden_picture(48, 36), model.config.vision.image_size, model.config.resize))[None]
    pixels = pixels.to(model.device)
    ids = torch.tensor([prompt_ids(tokenizer, PROMPTS[0])], device=model.device)
    values: dict[str, Tensor] = {"prompt ids": ids[0], "pixels": pixels[0].flatten()[:: max(1, pixels.numel() // 256)]}
    values["image tower"] = model.vision(pixels.to(model.dtype))[0, :STORED_TOKENS]
    soft = model.encode_image(pixels)
    values["projector"] = soft[0, :STORED_TOKENS]
    values["text embedding"] = model.text.embed_tokens(ids)[0, :STORED_TOKENS]
    hooks = [block.register_forward_hook(_keep_last(values, f"decoder layer {layer}")) for layer, block in enumerate(model.text.blocks)]
    try:
        hidden = model.prefill(soft, ids, None, model.new_cache(1, soft.shape[1] + ids.shape[1]))
    finally:
        for hook in hooks:
            hook.remove()
    values["final norm"] = hidden[0]
    values["logits"] = model.logits(hidden)[0]
    return values


def _keep_last(values: dict[str, Tensor], name: str) -> Callable[[torch.nn.Module, Any, Tensor], None]:
    """A hook that keeps what a module makes of the last token."""

    def hook(_: torch.nn.Module, __: Any, output: Tensor) -> None:
        values[name] = output[0, -1]

    return hook


def write_reference(predictor: Predictor) -> Path:
    """Store the outputs of every stage and a greedy answer, computed in float32, in the model's folder. Returns the file."""
    if predictor.path is None or not predictor.path.is_dir():
        raise CheckpointError("reference outputs belong into a model's folder, and this model was not loaded from one")
    exact = PaliGemma(predictor.model.config)
    exact.load_state_dict({name: tensor.float() for name, tensor in predictor.model.state_dict().items()})
    reference = Predictor(exact, predictor.tokenizer)
    soft = reference.encode(golden_picture(48, 36)).soft
    (answer,) = _answers(reference, soft, [prompt_ids(reference.tokenizer, PROMPTS[0])], Options(max_tokens=32))
    stored = {
        "stages": {name: [float(f"{value:.6g}") for value in tensor.flatten().tolist()] for name, tensor in stages(reference).items()},
        "answer": {"ids": answer.ids, "logprob": answer.logprob, "stop": answer.stop},
    }
    path = predictor.path / REFERENCE
    path.write_text(json.dumps(stored) + "\n")
    return path


def _reference(predictor: Predictor) -> str:
    path = None if predictor.path is None else predictor.path / REFERENCE
    if path is None or not path.is_file():
        return ""
    stored = json.loads(path.read_text())
    limit = _tolerance(predictor.model)
    worst = 0.0
    for name, value in stages(predictor).items():
        expected = torch.tensor(stored["stages"][name])
        found = value.flatten().float().cpu()
        apart = _apart(found, expected) if found.shape == expected.shape else math.inf
        worst = max(worst, apart)
        _demand(apart <= limit, f"{name} is the first stage that differs: {apart:.1%} from the stored values", _STAGE_ADVICE.get(name, ""))
    tokens = [*stored["answer"]["ids"], *([predictor.tokenizer.eos_id] if stored["answer"]["stop"] == "eos" else [])]
    soft = predictor.encode(golden_picture(48, 36)).soft
    with torch.inference_mode():
        score = _score(predictor.model, soft, prompt_ids(predictor.tokenizer, PROMPTS[0]), tokens)
    apart = abs(score - stored["answer"]["logprob"]) / len(tokens)
    return _demand(apart <= 5 * limit, f"{len(stored['stages'])} stages at most {worst:.1e} apart; stored answer {apart:.1e} a token")


_STAGE_ADVICE = {
    "prompt ids": "the tokenizer is not the one the model came with",
    "pixels": "pictures are resized differently here: check the version of Pillow",
    "image tower": "the image tower's weights or its attention differ: verify the files, try another device or dtype",
    "projector": "the projector's weights differ: verify the files",
    "text embedding": "the embedding table or its scale differs: verify the files",
}
_COMPUTE = "this device computes wrongly in this number type: try device='cpu' or dtype='float32', and update torch"
_CHECKS: tuple[tuple[str, Callable[[Predictor], str], str], ...] = (
    ("tokenizer", _tokenizer, "use the tokenizer files that came with the checkpoint"),
    ("resize", _resize, "Pillow resizes differently here: install the version in constraints.txt"),
    ("image tower", _image_tower, "the image tower's weights are damaged, or another model's: fetch the checkpoint again"),
    ("embedding scale", _embedding, "the model code was changed: text embeddings, and only those, are scaled"),
    ("prefix mask", _mask, "attention ignores its mask here: update torch, or try another device"),
    ("cache", _cache, _COMPUTE),
    ("batch", _batch, _COMPUTE),
    ("finite numbers", _finite, "use dtype='bfloat16' or 'float32': float16 overflows in Gemma 2"),
    ("stored outputs", _reference, _COMPUTE),
)
