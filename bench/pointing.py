"""`python -m bench.pointing`: whether the hottest patch of a heat map lies in the thing that a token is about, by ways to make heat maps.

Scenes of the small world that training never drew, with things that are one of a kind in their scene. Asked are "detect red heart"
(all tokens of the object), captions (the tokens of a name in them) and "what color is the heart?" (the answer). Only right answers
count: a map of a wrong one has no truth. What `--explain` shows is "attention, smoothed". Baselines: the picture's centre, and how
much of it the thing's box covers, which is what a random point hits.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import paligemma
from paligemma.engine.looking import looks, smoothed
from paligemma.model.paligemma import PaliGemma
from paligemma.nano.evaluate import picture
from paligemma.nano.lessons import Teacher, label
from paligemma.nano.metrics import Score, mean_score
from paligemma.nano.names import things
from paligemma.nano.world import SIZE, Placed, Scene, Split, World
from paligemma.predictor import Predictor
from paligemma.sequence import prompt_ids
from paligemma.tasks import detect

from .__main__ import say

TASKS = ("detect", "caption", "colour")


@dataclass(frozen=True)
class Answer:
    """What a model wrote about a thing: all ids, and which of them (`start` to `stop`) are about it."""

    soft: Tensor
    prompt: list[int]
    ids: list[int]
    start: int
    stop: int
    spot: Placed


Way = Callable[[PaliGemma, Answer], np.ndarray]
"""-> a number for each image token, (P,)."""


def attention(model: PaliGemma, answer: Answer) -> np.ndarray:
    """What the library does, before it smooths."""
    return looks(model, answer.soft, answer.prompt, answer.ids)[answer.start : answer.stop].mean(0)


def gradient(model: PaliGemma, answer: Answer) -> np.ndarray:
    """Length of the gradient of the tokens' log-odds with respect to each image token."""
    soft = answer.soft.clone().requires_grad_()
    told = _logprobs(model, soft, answer)
    # A token that is certain has no gradient of its probability, but one of its odds.
    odds = told - torch.log1p(-told.exp().clamp(max=1 - 1e-6))
    return torch.autograd.grad(odds.sum(), soft)[0][0].norm(dim=-1).numpy()


def occlusion(model: PaliGemma, answer: Answer) -> np.ndarray:
    """How much less probable the tokens become where an image token is replaced by the mean of all."""
    count = answer.soft.shape[1]
    many = answer.soft.repeat(count, 1, 1)
    many[range(count), range(count)] = answer.soft.mean(1)
    with torch.inference_mode():
        return -_logprobs(model, many, answer).sum(-1).numpy()


def _logprobs(model: PaliGemma, soft: Tensor, answer: Answer) -> Tensor:
    """Of the tokens about the thing, (B, stop - start)."""
    ids = torch.tensor([answer.prompt + answer.ids]).expand(len(soft), -1)
    after = torch.tensor([[0] * len(answer.prompt) + [1] * len(answer.ids)]).expand(len(soft), -1)
    first = len(answer.prompt) - 1
    hidden = model.hidden_states(soft, ids, after)[:, first + answer.start : first + answer.stop]
    told = torch.tensor(answer.ids[answer.start : answer.stop]).expand(len(soft), -1)
    return model.logits(hidden).log_softmax(-1).gather(-1, told[..., None])[..., 0]


WAYS: dict[str, Way] = {"attention": attention, "gradient": gradient, "occlusion": occlusion}


def answers(predictor: Predictor, task: str, scene: Scene, index: int) -> Answer | None:
    """What the model says about thing `index` of a scene; None where it says something else, or cannot be asked."""
    spot, seen = scene.objects[index], predictor.encode(picture(scene))
    name, noun, colour = label(spot), things()[spot.thing].noun, things()[spot.thing].colour
    tokenizer = predictor.tokenizer
    if task == "detect":
        found = predictor.detect(seen, [name])
        ids, prompt = tokenizer.encode(found.text), found.prompt
        objects = detect.parse_ids(ids, tokenizer).objects
        span = (objects[0].start, objects[0].end) if len(objects) == 1 else None
    elif task == "caption":
        text = predictor.caption(seen)
        ids, prompt = tokenizer.encode(text.text), text.prompt
        right = text.text == Teacher().caption(scene, "en").suffix
        span = _of(ids, tokenizer.encode(name), tokenizer.encode(f" {name}")) if right else None
    else:
        if colour is None or sum(things()[other.thing].noun == noun for other in scene.objects) > 1:
            return None
        text = predictor.ask(seen, f"what color is the {noun}?")
        ids, prompt = tokenizer.encode(text.text), text.prompt
        span = (0, len(ids)) if text.text == colour else None
    if span is None:
        return None
    return Answer(seen.soft.clone(), prompt_ids(tokenizer, prompt), ids, *span, spot)


def _of(ids: list[int], *spellings: list[int]) -> tuple[int, int] | None:
    """Where one of the spellings stands in `ids`."""
    for wanted in spellings:
        for start in range(len(ids) - len(wanted) + 1):
            if ids[start : start + len(wanted)] == wanted:
                return start, start + len(wanted)
    return None


def samples(predictor: Predictor, task: str, count: int, seed: int) -> Iterator[Answer]:
    """One of each scene at most. Gives up after fifty scenes a sample."""
    world, rng = World(Split.TEST, seed=seed, side=max(SIZE, predictor.config.vision.image_size)), np.random.default_rng(seed)
    found = 0
    for number in range(50 * count):
        scene = world.scene(number)
        names = [label(spot) for spot in scene.objects]
        alone = [index for index, name in enumerate(names) if names.count(name) == 1]
        answer = answers(predictor, task, scene, alone[int(rng.integers(len(alone)))]) if alone else None
        if answer is not None:
            yield answer
            found += 1
        if found == count:
            return


def hit(heat: np.ndarray, spot: Placed) -> bool:
    """heat (rows, columns): whether the centre of the hottest patch lies in the thing's box."""
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return inside((column + 0.5) / heat.shape[1], (row + 0.5) / heat.shape[0], spot)


def inside(x: float, y: float, spot: Placed) -> bool:
    return spot.x0 <= x * spot.side <= spot.x1 and spot.y0 <= y * spot.side <= spot.y1


def measure(predictor: Predictor, count: int, seed: int) -> dict[str, dict[str, Score]]:
    """Way -> task -> share of hits, in order of the ways; baselines come first."""
    found: dict[str, dict[str, Score]] = {}
    side = predictor.config.vision.grid
    for task in TASKS:
        say(task)
        asked = list(samples(predictor, task, count, seed))
        # What a random point hits, exactly.
        area = [(one.spot.x1 - one.spot.x0) * (one.spot.y1 - one.spot.y0) / one.spot.side**2 for one in asked]
        chance = float(np.mean(area))
        hits: dict[str, list[float]] = {"random point": area, "centre": [inside(0.5, 0.5, one.spot) for one in asked]}
        for name, way in WAYS.items():
            maps = [way(predictor.model, one).reshape(side, side) for one in asked]
            hits[name] = [hit(heat, one.spot) for heat, one in zip(maps, asked, strict=True)]
            hits[f"{name}, smoothed"] = [hit(smoothed(heat), one.spot) for heat, one in zip(maps, asked, strict=True)]
        for name, values in hits.items():
            found.setdefault(name, {})[task] = mean_score(values, chance)
    return found


def table(found: dict[str, dict[str, Score]]) -> str:
    """Markdown: share of hits, with its 95 % interval."""
    lines = ["| | " + " | ".join(f"{task} (n={score.count})" for task, score in found["centre"].items()) + " |"]
    lines += ["|---" * (len(TASKS) + 1) + "|"]
    for name, scores in found.items():
        cells = [f"{s.value:.3f} ({s.low:.3f} to {s.high:.3f})" for s in scores.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.pointing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="bundled", help="of the bundled family (default: the one used when none is named)")
    parser.add_argument("--samples", type=int, default=200, help="of each task (default 200)")
    parser.add_argument("--seed", type=int, default=90211)
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    options = parser.parse_args()
    found = measure(paligemma.load(options.model, device="cpu", dtype="float32"), options.samples, options.seed)
    print(table(found))
    if options.json is not None:
        plain = {name: {task: asdict(score) for task, score in scores.items()} for name, scores in found.items()}
        options.json.write_text(json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    main()
