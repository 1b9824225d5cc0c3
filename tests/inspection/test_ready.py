"""What is looked at is what a run would look at: the same reader, from the same files, without the weights."""

import dataclasses

import pytest
import torch

from paligemma.checkpoint import save_codec, save_huggingface
from paligemma.data.augment import Augment
from paligemma.data.records import DataSet
from paligemma.errors import CheckpointError, UsageError
from paligemma.inspection.costs import TIMED, Memory, costs, measure
from paligemma.inspection.ready import ready
from paligemma.predictor.loading import read
from paligemma.training.fitting import fit, machine_of
from paligemma.training.recipes import recipe
from paligemma.training.run import Run

from ..annotations.world import picture
from ..tiny import random_codec, tiny_model, tiny_tokenizer
from .making import told


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = save_huggingface(tiny_model(), tmp_path_factory.mktemp("models") / "tiny")
    tiny_tokenizer().save(folder)
    save_codec(random_codec(), folder / "mask_codec.safetensors")
    return folder


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("data")
    records = tuple(told(i, "caption en", "cat", picture=str(picture(folder / f"{i}.png", (28, 28)))) for i in range(3))
    data = DataSet(folder, "jsonl", "run", records)
    chosen = dataclasses.replace(recipe("debug"), resize="bilinear", text_len=33, frames=2)
    return Run(chosen, read(tiny), [data], folder / "run", base="tiny")


def test_the_reader_is_the_runs_own(tiny, run):
    ours, theirs = ready(tiny, run.recipe).reader(run.recipe), run._reader(Augment())
    assert ours.text_len == theirs.text_len
    assert (ours.frames, ours.augment) == (theirs.frames, theirs.augment)
    assert (ours.config.vision, ours.config.resize) == (theirs.config.vision, theirs.config.resize)
    record = run.data[0].records[0]
    one, other = ours(record, (), None), theirs(record, (), None)
    assert one.example == other.example
    assert (one.pixels == other.pixels).all()
    mask = torch.rand(64, 64).numpy()
    assert ours.codes is not None
    assert theirs.codes is not None
    assert ours.codes(mask) == theirs.codes(mask)


def test_no_weights_are_needed(tiny, tmp_path):
    folder = tmp_path / "light"
    folder.mkdir()
    for name in ("config.json", "tokenizer.model"):
        (folder / name).write_bytes((tiny / name).read_bytes())
    (folder / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes())
    assert ready(folder, recipe("debug")).codec is None
    assert ready(folder, recipe("debug"), codec=tiny / "mask_codec.safetensors").codec is not None


def test_what_does_not_go_together_is_refused(tiny, tmp_path):
    with pytest.raises(UsageError, match="224 pixels, this model takes 28"):
        ready(tiny, recipe("docvqa"))
    with pytest.raises(CheckpointError):
        ready(tmp_path / "nowhere", recipe("debug"))


def test_updates_are_timed_and_change_the_model(run):
    before = {name: p.detach().clone() for name, p in run.trainable.parameters.items()}
    heard = []
    timing = measure(run, run._reader(Augment()), lambda done, total: heard.append((done, total)))
    assert heard == [(i + 1, 1 + TIMED) for i in range(1 + TIMED)]
    assert timing.updates == TIMED
    assert timing.seconds > 0
    assert any(not torch.equal(before[name], p) for name, p in run.trainable.parameters.items())
    assert not run.out.exists()


def test_costs_are_the_recipes_and_the_plans(tiny, run):
    config = run.parts.network.config
    chosen = dataclasses.replace(recipe("simple"), batch=4, epochs=3)
    machine = machine_of(config, torch.float32, torch.device("cpu"), recompute=False)
    fitted = fit(config, chosen, machine, share=4, free=10**12, run=run.out)
    found = costs(chosen, 10, fitted)
    assert (found.updates, found.seen, found.epochs) == (7, 28, 2.8)  # 30 examples, and what is left of the last batch is dropped
    assert isinstance(found.memory, Memory)
    assert found.memory.total == fitted.plan.total
    assert found.seconds is None
