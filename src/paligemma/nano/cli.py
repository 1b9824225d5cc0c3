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
def data(out: Path, *, format: str = "coco", count: int = 400, held_out: int = 200, seed: int = 1) -> None:
    """Draw a data set to fine-tune on, of what the bundled model has not learnt. Prints how to go on.

    Parameters
    ----------
    out
        Folder to write to, new or empty.
    format
        "coco", "yolo", "voc" and "labelme" have boxes and outlines named after kinds of things, "vqa" new questions, "jsonl" lists.
    count
        How many scenes to train on.
    held_out
        How many scenes of another stream to measure on; a quarter as many are to choose the best checkpoint by.
    seed
        Another seed gives other scenes.
    """
    from .datasets import next_steps, write_data

    print("\n".join(next_steps(write_data(out, format=format, count=count, held_out=held_out, seed=seed), format)))


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
    start: Path | None = None,
    phase: int | None = None,
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
    start
        Begin with the weights of this model folder, not with random ones. A run that was stopped remembers it.
    phase
        The first phase of a run with `start`, 0 where left out; the recipe's phases count from 0.
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
    model = run_training(chosen, run, start=start, phase=phase, compiled=compiled)
    finish(model, run, samples=samples)
    print(f"paligemma demo --model {model}")


@app.command
def evaluate(*, model: Path | None = None, samples: int | None = None, seed: int = 1, out: Path | None = None) -> None:
    """Measure a model on fresh scenes: every task, with intervals and blind baselines.

    Parameters
    ----------
    model
        A model folder or the name of a bundled one; by default the one that is used when none is named.
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


@app.command
def examples(kind: str, out: Path, *, split: str = "train", count: int = 1800, seed: int = 0) -> None:
    """Draw examples of a task that the bundled mix has not learnt, for `paligemma train` and `paligemma eval`.

    Parameters
    ----------
    kind
        "refer": a sentence that means one thing, and its mask. "video": four frames, and what happens in them.
    out
        Folder to write to; it may hold other splits already.
    split
        "train", "valid" or "test"; no two of them share a picture.
    count
        How many examples.
    seed
        Another seed gives other examples.
    """
    from .examples import write_examples

    print(write_examples(kind, out, split=split, count=count, seed=seed))


@app.command
def family(name: str, *, out: Path | None = None, base: str = "bundled", into: Path | None = None) -> None:
    """Make a transfer of the bundled family: draw its data, teach it and the same from random weights, measure both, write the card.

    A run that was stopped goes on with the same command.

    Parameters
    ----------
    name
        nano-ft-refer or nano-ft-video.
    out
        Run folder; `runs/NAME` by default.
    base
        The model to start from.
    into
        Also copy the finished model to this folder, under its name.
    """
    from ..errors import UsageError
    from .family import make, member_named
    from .publish import ship

    member = member_named(name)
    if into is not None and into.exists() and not into.is_dir():
        raise UsageError(f"--into names a folder, {into} is none")
    model = make(member, out or Path("runs") / name, base=base)
    if into is not None:
        model = ship(model, into / name)
    print(f"{member.command} --model {model}")


@app.command
def publish(run: Path, *, samples: int | None = None) -> None:
    """Measure the finished model of a run, again or for the first time, and write its card.

    Parameters
    ----------
    run
        Run folder of `paligemma nano train`.
    samples
        Fresh samples per task, by default as the recipe says.
    """
    import json

    from ..errors import InputError
    from .publish import finish
    from .recipes import recipe

    model = run / "model"
    if not (model / "config.json").exists():
        raise InputError(f"{run} holds no finished model", hint="paligemma nano train makes one", code="not_found")
    name = str(json.loads((run / "recipe.json").read_text())["name"])
    finish(model, run, samples=recipe(name).samples if samples is None else samples)
    print(f"paligemma demo --model {model}")


@app.command(name="train-search")
def train_search(
    *,
    recipe: str = "nano-siglip",
    out: Path | None = None,
    scenes: int | None = None,
    compiled: Annotated[bool, Parameter(name="--compile", negative="--no-compile")] = True,
    into: Path | None = None,
) -> None:
    """Train the encoder that searches the small world, measure it and write its card. A stopped run continues where it was.

    Parameters
    ----------
    recipe
        A recipe by name; `debug` is done in a minute and learns nothing.
    out
        Run folder; `runs/RECIPE` by default.
    scenes
        Scenes with distinct captions for the measurement, by default as the recipe says; 0 skips it.
    compiled
        Compile the training step (needs a C++ compiler; faster).
    into
        Also copy the finished encoder to this folder, under its name.
    """
    from ..errors import UsageError
    from .publish import ship
    from .search_publish import finish
    from .search_recipes import search_recipe
    from .search_train import train as run_training

    chosen = search_recipe(recipe)
    count = chosen.scenes if scenes is None else scenes
    if count < 0:
        raise UsageError(f"--scenes is how many to search in, or 0 for no measurement; got {count}")
    if into is not None and into.exists() and not into.is_dir():
        raise UsageError(f"--into names a folder, {into} is none")
    run = out or Path("runs") / chosen.name
    model = run_training(chosen, run, compiled=compiled)
    finish(model, run, chosen, scenes=count)
    if into is not None:
        model = ship(model, into / chosen.name)
    print(f"paligemma info {model}")


@app.command(name="evaluate-search")
def evaluate_search(*, model: Path | None = None, scenes: int = 1000, seed: int = 1, out: Path | None = None) -> None:
    """Measure an encoder on fresh scenes: text to picture, picture to text, picture to the same scene drawn once more.

    Parameters
    ----------
    model
        A folder of a SigLIP; by default the bundled one.
    scenes
        How many candidates, no two with the same caption.
    seed
        Another seed gives other scenes.
    out
        Also write the scores to this JSON file.
    """
    import json

    from ..embedding import load_encoder
    from ..errors import UsageError
    from .search_measure import measure

    if scenes < 1:
        raise UsageError(f"--scenes must be at least 1, got {scenes}")
    found = measure(load_encoder(model), scenes, seed)
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")
