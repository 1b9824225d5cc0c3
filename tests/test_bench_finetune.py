"""Fine-tuning bench: what it counts and concludes; and, marked slow, that all contenders run, do the same work and are timed."""

from __future__ import annotations

import dataclasses
import math

import pytest

from bench.finetune import FEW, MODELS, OURS, THEIRS, Figure, _check_alike, compare, figures, table, work, write_weights
from bench.finetune_worker import Job, Report, inputs
from paligemma.config import PaliGemmaConfig, TextConfig, VisionConfig
from tests.tiny import TINY_1

SMALL = PaliGemmaConfig(VisionConfig(32, 1, 32, 2, image_size=28), TextConfig(32, 1, 32, 2, 1, 16, vocab_size=2000))


def report(seconds: float = 1.0, loss: float = 5.0, norm: float = 2.0, memory: int = 2**30, last: float = 4.9) -> Report:
    return Report("an engine", [9.0, seconds, seconds], [loss, 4.95, last], [norm, 2.0, 2.0], memory, 2**29)


def by_hand(config: PaliGemmaConfig, job: Job) -> dict[str, int]:
    """Multiplications and additions of each part's forward pass: of a matrix two for each of its numbers and row."""
    v, t, batch = config.vision, config.text, job.batch
    text = job.prompt + job.answer
    patches, length = batch * v.num_tokens, batch * (v.num_tokens + text)
    pixels = 2 * patches * 3 * v.patch_size**2 * v.width
    tower = 2 * patches * v.depth * (4 * v.width**2 + 2 * v.width * v.mlp_dim + 2 * v.num_tokens * v.width)
    projector = 2 * patches * v.width * t.width
    asked = [length] * (t.depth - 1) + [batch * text]  # the last block asks for the text only
    inner = t.heads * t.head_dim
    keys = 2 * t.depth * length * 2 * t.width * t.kv_heads * t.head_dim
    blocks = sum(2 * rows * (2 * t.width * inner + 3 * t.width * t.mlp_dim) for rows in asked)
    scores = sum(2 * 2 * rows * (v.num_tokens + text) * inner for rows in asked)
    logits = 2 * batch * job.answer * t.width * t.vocab_size
    return {"pixels": pixels, "vision": tower + projector, "text": keys + blocks, "scores": scores, "logits": logits}


def test_needed_work_of_the_whole_model_is_three_forward_passes_but_for_the_pixels():
    job = Job(OURS, "", "full", batch=3, prompt=4, answer=5)
    hand = by_hand(TINY_1, job)
    assert work(TINY_1, job) == 3 * sum(hand.values()) - hand["pixels"]


def test_needed_work_of_an_adapter_leaves_the_image_tower_and_the_base_weights_out_of_the_way_back():
    wide = dataclasses.replace(TINY_1, text=dataclasses.replace(TINY_1.text, width=512, mlp_dim=2048, head_dim=128))
    job = Job(OURS, "", "lora", batch=3, prompt=4, answer=5)
    hand = by_hand(wide, job)
    base = hand["pixels"] + hand["vision"] + 2 * hand["text"] + 3 * hand["scores"] + 2 * hand["logits"]
    assert base < work(wide, job) < 1.1 * base


def test_the_model_has_a_third_of_a_billion_parameters_and_the_whole_vocabulary():
    config = MODELS["0.3b"]
    assert 0.29e9 < config.num_parameters < 0.31e9
    assert config.text.vocab_size == 257_152
    assert config.vision.num_tokens == 256


def test_examples_are_the_same_each_time_and_of_one_length():
    job = Job(OURS, "", "full", batch=2, words=2000)
    first, second = inputs(job, 28), inputs(job, 28)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    pixels, ids = first
    assert pixels.shape == (2, 3, 28, 28)
    assert pixels.abs().max() <= 1
    assert ids.shape == (2, job.prompt + job.answer)
    assert ids.max() < 2000
    assert ids[:, [0, job.prompt - 1, -1]].tolist() == [[2, 108, 1]] * 2


def test_contenders_that_do_different_work_are_refused():
    _check_alike({OURS: report(), THEIRS: report(loss=5.001, norm=2.02)})
    with pytest.raises(RuntimeError, match="losses"):
        _check_alike({OURS: report(), THEIRS: report(loss=5.1)})
    with pytest.raises(RuntimeError, match="gradients"):
        _check_alike({OURS: report(), THEIRS: report(norm=3.0)})
    with pytest.raises(RuntimeError, match="last losses"):
        _check_alike({OURS: report(), THEIRS: report(last=4.8)})
    with pytest.raises(RuntimeError, match="last losses"):
        _check_alike({OURS: report(), THEIRS: report(last=5.0)})


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "norm", "last"])
def test_numbers_that_are_none_are_not_alike(number, where):
    for first in ({OURS: report(**{where: number}), THEIRS: report()}, {OURS: report(), THEIRS: report(**{where: number})}):
        with pytest.raises(RuntimeError, match="not the same work"):
            _check_alike(first)
    with pytest.raises(RuntimeError, match="not the same work"):
        _check_alike({OURS: report(**{where: number}), THEIRS: report(**{where: number})})


def test_ratios_are_taken_round_by_round_and_the_first_step_is_not_counted():
    ours, theirs = [report(1.0), report(2.0), report(10.0)], [report(2.0, memory=2**31)] * 3
    job = Job(OURS, "", "full", batch=4)
    speed, memory, since, share = figures(job, {OURS: ours, THEIRS: theirs}, needed=10**9, best=1e10)
    assert speed.values[OURS] == (4.0, 2.0, 0.4)
    assert (speed.ratio(THEIRS), speed.target, speed.reached) == (1.0, 1.3, False)
    assert (memory.ratio(THEIRS), memory.target, memory.reached) == (0.5, 0.8, True)
    assert (since.values[OURS], since.values[THEIRS], since.target) == ((0.5,) * 3, (1.5,) * 3, None)
    assert share.values[OURS] == pytest.approx((0.1, 0.05, 0.01))
    assert share.target is None
    assert speed.ratio(FEW) is None
    assert "| full: examples/s | 2 (0.4 to 4) | 2 (2 to 2) | 1.00 | 1.3 missed |  |  |" in table([speed, memory, since, share])


def test_on_an_accelerator_the_share_of_the_peak_is_what_counts():
    job = Job(OURS, "", "full", device="cuda")
    speed, _, _, share = figures(job, {OURS: [report(1.0)]}, needed=5 * 10**9, best=1e10)
    assert speed.target is None
    assert (share.target, share.reached) == (0.45, True)
    assert figures(dataclasses.replace(job, strategy="lora"), {OURS: [report()]}, 1, 1.0)[-1].target is None


def test_a_figure_without_the_other_side_is_not_measured():
    row = Figure("speed", {OURS: (1.0,)}, 1.3)
    assert row.reached is None
    assert "1.3 not measured" in table([row])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_all_contenders_do_the_same_work_and_are_timed(tmp_path, strategy):
    weights, adapter = write_weights(SMALL, tmp_path)
    job = Job(OURS, str(weights), strategy, str(adapter), batch=2, prompt=4, answer=5, words=SMALL.text.vocab_size, steps=1, threads=1)
    reports = compare(job, 1, [OURS, THEIRS, FEW])
    assert all(len(found.seconds) == len(found.losses) == len(found.norms) == 2 for many in reports.values() for found in many)
    rows = figures(job, reports, work(SMALL, job), 1e10)
    assert all(value > 0 for row in rows for values in row.values.values() for value in values)
    assert len(table(rows).splitlines()) == len(rows) + 2
