"""The loop: what is done is not done again, whatever ended the run before; all is in its place at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paligemma.errors import UsageError
from paligemma.jobs import job
from paligemma.jobs.items import items
from paligemma.jobs.job import run
from paligemma.jobs.journal import opened
from paligemma.jobs.rows import Lines

from .making import album, backwards, engine, png


@pytest.fixture
def folder(tmp_path):
    return album(tmp_path / "album", 20, broken=(5, 13))


def do(folder: Path, out: Path, *, made=engine, span: int = 4, stop_after: int | None = None, tell=lambda counts: None):
    asked = 0

    def stopped() -> bool:
        return stop_after is not None and asked >= stop_after

    def counting(spans):
        nonlocal asked
        for done in made(spans):
            asked += 1
            yield done

    with opened(out, {"source": "album"}, Lines()) as journal:
        return run(items(folder), journal, counting, span=span, stopped=stopped, tell=tell), asked


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("results.jsonl", "errors.jsonl")}


@pytest.fixture
def whole(folder, tmp_path):
    """The tables of a run that nothing disturbed."""
    do(folder, tmp_path / "whole")
    return tables(tmp_path / "whole")


def test_everything_is_done_in_the_order_of_the_source(folder, tmp_path, whole):
    counts, asked = do(folder, tmp_path / "out")
    assert asked == 5
    assert (counts.items, counts.here, counts.rows, counts.failed, counts.finished) == (20, 20, 36, 2, True)
    assert counts.cut == 1
    assert dict(counts.codes) == {"image_unknown_format": 2}
    results = [json.loads(line) for line in whole["results.jsonl"].splitlines()]
    wanted = [number for number in range(20) if number not in (5, 13)]
    assert [(row["id"], row["task"]) for row in results] == [(f"{n}.png", task) for n in wanted for task in ("caption", "detect:cat")]
    assert [json.loads(line)["id"] for line in whole["errors.jsonl"].splitlines()] == ["5.png", "13.png"]


@pytest.mark.parametrize("after", range(1, 5))
@pytest.mark.parametrize("made", [engine, backwards])
def test_stopped_and_gone_on_is_as_never_stopped(folder, tmp_path, whole, after, made):
    out = tmp_path / "out"
    first, _ = do(folder, out, made=made, stop_after=after)
    assert not first.finished
    assert first.items == 4 * after
    second, asked = do(folder, out, made=made)
    assert (asked, second.here, second.items, second.finished) == (5 - after, 20 - 4 * after, 20, True)
    assert tables(out) == whole


def test_stopped_again_and_again_with_other_spans(folder, tmp_path, whole):
    out = tmp_path / "out"
    for span in (1, 3, 2, 5, 4, 3, 2, 7, 7):
        counts, _ = do(folder, out, made=backwards if span % 2 else engine, span=span, stop_after=1)
    assert counts.finished
    assert tables(out) == whole


def test_a_finished_job_asks_nothing(folder, tmp_path):
    do(folder, tmp_path / "out")
    counts, asked = do(folder, tmp_path / "out")
    assert (asked, counts.here, counts.items, counts.rows, counts.finished) == (0, 0, 20, 36, True)


def test_an_error_of_the_model_leaves_what_is_done(folder, tmp_path, whole, monkeypatch):
    monkeypatch.setattr(job, "ITEMS", 4)

    def breaks(spans):
        yield next(engine(spans))
        raise UsageError("this model has no mask codec")

    with pytest.raises(UsageError, match="mask codec"):
        do(folder, tmp_path / "out", made=breaks)
    _, asked = do(folder, tmp_path / "out")
    assert asked == 4
    assert tables(tmp_path / "out") == whole


def test_parts_are_written_as_they_fill_and_as_time_passes(folder, tmp_path, monkeypatch):
    told: list[tuple[int, int, int]] = []

    def watch(out: Path):
        told.clear()
        return lambda counts: told.append((counts.items, counts.codes.total(), len((out / "journal.jsonl").read_bytes().splitlines())))

    monkeypatch.setattr(job, "ITEMS", 8)
    do(folder, tmp_path / "a", tell=watch(tmp_path / "a"))
    assert told == [(4, 0, 0), (8, 1, 1), (12, 1, 1), (16, 2, 2), (20, 2, 2)], "items, errors, parts on the disk"
    monkeypatch.setattr(job, "SECONDS", 0.0)
    do(folder, tmp_path / "b", tell=watch(tmp_path / "b"))
    assert told == [(4, 0, 1), (8, 1, 2), (12, 1, 3), (16, 2, 4), (20, 2, 5)]


def test_a_source_may_grow_at_its_end(folder, tmp_path):
    out = tmp_path / "out"
    do(folder, out)
    (folder / "20.png").write_bytes(png(28))
    counts, asked = do(folder, out)
    assert (asked, counts.here, counts.items, counts.finished) == (1, 1, 21, True)
    do(folder, tmp_path / "whole")
    assert tables(out) == tables(tmp_path / "whole")


@pytest.mark.parametrize("change", ["one more in the middle", "one less", "one less at the end", "another name"])
@pytest.mark.parametrize("finished", [True, False])
def test_another_source_is_refused(folder, tmp_path, change, finished):
    do(folder, tmp_path / "out", stop_after=None if finished else 5)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    if change == "one more in the middle":
        (folder / "7b.png").write_bytes(png())
    elif change == "another name":
        (folder / "7.png").rename(folder / "7c.png")
    else:
        (folder / ("19.png" if change.endswith("end") else "7.png")).unlink()
    with pytest.raises(UsageError, match="the source is not what it was") as raised:
        do(folder, tmp_path / "out")
    assert raised.value.code == "source_changed"
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {path.name: data for path, data in after.items() if path.name != "lock"} == {
        path.name: data for path, data in before.items() if path.name != "lock"
    }


def test_nothing_is_a_job_too(tmp_path):
    table = tmp_path / "t.jsonl"
    table.write_text("\n")
    counts, asked = do(table, tmp_path / "out")
    assert (counts.items, asked, counts.finished) == (0, 0, True)
    assert tables(tmp_path / "out") == {"results.jsonl": b"", "errors.jsonl": b""}
    table.write_text('{"image": "none.png"}\n')
    counts, asked = do(table, tmp_path / "out")
    assert (counts.items, counts.failed, asked) == (1, 1, 1)


def test_what_is_to_be_alone_comes_alone(folder, tmp_path, whole):
    spans: list[tuple[int, int]] = []

    def noting(found):
        def noted():
            for span in found:
                spans.append((span.start, len(span.items)))
                yield span

        yield from engine(noted())

    with opened(tmp_path / "out", {"source": "album"}, Lines()) as journal:
        run(items(folder), journal, noting, span=4, alone=lambda item: item.id in ("0.png", "6.png", "7.png", "19.png"))
    assert spans == [(0, 1), (1, 4), (5, 1), (6, 1), (7, 1), (8, 4), (12, 4), (16, 3), (19, 1)]
    assert tables(tmp_path / "out") == whole
