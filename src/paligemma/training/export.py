"""What a run leaves to others: a folder that every loader of this package opens, with a card. An adapter's folder names its base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import save_codec, save_huggingface
from ..checkpoint.adapters import save_adapter
from ..data.records import DataSet
from ..predictor.loading import Parts
from ..printable import printable
from .recipes import Recipe, to_text


def export(parts: Parts, recipe: Recipe, folder: Path, card: str, *, base: str) -> Path:
    """Write the model as it is now: whole, in the number type of the file it came from, or as an adapter of `base`."""
    if recipe.adapts:
        save_adapter(parts.network, folder, base=base)
    else:
        save_huggingface(parts.network, folder, dtype=parts.dtype)
        parts.tokenizer.save(folder)
        if parts.codec is not None:
            save_codec(parts.codec, folder / "mask_codec.safetensors")
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def card(
    recipe: Recipe, data: Sequence[DataSet], held_out: DataSet | None, measures: Mapping[str, float],
    events: Sequence[Mapping[str, Any]], *,
    base: str, step: int, steps: int, measured: int,
) -> str:  # fmt: skip
    """The model card: from what, on what, how, what came out, what went wrong. `measured`: so many of the held-out records, the first."""
    sources = "\n".join(f"- {printable(str(d.path))}: {len(d):,} records ({d.format}, {d.task}), {len(d.faults):,} left out" for d in data)
    judged = "none"
    if held_out is not None:
        judged = f"{printable(str(held_out.path))} {held_out.split}".strip() + f", {len(held_out):,} records, "
        judged += "all of them measured" if measured == len(held_out) else f"the first {measured:,} of them measured"
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in measures.items()) or "| nothing was held out | |"
    happened = "\n".join(f"- step {event.get('step')}: {printable(str(event.get('message')))}" for event in events) or "Nothing."
    return f"""---
library_name: paligemma
base_model: {base}
---
# {printable(base)}, fine-tuned with the recipe {recipe.name}

Step {step:,} of {steps:,}. Trained from `{printable(base)}` by `paligemma train`.

## Data

{sources}

Held out: {judged}.

| held out | |
|---|---|
{rows}

## Recipe

```toml
{to_text(recipe)}```

## What went otherwise than planned

{happened}
"""
