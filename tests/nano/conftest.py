"""A small world that is drawn once: a few scenes of either split, a tokenizer that knows its words, one whole run of training."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from paligemma.nano.batches import Batch, BatchMaker, Making
from paligemma.nano.lessons import Teacher
from paligemma.nano.names import things
from paligemma.nano.world import Scene, Split, World
from paligemma.tokenizer import Tokenizer

VIEWS = 2


@pytest.fixture(scope="session")
def train_world() -> World:
    return World(Split.TRAIN, bank_size=VIEWS, backgrounds=20, seed=3)


@pytest.fixture(scope="session")
def train_scenes(train_world) -> list[Scene]:
    return [train_world.scene(index) for index in range(300)]


@pytest.fixture(scope="session")
def test_world() -> World:
    return World(Split.TEST, seed=1)


@pytest.fixture(scope="session")
def test_scenes(test_world) -> list[Scene]:
    return [test_world.scene(index) for index in range(50)]


@pytest.fixture(scope="session")
def codes() -> np.ndarray:
    """As `bank_codes` makes them, but any: every view of every thing has its own."""
    return np.random.default_rng(0).integers(0, 128, (len(things()), VIEWS, 16))


@pytest.fixture(scope="session")
def teacher(codes) -> Teacher:
    return Teacher(codes)


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory) -> Path:
    """A tokenizer as training makes it, from fewer scenes."""
    from paligemma.nano import train
    from paligemma.nano.recipes import RECIPES
    from paligemma.tokenizer_training import train_tokenizer

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "CORPUS_SCENES", 400)
        path.write_bytes(train_tokenizer(train.corpus(RECIPES["debug"]), RECIPES["debug"].vocab_size))
    return path


@pytest.fixture(scope="session")
def nano_tokenizer(tokenizer_path) -> Tokenizer:
    return Tokenizer.load(tokenizer_path)


@pytest.fixture(scope="session")
def debug_run(tmp_path_factory, tokenizer_path) -> Path:
    """A finished run of the recipe `debug`, every step in its log. To be left as it is: see `finished_run`."""
    from paligemma.nano import phases, train
    from paligemma.nano.recipes import RECIPES
    from paligemma.nano.sprites import sprite_bank

    run = tmp_path_factory.mktemp("runs") / "debug"
    run.mkdir()
    shutil.copy(tokenizer_path, run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "LOG_EVERY", 1)
        patch.setattr(train, "sprite_bank", lambda seed, views: sprite_bank(seed, min(views, VIEWS)))  # to measure the codec on: fewer
        train.train(RECIPES["debug"], run, compiled=False, log=lambda line: None)
    return run


@pytest.fixture(scope="session")
def drawn_here() -> Callable[[Making, int], Iterator[Batch]]:
    """In place of `batches.stream`: the same batches without a child process."""
    makers: dict[str, BatchMaker] = {}

    def stream(making: Making, start: int) -> Iterator[Batch]:
        key = repr(making)
        if key not in makers:
            makers[key] = BatchMaker(making)
        return (makers[key](index) for index in itertools.count(start))

    return stream


@pytest.fixture
def finished_run(debug_run, tmp_path) -> Path:
    """A copy of `debug_run`, to do with as one likes."""
    return shutil.copytree(debug_run, tmp_path / "debug")
