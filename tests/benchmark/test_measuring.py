"""A checkpoint and its pack side by side, in real processes; and what is refused before any is started."""

from __future__ import annotations

import pytest

from paligemma.benchmark import measuring, page, picture, words
from paligemma.benchmark.figures import Benchmark
from paligemma.benchmark.measuring import Asked, Plan, measure
from paligemma.checkpoint import save_codec, save_huggingface
from paligemma.edge.network import EdgeNetwork
from paligemma.edge.packer import pack_model
from paligemma.errors import CheckpointError, ResourceError, UsageError
from tests import tiny

PLAN = Plan(tokens=3, batches=(2,), repeats=2, settled=True, seconds=0.01)
ONE = {"ready", "load", "cold", "memory", "read", "peak", "first", "decode", "rate", "image", "answer", "cpu", "mask"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint without a mask codec, and a pack with one."""
    folder = tmp_path_factory.mktemp("measured")
    whole, bare = save_huggingface(tiny.tiny_model(), folder / "whole"), save_huggingface(tiny.tiny_model(), folder / "bare")
    for model in (whole, bare):
        tiny.tiny_tokenizer().save(model)
    save_codec(tiny.random_codec(), whole / "mask_codec.safetensors")
    return bare, pack_model(whole, folder / "pack", "int8")


@pytest.fixture(scope="module")
def found(folders) -> Benchmark:
    told = []
    found = measure([Asked(str(folders[0]), {"dtype": "float32"}), Asked(str(folders[1]))], PLAN, lambda *each: told.append(each))
    assert [done for _, done, _ in told] == list(range(len(told)))
    assert {total for *_, total in told} == {len(told) - 1}
    return found


def test_every_figure_of_every_repeat(found):
    bare, pack = found.models
    assert set(bare.figures) == set(pack.figures) == ONE | {"first@2", "decode@2", "rate@2"}
    for model in found.models:
        assert {name: len(one.values) for name, one in model.figures.items()} == {
            name: 1 if name == "memory" else PLAN.repeats for name in model.figures
        }
        assert all(value > 0 for one in model.figures.values() for value in one.values)
        image, first, answer = (model.figures[name].values for name in ("image", "first", "answer"))
        assert all(a < b < c for a, b, c in zip(image, first, answer, strict=True))
        assert all(a < b < c for a, b, c in zip(*(model.figures[name].values for name in ("load", "ready", "cold")), strict=True))
    assert (bare.engine, bare.numbers, bare.products, bare.masks) == ("PyTorch", "float32", "float32", False)
    assert (pack.engine, pack.numbers, pack.masks) == ("pack", "int8", True)


def test_bytes_are_those_that_the_weights_take(found, folders):
    bare, pack = found.models
    index = EdgeNetwork(folders[1]).index
    outside = sum(entry.bytes for name, entry in index.entries.items() if not name.startswith("text."))
    assert bare.work.weight_bytes == 4 * tiny.tiny_config().text.num_parameters
    assert pack.work.weight_bytes == index.bytes - outside
    assert pack.work.weight_bytes < bare.work.weight_bytes / 2
    assert pack.work.cache_bytes == bare.work.cache_bytes / 2, "bfloat16"


def test_pytorch_takes_memory_that_a_pack_does_not(found):
    bare, pack = (model.value("memory") for model in found.models)
    assert pack < bare / 2, "torch itself is larger than that"


def test_words_page_and_picture_of_it(found):
    assert words.report(found).count("On this machine: ") == 2
    assert page.page(found).count('class="track"') == 2 * (4 + 1 + 2)
    assert picture.draw(found).width == picture.WIDTH


def test_one_model_that_is_not_there_is_said_before_any_is_started(folders, monkeypatch):
    monkeypatch.setattr(measuring, "Remote", None)
    with pytest.raises(CheckpointError, match="no such file"):
        measure([Asked(str(folders[0])), Asked(str(folders[0].with_name("nowhere")))])


def test_an_error_of_a_model_comes_through(folders):
    with pytest.raises(UsageError, match="is a pack"):
        measure([Asked(str(folders[1]), {"dtype": "float32"})], PLAN)


def test_models_that_do_not_fit_together_are_refused(folders, monkeypatch):
    monkeypatch.setattr(measuring, "free_memory", lambda: 1000)
    with pytest.raises(ResourceError, match="2 models side by side need"):
        measure([Asked(str(folder)) for folder in folders], PLAN)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokens": 0}, "tokens must be from 2 to 8,192, got 0"),
        ({"tokens": 1}, "tokens must be from 2"),
        ({"tokens": 9000}, "tokens must be from 2"),
        ({"batches": ()}, "batches must be from 1 to 64, got none"),
        ({"batches": (1, 0)}, "batches must be from 1 to 64, got 1, 0"),
        ({"batches": (65,)}, "batches must be"),
        ({"repeats": 0}, "repeats must be from 1 to 100, got 0"),
    ],
)
def test_plans_that_make_no_sense(changed, message):
    with pytest.raises(UsageError, match=message):
        Plan(**changed)
