"""What a pass holds: foretold from tensors without numbers and a few blocks, it is what tensors with numbers and all blocks take."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from paligemma.config import PaliGemmaConfig
from paligemma.training.footprint import Footprint, Pass, _attention, _counted, _Counter, count, footprint, small_model
from paligemma.training.recipes import Recipe, recipe
from tests.tiny import TINY_1, TINY_2, random_model, random_pixels

BASE = dataclasses.replace(recipe("debug"), text_len=20, lora_rank=2)
PLAIN = Pass(3, torch.float32, fused_attention=False)


def deep(config: PaliGemmaConfig, vision: int = 4, text: int = 6) -> PaliGemmaConfig:
    return dataclasses.replace(
        config, vision=dataclasses.replace(config.vision, depth=vision), text=dataclasses.replace(config.text, depth=text)
    )


def really(config: PaliGemmaConfig, mine: Recipe, how: Pass) -> Footprint:
    """Counted on a whole model with numbers."""
    model = small_model(config, mine, how, config.vision.depth, config.text.depth).to_empty(device="cpu")
    with _attention(how.fused_attention):
        found = count(model, mine, how)
    return Footprint(found.kept, max(found.peaks.values()))


@pytest.mark.parametrize(
    ("config", "strategy", "how"),
    [
        (TINY_1, "full", PLAIN),
        (TINY_2, "full", Pass(3, torch.float32, autocast=True, recompute=True, fused_attention=False)),
        (TINY_1, "freeze-vision", Pass(1, torch.bfloat16, recompute=True)),
        (TINY_1, "attention-only", Pass(3, torch.float32, autocast=True)),
        (TINY_2, "lora", Pass(3, torch.bfloat16)),
    ],
    ids=lambda value: getattr(value, "name", None) or str(value),
)
def test_foretold_is_counted(config, strategy, how):
    mine = dataclasses.replace(BASE, strategy=strategy, label_smoothing=0.1, final_softcap=3.0)
    assert footprint(deep(config), mine, how) == really(deep(config), mine, how)


def test_many_pictures_and_dropout():
    """The last block of the decoder asks for the text only, so the one before it takes more."""
    mine, how = dataclasses.replace(BASE, frames=12, dropout=0.1), dataclasses.replace(PLAIN, batch=1, recompute=True)
    assert footprint(deep(TINY_1), mine, how) == really(deep(TINY_1), mine, how)


def kept(config: PaliGemmaConfig, mine: Recipe, how: Pass, vision: int = 1) -> int:
    return _counted(config, mine, how, vision, 2).kept


def test_a_tower_that_does_not_learn_keeps_nothing():
    frozen = dataclasses.replace(BASE, strategy="freeze-vision")
    assert kept(TINY_1, frozen, PLAIN, vision=1) == kept(TINY_1, frozen, PLAIN, vision=4)
    assert kept(TINY_1, BASE, PLAIN, vision=1) < kept(TINY_1, BASE, PLAIN, vision=4)


def test_what_saves_memory_does():
    long = dataclasses.replace(BASE, text_len=200)
    plain = kept(TINY_1, long, PLAIN)
    assert kept(TINY_1, long, dataclasses.replace(PLAIN, recompute=True)) < plain / 4
    assert kept(TINY_1, long, dataclasses.replace(PLAIN, fused_attention=True)) < plain


def test_a_soft_cap_forbids_the_fused_kernel():
    """Of PaliGemma 2's decoder; its image tower has none."""
    frozen = dataclasses.replace(BASE, strategy="freeze-vision")
    assert kept(TINY_2, frozen, PLAIN) == kept(TINY_2, frozen, dataclasses.replace(PLAIN, fused_attention=True))


def test_qlora_keeps_what_lora_keeps():
    lora, qlora = (footprint(TINY_1, dataclasses.replace(BASE, strategy=strategy), PLAIN) for strategy in ("lora", "qlora"))
    assert lora == qlora


def test_the_counter_counts_each_storage_once_while_it_lives():
    x = torch.nn.Parameter(torch.ones(1000))
    holder = torch.nn.ParameterList([x])
    with _Counter(holder) as counter:
        y = x.exp()
        assert counter.live == 4000
        z = y.view(10, 100)[2:]
        w = x.detach().view(-1)
        assert counter.live == 4000, "views, of results and of parameters, are nothing new"
        del y
        assert counter.live == 4000
        del z, w
        assert counter.live == 0
        counter.mark("first")
        (x.sum() * 2).backward()
        assert x.grad is not None
        assert counter.live == 4000
        counter.mark("second")
    assert counter.peaks["first"] == 4000
    assert counter.peaks["second"] > 4000


def test_a_look_ahead_leaves_no_trace():
    config = deep(TINY_1)
    model, pixels = random_model(config), random_pixels(config, 1)
    ids = torch.arange(2, 8)[None]
    state = torch.get_rng_state()
    before = model(model.encode_image(pixels), ids, torch.ones_like(ids))
    footprint(config, dataclasses.replace(BASE, text_len=21, dropout=0.2), PLAIN)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model(model.encode_image(pixels), ids, torch.ones_like(ids)), before)
    assert torch.get_default_dtype() == torch.float32
