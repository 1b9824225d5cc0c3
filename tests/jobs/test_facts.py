"""What makes two jobs one: nothing that changes an answer may change unseen, and nothing else matters."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from paligemma.jobs.asked import all_asked
from paligemma.jobs.facts import facts
from paligemma.jobs.items import Ways
from paligemma.jobs.work import Order

ORDER = Order(all_asked(["caption"]), {"max_tokens": None, "beams": 1}, {"min_score": 0.0})


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def of(model: Path, source="photos", ways=None, order=ORDER, form="jsonl", draw=None, **numbers) -> str:
    return json.dumps(facts(source, ways or Ways(), order, form, model, numbers, draw=draw))


def test_the_same_command_is_the_same(model, monkeypatch):
    before = of(model)
    assert of(model) == before
    assert of(model, source=os.path.abspath("photos")) == before
    assert of(model, draw=Path("drawn")) == of(model, draw=Path("drawn").absolute())


def test_what_changes_answers_is_seen(model):
    before = of(model)
    changed = [
        of(model, source="album"),
        of(model, ways=Ways(frames=3)),
        of(model, ways=Ways(root=Path("x"))),
        of(model, form="parquet"),
        of(model, dtype="bfloat16"),
        of(model, order=Order(all_asked(["caption:de"]), ORDER.how, ORDER.places)),
        of(model, order=Order(ORDER.tasks, {"max_tokens": 3, "beams": 1}, ORDER.places)),
        of(model, order=Order(ORDER.tasks, ORDER.how, {"min_score": 0.5})),
        of(model, draw=Path("drawn")),
        of(model, draw=Path("elsewhere")),
    ]
    assert len({before, *changed}) == 1 + len(changed)


def test_another_model_is_seen(model):
    before = of(model)
    (model / "calibration.json").write_text("{}")
    calibrated = of(model)
    (model / "calibration.json").unlink()
    (model / "README.md").write_text("a card changes no answer")
    assert of(model) == before
    (model / "model.safetensors").write_bytes(b"others!")
    os.utime(model / "model.safetensors", (1, 1))
    assert len({before, calibrated, of(model)}) == 3
