"""`python -m bench.jobs`: how time and memory of `paligemma batch` grow with its source, and what Ray's workers gain. The bundled model.

The source is a table whose rows name two hundred generated pictures again and again. Each line is a process of its own; where several
counts are measured, the time between them is what counts: the model is loaded in it too.

    python -m bench.jobs --counts 1000 4000
    python -m bench.jobs --counts 1000 4000 --engine ray --workers 2
    python -m bench.jobs --counts 1000 100000 --without-model    # the loop alone: nothing is opened or asked
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from paligemma.jobs.items import Item, items
from paligemma.jobs.job import Span, run
from paligemma.jobs.journal import opened
from paligemma.jobs.rows import Lines, Row
from paligemma.jobs.work import Done
from paligemma.nano.scenes import write_scenes
from paligemma.results import Box, Caption, Detections

PICTURES = 200
TASKS = ("--task", "caption", "--task", "detect:owl;fish;heart")


def source(folder: Path, count: int) -> Path:
    table = folder / f"{count}.jsonl"
    with table.open("w") as file:
        for number in range(count):
            file.write(json.dumps({"image": f"scene{number % PICTURES:03d}.png"}) + "\n")
    return table


def peak(process: subprocess.Popen[str], found: list[int]) -> None:
    """The most bytes that it and its children took together, looked at twenty times a second; shared ones count each time."""
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        taken = 0
        for one in [watched, *_children(watched)]:
            try:
                taken += one.memory_info().rss
            except psutil.Error:
                continue
        found[0] = max(found[0], taken)
        time.sleep(0.05)


def measure_loop(table: Path, out: Path) -> tuple[float, int, int]:
    """Seconds, peak bytes of this process, rows: of answers that are made up."""
    answers = (Caption("an owl, a green heart and a fish", 0.9, "caption en"), Detections((Box("owl", 1, 2, 30, 40, 0.9),) * 3, 112, 112))

    def engine(spans: Iterator[Span]) -> Iterator[tuple[int, list[Done]]]:
        for span in spans:
            yield span.start, [Done(item.id, rows(item), ()) for item in span.items]

    def rows(item: Item) -> tuple[dict[str, Any], ...]:
        return tuple(Row(item.id, item.where, task, item.kept, one).to_dict() for task, one in zip(TASKS[1::2], answers, strict=True))

    begun = time.perf_counter()
    with opened(out, {"tasks": list(TASKS[1::2])}, Lines()) as journal:
        counts = run(items(table), journal, engine, span=8)
    return time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, counts.rows


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def measure(table: Path, out: Path, more: list[str]) -> tuple[float, int, int]:
    """Seconds, peak bytes, rows."""
    words = [sys.executable, "-m", "paligemma", "batch", str(table), *TASKS, "--out", str(out), "--json", *more]
    begun, most = time.perf_counter(), [0]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watcher = threading.Thread(target=peak, args=(process, most))
    watcher.start()
    said, errors = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(errors)
    return time.perf_counter() - begun, most[0], json.loads(said.splitlines()[-1])["rows"]


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.jobs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 4000])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--engine", choices=["ray"])
    parser.add_argument("--workers", type=int)
    parser.add_argument("--without-model", action="store_true")
    options = parser.parse_args()
    more = ["--batch", str(options.batch)]
    more += ["--engine", options.engine] if options.engine else []
    more += ["--workers", str(options.workers)] if options.workers else []
    with tempfile.TemporaryDirectory(prefix="bench-jobs-") as name:
        folder = Path(name)
        write_scenes(folder, count=PICTURES, seed=5, split="test")
        print(f"{os.cpu_count()} processors, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, {' '.join(more)}")
        print(f"{'pictures':>9}{'seconds':>10}{'a second':>10}{'since the last':>16}{'peak MB':>9}")
        before = (0, 0.0)
        for count in options.counts:
            table, out = source(folder, count), folder / f"out{count}"
            seconds, most, rows = measure_loop(table, out) if options.without_model else measure(table, out, more)
            assert rows == 2 * count, f"{rows} rows of {count} pictures"
            rate = (count - before[0]) / (seconds - before[1]) if before[0] else count / seconds
            print(f"{count:>9,}{seconds:>10.1f}{count / seconds:>10.1f}{rate:>16.1f}{most / 1e6:>9.0f}", flush=True)
            before = (count, seconds)


if __name__ == "__main__":
    main()
