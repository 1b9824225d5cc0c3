"""A trained encoder -> a folder fit to ship: measured, with its scores and a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..embedding import load_encoder
from .names import LANGUAGES, things
from .phases import LOG
from .search_measure import MAIN, Found, measure
from .search_recipes import SearchRecipe

TARGETS = {"recall@1": 0.85, "recall@5": 0.97, "median rank": 1.0}
"""What we set out to reach, among 1,000 scenes with distinct captions."""
ROWS = 12
"""Of the curve."""
CURVE = {"loss": "loss", "found": "texts that find their picture", "scale": "scale", "bias": "bias"}


def finish(model: Path, run: Path, recipe: SearchRecipe, *, scenes: int) -> None:
    """Measure the exported encoder on that many scenes: `scores.json` and the card. None of them: nothing is measured."""
    if not scenes:
        return
    found = measure(load_encoder(model, device="cpu"), scenes)
    (model / "scores.json").write_text(json.dumps(found, indent=1) + "\n")
    log = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    (model / "README.md").write_text(card(recipe, found, log), encoding="utf-8")


def curve(log: list[dict[str, Any]]) -> str:
    """A table of means over equal parts of the run, on the training batches, no two of which show the same picture."""
    rows = [f"| phase | steps | core-minutes | {' | '.join(CURVE.values())} |", "|---" * (3 + len(CURVE)) + "|"]
    for phase in sorted({entry["phase"] for entry in log}):
        entries = [entry for entry in log if entry["phase"] == phase]
        size = -(-len(entries) // (ROWS // 2))
        for start in range(0, len(entries), size):
            part = entries[start : start + size]
            cells = [f"{sum(entry[name] for entry in part) / len(part):.3f}" for name in CURVE]
            rows.append(f"| {phase} | {part[-1]['step']} | {part[-1]['seconds'] / 60:.0f} | {' | '.join(cells)} |")
    return "\n".join(rows)


def card(recipe: SearchRecipe, found: Found, log: list[dict[str, Any]]) -> str:
    """The card: what it is, what it is not, what it was trained on, how it learnt, what was measured."""
    last = {entry["phase"]: entry["step"] for entry in log}
    pictures = sum(steps * recipe.phases[phase].batch for phase, steps in last.items())
    rows = "\n".join(_row(name, scores, TARGETS if name == MAIN else {}) for name, scores in found.items())
    return f"""---
license: apache-2.0
library_name: paligemma
---
# {recipe.name}

A very small SigLIP: pictures and texts become vectors, and what belongs together is near. It has the architecture and file formats of
the published ones, so that `paligemma index` and `paligemma search` run on a fresh machine without a download.

**It knows only its small drawn world**, that of `{recipe.start}`: {len(things())} kinds of emoji, one to four of them on a drawn
background, and printed words. For photographs take a published one, such as `google/siglip2-base-patch16-224`.

## What it was trained on

Scenes drawn by `paligemma.nano` (recipe `{recipe.name}`, seed {recipe.seed}), each with two captions in languages out of
{len(LANGUAGES)} ({", ".join(LANGUAGES)}): what there is from left to right, "a cat, a cat and an owl", in English also "two cats and an
owl"; of printed words, the words. {pictures:,} pictures, {log[-1]["seconds"] / 60:.0f} minutes of one CPU core without drawing. The
image tower began as that of `{recipe.start}`, text tower and pooling head with random weights. The loss is SigLIP's; pictures of the same
content count as belonging to each other's texts. Emoji are OpenMoji's (CC BY-SA 4.0), names come from Unicode CLDR.
Command: `paligemma nano train-search`.

## Measured

Fresh scenes that training never drew: other backgrounds, other sprite warps, other printed words. No two of the candidates have the same
caption. Drawn once more: the same things at nearly the same places, everything else anew. Interval: of recall@1, 95 % bootstrap.
Command: `paligemma nano evaluate-search`.

| search | recall@1 | interval | recall@5 | recall@10 | median rank | candidates |
|---|---|---|---|---|---|---|
{rows}

Targets, in English: recall@1 {TARGETS["recall@1"]}, recall@5 {TARGETS["recall@5"]}, median rank {TARGETS["median rank"]:.0f}.

## How it learnt

On the training batches, no two of which show the same picture. Phase 0 leaves the image tower as it was.

{curve(log)}
"""


def _row(name: str, scores: Mapping[str, float], targets: Mapping[str, float]) -> str:
    cells = {}
    for key in ("recall@1", "recall@5", "recall@10", "median rank"):
        value = scores[key]
        missed = key in targets and (value > targets[key] if key == "median rank" else value < targets[key])
        cells[key] = (f"{value:.0f}" if key == "median rank" else f"{value:.3f}") + (" (target missed)" if missed else "")
    first, *rest = cells.values()
    return f"| {name} | {first} | {scores['low']:.3f} to {scores['high']:.3f} | {' | '.join(rest)} | {scores['candidates']:.0f} |"
