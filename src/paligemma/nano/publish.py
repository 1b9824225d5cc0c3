"""A trained model -> a folder fit to ship: measured, its box scores calibrated, with a card and reference outputs for `doctor`."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any

from .. import doctor
from ..predictor import load
from .beginning import CODEC, origin
from .evaluate import Examination, write_scores
from .metrics import Score
from .names import LANGUAGES, things
from .recipes import NANO_112

TARGETS = {
    "detection AP50": 0.95, "detection AP75": 0.85, "class set exact": 0.95, "counting exact": 0.95,
    "colour, relation and yes-no questions": 0.93, "caption exact en": 0.88,
    **{f"caption exact {lang}": 0.82 for lang in LANGUAGES if lang != "en"},
    "referring segmentation mIoU": 0.75, "mask codec ceiling mIoU": 0.90,
    "reading, characters right": 0.95, "reading, exact": 0.85,
}  # fmt: skip
"""What we set out to reach with the CPU recipe (at most 2.5 hours on 2 cores)."""
MAX_CALIBRATION_ERROR = 0.05


def finish(model: Path, run: Path, *, samples: int) -> None:
    """Write the reference outputs of the exported model and, if there are `samples`, measure it first: `scores.json`, `calibration.json`
    (fitted on half of them) and the card."""
    recipe = json.loads((run / "recipe.json").read_text())
    if samples:
        scores = Examination(load(model), samples).run()
        (model / "calibration.json").write_text(json.dumps(scores["calibration"], indent=2) + "\n")
        write_scores(scores, model / "scores.json")
        (model / "README.md").write_text(card(recipe, scores, _log(run), origin(run)), encoding="utf-8")
    doctor.write_reference(load(model))


def ship(model: Path, place: Path) -> Path:
    """Copy a finished model's folder; returns `place`. A mask codec that lies beside that place already is not copied once more."""
    shutil.copytree(model, place, dirs_exist_ok=True)
    own, shared = place / CODEC, place.parent / CODEC
    if own.is_file() and shared.is_file() and filecmp.cmp(own, shared, shallow=False):
        own.unlink()
    return place


def _log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


CURVE = {
    "thing_accuracy": "things", "letter_accuracy": "letters", "edges": "edges, loss",
    "short_right": "short texts", "long_right": "long texts",
}  # fmt: skip
"""What of a log entry the card shows, and how it calls it there."""
ROWS_PER_PHASE = 5


def curve(log: list[dict[str, Any]]) -> str:
    """A table of means over equal parts of every phase, on the training batches, no two of which show the same picture."""
    rows = [f"| phase | steps | minutes | {' | '.join(CURVE.values())} |", "|---" * (3 + len(CURVE)) + "|"]
    for phase in sorted({entry["phase"] for entry in log}):
        entries = [entry for entry in log if entry["phase"] == phase]
        size = -(-len(entries) // ROWS_PER_PHASE)
        for start in range(0, len(entries), size):
            part = entries[start : start + size]
            means = [[entry[name] for entry in part if name in entry] for name in CURVE]
            cells = [f"{sum(values) / len(values):.3f}" if values else "" for values in means]
            rows.append(f"| {phase} | {part[-1]['step']} | {part[-1]['seconds'] / 60:.0f} | {' | '.join(cells)} |")
    return "\n".join(rows)


def pictures(recipe: dict[str, Any], log: list[dict[str, Any]]) -> int:
    """How many the run saw: a run that began at a later phase has no entries of those before."""
    last = {entry["phase"]: entry["step"] for entry in log}
    return sum(steps * recipe["phases"][phase]["batch"] for phase, steps in last.items())


def card(recipe: dict[str, Any], scores: dict[str, Any], log: list[dict[str, Any]], origin: str = "") -> str:
    """The model card: what it is, what it is not, what it was trained on, how it learnt, what was measured. `origin`: the model whose
    weights it began with."""
    targets = TARGETS if recipe["name"] == NANO_112.name else {}
    rows = "\n".join(_row(name, score, targets) for name, score in scores.items() if isinstance(score, Score))
    sides = any(phase["mix"]["side"] for phase in recipe["phases"])
    beginning = "random weights" if origin in ("", recipe["name"]) else f"the weights of `{origin}`"
    before, after = scores["box score ECE before fitting"], scores["box score ECE after fitting"]
    images = pictures(recipe, log)
    vision = recipe["vision"]
    return f"""---
license: apache-2.0
library_name: paligemma
---
# {recipe["name"]}

A very small PaliGemma (image tower {vision["width"]} wide and {vision["depth"]} deep,
decoder {recipe["text_width"]} wide and {recipe["text_depth"]} deep, {vision["image_size"]} x {vision["image_size"]} pixels),
trained from {beginning}. It has the architecture, code path and file formats of the published
models, so that everything runs on a fresh machine without a download.

**It knows only its small drawn world.** {len(things())} kinds of emoji, one to four of them on a drawn
background, or one to three printed words. Shown a photograph, it answers nonsense with confidence.
For photographs use a published checkpoint.

## What it was trained on

Scenes drawn by `paligemma.nano` (recipe `{recipe["name"]}`, seed {recipe["seed"]}): pictures composed from OpenMoji
(CC BY-SA 4.0) and words set in Roboto, Caladea, Fredoka One, Source Sans Pro and Source Serif Pro;
names in {len(LANGUAGES)} languages from Unicode CLDR. {images:,} pictures, {log[-1]["seconds"] / 60:.0f} minutes on 2 CPU cores
after a few for the mask codec.
Prompts: `caption {{{"|".join(LANGUAGES)}}}`, `answer en ...` (counting things and words, colour,
relation, {"side, place, " if sides else ""}yes-no, first word), `detect`, `segment`, `ocr`, `caption <box>`.

## Measured

Fresh scenes that training never drew: other backgrounds, other sprite warps, and for printed words
other dictionary words. The same weights for every task. Interval: 95 % bootstrap.
Baseline: without a look at the picture, always the most frequent answer; for class sets, each asked
class once; for masks, a square in the middle. Command: `paligemma nano evaluate`.

| task | score | interval | samples | baseline | target |
|---|---|---|---|---|---|
{rows}

Box scores, expected calibration error: {before:.3f} raw, {after:.3f} after fitting (measured on the
half that was not fitted; target {MAX_CALIBRATION_ERROR}).

## How it learnt

On the training batches, no two of which show the same picture: shares of right patches (things, letters)
and of right tokens (texts; locations count to the bin of 1024), and the loss of box edges. Phases: `nano/recipes.py`.

{curve(log)}
"""


def _row(name: str, score: Score, targets: dict[str, float]) -> str:
    target = f"{targets[name]:.2f}" if name in targets else ""
    if target and score.value < targets[name]:
        target += " (missed)"
    return f"| {name} | {score.value:.3f} | {score.low:.3f} to {score.high:.3f} | {score.count} | {score.baseline:.3f} | {target} |"
