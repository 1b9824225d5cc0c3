"""The transfers of the bundled family: drawn data, a base taught on them, the same from random weights, both measured, a card.

run/  data/                      train, valid and test, as `examples.py` writes them
      random/                    a model of the base's shape that has learnt nothing
      taught/  taught-random/    runs of `paligemma train`, which go on where they were stopped
      measured/                  before, after, random: predictions, scores and a page each
      model/                     what is shipped: weights, card, curve, scores, reference outputs
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import doctor
from ..checkpoint import save_codec, save_huggingface
from ..checkpoint.finding import find
from ..data.augment import Augment
from ..data.opening import open_data
from ..errors import UsageError, did_you_mean
from ..evaluation.evaluate import evaluate
from ..evaluation.scores import Scores
from ..predictor import load
from ..predictor.loading import read
from ..training.loop import LOG, read_log
from ..training.recipes import Recipe
from ..training.recipes import recipe as training_recipe
from ..training.run import Run, Setup, fingerprint
from .beginning import name_of
from .compared import draw_compared
from .examples import write_examples
from .films import FRAMES
from .train import new_model

Counts = Mapping[str, int]
COUNTS: Counts = {"train": 1800, "valid": 180, "test": 500}
"""Examples of each split. Learning and choosing the best checkpoint together take fewer than 2,000."""
LOOKS = 20
"""Times a run looks at the held-out examples: the points of the curve."""
CURVE = "curve.png"


@dataclass(frozen=True)
class Member:
    """One transfer. `data`: a kind of `examples.EXAMPLES`; `metrics`: it is judged by the first; `prompt`, `answer` and `command` are
    for its card."""

    name: str
    data: str
    about: str
    prompt: str
    answer: str
    command: str
    metrics: tuple[str, ...]
    steps: int
    batch: int
    learning_rate: float
    text_len: int
    max_tokens: int
    frames: int = 1
    augment: Augment = Augment()  # noqa: RUF009 - frozen

    def recipe(self) -> Recipe:
        """As `paligemma train` takes it: all of the model learns."""
        return dataclasses.replace(
            training_recipe("simple"), name=self.name, about=self.about, steps=self.steps, epochs=0.0, batch=self.batch, frames=self.frames,
            learning_rate=self.learning_rate, text_len=self.text_len, max_tokens=self.max_tokens, metric=self.metrics[0],
        )  # fmt: skip


MEMBERS: dict[str, Member] = {
    member.name: member
    for member in (
        Member(
            name="nano-ft-refer", data="refer", about="outline what a sentence means: by place, size or neighbour",
            prompt="the leftmost thing", answer="a box and a mask of that one thing", command='paligemma refer PICTURE "the largest thing"',
            metrics=("refer",), steps=800, batch=32, learning_rate=4e-4, text_len=40, max_tokens=24,
            augment=Augment(flip=0.5, colour=0.3),  # without them masks are learnt by heart
        ),
        Member(
            name="nano-ft-video", data="video", about=f"say what happens in a film of {FRAMES} frames",
            prompt="caption en", answer='"a cat moves to the left", "an owl appears", "nothing happens"',
            command="paligemma caption 1.png 2.png 3.png 4.png --together", metrics=("exact", "cider"), steps=600, batch=16,
            learning_rate=5e-4, text_len=24, max_tokens=24, frames=FRAMES,
        ),
    )
}  # fmt: skip


def member_named(name: str) -> Member:
    """The member of that name; an unknown name raises `UsageError` with the closest one."""
    if name in MEMBERS:
        return MEMBERS[name]
    raise UsageError(f"no transfer is called {name!r}", hint=did_you_mean(name, MEMBERS, f"one of: {', '.join(MEMBERS)}"))


def make(member: Member, run: Path, *, base: str = "bundled", counts: Counts = COUNTS, tell: Callable[[str], None] = print) -> Path:
    """Everything that a member needs, in folder `run`; what is there already is not done again. Returns the folder of the finished model.

    Raises `UsageError` for a folder that holds another one's, and what training and measuring raise.
    """
    start = find(base)
    network = read(start, device="cpu").network
    taught_how = {"recipe": dataclasses.asdict(member.recipe()), "augment": dataclasses.asdict(member.augment)}
    _claim(run, taught_how | {"base": fingerprint(network), "examples": dict(counts)})
    for split, count in counts.items():
        if not (run / "data" / f"{split}.jsonl").exists():
            tell(f"drawing {count:,} examples: {write_examples(member.data, run / 'data', split=split, count=count)}")
    blank = random_twin(start, run / "random")
    taught = teach(member, start, run / "taught", run / "data", tell)
    random = teach(member, blank, run / "taught-random", run / "data", tell)
    models = {"before": start, "after": taught, "random": random}
    scores = {who: {name: measure(member, folder, run, who, name, tell) for name in member.metrics} for who, folder in models.items()}
    logs = {name: read_log(run / folder / LOG) for name, folder in (("transferred", "taught"), ("from random weights", "taught-random"))}
    return _finish(member, run, taught, scores, logs, counts, name_of(network.config, start))


def _claim(run: Path, facts: dict[str, Any]) -> None:
    """Write down what the folder is for, unless it is for something else."""
    path = run / "member.json"
    if run.exists() and not path.exists() and (not run.is_dir() or any(run.iterdir())):
        raise UsageError(f"{run} holds something else", hint="choose another run folder")
    facts = json.loads(json.dumps(facts))
    run.mkdir(parents=True, exist_ok=True)
    if path.exists() and (found := json.loads(path.read_text())) != facts:
        different = ", ".join(name for name, value in facts.items() if found.get(name) != value)
        raise UsageError(f"{run} was begun with another {different}", hint="choose another run folder")
    path.write_text(json.dumps(facts, indent=1) + "\n")


def random_twin(base: Path, folder: Path) -> Path:
    """A model of the same shape, tokenizer and mask codec as `base`, with the random weights that a training from nothing begins with."""
    if not (folder / "model.safetensors").exists():
        parts = read(base, device="cpu", dtype="float32")
        folder.mkdir(parents=True, exist_ok=True)
        parts.tokenizer.save(folder)
        if parts.codec is not None:
            save_codec(parts.codec, folder / "mask_codec.safetensors")
        save_huggingface(new_model(parts.network.config, seed=0), folder, dtype=parts.dtype)  # last: it says that all is there
    return folder


def teach(member: Member, model: Path, out: Path, data: Path, tell: Callable[[str], None]) -> Path:
    """One run of the training machinery. Returns the folder of the best model; raises `UsageError` where a signal ended the run early."""
    if (out / "best" / "README.md").exists():  # written last
        return out / "best"
    recipe = member.recipe()
    parts = read(model, dtype="float32", mapped=False)
    parts.network.config = dataclasses.replace(parts.network.config, name=member.name)
    train, valid = (open_data(data, split=split) for split in ("train", "valid"))

    def line(entry: dict[str, Any]) -> None:
        if "held_out_loss" in entry:
            tell(f"{out.name} step {entry['step']} of {recipe.steps}, held-out loss {entry['held_out_loss']:.4f}")

    setup = Setup(evaluate_every=max(recipe.steps // LOOKS, 1), augment=member.augment)
    model_folder = Run(recipe, parts, [train], out, base=str(model), held_out=valid, setup=setup, tell=line).go().model
    if model_folder is None:
        raise UsageError(f"{out}: training was stopped before its end", hint="the same command goes on")
    return model_folder


def measure(member: Member, model: Path, run: Path, who: str, metric: str, tell: Callable[[str], None]) -> Scores:
    """Scores on the test split; predictions are made once for all metrics."""
    data, out = open_data(run / "data", split="test"), run / "measured" / who
    scores = evaluate(load(model), data, metric=metric, out=out, max_tokens=member.max_tokens)
    tell(f"{who}: {scores.kind.title} {scores.kind.shown(scores.value)}")
    return scores


def _finish(
    member: Member, run: Path, taught: Path, scores: Mapping[str, Mapping[str, Scores]], logs: Mapping[str, list[dict[str, Any]]],
    counts: Counts, base: str,
) -> Path:  # fmt: skip
    folder = run / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(taught, folder)
    draw_compared(logs, folder / CURVE)
    plain = {who: {name: _plain(one) for name, one in found.items()} for who, found in scores.items()}
    (folder / "scores.json").write_text(json.dumps(plain, indent=1) + "\n")
    minutes = max((entry.get("seconds", 0.0) for entry in logs["transferred"]), default=0.0) / 60
    (folder / "README.md").write_text(card(member, scores, counts, base, minutes), encoding="utf-8")
    doctor.write_reference(load(folder))
    return folder


def _plain(scores: Scores) -> dict[str, Any]:
    kinds = {name: {"value": group.value, "count": group.count} for name, group in scores.groups.get("kind", {}).items()}
    return {"values": dict(scores.values), "interval": list(scores.interval), "count": scores.count, "kinds": kinds}


def card(member: Member, scores: Mapping[str, Mapping[str, Scores]], counts: Counts, base: str, minutes: float) -> str:
    """The model card: what it is, what it was taught, what was measured, against what."""
    recipe = member.recipe()
    rows = [_row(scores, name, key, title) for name in member.metrics for key, title in scores["after"][name].kind.keys.items()]
    kinds = [_kind_row(scores, member.metrics[0], kind) for kind in sorted(scores["after"][member.metrics[0]].groups.get("kind", {}))]
    table = "\n".join(row for row in rows + kinds if row)
    return f"""---
license: apache-2.0
library_name: paligemma
base_model: {base}
---
# {member.name}

A transfer of the bundled family: `{base}` taught one task, to {member.about}.
It knows nothing but the small drawn world, and answers this one kind of prompt; for the others use `{base}`.

- prompt: `{member.prompt}`
- answer: {member.answer}
- command: `{member.command} --model {member.name}`

## What it was taught

{counts["train"]:,} examples drawn by `paligemma nano examples {member.data}`, none of them twice, and {counts["valid"]:,} more that chose
the best of its checkpoints. {recipe.steps:,} updates of {recipe.batch} examples at a rate of {recipe.learning_rate:g} (Adam, cosine, all of
the model learns){_changes(member.augment)}, {minutes:.0f} minutes. Command: `paligemma nano family {member.name}`.

## Measured

{counts["test"]:,} examples of the world's test stream. Before: `{base}` asked the same. From random weights: the same
training of a model of the same shape, with the same tokenizer and mask codec, that had learnt nothing before. Hundredths; the interval is a
95 % bootstrap.

| | before | from random weights | this model | interval |
|---|---|---|---|---|
{table}

![the held-out examples while learning]({CURVE})
"""


def _changes(augment: Augment) -> str:
    """What was done to the pictures, in words."""
    words = {"crop": "cropped", "flip": "mirrored, words of a side too", "colour": "changed in colour", "jpeg": "compressed"}
    done = [f"{word} ({getattr(augment, name):g})" for name, word in words.items() if getattr(augment, name)]
    return f"; pictures {', '.join(done)}" if done else ""


def _row(scores: Mapping[str, Mapping[str, Scores]], metric: str, key: str, title: str) -> str:
    found = [scores[who][metric] for who in ("before", "random", "after")]
    if any(key not in one.values for one in found) or key in found[0].kind.counts:
        return ""
    shown = " | ".join(one.kind.shown(one.values[key], key) for one in found)
    low, high = found[-1].interval
    interval = f"{100 * low:.1f} to {100 * high:.1f}" if key == found[-1].kind.main else ""
    return f"| {title} | {shown} | {interval} |"


def _kind_row(scores: Mapping[str, Mapping[str, Scores]], metric: str, kind: str) -> str:
    found = [scores[who][metric] for who in ("before", "random", "after")]
    groups = [one.groups.get("kind", {}).get(kind) for one in found]
    cells = " | ".join("" if group is None else found[0].kind.shown(group.value) for group in groups)
    count = next((group.count for group in groups if group is not None), 0)
    return f"| {kind} ({count}) | {cells} | |"
