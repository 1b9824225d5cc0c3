"""May a run go on? Each kind of difference has its answer, its exit code, and its permission; the message lists what differs."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from paligemma.errors import CheckpointError, InputError, PaliGemmaError, UsageError
from paligemma.training.facts import KINDS, check_resume, code_fingerprint, differences, flat_facts, machine_facts

FACTS = {
    "base": "3b-224 1234", "adapter.rank": "8", "parameters": "99", "data": "abcd", "recipe.lr": "0.001", "recipe.seed": "0",
    "recipe.batch": "8", "machine.threads": "2", "version.torch": "2.13.0", "note.host": "here", "unheard of": "x",
}  # fmt: skip


def outcome(changed: dict[str, str | None], **allowed: bool) -> list[str] | tuple[type[PaliGemmaError], int]:
    """The names of the differences that were allowed, or the error and its exit code."""
    now = {name: fact for name, fact in (FACTS | changed).items() if fact is not None}
    try:
        return [difference.name for difference in check_resume(FACTS, now, **allowed)]
    except PaliGemmaError as error:
        return type(error), error.exit_code


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"note.host": "there"}, []),
        ({"note.host": None}, []),
        ({"base": "other"}, (CheckpointError, 4)),
        ({"adapter.rank": "16"}, (CheckpointError, 4)),
        ({"adapter.targets": "all"}, (CheckpointError, 4)),
        ({"parameters": "98"}, (CheckpointError, 4)),
        ({"data": "other"}, (InputError, 3)),
        ({"data": None}, (InputError, 3)),
        ({"data.1": "one more"}, (InputError, 3)),
        ({"recipe.lr": "0.002"}, (UsageError, 2)),
        ({"recipe.seed": "1", "recipe.batch": "4"}, (UsageError, 2)),
        ({"recipe.new": "1"}, (UsageError, 2)),
        ({"machine.threads": "4"}, (UsageError, 2)),
        ({"version.torch": "2.14.0"}, (UsageError, 2)),
        ({"unheard of": "y"}, (UsageError, 2)),
        ({"recipe.lr": "1", "data": "other"}, (InputError, 3)),
        ({"recipe.lr": "1", "data": "other", "base": "other"}, (CheckpointError, 4)),
    ],
)
def test_without_permission(changed, expected):
    assert outcome(changed) == expected


@pytest.mark.parametrize(
    ("changed", "allowed", "expected"),
    [
        ({"recipe.lr": "1"}, {"allow_inexact": True}, ["recipe.lr"]), ({"recipe.lr": "1"}, {"allow_data_change": True}, (UsageError, 2)),
        ({"data": "x"}, {"allow_data_change": True}, ["data"]), ({"data": "x"}, {"allow_inexact": True}, (InputError, 3)),
        ({"data": "x", "recipe.lr": "1"}, {"allow_data_change": True}, (UsageError, 2)),
        ({"data": "x", "recipe.lr": "1"}, {"allow_data_change": True, "allow_inexact": True}, ["data", "recipe.lr"]),
        ({"base": "x"}, {"allow_data_change": True, "allow_inexact": True}, (CheckpointError, 4)),
    ],
)  # fmt: skip
def test_with_permission(changed, allowed, expected):
    assert outcome(changed, **allowed) == expected


def test_the_message_lists_all_that_is_refused_and_nothing_else():
    now = FACTS | {"base": "b", "data": "d", "recipe.lr": "1", "note.host": "there"}
    for allowed, listed in (({}, ["base", "data", "recipe.lr"]), ({"allow_inexact": True}, ["base", "data"])):
        with pytest.raises(CheckpointError) as caught:
            check_resume(FACTS, now, **allowed)
        assert [line.split(":")[0].strip() for line in caught.value.message.splitlines()[1:]] == listed


def test_the_message_shows_both_sides():
    with pytest.raises(UsageError) as caught:
        check_resume({"recipe.lr": "0.001", "recipe.old": "1"}, {"recipe.lr": "0.002", "recipe.new": "x" * 500})
    lines = caught.value.message.splitlines()[1:]
    assert lines[0] == "  recipe.lr: saved 0.001, now 0.002"
    assert lines[1].startswith("  recipe.new: saved not recorded, now xxx")
    assert len(lines[1]) < 160
    assert lines[2] == "  recipe.old: saved 1, now not recorded"
    assert "--allow-inexact" in str(caught.value.hint)


def test_differences_are_by_name():
    assert [str(one) for one in differences({"b": "1", "a": "1"}, {"a": "2", "b": "1"})] == ["a: saved 1, now 2"]


def test_flat_facts():
    @dataclasses.dataclass(frozen=True)
    class Optimizer:
        lr: float
        betas: tuple[float, float]

    @dataclasses.dataclass(frozen=True)
    class Recipe:
        name: str
        optimizer: Optimizer
        freeze: list[str]
        limit: int | None = None

    facts = flat_facts("recipe", Recipe("docvqa", Optimizer(1e-5, (0.9, 0.99)), ["vision"]))
    assert facts == {
        "recipe.name": "docvqa", "recipe.optimizer.lr": "1e-05", "recipe.optimizer.betas": "[0.9, 0.99]", "recipe.freeze": '["vision"]',
        "recipe.limit": "null",
    }  # fmt: skip
    assert flat_facts("data", "abc") == {"data": "abc"}


def test_machine_facts():
    facts = machine_facts()
    assert facts == machine_facts()
    assert facts["version.torch"] == torch.__version__
    assert facts["machine.threads"] == str(torch.get_num_threads())
    assert json.loads(json.dumps(facts)) == facts
    assert all(KINDS[name.partition(".")[0]] == "inexact" for name in facts)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert machine_facts()["machine.matmul_precision"] == "medium" != facts["machine.matmul_precision"]
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_code_s_fingerprint_is_of_the_code(tmp_path, monkeypatch):
    from paligemma.training import facts as module

    for part in ("model", "training", "cli"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "x.py").write_text("1")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "training" / "facts.py"))
    seen = [code_fingerprint()]
    (tmp_path / "cli" / "x.py").write_text("2")
    assert code_fingerprint() == seen[0]
    (tmp_path / "model" / "x.py").write_text("2")
    assert code_fingerprint() != seen[0]
