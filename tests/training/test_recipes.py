"""Recipes: the same numbers as in docs/recipes.md, which is read here as it stands; found by name; text and back."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.config import PRESETS
from paligemma.errors import UsageError
from paligemma.training.recipes import BASES, RECIPES, STAGE_RATES, Recipe, differences, from_text, recipe, to_text
from paligemma.training.transfers import BEYOND, TRANSFERS

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
SIMPLE = recipe("simple")
EVERY = [found for sizes in RECIPES.values() for found in sizes.values()]
NOT_TOLD = "·"


def rows(region: str) -> list[dict[str, str]]:
    """A table of the page, by its headings."""
    found = re.search(rf"<!-- {region} -->\n(.*?)<!-- end -->", PAGE, re.S)
    assert found, f"docs/recipes.md has no region {region!r}"
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].strip().splitlines()]
    return [dict(zip(head, cells, strict=True)) for cells in body]


def length(cell: str) -> tuple[str, float]:
    """`5`, `15000 steps` or `5 x 566435 examples` -> which setting, and its value."""
    if match := re.fullmatch(r"(\d+) x (\d+) examples", cell):
        return "examples", int(match[1]) * int(match[2])
    if match := re.fullmatch(r"(\d+) steps", cell):
        return "steps", int(match[1])
    return "epochs", float(cell)


def published(row: dict[str, str], place: int, resolution: int) -> dict[str, object]:
    """What a row of the table of transfers says of one of its resolutions, as settings."""

    def at(heading: str) -> str:
        values = row[heading].split(" / ")
        return values[place] if len(values) > 1 else values[0]

    kind, value = length(at("epochs"))
    return {
        "resolution": resolution,
        "frames": int(at("frames")),
        "text_len": int(at("length")),
        "max_tokens": int(at("length")),
        "epochs": 0.0,
        kind: value,
        "batch": int(at("batch")),
        "learning_rate": float(at("rate")),
        "weight_decay": float(at("decay")),
        "dropout": float(at("dropout")),
        "label_smoothing": float(at("smoothing")),
        "strategy": {"no": "full", "yes": "freeze-vision"}[at("frozen")],
        "beams": int(at("beams")),
        "resize": {"bilinear": "bilinear", "antialias": "bilinear-antialias"}[at("resize")],
    }


@pytest.mark.parametrize("row", rows("transfers"), ids=lambda row: row["recipe"])
def test_transfers_are_those_of_the_page(row):
    resolutions = [int(size) for size in row["resolution"].split(" / ")]
    assert list(RECIPES[row["recipe"]]) == resolutions
    for place, resolution in enumerate(resolutions):
        found = recipe(row["recipe"], resolution)
        wanted = published(row, place, resolution)
        assert {name: getattr(found, name) for name in wanted} == wanted
        common = ("loss", "optimizer", "schedule", "warmup", "clip", "decay", "final_softcap")
        assert [getattr(found, name) for name in common] == [getattr(SIMPLE, name) for name in common]
        assert (found.loss, found.schedule, found.warmup, found.clip, found.decay) == ("example", "cosine", 0.05, 1.0, "reference")


@pytest.mark.parametrize("row", rows("beyond"), ids=lambda row: row["recipe"])
def test_what_is_not_told_is_as_in_simple(row):
    sizes = [224, 448, 896] if row["resolution"] == NOT_TOLD else [int(row["resolution"])]
    assert list(RECIPES[row["recipe"]]) == sizes
    told = {"length": "text_len", "answer": "max_tokens", "batch": "batch", "rate": "learning_rate", "smoothing": "label_smoothing"}
    for size in sizes:
        found = recipe(row["recipe"], size)
        for heading, name in told.items():
            if row[heading] != NOT_TOLD:
                assert getattr(found, name) == float(row[heading])
            elif name not in ("text_len", "max_tokens"):
                assert getattr(found, name) == getattr(SIMPLE, name)
        kind, value = length(row["epochs or steps"]) if row["epochs or steps"] != NOT_TOLD else ("epochs", SIMPLE.epochs)
        assert getattr(found, kind) == value
        assert found.base == "paligemma2-3b"


def test_the_page_has_every_transfer_and_names_every_recipe():
    assert [row["recipe"] for row in rows("transfers")] == list(TRANSFERS)
    assert [row["recipe"] for row in rows("beyond")] == list(BEYOND)
    assert [name for name in RECIPES if f"`{name}`" not in PAGE and f"| {name} |" not in PAGE] == []


def test_the_python_of_the_page_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names: dict[str, Recipe] = {}
    exec(code, names)
    assert (names["again"].name, names["again"].epochs) == ("docvqa", 3)


def test_a_recipe_is_judged_by_its_benchmarks_metric():
    from paligemma.evaluation.metrics import METRICS
    from paligemma.evaluation.published import benchmark_named

    assert {found.metric for found in EVERY} - {"auto"} <= METRICS.keys()
    for name in TRANSFERS:
        benchmark = benchmark_named(name)
        assert benchmark is not None
        assert recipe(name).metric == benchmark.metric


def test_stages_of_pretraining():
    one, two, three = recipe("stage1"), recipe("stage2a"), recipe("stage2b")
    assert [(r.resolution, r.text_len, r.examples) for r in (one, two, three)] == [
        (224, 128, 10**9),
        (448, 512, 5 * 10**7),
        (896, 512, 10**7),
    ]
    assert {r.schedule for r in (one, two, three)} == {"rsqrt"}
    assert (one.start, two.start) == (0, one.total_steps(1))
    assert three.start == pytest.approx(one.total_steps(1) + two.total_steps(1), abs=1)
    assert [recipe("stage1", base=base).learning_rate for base in BASES] == [2e-5, 1e-5, 5e-6, 5e-6]
    assert [recipe("stage2b", base=base).final_softcap for base in BASES] == [0, 30, 30, 30]
    assert set(STAGE_RATES) == set(BASES)


def test_other_recipes():
    notebook, l4, forkme, maestro = (recipe(name) for name in ("notebook", "vertexai-l4", "forkme", "maestro"))
    assert (notebook.strategy, notebook.optimizer, notebook.learning_rate, notebook.steps) == ("attention-only", "sgd", 0.03, 64)
    assert (notebook.batch, notebook.warmup, notebook.clip) == (8, 0.1, 0)
    assert (l4.optimizer, l4.learning_rate, l4.batch, l4.epochs) == ("sgd", 0.1, 4, 1)
    assert (forkme.resolution, forkme.text_len, forkme.batch, forkme.epochs) == (224, 128, 32, 15)
    assert (forkme.learning_rate, forkme.weight_decay, forkme.final_softcap) == (1e-5, 3e-7, 0)
    assert (maestro.strategy, maestro.lora_rank, maestro.lora_alpha, maestro.learning_rate, maestro.loss) == ("lora", 8, 16, 1e-5, "token")
    assert [(r.resolution, r.text_len) for r in RECIPES["mix"].values()] == [(224, 256), (448, 512)]
    assert (SIMPLE.learning_rate, SIMPLE.batch, SIMPLE.weight_decay, SIMPLE.dropout, SIMPLE.label_smoothing) == (1e-5, 256, 0, 0, 0)


@pytest.mark.parametrize("found", EVERY, ids=lambda found: f"{found.name}-{found.resolution}")
def test_every_recipe_is_text_and_back(found):
    text = to_text(found)
    assert from_text(text) == found
    assert all("  # " in line for line in text.splitlines()[1:])
    assert RECIPES[found.name][found.resolution] is found
    assert found.about
    if found.base and found.resolution in (224, 448, 896):
        assert found.preset in PRESETS


@given(st.text(), st.text(), st.text(min_size=1))
def test_any_words_come_back(about, prompt, name):
    changed = dataclasses.replace(SIMPLE, about=about, prompt=prompt, name=name)
    assert from_text(to_text(changed)) == changed


@pytest.mark.parametrize(
    ("name", "resolution", "found"),
    [
        ("docvqa", None, ("docvqa", 224)),
        ("docvqa", 896, ("docvqa", 896)),
        ("DocVQA", 448, ("docvqa", 448)),
        ("science_qa", None, ("science-qa", 224)),
        ("ocr-detection", None, ("ocr-detection", 896)),
        ("simple", None, ("simple", 0)),
        ("simple", 112, ("simple", 112)),  # made for no resolution, so fit for any
    ],
)
def test_found_by_name(name, resolution, found):
    one = recipe(name, resolution)
    assert (one.name, one.resolution) == found


def test_another_family():
    ten = recipe("docvqa", 448, base="paligemma2-10b")
    assert ten.preset == "paligemma2-10b-448"
    assert differences(ten, recipe("docvqa", 448)) == ['base is "paligemma2-10b", not "paligemma-3b"']


@pytest.mark.parametrize(
    ("arguments", "words", "hint"),
    [
        (("docvq",), "no recipe is called 'docvq'", "did you mean 'docvqa'?"),
        (("zzz",), "no recipe is called 'zzz'", "recipes: simple, lora, debug, cococap"),
        (("docvqa", 300), "'docvqa' is for 224, 448, 896 pixels, found 300", "edit its resolution"),
        (("msrvtt-qa", 448), "'msrvtt-qa' is for 224 pixels, found 448", "edit"),
        (("docvqa", 224, "paligema-3b"), "base: no family of models is called 'paligema-3b'", "did you mean 'paligemma-3b'?"),
        (("stage1", 224, "paligema-3b"), "base: no family of models is called 'paligema-3b'", "did you mean 'paligemma-3b'?"),
    ],
)
def test_unknown_ones_name_the_nearest(arguments, words, hint):
    with pytest.raises(UsageError, match=words) as raised:
        recipe(*arguments)
    assert hint in str(raised.value.hint)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "mine"', "epochs, steps, examples: expected one of them above 0, found none"),
        ('name = "mine"\nepochs = 2\nsteps = 9', "found epochs = 2 and steps = 9"),
        ('name = ""\nepochs = 2', "name: expected a text that is not empty"),
        ('name = "mine"\nepochs = 2\ntask = "capton"', "no task is called 'capton'"),
        ('name = "mine"\nepochs = 2\nlearning_rate = 0', "learning_rate: expected a number above 0 to 1,000, found 0.0"),
        ('name = "mine"\nepochs = 2\nstrategy = "freeze_vision"', "strategy: expected one of"),
        ('name = "mine"\nepochs = 2\nlr = 1e-5', "there is no setting 'lr'"),
    ],
)
def test_a_recipe_that_cannot_be(text, words):
    with pytest.raises(UsageError, match=words):
        from_text(text)


@pytest.mark.parametrize(
    ("changes", "examples", "steps"),
    [
        ({"epochs": 10.0}, 1000, 39),
        ({"epochs": 0.5}, 1024, 2),
        ({"epochs": 1.0}, 3, 1),
        ({"epochs": 0.0, "steps": 7}, 10**6, 7),
        ({"epochs": 0.0, "examples": 5 * 566_435}, 1, 11063),
    ],
)
def test_updates_of_a_run(changes, examples, steps):
    assert dataclasses.replace(SIMPLE, **changes).total_steps(examples) == steps


def test_recipes_do_not_change_and_need_no_torch():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SIMPLE.batch = 1  # pyright: ignore[reportAttributeAccessIssue]
    code = "import sys, paligemma.training.recipes; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
