"""How many examples go through at a time: the most that fit, the same when a run goes on, and what is said where none does."""

from __future__ import annotations

import dataclasses
import functools
import json
import re

import pytest
import torch

from paligemma.config import preset
from paligemma.data.batch import Batches
from paligemma.errors import ResourceError, UsageError
from paligemma.model import cpu
from paligemma.training import memory_plan
from paligemma.training.fitting import MEMORY, SOFTWARE, WAITING, Fit, autocasts, fit, keep, machine_of, options, waiting_bytes
from paligemma.training.footprint import Footprint
from paligemma.training.memory_plan import Machine, largest_that_fits, plan
from paligemma.training.recipes import recipe
from tests.tiny import TINY_1, TINY_2

GIGA = 10**9
THREE_B = preset("paligemma-3b-224")
LORA = dataclasses.replace(recipe("lora"), batch=24)
GPU = Machine()


@pytest.fixture(autouse=True)
def straight(monkeypatch) -> None:
    """A pass that holds a gigabyte an example, a fifth of it with blocks computed again."""

    def footprint(config, recipe, how) -> Footprint:
        kept = how.batch * GIGA // (5 if how.recompute else 1)
        return Footprint(kept, kept)

    monkeypatch.setattr(memory_plan, "footprint", footprint)


def fitted(run, free, *, micro=0, recipe=LORA, machine=GPU, share=24) -> Fit:
    return fit(THREE_B, recipe, machine, share=share, free=free, run=run, micro=micro)


@functools.cache
def still() -> int:
    """Bytes that are there whatever goes through at a time."""
    return sum(getattr(memory_plan._still(THREE_B, LORA, torch.bfloat16), part) for part in ("weights", "gradients", "optimizer"))


@pytest.mark.parametrize(
    ("room", "expected"), [(24.1, 24), (23.9, 12), (12.1, 12), (11.9, 8), (8.0, 8), (7.9, 6), (5.0, 4), (3.5, 3), (2.2, 2), (1.1, 1)]
)
def test_the_most_that_fit_and_divide_the_batch(tmp_path, room, expected):
    found = fitted(tmp_path, int((still() + room * GIGA) / 0.9) + 1)
    assert found.micro == expected
    assert found.plan.fits(found.free)


@pytest.mark.parametrize("batch", [1, 2, 7, 12])
def test_no_larger_divisor_would_fit(batch):
    for room in range(1, batch + 1):
        free = int((still() + (room + 0.5) * GIGA) / 0.9)
        found = largest_that_fits(plan(THREE_B, LORA, batch, GPU), free)
        fitting = [n for n in range(1, batch + 1) if batch % n == 0 and plan(THREE_B, LORA, n, GPU).fits(free)]
        assert found.batch == max(fitting)
    assert largest_that_fits(plan(THREE_B, LORA, batch, GPU), still()) is None


def test_where_nobody_can_tell_what_is_free(tmp_path):
    found = fitted(tmp_path, None)
    assert found.micro == 24
    assert "does not tell" in str(found)


def test_a_run_goes_on_as_it_began(tmp_path):
    little, much = int((still() + 6.5 * GIGA) / 0.9), 200 * GIGA
    first = fitted(tmp_path, little)
    assert first.micro == 6
    keep(tmp_path, first, LORA)
    again = fitted(tmp_path, much)
    assert again.micro == 6
    assert "as the run began" in str(again)
    assert fitted(tmp_path / "elsewhere", much).micro == 24
    other = dataclasses.replace(LORA, text_len=64)
    assert fitted(tmp_path, much, recipe=other).micro == 24, "what is asked is another run's"
    assert fitted(tmp_path, much, machine=Machine(devices=2), share=12).micro == 12
    assert fitted(tmp_path, int(still() + 6.5 * GIGA)).micro == 6, "it may use the margin"
    with pytest.raises(ResourceError, match="with 6 examples at a time"):
        fitted(tmp_path, int(still() + 5.5 * GIGA))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"micro": 3}', '{"asked": 1, "micro": 3}'])
def test_a_choice_that_cannot_be_read_is_made_again(tmp_path, text):
    keep(tmp_path, fitted(tmp_path, 200 * GIGA), LORA)
    (tmp_path / MEMORY).write_text(text)
    assert fitted(tmp_path, 200 * GIGA).micro == 24
    for micro in (0, 25, "6", None, True):
        keep(tmp_path, fitted(tmp_path, 200 * GIGA), LORA)
        kept = json.loads((tmp_path / MEMORY).read_text())
        (tmp_path / MEMORY).write_text(json.dumps(kept | {"micro": micro}))
        assert fitted(tmp_path, 200 * GIGA).micro == 24


def test_a_number_that_was_given(tmp_path):
    assert fitted(tmp_path, 200 * GIGA, micro=5).micro == 5
    assert fitted(tmp_path, 200 * GIGA, micro=99).micro == 24
    assert "as --micro says" in str(fitted(tmp_path, 200 * GIGA, micro=5))
    assert fitted(tmp_path, still() + 5 * GIGA, micro=5).micro == 5, "to the last byte: whoever gives a number knows better"
    with pytest.raises(ResourceError):
        fitted(tmp_path, still() + 5 * GIGA - 1, micro=5)
    with pytest.raises(UsageError, match="-1 examples"):
        fitted(tmp_path, 200 * GIGA, micro=-1)


def test_what_does_not_fit_says_what_would(tmp_path):
    whole = dataclasses.replace(recipe("simple"), batch=8)
    with pytest.raises(ResourceError) as caught:
        fitted(tmp_path, 50 * GIGA, recipe=whole, share=8)
    assert caught.value.exit_code == 5
    assert caught.value.code == "out_of_memory"
    assert (
        caught.value.message
        == "the run does not fit: with 8 examples at a time it takes 54.8 GB (48.9 GB for one at a time), and there are 50.0 GB"
    )
    again = "  compute blocks again in the backward pass (a third more arithmetic)"
    assert re.sub(r": [\d.]+ GB", "", caught.value.hint).splitlines() == [
        "what would fit:",
        f"{again}, the optimizer adam-small  --recompute --optimizer adam-small",
        f"{again}, the strategy lora  --recompute --strategy lora",
        f"{again}, the strategy qlora  --recompute --strategy qlora",
        f"{again}, 2 devices",
    ]
    with pytest.raises(ResourceError, match=r"there are 0.50 GB") as caught:
        fitted(tmp_path, GIGA // 2)
    assert caught.value.hint == "nothing that is known here would fit: take a smaller model, or a larger machine"


def test_options_name_what_changes():
    wide = Machine(dtype=torch.float32, autocast=True)
    wanted = plan(THREE_B, dataclasses.replace(recipe("simple"), batch=8), 8, wide)
    small = dataclasses.replace(wanted.recipe, optimizer="adam-small")
    narrow = dataclasses.replace(wide, dtype=torch.bfloat16, autocast=False)
    assert options(wanted, dataclasses.replace(wanted, recipe=small, machine=narrow)) == "--optimizer adam-small --dtype bfloat16"
    assert options(wanted, dataclasses.replace(wanted, batch=2)) == "--micro 2"
    assert options(wanted, dataclasses.replace(wanted, machine=dataclasses.replace(wide, devices=2))) == ""
    assert options(wanted, dataclasses.replace(wanted, config=preset("paligemma-3b-448"))) == ""


def test_pictures_and_software_count_where_they_take_of_the_same_memory(tmp_path):
    wide = Machine("cpu", dtype=torch.float32)
    assert Batches.__init__.__kwdefaults__["ahead"] + 2 == WAITING
    assert waiting_bytes(TINY_1, LORA, 10) == WAITING * 10 * 3 * 28 * 28 * 4
    found = fit(TINY_1, LORA, wide, share=24, free=100 * GIGA, run=tmp_path)
    assert found.available == 100 * GIGA - waiting_bytes(TINY_1, LORA, 24) - SOFTWARE
    assert "of waiting pictures and software" in str(found)
    assert fit(TINY_1, LORA, GPU, share=24, free=100 * GIGA, run=tmp_path).available == 100 * GIGA


def test_autocast(monkeypatch):
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: True)
    here, there = torch.device("cpu"), torch.device("cuda")
    assert not autocasts(TINY_2, torch.float32, here), "small models stay in float32"
    assert autocasts(THREE_B, torch.float32, here)
    assert autocasts(TINY_2, torch.float32, there)
    assert not autocasts(THREE_B, torch.bfloat16, there)
    assert machine_of(THREE_B, torch.float32, here, recompute=True, frozen=torch.bfloat16).frozen == torch.bfloat16
    found = machine_of(THREE_B, torch.float32, here, recompute=True, devices=2)
    assert found == Machine("cpu", 2, torch.float32, True, True)
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: False)
    assert not autocasts(THREE_B, torch.float32, here)


def test_a_plan_as_text(tmp_path):
    lines = str(fitted(tmp_path, 21 * GIGA)).splitlines()
    assert lines[0] == "paligemma-3b-224, 224 pixels, lora, adam, bfloat16"
    assert lines[1] == "12 examples at a time, 128 tokens each"
    assert lines[-2] == "21.0 GB are free; 18.9 GB of them are planned with, the rest is for what lies besides, and for gaps"
    assert lines[-1] == "12 at a time, 2 times an update: the most that fit here (--micro takes another number)"
