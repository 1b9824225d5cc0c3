"""Several adapters on one base: each answers as it does when it is loaded alone, with its own calibration; the base as it did before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import paligemma
from paligemma.checkpoint import save_adapter, save_huggingface
from paligemma.engine.scores import Calibration
from paligemma.errors import CheckpointError, UsageError
from paligemma.model.lora import LoraConfig, adapter_layers
from tests.model.adapted import adapted
from tests.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::paligemma.predictor.asking.CutShort")
PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 30, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A base; `words`, `rank2` for its decoder, `eyes` for its image tower and projector too."""
    folder = tmp_path_factory.mktemp("adapters")
    base = save_huggingface(tiny_model(), folder / "base")
    tiny_tokenizer().save(base)
    for seed, (name, lora) in enumerate(
        {
            "words": LoraConfig(rank=4, alpha=40.0),
            "rank2": LoraConfig(rank=2, alpha=60.0, targets=("language-attention",)),
            "eyes": LoraConfig(rank=4, alpha=40.0, targets=("language", "vision", "projector")),
        }.items()
    ):
        save_adapter(adapted(lora=lora, model=tiny_model(), seed=seed), folder / name, base=base)
    return folder


def answer(model, picture=PICTURE) -> tuple[str, float]:
    found = model.run(picture, "caption en", max_tokens=6)
    return found.text, found.score


def test_each_is_what_it_is_alone(folder):
    names = ("words", "rank2", "eyes")
    model = paligemma.load(folder / "base", adapters={name: folder / name for name in names})
    assert model.adapters == ("eyes", "rank2", "words")
    assert model.adapter == "words", "the first one"
    alone = {None: answer(paligemma.load(folder / "base")), **{name: answer(paligemma.load(folder / name)) for name in names}}
    assert len({text for text, _ in alone.values()}) == 4, "they differ, so the test can fail"
    for name in ("rank2", "words", None, "eyes", "words"):
        text, score = answer(model.use_adapter(name))
        assert model.adapter == name
        assert text == alone[name][0]
        assert score == pytest.approx(alone[name][1], rel=1e-4)


def test_each_has_its_own_calibration(folder):
    for name, slope in (("base", 0.5), ("words", 2.0)):
        (folder / name / "calibration.json").write_text(json.dumps({"text": {"a": slope, "b": 0}}))
    model = paligemma.load(folder / "base", adapters={"words": folder / "words", "rank2": folder / "rank2"})
    assert model.calibration.parameters == {"text": (2.0, 0.0)}
    for name, slope in (("rank2", 0.5), (None, 0.5), ("words", 2.0)):
        assert model.use_adapter(name).calibration.parameters["text"][0] == slope
    for name in ("base", "words"):
        (folder / name / "calibration.json").unlink()


def test_another_calibration_is_of_what_is_at_work(folder):
    model = paligemma.load(folder / "base", adapters={"words": folder / "words", "rank2": folder / "rank2"})
    once = model.with_calibration(Calibration({"text": (2.0, 0.0)}))
    twice = once.use_adapter("rank2").with_calibration(Calibration({"text": (3.0, 0.0)}))
    found = {name: dict(twice.use_adapter(name).calibration.parameters) for name in ("words", "rank2", None)}
    assert found == {"words": {"text": (2.0, 0.0)}, "rank2": {"text": (3.0, 0.0)}, None: {}}
    assert not model.use_adapter("words").calibration.parameters, "the one it was made from has its own still"


def test_the_adapters_are_told(folder):
    model = paligemma.load(folder / "base", adapters={"words": folder / "words", "rank2": folder / "rank2"})
    assert "adapter rank2; adapter words, at work" in model.description.splitlines()
    assert "adapter" not in paligemma.load(folder / "base").description.replace(str(folder), "")


def test_a_picture_that_was_encoded(folder):
    model = paligemma.load(folder / "base", adapters={"words": folder / "words", "eyes": folder / "eyes"})
    seen = model.encode(PICTURE)
    assert answer(model, seen) == answer(model)
    assert answer(model.use_adapter(None), seen) == answer(model), "words leaves the image tower alone"
    with pytest.raises(UsageError, match="now it is 'eyes'"):
        answer(model.use_adapter("eyes"), seen)
    eyes = model.encode(PICTURE)
    with pytest.raises(UsageError, match="with the adapter 'eyes'"):
        answer(model.use_adapter("words"), eyes)


def test_wrong_names(folder):
    model = paligemma.load(folder / "base", adapters={"words": folder / "words"})
    with pytest.raises(UsageError, match="there is no adapter 'word'") as caught:
        model.use_adapter("word")
    assert "words" in str(caught.value.hint)
    assert model.adapter == "words"
    with pytest.raises(CheckpointError, match="is no adapter"):
        paligemma.load(folder / "base", adapters={"words": folder / "base"})
    with pytest.raises(UsageError, match="an adapter itself"):
        paligemma.load(folder / "words", adapters={"rank2": folder / "rank2"})
    with pytest.raises(UsageError, match="cannot be the name"):
        paligemma.load(folder / "base", adapters={"a b": folder / "words"})
    assert paligemma.load(folder / "base").adapters == ()


def test_nothing_of_them_is_trained(folder):
    model = paligemma.load(folder / "base", adapters={"words": folder / "words"})
    assert not any(p.requires_grad for p in model.model.parameters())
    assert {part.a.dtype for part in adapter_layers(model.model, "words").values()} == {torch.float32}
