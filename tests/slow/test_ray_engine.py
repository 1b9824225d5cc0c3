"""A job on Ray Data: the same rows as in one process, also where a worker is killed at work."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

import paligemma
from paligemma.cli import main
from paligemma.errors import CheckpointError, PaliGemmaError, UsageError
from paligemma.jobs.asked import all_asked
from paligemma.jobs.items import items
from paligemma.jobs.job import here, run
from paligemma.jobs.journal import opened
from paligemma.jobs.rows import Lines
from paligemma.jobs.work import Order
from paligemma.nano.scenes import write_scenes

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COUNT, BATCH, SPAN = 120, 4, 8
ORDER = Order(all_asked(["caption", "detect:owl;fish;heart"]), {"max_tokens": 32})


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=COUNT, seed=3, split="test")
    (folder / "scene007.png").write_bytes(b"no picture")
    (folder / "scenes.jsonl").unlink()
    return folder


@pytest.fixture(scope="module")
def plain(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    work(source, out, here(paligemma.load, ORDER), BATCH)
    return out


def work(source: Path, out: Path, engine, span: int, stopped=lambda: False):
    with opened(out, {"tasks": [str(task) for task in ORDER.tasks]}, Lines()) as journal:
        return run(items(source), journal, engine, span=span, stopped=stopped)


def on_two():
    from paligemma.jobs.ray_engine import on_ray

    load = functools.partial(paligemma.load, None)
    return on_ray(load, paligemma.load().config, ORDER, batch=BATCH, workers=2)


def same(found: Path, wanted: Path) -> None:
    """Scores may differ in their last digits, by how many threads computed them; nothing else does."""
    pairs = [[json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()] for out in (found, wanted)]
    assert len(pairs[0]) == len(pairs[1]) == 2 * (COUNT - 1)
    for one, other in zip(*pairs, strict=True):
        assert rounded(one) == rounded(other)
    assert (found / "errors.jsonl").read_bytes() == (wanted / "errors.jsonl").read_bytes()


def rounded(value):
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def workers() -> list[psutil.Process]:
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "Answering" in " ".join(one.cmdline()):
                found.append(one)
    return found


def test_the_rows_are_those_of_one_process(source, plain, tmp_path):
    counts = work(source, tmp_path / "out", on_two(), SPAN)
    assert (counts.items, counts.failed, counts.finished) == (COUNT, 1, True)
    same(tmp_path / "out", plain)


def test_a_worker_that_is_killed_loses_nothing(source, plain, tmp_path):
    killed: list[int] = []

    def kill() -> None:
        end = time.monotonic() + 300
        while time.monotonic() < end and not killed:
            if len(list((tmp_path / "out" / "parts").glob("*"))) or (tmp_path / "begun").exists():
                for one in workers()[:1]:
                    os.kill(one.pid, signal.SIGKILL)
                    killed.append(one.pid)
            time.sleep(0.02)

    engine = on_two()

    def watched(spans):
        for place, done in engine(spans):
            (tmp_path / "begun").touch()  # an answer is there: they are at work
            yield place, done

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    work(source, tmp_path / "out", watched, SPAN)
    killer.join(1)
    assert killed, "no worker was found"
    same(tmp_path / "out", plain)


def test_one_engine_goes_on_where_the_other_stopped(source, plain, tmp_path):
    asked = iter([False, False, False, False, True, True])
    begun = work(source, tmp_path / "out", here(paligemma.load, ORDER), BATCH, lambda: next(asked))
    assert 0 < begun.items < COUNT
    counts = work(source, tmp_path / "out", on_two(), SPAN)
    assert (counts.items, counts.here, counts.finished) == (COUNT, COUNT - begun.items, True)
    same(tmp_path / "out", plain)


def test_the_command(source, tmp_path, capsys):
    words = ["batch", str(source), "--task", "caption", "--out", str(tmp_path / "out"), "--engine", "ray", "--workers", "2", "--json"]
    assert main(words) == 6
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["items"], said["rows"], said["failed"]) == (COUNT, COUNT - 1, 1)


def refusing():
    """A model that cannot do what is asked at all."""
    predictor = paligemma.load()

    def refuse(*pictures, **how):
        raise UsageError("this model cannot caption", hint="take another", code="no_captions")

    predictor.caption = refuse
    return predictor


def unloadable():
    raise CheckpointError("this is no model", code="not_a_model")


@pytest.mark.parametrize(("load", "code"), [(refusing, "no_captions"), (unloadable, "not_a_model")])
def test_what_a_worker_refuses_is_told_as_it_is(source, tmp_path, load, code):
    from paligemma.jobs.ray_engine import on_ray

    engine = on_ray(load, paligemma.load().config, ORDER, batch=BATCH, workers=2)
    with pytest.raises(PaliGemmaError) as raised:
        work(source, tmp_path / "out", engine, SPAN)
    assert raised.value.code == code


def test_a_source_of_many_lots(source, plain, tmp_path, monkeypatch):
    from paligemma.jobs import ray_engine

    monkeypatch.setattr(ray_engine, "LOT", 12_000)
    counts = work(source, tmp_path / "out", on_two(), SPAN)
    assert (counts.items, counts.failed, counts.finished) == (COUNT, 1, True)
    same(tmp_path / "out", plain)
