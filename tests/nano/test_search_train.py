"""Training the encoder: a run that was stopped ends as one that was not, and what comes out is a SigLIP that anyone can read."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SiglipModel

from paligemma.checkpoint import load_model
from paligemma.checkpoint.dual_load import load_dual_encoder
from paligemma.checkpoint.finding import find
from paligemma.embedding import load_encoder
from paligemma.errors import CheckpointError, PaliGemmaError, UsageError
from paligemma.nano import phases, search_measure, search_publish, search_train
from paligemma.nano.pairs import PairMaker
from paligemma.nano.search_recipes import SEARCH_RECIPES, search_recipe
from paligemma.nano.search_train import SearchTrainer

DEBUG = SEARCH_RECIPES["debug"]
STEPS = [(index, step) for index, phase in enumerate(DEBUG.phases) for step in range(1, phase.steps + 1)]


def silent(line: str) -> None:
    """No log."""


@pytest.fixture(scope="module", autouse=True)
def drawn_in_this_process():
    """The same batches without a child process, from one bank."""
    makers: dict[str, PairMaker] = {}

    def stream(maker, making, start):
        key = json.dumps({name: value for name, value in making.items() if name != "tokenizer_path"})
        if key not in makers:
            makers[key] = maker(making)
        return (makers[key](index) for index in itertools.count(start))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_train, "stream_of", lambda *given: _closable(stream(*given)))
        patch.setattr(phases, "LOG_EVERY", 1)
        patch.setattr(phases, "SAVE_EVERY", 1)
        yield


def _closable(batches):
    yield from batches


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("search") / "debug"
    search_train.train(DEBUG, run, compiled=False, log=silent)
    return run


@pytest.mark.parametrize("stopped_in", range(1, len(STEPS) + 1))
def test_a_stopped_run_ends_as_one_that_was_not(finished, tmp_path, stopped_in):
    count, update = itertools.count(1), SearchTrainer._update

    def stopping(self, loss):
        if next(count) == stopped_in:
            raise KeyboardInterrupt
        update(self, loss)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SearchTrainer, "_update", stopping)
        with pytest.raises(KeyboardInterrupt):
            search_train.train(DEBUG, tmp_path, compiled=False, log=silent)
    search_train.train(DEBUG, tmp_path, compiled=False, log=silent)
    whole, continued = (torch.load(run / "state.pt", weights_only=True)["modules"] for run in (finished, tmp_path))
    assert all(torch.equal(whole[name], continued[name]) for name in whole)
    assert [(entry["phase"], entry["step"]) for entry in _log(tmp_path)] == STEPS


def _log(run: Path):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_locked_tower_rests(tmp_path):
    one = dataclasses.replace(DEBUG, phases=DEBUG.phases[:1])
    model = load_dual_encoder(search_train.train(one, tmp_path, compiled=False, log=silent))
    base = load_model(find(DEBUG.start)).vision.state_dict()
    assert all(torch.equal(tensor, base[name]) for name, tensor in model.vision.state_dict().items())


def test_then_it_moves(finished):
    base = load_model(find(DEBUG.start)).vision.state_dict()
    moved = torch.load(finished / "state.pt", weights_only=True)["modules"]
    assert not torch.equal(moved["vision.blocks.0.attn.q.weight"], base["blocks.0.attn.q.weight"].float())


def test_the_first_bias_fits_the_batch(tmp_path):
    base = load_model(find(DEBUG.start), dtype="float32")
    model = search_train.new_encoder(DEBUG, base)
    assert float(model.logit_bias) == pytest.approx(-np.log(DEBUG.phases[0].batch))


def test_the_export_is_a_siglip(finished):
    encoder = load_encoder(finished / "model")
    assert encoder.texts(["a cat", "eine Katze"]).shape == (2, 192)
    assert encoder.config.name == "debug"
    theirs = SiglipModel.from_pretrained(finished / "model")
    assert sum(p.numel() for p in theirs.parameters()) == encoder.config.num_parameters


def test_another_runs_folder_is_refused(finished, tmp_path):
    other = dataclasses.replace(DEBUG, muon_lr=0.5, name="other")
    with pytest.raises(UsageError, match=re.escape("was begun with another muon_lr, name")):
        search_train.train(other, finished, compiled=False, log=silent)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="holds something else"):
        search_train.train(DEBUG, tmp_path, compiled=False, log=silent)


@pytest.mark.parametrize(("name", "content"), [("state.pt", b"nothing"), ("recipe.json", b"nothing"), ("log.jsonl", b"nothing\n")])
def test_a_damaged_file_is_named(finished, tmp_path, name, content):
    import shutil

    run = shutil.copytree(finished, tmp_path / "run")
    (run / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        search_train.train(DEBUG, run, compiled=False, log=silent)


def test_a_loss_that_is_no_number_stops(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_train, "sigmoid_loss", lambda logits, together: logits.sum() * float("nan"))
        with pytest.raises(PaliGemmaError, match="the loss is nan after 0 steps of phase 0"):
            search_train.train(DEBUG, tmp_path, compiled=False, log=silent)


def test_an_unknown_recipe():
    with pytest.raises(UsageError, match="no recipe is called 'nano-sigllp'") as error:
        search_recipe("nano-sigllp")
    assert "nano-siglip" in str(error.value.hint)


@pytest.fixture(scope="module")
def measured(finished):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_measure, "RESAMPLES", 10)
        return search_measure.measure(load_encoder(finished / "model"), 12, log=silent)


def test_the_measurement(measured):
    assert len(measured) == 12
    for scores in measured.values():
        assert scores["candidates"] == 12
        assert 0 <= scores["recall@1"] <= scores["recall@5"] <= scores["recall@10"] <= 1
        assert 1 <= scores["median rank"] <= 12


def test_a_perfect_encoder_has_perfect_scores():
    """One that reads the truth off the scenes: text and picture of one content have one vector."""
    from paligemma.nano.pairs import content, said

    class Knowing:
        config = load_encoder_config()

        def __init__(self):
            self.contents: dict[bytes, str] = {}

        def of(self, key):
            return np.random.default_rng([ord(c) for c in key]).normal(size=64)

        def pictures(self, pictures):
            return np.stack([self.of(self.contents[np.asarray(picture).tobytes()]) for picture in pictures])

        def texts(self, texts):
            return np.stack([self.of(self.contents[text.encode()]) for text in texts])

    knowing = Knowing()

    def note(scene):
        from paligemma.nano.names import LANGUAGES

        knowing.contents[scene.pixels.tobytes()] = content(scene)
        for lang in LANGUAGES:
            knowing.contents[said(scene, lang).encode()] = content(scene)
        return scene

    with pytest.MonkeyPatch.context() as patch:
        distinct, prints = search_measure._distinct, search_measure._distinct_prints
        patch.setattr(search_measure, "_distinct", lambda *given: ((note(a), note(b)) for a, b in distinct(*given)))
        patch.setattr(search_measure, "_distinct_prints", lambda *given: map(note, prints(*given)))
        found = search_measure.measure(knowing, 9, log=silent)
    assert {scores["recall@1"] for scores in found.values()} == {1.0}


def load_encoder_config():
    return DEBUG.config(load_model(find(DEBUG.start)).config)


def test_captions_are_distinct(finished):
    from paligemma.nano.pairs import content
    from paligemma.nano.world import Split, World

    scenes = [scene for scene, _ in search_measure._distinct(World(Split.TEST, seed=2, text_share=0.0), 30)]
    assert len({content(scene) for scene in scenes}) == 30


def test_the_card(measured, finished):
    card = search_publish.card(DEBUG, measured, _log(finished))
    assert "(target missed)" in card
    assert "16 pictures" in card
    assert "| text -> image, en |" in card


def test_the_command(tmp_path, capsys):
    from paligemma.nano.cli import app

    run = tmp_path / "run"
    with pytest.raises(SystemExit) as ended:
        app(["train-search", "--recipe", "debug", "--out", str(run), "--no-compile", "--scenes", "0", "--into", str(tmp_path / "into")])
    assert ended.value.code in (0, None)
    assert load_encoder(tmp_path / "into" / "debug").config.name == "debug"
    assert "paligemma info" in capsys.readouterr().out
