"""The same place gives the same row; a broken picture gives way to another, always the same; padding changes nothing."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from PIL import Image

from paligemma.data import batch as batch_module
from paligemma.data.augment import Augment
from paligemma.data.batch import Batches, Row, RowReader, mask_codes
from paligemma.data.mixture import Mixture
from paligemma.data.records import DataSet, Record
from paligemma.errors import InputError, ResourceError
from paligemma.sequence import Example
from tests.tiny import TINY_1, random_codec, tiny_tokenizer

COUNT = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataSet:
    folder = tmp_path_factory.mktemp("pictures")
    records = []
    for i in range(COUNT):
        path = folder / f"{i}.png"
        Image.fromarray(np.full((20 + i, 30, 3), 20 * i, np.uint8)).save(path)
        records.append(Record(f"r{i}", "caption", (path,), f"line {i}", "caption en", (f"grey {i}", f"number {i * 11}")))
    return DataSet(folder, "jsonl", "caption", tuple(records))


def reader(**more) -> RowReader:
    return RowReader(tiny_tokenizer(), TINY_1, 48, **more)


def batches(data: DataSet, **more) -> Batches:
    return Batches(Mixture([data], seed=1), reader(), pad_id=0, seed=3, **more)


def equal(a, b) -> bool:
    tensors = ("pixels", "ids", "mask_ar", "mask_loss", "valid")
    return a.records == b.records and all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors)


def test_a_run_goes_on_anywhere_with_any_number_of_threads(data):
    straight = list(batches(data, threads=1, ahead=1).stream(0, 3, 9))
    later = list(batches(data, threads=3, ahead=5).stream(12, 3, 5))
    assert all(map(equal, straight[4:], later))
    assert sorted(r for b in straight[:4] for r in b.records) == sorted(r.id for r in data.records)


def test_several_processes_share_the_places(data):
    whole = list(batches(data).stream(0, 4, 3))
    parts = [list(batches(data).stream(0, 2, 3, offset=2 * rank, stride=4)) for rank in range(2)]
    for i in range(3):
        assert whole[i].records == parts[0][i].records + parts[1][i].records


def test_rows_are_padded_on_the_right_and_nothing_else(data):
    (batch,) = batches(data, length=48).stream(0, COUNT, 1)
    assert batch.ids.shape == (COUNT, 48)
    assert batch.pixels.shape == (COUNT, 3, 28, 28)
    assert (batch.pixels.min(), batch.pixels.max()) >= (-1, -1)
    lengths = batch.valid.sum(1)
    for row, length in enumerate(lengths):
        assert batch.valid[row, :length].all()
        assert (batch.ids[row, length:] == 0).all()
        assert (batch.mask_ar[row, length:] == 1).all()
        assert (batch.mask_loss[row, length:] == 0).all()
        assert batch.ids[row, length - 1] == tiny_tokenizer().eos_id
        assert batch.mask_loss[row, length - 1] == 1


def test_a_picture_that_vanishes_is_replaced_by_the_same_other_one_each_time(data, tmp_path):
    records = list(data.records)
    gone = Record("gone", "caption", (tmp_path / "gone.png",), "line 99", "caption en", ("x",))
    holed = DataSet(data.path, "jsonl", "caption", (*records[:5], gone, *records[5:]))
    faults: list = []
    first = Batches(Mixture([holed], seed=1), reader(), pad_id=0, seed=3, on_fault=faults.append)
    seen = list(first.stream(0, COUNT + 1, 2))
    assert [(f.id, f.code) for f in faults] == [("gone", "missing")]
    assert list(first.quarantine) == ["gone"]
    assert all("gone" not in b.records for b in seen)
    again = Batches(Mixture([holed], seed=1), reader(), pad_id=0, seed=3, quarantine=["gone"], on_fault=faults.append)
    assert all(map(equal, again.stream(0, COUNT + 1, 2), seen))
    assert len(faults) == 1


def test_a_record_that_comes_back_stays_in_quarantine(data):
    known = Batches(Mixture([data], seed=1), reader(), pad_id=0, seed=3, quarantine=["r4"])
    assert all("r4" not in b.records for b in known.stream(0, COUNT, 3))


def test_a_data_set_of_which_nothing_can_be_opened_ends_the_run(tmp_path):
    gone = tuple(Record(f"g{i}", "caption", (tmp_path / f"{i}.png",), f"line {i}", "caption en", ("x",)) for i in range(3))
    with pytest.raises(InputError, match="in a row cannot be used"):
        list(batches(DataSet(tmp_path, "jsonl", "caption", gone)).stream(0, 2, 1))


def test_a_reader_that_hangs_is_named(data, monkeypatch):
    monkeypatch.setattr(batch_module, "SECONDS", 0.05)

    def slow(record, classes, rng):
        time.sleep(0.5)
        return Row(np.zeros((1, 3, 28, 28), np.float32), Example([1], [0], [0]), record.id)

    with pytest.raises(ResourceError, match="reading record r"):
        list(Batches(Mixture([data], seed=1), slow, pad_id=0).stream(0, 1, 1))


def test_augmented_rows_are_functions_of_their_place_too(data):
    changed = RowReader(tiny_tokenizer(), TINY_1, 48, augment=Augment(colour=0.5, flip=0.5, jpeg=0.5))
    first, again = (list(Batches(Mixture([data], seed=1), changed, pad_id=0, seed=3).stream(0, 4, 6)) for _ in range(2))
    assert all(map(equal, first, again))
    assert not equal(first[0], next(iter(batches(data).stream(0, 4, 1))))


def test_several_pictures_a_prompt(data):
    pair = Record("pair", "caption", (data.records[0].pictures[0], data.records[7].pictures[0]), "x", "caption en", ("two",))
    (batch,) = batches(DataSet(data.path, "jsonl", "caption", (pair,))).stream(0, 2, 1)
    assert batch.pixels.shape == (2, 2, 3, 28, 28)
    assert batch.rows(0, 1).pixels.shape == (1, 2, 3, 28, 28)
    with pytest.raises(InputError, match="1 to 2 pictures"):
        list(batches(DataSet(data.path, "jsonl", "caption", (pair, *data.records[:1]))).stream(0, 2, 1))


def test_masks_go_through_the_codec():
    codes = mask_codes(random_codec())(np.ones((64, 64), np.float32))
    assert len(codes) == 16
    assert all(0 <= code < 128 for code in codes)
