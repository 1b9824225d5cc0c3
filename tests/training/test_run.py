"""How a run is put together: what makes it that run, what is measured of what is held out, and processes that are not at one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from paligemma.errors import InputError, ResourceError
from paligemma.training.distributed import ALONE, Processes
from paligemma.training.facts import check_resume
from paligemma.training.recipes import Recipe
from paligemma.training.run import Run, fitted, strides
from paligemma.training.shared_store import SharedStore
from tests.tiny import TINY_1
from tests.training.together import Case, a_run, prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    prepare(folder)
    return folder


@pytest.fixture
def make(folder, tmp_path) -> Callable[..., Run]:
    def make(**case: Any) -> Run:
        return a_run(folder, "-", ALONE, case=Case({"steps": 2}, **case), out=tmp_path / "run")

    return make


def test_what_a_model_was_taught_before_is_no_longer_all():
    before = dataclasses.replace(TINY_1, taught=("caption en",), frames=1)
    assert fitted(before, Recipe(name="own", steps=1, frames=4)) == dataclasses.replace(TINY_1, frames=4)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("micro", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 13, 512])
def test_strides_take_every_record_once_and_leave_no_process_idle(count, micro, world):
    parts = [stride for stride, times in strides(count, micro, world) for _ in range(times)]
    assert sum(parts) == count
    assert max(parts) - min(parts) <= 1
    for stride in parts:
        sizes = [Processes(rank, world).part(stride)[1] for rank in range(world)]
        assert min(sizes) >= 1
        assert max(sizes) <= max(micro, 2)
        assert count < world or sum(sizes) == stride


@pytest.mark.parametrize("micro", [2, 3, 7, 8])
def test_every_held_out_record_is_measured_whatever_goes_through_at_a_time(make, micro):
    run = make(held_out=7, alone=micro)
    seen = [record for batch in run._held_out_batches() for record in batch.records]
    assert sorted(seen) == sorted(record.id for record in run.held_out.records)
    assert run.measure() == pytest.approx(make(held_out=7, alone=1).measure(), rel=1e-5)


@pytest.mark.parametrize(("most", "says"), [(512, "7 records, all of them measured"), (5, "7 records, the first 5 of them measured")])
def test_the_card_says_how_many_were_measured(make, most, says, monkeypatch):
    monkeypatch.setattr("paligemma.training.run.HELD_OUT", most)
    run = make(held_out=7)
    run.go()
    for name in ("best", "last"):
        assert says in (run.out / name / "README.md").read_text()


def test_other_held_out_data_are_other_data(make):
    """What was best by one measure cannot be compared with another."""
    before = make(held_out=7).facts
    check_resume(before, make(held_out=7).facts)
    for now in (make(held_out=6), make()):
        with pytest.raises(InputError, match=r"data\.valid"):
            check_resume(before, now.facts)
    other = make(held_out=7)
    other.held_out = dataclasses.replace(other.held_out, fingerprint="another")
    with pytest.raises(InputError, match=r"data\.valid: saved .*, now another"):
        check_resume(before, other.facts)


class Both(Processes):
    """One of two processes. What the first one told is in `told`; the second one sees the first one's files, or not."""

    told: Any = None
    sees = True

    def lead(self, job):
        if self.first:
            type(self).told = job()
        return self.told

    def gather(self, value):
        return [value, value and self.sees]


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"save_every": 5}, r"note\.plan\.save_every"), ({"evaluate_every": 1}, r"note\.plan\.evaluate_every"), (None, r"data\.valid")],
)
def test_processes_that_would_not_do_the_same_are_refused(make, changed, says):
    """They would wait for each other forever: one saves or measures when the others do not."""
    first, other = make(held_out=7), make(held_out=7 if changed else 6)
    same = make(held_out=7)
    other.plan = dataclasses.replace(other.plan, **(changed or {}))
    for run, rank in ((first, 0), (same, 1), (other, 1)):
        run.processes = Both(rank, 2)
    first._store()
    same._store()
    with pytest.raises(InputError, match=says):
        other._store()


@pytest.mark.parametrize("sees", [True, False])
def test_a_folder_that_is_not_shared_is_found_before_anything_is_done(tmp_path, sees, monkeypatch):
    """The first process sees what it wrote, the second one may not."""
    monkeypatch.setattr(Both, "sees", sees)
    store = SharedStore(tmp_path / "run", facts={}, processes=Both(0, 2))
    if sees:
        with store.lock():
            assert store.newest() is None
    else:
        with pytest.raises(ResourceError, match="process 1 does not see") as caught, store.lock():
            pytest.fail("it began")
        assert caught.value.code == "folder_not_shared"
    assert not [path for path in (tmp_path / "run").iterdir() if path.name != "lock"]
