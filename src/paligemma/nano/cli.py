"""`paligemma nano ...`: draw the small world, train a bundled model from nothing, measure it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

app = App(name="nano", help="The small bundled model: draw its world, train it, measure it.", help_format="plaintext")


@app.command
def scenes(out: Path, *, count: int = 12, seed: int = 1, split: str = "test") -> None:
    """Draw scenes of the small world as PNG files, with their truth in `scenes.jsonl`.

    Parameters
    ----------
    out
        Folder to write to.
    count
        How many scenes.
    seed
        Another seed gives other scenes.
    split
        "test" for scenes that training never drew, or "train".
    """
    from ..errors import UsageError
    from .scenes import write_scenes

    if count < 1:
        raise UsageError(f"--count must be at least 1, got {count}")
    print(write_scenes(out, count=count, seed=seed, split=split))


@app.command
def demo(out: Path, *, seed: int = 7, model: Path | None = None) -> None:
    """Draw the pictures of `paligemma demo` and write down what is asked about them, in `demo.json`.

    Parameters
    ----------
    out
        Folder to write to.
    seed
        Another seed gives other scenes.
    model
        Take only scenes that this model answers without a mistake, and say how many were passed over.
    """
    from ..predictor import load
    from .scenes import write_demo

    print(write_demo(out, seed=seed, model=None if model is None else load(model)))


@app.command
def train(
    *,
    recipe: str = "nano-112",
    out: Path | None = None,
    samples: int | None = None,
    compiled: Annotated[bool, Parameter(name="--compile", negative="--no-compile")] = True,
) -> None:
    """Train a model from nothing, measure it and write its card. A stopped run continues where it was.

    Parameters
    ----------
    recipe
        A recipe by name; `debug` is done in a minute, most of it compiling, and learns nothing.
    out
        Run folder; `runs/RECIPE` by default.
    samples
        Fresh samples per task for the measurement, by default as the recipe says; 0 skips it.
    compiled
        Compile the training step (needs a C++ compiler; half again as fast).
    """
    from ..errors import UsageError
    from .publish import finish
    from .recipes import recipe as named
    from .train import train as run_training

    chosen = named(recipe)
    if samples is None:
        samples = chosen.samples
    if samples < 0:
        raise UsageError(f"--samples is how many a task, or 0 for no measurement; got {samples}")
    run = out or Path("runs") / chosen.name
    model = run_training(chosen, run, compiled=compiled)
    finish(model, run, samples=samples)
    print(f"paligemma demo --model {model}")


@app.command
def evaluate(*, model: Path | None = None, samples: int | None = None, seed: int = 1, out: Path | None = None) -> None:
    """Measure a model on fresh scenes: every task, with intervals and blind baselines.

    Parameters
    ----------
    model
        A model folder; the bundled model by default.
    samples
        Samples per task, by default as many as the bundled model's card is about.
    seed
        Another seed gives other scenes.
    out
        Also write the scores to this JSON file.
    """
    from ..predictor import load
    from .evaluate import Examination, write_scores
    from .recipes import NANO_112

    count = NANO_112.samples if samples is None else samples
    scores = Examination(load(model), count, seed).run()
    if out is not None:
        write_scores(scores, out)
