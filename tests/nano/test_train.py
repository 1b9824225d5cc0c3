"""Training: a run that was stopped ends as one that was not, what cannot go on says why, and the export is a plain PaliGemma."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import paligemma
from paligemma.checkpoint import load_codec, load_model
from paligemma.errors import CheckpointError, PaliGemmaError, UsageError
from paligemma.nano import phases, train
from paligemma.nano.dense import DenseHead
from paligemma.nano.names import dictionary_words
from paligemma.nano.phases import schedule
from paligemma.nano.recipes import RECIPES, Phase
from paligemma.nano.train import Trainer, corpus, sine_positions
from paligemma.nano.world import CHARACTERS
from paligemma.tokenizer import Tokenizer

DEBUG = RECIPES["debug"]
STEPS = [(index, step) for index, phase in enumerate(DEBUG.phases) for step in range(1, phase.steps + 1)]


def silent(line: str) -> None:
    """No log."""


def trainer_of(run: Path) -> Trainer:
    tokenizer, codec = Tokenizer.load(run / "tokenizer.model"), load_codec(run / "mask_codec.safetensors")
    return Trainer(DEBUG, run, tokenizer, codec, compiled=False, log=silent)


def state_of(run: Path) -> dict[str, Any]:
    return torch.load(run / "state.pt", weights_only=True)


def entries_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trainer(debug_run, tmp_path_factory) -> Trainer:
    """Of the finished run, in a folder of its own."""
    run = shutil.copytree(debug_run, tmp_path_factory.mktemp("trainer") / "debug")
    trainer = trainer_of(run)
    trainer.resume()
    return trainer


# A stopped run


@pytest.fixture(
    scope="module",
    params=[(1, 2), (2, 2), (1, 5), (2, 6)],
    ids=["phase 0", "phase 0 before a state was saved", "phase 1", "phase 1 some steps after the saved state"],
)
def continued(request, debug_run, drawn_here, tmp_path_factory) -> Path:
    """A run that was stopped in the middle of a step, and then continued."""
    save_every, stopped_in = request.param
    run = tmp_path_factory.mktemp("continued")
    for name in ("tokenizer.model", "mask_codec.safetensors"):
        shutil.copy(debug_run / name, run)
    count, update = itertools.count(1), Trainer._update

    def stopping(self: Trainer, loss: torch.Tensor) -> None:
        if next(count) == stopped_in:
            raise KeyboardInterrupt
        update(self, loss)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "stream", drawn_here)
        patch.setattr(phases, "SAVE_EVERY", save_every)
        patch.setattr(phases, "LOG_EVERY", 1)
        patch.setattr(Trainer, "_update", stopping)
        with pytest.raises(KeyboardInterrupt):
            train.train(DEBUG, run, compiled=False, log=silent)
        assert not (run / "model").exists()
        train.train(DEBUG, run, compiled=False, log=silent)
    return run


def test_a_continued_run_ends_with_the_same_weights(continued, debug_run):
    """Bit for bit, the optimizers' too: and batches drawn here are those of a child process."""

    def tensors(value: Any) -> list[torch.Tensor]:
        if isinstance(value, dict | list):
            return [t for inner in (value.values() if isinstance(value, dict) else value) for t in tensors(inner)]
        return [value] if isinstance(value, torch.Tensor) else []

    found, expected = state_of(continued), state_of(debug_run)
    assert found["modules"].keys() == expected["modules"].keys()
    assert (found["phase"], found["step"]) == STEPS[-1]
    for key in ("modules", "optimizers"):
        pairs = list(zip(tensors(found[key]), tensors(expected[key]), strict=True))
        assert len(pairs) > 50
        assert all(torch.equal(a, b) for a, b in pairs)
    assert (continued / "model" / "model.safetensors").read_bytes() == (debug_run / "model" / "model.safetensors").read_bytes()


def test_a_continued_run_has_one_log_entry_a_step(continued, debug_run):
    found, expected = entries_of(continued), entries_of(debug_run)
    assert [(entry["phase"], entry["step"]) for entry in found] == STEPS
    for a, b in zip(found, expected, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_the_time_before_a_stop_counts(trainer, debug_run):
    assert trainer.elapsed_before == state_of(debug_run)["seconds"] >= entries_of(debug_run)[-1]["seconds"] - 0.1 > 0


def test_a_finished_run_is_not_trained_again(finished_run, monkeypatch):
    before = (finished_run / "model" / "model.safetensors").read_bytes()
    log = (finished_run / "log.jsonl").read_text()
    monkeypatch.setattr(train, "stream", None)
    assert train.train(DEBUG, finished_run, compiled=False, log=silent) == finished_run / "model"
    assert (finished_run / "model" / "model.safetensors").read_bytes() == before
    assert (finished_run / "log.jsonl").read_text() == log


# What cannot go on


def test_two_recipes_do_not_share_a_folder(tmp_path):
    train._claim(DEBUG, tmp_path)
    claimed = (tmp_path / "recipe.json").read_text()
    train._claim(DEBUG, tmp_path)
    with pytest.raises(UsageError, match="holds a run of another recipe: warmup is 1, not 8; seed is 0, not 1") as raised:
        train._claim(dataclasses.replace(DEBUG, seed=1, warmup=8), tmp_path)
    assert "another run folder" in str(raised.value.hint)
    with pytest.raises(UsageError, match=r"vision\.width is 48, not 192"):
        train._claim(dataclasses.replace(DEBUG, vision=RECIPES["nano-112"].vision), tmp_path)
    first, second = DEBUG.phases
    with pytest.raises(UsageError, match=r"recipe: phases\[1\]\.rate is 1\.0, not 0\.5\n"):
        train._claim(dataclasses.replace(DEBUG, phases=(first, dataclasses.replace(second, rate=0.5))), tmp_path)
    with pytest.raises(UsageError, match="it has 2 phases, not 1"):
        train._claim(dataclasses.replace(DEBUG, phases=(first,)), tmp_path)
    assert (tmp_path / "recipe.json").read_text() == claimed


def test_a_run_with_settings_that_are_gone_does_not_go_on(tmp_path):
    """Such as one from before recipes had phases, whose state and log are of another kind."""
    older = {"stage0_steps": 800} | {name: value for name, value in dataclasses.asdict(DEBUG).items() if name != "phases"}
    (tmp_path / "recipe.json").write_text(json.dumps(older))
    with pytest.raises(UsageError, match="stage0_steps is no setting of this version"):
        train._claim(DEBUG, tmp_path)


@pytest.mark.parametrize("damaged", ["", "{", "[1]", "null"])
def test_a_damaged_recipe_is_refused(damaged, tmp_path):
    (tmp_path / "recipe.json").write_text(damaged)
    with pytest.raises(CheckpointError, match=r"recipe\.json is no recipe"):
        train._claim(DEBUG, tmp_path)


@pytest.mark.parametrize("damaged", ["what\n", '{"step": 1}\n', "[1]\n"])
def test_a_damaged_log_is_refused(damaged, trainer, debug_run):
    shutil.copy(debug_run / "state.pt", trainer.run)
    (trainer.run / "log.jsonl").write_text(damaged)
    with pytest.raises(CheckpointError, match=r"log\.jsonl is no log of this run"):
        trainer.resume()
    shutil.copy(debug_run / "log.jsonl", trainer.run)


def test_a_run_from_before_a_setting_was_invented_goes_on(tmp_path):
    older = dataclasses.asdict(DEBUG)
    del older["seed"], older["phases"][0]["point_weight"], older["phases"][1]["mix"]["side"]  # all of them as they are by default
    (tmp_path / "recipe.json").write_text(json.dumps(older))
    train._claim(DEBUG, tmp_path)
    assert json.loads((tmp_path / "recipe.json").read_text())["seed"] == DEBUG.seed


@pytest.mark.parametrize("forget", [lambda r: r.pop("warmup"), lambda r: r["phases"][1].pop("point_weight"), lambda r: r.pop("heads")])
def test_a_run_from_before_a_setting_whose_default_is_not_the_recipes_is_refused(forget, tmp_path):
    older = json.loads(json.dumps(dataclasses.asdict(DEBUG)))
    forget(older)
    (tmp_path / "recipe.json").write_text(json.dumps(older))
    with pytest.raises(UsageError, match="run of another recipe"):
        train._claim(DEBUG, tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no state"),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: torch.save({**torch.load(path), "modules": {}}, path),
        lambda path: torch.save({**torch.load(path), "optimizers": []}, path),
        lambda path: torch.save({"step": 3}, path),
        lambda path: torch.save([1, 2, 3], path),
        lambda path: torch.save(None, path),
        lambda path: torch.save({**torch.load(path), "modules": None}, path),
    ],
    ids=["empty", "text", "half of it", "cut at the end", "no weights", "no optimizer", "a part", "a list", "none", "none for weights"],
)
def test_a_damaged_state_is_refused(damage, trainer, debug_run):
    shutil.copy(debug_run / "state.pt", trainer.run)
    damage(trainer.run / "state.pt")
    with pytest.raises(CheckpointError, match=r"state\.pt is no state of this run") as raised:
        trainer.resume()
    assert raised.value.code == "bad_state"
    assert "\n" not in raised.value.message
    assert "delete it" in str(raised.value.hint)


def test_a_state_cut_anywhere_is_refused(trainer, debug_run):
    whole = (debug_run / "state.pt").read_bytes()
    for size in (*range(1, 100, 9), *range(100, len(whole), len(whole) // 40)):
        (trainer.run / "state.pt").write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            trainer.resume()


def test_the_state_of_another_model_is_refused(trainer, debug_run):
    shutil.copy(debug_run / "state.pt", trainer.run)
    wider = Trainer(
        dataclasses.replace(DEBUG, text_width=64), trainer.run, trainer.tokenizer, trainer.codec, compiled=False, log=silent
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="is no state of this run"):
        wider.resume()


@pytest.mark.parametrize(("value", "phase", "step"), [(math.nan, 0, 1), (math.inf, 1, 3)])
def test_a_loss_that_is_no_number_stops_the_run(value, phase, step, finished_run, drawn_here, monkeypatch):
    torch.save({**state_of(finished_run), "phase": phase, "step": step}, finished_run / "state.pt")
    before = (finished_run / "state.pt").read_bytes()
    loss = DenseHead.loss

    def broken(self: DenseHead, *arguments: Any) -> tuple[torch.Tensor, dict[str, float]]:
        found, record = loss(self, *arguments)
        return found * value, record

    monkeypatch.setattr(train, "stream", drawn_here)
    monkeypatch.setattr(DenseHead, "loss", broken)
    with pytest.raises(PaliGemmaError, match=f"after {step} steps of phase {phase}") as raised:
        train.train(DEBUG, finished_run, compiled=False, log=silent)
    assert raised.value.code == "loss_not_finite"
    assert str(value) in raised.value.message
    assert (finished_run / "state.pt").read_bytes() == before, "the last saved state is from before"


# The export


def test_the_export_is_a_plain_paligemma(debug_run):
    model = load_model(debug_run / "model")
    assert model.config == DEBUG.config()
    stored = load_file(debug_run / "model" / "model.safetensors")
    assert not [name for name in stored if re.search("parametrization|original|code_map|shape_map|^head", name)]
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert sum(tensor.numel() for tensor in stored.values()) == model.config.num_parameters
    assert {path.name for path in (debug_run / "model").iterdir()} >= {"config.json", "tokenizer.model", "mask_codec.safetensors"}


def test_the_coordinate_code_is_folded_into_the_table(debug_run, trainer):
    table = trainer.model.text.embed.weight.detach()
    loc = trainer.tokenizer.loc
    assert not torch.equal(
        table[loc.start :], state_of(debug_run)["modules"]["model.text.embed.parametrizations.weight.original"][loc.start :]
    )
    assert torch.equal(load_model(debug_run / "model").text.embed.weight, table.bfloat16())


def test_every_weight_is_exported(debug_run, trainer):
    exported = load_model(debug_run / "model").state_dict()
    for name, value in trainer.model.state_dict().items():
        if "parametrizations" not in name:
            assert torch.equal(exported[name], value.bfloat16()), name


def test_the_export_answers(debug_run, test_scenes):
    predictor = paligemma.load(debug_run / "model", device="cpu")
    assert predictor.codec is not None
    assert predictor.tokenizer.vocab_size == DEBUG.vocab_size
    found = predictor.detect(test_scenes[0].pixels, ["cat"], max_objects=1)
    assert (found.width, found.height) == test_scenes[0].pixels.shape[:2]


# The parts


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0.1),  # warm-up: the first step is small, not zero
        (4, 0.5),
        (9, 1.0),
        (10, 1.0),  # constant
        (19, 1.0),
        (20, 1.0),  # the cosine begins
        (40, 0.5 + 0.5 * math.sqrt(0.5)),
        (60, 0.5),
        (80, 0.5 - 0.5 * math.sqrt(0.5)),
        (99, 0.5 - 0.5 * math.cos(math.pi / 80)),  # the last step
        (100, 0.0),
    ],
)
def test_the_schedule_warms_up_stays_and_falls_to_zero(step, factor):
    for rate in (1.0, 0.5):
        assert schedule(step, Phase(steps=100, batch=1, rate=rate, decay_from=0.2), warmup=10) == pytest.approx(rate * factor)


def test_a_schedule_may_stay_or_fall_at_once():
    assert schedule(99, Phase(steps=100, batch=1, decay_from=1.0), warmup=10) == 1.0
    assert schedule(10, Phase(steps=100, batch=1), warmup=10) < 1.0


def test_the_loss_is_the_weighted_sum_of_its_parts(trainer, drawn_here, monkeypatch):
    monkeypatch.setattr(train, "stream", drawn_here)
    vision_only, phase = DEBUG.phases
    with trainer.batches(1, phase, 0) as batches:
        batch = next(batches)
    loss, record = trainer.loss(batch, vision_only, 0.5)
    assert loss.item() == pytest.approx(sum(record[name] for name in ("thing", "edges", "cells", "letters")), rel=1e-4)
    assert "long" not in record
    for progress, weight in ((0.0, 1.0), (1.0, 0.3)):
        loss, record = trainer.loss(batch, phase, progress)
        dense = sum(record[name] for name in ("thing", "edges", "cells", "letters"))
        texts = record["long"] + 2 * record["short"]
        assert record["points"] > 0
        assert loss.item() == pytest.approx(texts + weight * dense + phase.point_weight * record["points"], rel=1e-4)


def test_muon_has_the_matrices_of_blocks_and_adam_the_rest(trainer):
    muon, adam = ({id(p) for group in o.param_groups for p in group["params"]} for o in trainer.optimizers)
    named = dict(trainer.modules().named_parameters())
    assert not muon & adam
    assert muon | adam == {id(p) for p in named.values()}, "nothing is frozen"
    assert {name for name, p in named.items() if id(p) in muon} == {
        name for name, p in named.items() if ".blocks." in name and name.endswith("weight") and p.dim() == 2
    }


def test_image_positions_start_as_neighbours():
    positions = sine_positions(8, 48).unflatten(0, (8, 8))
    assert positions.shape == (8, 8, 48)
    assert len(positions.flatten(0, 1).unique(dim=0)) == 64
    near, far = (positions[3, 3] - positions[3, 4]).norm(), (positions[3, 3] - positions[3, 7]).norm()
    assert near < far
    torch.testing.assert_close(positions, positions.transpose(0, 1).roll(24, -1)), "rows and columns are alike"


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "CORPUS_SCENES", 300)
        return corpus(DEBUG)


def test_the_corpus_has_no_location_tokens(sentences):
    assert not [sentence for sentence in sentences if "<" in sentence or ">" in sentence or re.search(r"loc\d|seg\d", sentence)]


def test_the_corpus_has_every_kind_of_prompt_and_no_printed_word(sentences):
    starts = (
        "caption zh",
        "answer en how many",
        "answer en is there",
        "answer en is the",
        "answer en what color",
        "detect",
        "segment",
        "ocr",
    )
    assert all(any(sentence.startswith(start) for sentence in sentences) for start in starts)
    assert not {piece for sentence in sentences for piece in sentence.split()} & set(dictionary_words()), "those are spelled"
    assert sentences[-len(CHARACTERS) :] == list(CHARACTERS), "letter by letter"


def test_the_corpus_has_chinese_names_one_by_one(sentences):
    names = [sentence for sentence in sentences if re.search("[\u4e00-\u9fff]", sentence)]
    assert len(names) > 50
    assert not [sentence for sentence in names if len(sentence) > 1 and re.search("[、和]", sentence)]
