"""Batches: a function of their number, the same from a child process, which never outlives its parent."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from paligemma.errors import PaliGemmaError
from paligemma.nano.batches import LONG, SHORT, SHORTS_PER_PICTURE, Batch, BatchMaker, Making, bank_codes, pixels_of, stream
from paligemma.nano.lessons import Mix
from paligemma.nano.names import things
from paligemma.nano.sprites import sprite_bank
from paligemma.nano.train_codec import square_mask
from paligemma.nano.world import SIZE
from tests import tiny


def tensors(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for field in dataclasses.fields(value) for tensor in tensors(getattr(value, field.name))]


def same(a: Batch, b: Batch) -> bool:
    pairs = zip(tensors(a), tensors(b), strict=True)
    return all(x.dtype == y.dtype and torch.equal(x.nan_to_num(-7), y.nan_to_num(-7)) for x, y in pairs)


@pytest.fixture(scope="module")
def making(tokenizer_path, codes) -> Making:
    return Making(
        tokenizer_path=str(tokenizer_path), codes=codes[:, :1], size=4, bank_size=1, bank_seed=0, backgrounds=5, seed=7, text_share=0.3,
        mix=Mix(), grid=8, side=112,
    )  # fmt: skip


@pytest.fixture(scope="module")
def maker(making) -> BatchMaker:
    return BatchMaker(making)


def test_a_batch_is_what_it_says(maker, nano_tokenizer):
    batch = maker(2)
    assert batch.pixels.shape == (4, 3, SIZE, SIZE)
    assert batch.pixels.dtype == torch.uint8
    assert torch.equal(batch.pixels, pixels_of([maker.world.scene(index) for index in range(8, 12)]))
    assert batch.dense.thing.shape == (4, 64)
    for text, rows, length in ((batch.long, 4, LONG), (batch.short, 4 * SHORTS_PER_PICTURE, SHORT)):
        assert text.ids.shape == text.mask_ar.shape == text.mask_loss.shape == (rows, length)
        for ids, mask_ar, mask_loss in zip(text.ids, text.mask_ar, text.mask_loss, strict=True):
            prompt = int((mask_ar == 0).sum())
            answer = int(mask_loss.sum())
            end = prompt + answer
            assert ids[0] == nano_tokenizer.bos_id
            assert ids[prompt - 1] == nano_tokenizer.newline_id
            assert ids[end - 1] == nano_tokenizer.eos_id
            assert (ids[end:] == nano_tokenizer.pad_id).all()
            assert mask_ar.tolist() == [0] * prompt + [1] * (length - prompt)
            assert mask_loss.tolist() == [0] * prompt + [1] * answer + [0] * (length - end)


def test_short_texts_belong_to_their_pictures(maker, nano_tokenizer):
    """Rows 2i and 2i + 1 are about picture i: print is asked about where print is."""
    for index in range(4):
        batch = maker(index)
        scenes = [maker.world.scene(4 * index + i) for i in range(4)]
        for i, scene in enumerate(scenes):
            long = nano_tokenizer.decode(batch.long.ids[i].tolist())
            assert long.startswith("ocr") == bool(scene.lines)
            for row in range(SHORTS_PER_PICTURE):
                short = nano_tokenizer.decode(batch.short.ids[SHORTS_PER_PICTURE * i + row].tolist())
                assert not (scene.lines and short.startswith("caption"))
                assert not (scene.objects and "word" in short)


def test_a_batch_depends_on_nothing_but_its_number(maker, making):
    third = maker(3)
    maker(9)
    assert same(maker(3), third)
    assert same(BatchMaker(making)(3), third)
    assert not same(maker(4), third)
    other = BatchMaker({**making, "seed": 8})
    assert not same(other(3), third)


def test_the_bank_has_the_codes_of_its_masks():
    codec = tiny.random_codec()
    codes = bank_codes(codec, 1, 5)
    assert codes.shape == (len(things()), 1, 16)
    assert isinstance(codes, np.ndarray)
    bank = sprite_bank(5, 1)
    with torch.inference_mode():
        for thing in (0, 20, 48):
            mask = torch.from_numpy(square_mask(bank[thing][0].mask))[None]
            assert codes[thing, 0].tolist() == codec.encode(mask)[0].tolist()


@pytest.fixture(scope="module")
def streamed(making):
    """A stream that starts at batch 3, closed at the end of the module."""
    batches = stream(making, 3)
    yield batches
    batches.close()


def test_a_stream_gives_the_same_batches_from_a_child(maker, streamed):
    assert same(next(streamed), maker(3))
    assert same(next(streamed), maker(4))


def test_closing_a_stream_ends_the_child(streamed):
    import multiprocessing

    assert len(multiprocessing.active_children()) == 1
    streamed.close()
    assert not multiprocessing.active_children()


def test_a_child_that_fails_is_an_error_and_no_endless_wait(making, capfd):
    broken = stream({**making, "tokenizer_path": "nowhere.model"}, 0)
    with pytest.raises(PaliGemmaError, match="ended with code 1") as raised:
        next(broken)
    assert raised.value.code == "no_batches"
    assert "nowhere.model" in capfd.readouterr().err, "and says what was wrong"


PARENT = """
import multiprocessing, numpy as np, sys, time
from paligemma.nano.batches import Making, stream
from paligemma.nano.lessons import Mix

if __name__ == "__main__":
    codes = np.zeros((49, 1, 16), int)
    making = Making(
        tokenizer_path=sys.argv[1], codes=codes, size=64, bank_size=1, bank_seed=0, backgrounds=5, seed=7, text_share=0.3,
        mix=Mix(), grid=8, side=112,
    )
    batches = stream(making, 0)
    next(batches)
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for processes in /proc")
def test_a_child_does_not_outlive_a_killed_parent(tmp_path, tokenizer_path):
    """Even when it has more batches ready than anybody will ever take."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script), str(tokenizer_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert alive(child)
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            patience = time.monotonic() + 60
            while alive(child) and time.monotonic() < patience:
                time.sleep(0.1)
            assert not alive(child)
        finally:
            parent.kill()
            if alive(child):
                os.kill(child, signal.SIGKILL)
