"""`paligemma batch`: tasks over many pictures -> tables of results. A job that ends before its time goes on with the same command."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import InputError, PaliGemmaError, UsageError
from ..printable import printable
from ..sources import reaches
from ..video import DEFAULT_FRAMES
from .failures import PARTLY_FAILED, lines
from .options import ANSWERS, INPUT, MODEL, MODEL_VARIABLE, OUTPUT, DType, Json, ModelOptions, PlaceOptions, named  # noqa: F401
from .progress import progress
from .show import as_json, counted

if TYPE_CHECKING:
    from ..config import PaliGemmaConfig
    from ..jobs.items import Item, Ways
    from ..jobs.job import Counts, Engine
    from ..jobs.work import Order
    from ..predictor import Predictor
    from ..training.stopping import Stopping

# DType: the parser reads inherited annotations as if they stood here.

ALL_FAILED = InputError.exit_code
PLACES = PlaceOptions()
NAMED = 5
"""Errors that are told at the end; their table has them all."""
PER_WORKER = 64
"""Pictures that a worker is given at a time, about: each time it writes what came of them."""


@Parameter(name="*")
@dataclass(frozen=True)
class JobModel(ModelOptions):
    """Which model, and where it runs."""

    model: Annotated[str | None, Parameter(alias="-m", group=MODEL, env_var=MODEL_VARIABLE)] = None
    """A folder, an .npz file or a Hugging Face id that was pulled. The bundled small model by default."""
    engine: Annotated[Literal["static", "ray"] | None, Parameter(group=MODEL)] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """static: few shapes, compiled, for a GPU. ray: the job on Ray Data, by --workers processes. By default this process, plainly."""
    workers: Annotated[int | None, Parameter(group=MODEL)] = None
    """With --engine ray: processes that each have the model. By default one for each GPU, or else one for each processor."""

    def __post_init__(self) -> None:
        if self.workers is not None and (self.engine != "ray" or self.workers < 1):
            what = f"--workers {self.workers}: at least 1, and only with --engine ray"
            raise UsageError(what, hint="leave it out, or for example --engine ray --workers 2")

    @property
    def loading(self) -> dict[str, Any]:
        """What `paligemma.load` takes."""
        names = ("tokenizer", "codec", "device", "dtype", "quantize")
        return {name: getattr(self, name) for name in names} | {"engine": None if self.engine == "ray" else self.engine}

    @property
    def numbers(self) -> dict[str, str]:
        """What results depend on, beside the model itself, as `facts` takes it."""
        return {name: str(getattr(self, name)) for name in ("dtype", "quantize", "codec", "tokenizer")}


DEFAULTS = JobModel()


def batch(
    source: Annotated[str, named("SOURCE", "A folder, a pattern, a .jsonl, .parquet or .tar (WebDataset), a picture or a video.")],
    /,
    *,
    task: Annotated[list[str] | None, Parameter(group=ANSWERS, negative="")] = None,
    max_tokens: Annotated[int | None, Parameter(group=ANSWERS)] = None,
    beams: Annotated[int, Parameter(group=ANSWERS)] = 1,
    places: PlaceOptions = PLACES,
    batch: Annotated[int, Parameter(group=INPUT)] = 8,
    frames: Annotated[int, Parameter(group=INPUT)] = DEFAULT_FRAMES,
    tiles: Annotated[bool, Parameter(group=INPUT, negative="", show_default=False)] = False,
    track: Annotated[bool, Parameter(group=INPUT, negative="", show_default=False)] = False,
    every: Annotated[float, Parameter(group=INPUT)] = 0.5,
    image_root: Annotated[Path | None, Parameter(group=INPUT)] = None,
    allow_urls: Annotated[bool, Parameter(group=INPUT, negative="", show_default=False)] = False,
    out: Annotated[Path, Parameter(alias="-o", group=OUTPUT)],
    format: Annotated[Literal["jsonl", "parquet"], Parameter(group=OUTPUT)] = "jsonl",
    draw: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    overwrite: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False,
    json: Json = False,
    options: JobModel = DEFAULTS,
) -> int:
    """Ask every picture of a source, each as many tasks as you like; a row of results each.

    Parameters
    ----------
    task
        What to ask, once or several times: caption, caption:de, ask:"how many dogs?", detect:"cat;dog", segment:cat, ocr, run:PROMPT.
    max_tokens
        Longest answer. By default what suits the task.
    beams
        Search for the most probable whole answer, this many candidates wide.
    batch
        How many pictures go through the model at a time.
    frames
        How many frames of a video, spread evenly over its length.
    tiles
        Search and read large pictures in overlapping parts besides, for what is too small to be seen in the whole.
    track
        Follow videos: boxes of every frame joined into tracks, everything else once a scene.
    every
        With --track: seconds from one frame to the next.
    image_root
        The folder that pictures named in a table must lie in. By default the table's own.
    allow_urls
        Fetch https addresses that a table names.
    out
        The folder for results, errors.jsonl and what is needed to go on.
    format
        Of the results.
    draw
        A folder for pictures with their results drawn on them.
    overwrite
        If --out holds results of another job, remove them.
    """
    from ..jobs.asked import all_asked
    from ..jobs.items import Ways, items
    from ..jobs.parts import ERRORS, RESULTS
    from ..jobs.work import Order

    if batch < 1:
        raise UsageError(f"--batch is at least 1, got {batch}", hint="leave it out for the usual number")
    if track and (draw is not None or not every >= 0.01):
        raise UsageError("--track goes with --every of a hundredth of a second at least, and not with --draw")
    if draw is not None:
        outside(source, draw, "--draw", ending=".png")
    tasks = all_asked(task or [])
    if tiles and not any(task.verb in ("detect", "ocr") for task in tasks):
        raise UsageError("--tiles searches (detect) and reads (ocr) in parts, and neither is asked for", hint="leave --tiles out")
    how = {"max_tokens": max_tokens, "beams": beams}
    order = Order(tasks, how, places.how, draw is not None, tiles, every if track else None)
    ways = Ways(image_root, allow_urls, frames)
    job = Job(source, ways, order, out, format, draw)
    done = job.go(items(source, ways), options, batch=batch, overwrite=overwrite)
    if json:
        print(as_json(summary(done.counts) | {f"{kind}_file": str(path) for kind, path in done.tables.items()}))
    else:
        print(told(done.counts, done.tables[RESULTS], done.tables[ERRORS]))
    return done.exit_code


def outside(source: str, folder: Path, option: str, *, within: str = "", ending: str = "") -> None:
    """Raises `UsageError` for a folder within the source. `within`: where pictures come to lie below it; `ending`: of their names."""
    if reaches(source, folder / within, ending):
        raise UsageError(f"{option} {folder} is within the source, whose pictures it would add to", hint="choose another folder")


@dataclass(frozen=True)
class Ended:
    """How a job ended: its counts, the finished table of each kind of row, what the command ends with."""

    counts: Counts
    tables: dict[str, Path]
    exit_code: int


@dataclass(frozen=True)
class Job:
    """What is ordered, and the folder of its results."""

    source: str
    ways: Ways
    order: Order
    out: Path
    format: Literal["jsonl", "parquet"] = "jsonl"
    draw: Path | None = None

    def go(self, found: Iterable[Item], options: JobModel, *, batch: int, overwrite: bool, lasting: Iterable[str] | None = None) -> Ended:
        """Do what is not done yet of the items `found` in the source, until it is told to stop.

        `lasting`: the source may have changed anywhere, and what failed is tried again but for these codes (see `follow`).
        """
        from ..checkpoint.finding import find
        from ..jobs.facts import facts
        from ..jobs.following import follow
        from ..jobs.items import count, items
        from ..jobs.job import run
        from ..jobs.journal import opened
        from ..jobs.parts import ERRORS, RESULTS
        from ..jobs.rows import FORMS, rows_of
        from ..training.stopping import Stopping

        ordered = facts(self.source, self.ways, self.order, self.format, find(options.model), options.numbers, draw=self.draw)
        form = FORMS[self.format]()
        with Stopping() as stopping, opened(self.out, ordered, form, draw=self.draw, overwrite=overwrite) as journal:
            if lasting is not None:
                follow(journal, items(self.source, self.ways), lasting=lasting)
            engine, span = engine_for(options, self.order, batch)
            with watched(lambda: count(self.source, self.ways)) as tell:
                counts = run(found, journal, engine, span=span, alone=self.order.follows, stopped=lambda: stopping.requested, tell=tell)
            tables = {kind: journal.table(kind) for kind in (RESULTS, ERRORS)}
        if counts.finished:
            complain(itertools.islice(rows_of([tables[ERRORS]]), NAMED))
            if (more := counts.codes.total() - NAMED) > 0:
                print(printable(f"and {more:,} more: {tables[ERRORS]}"), file=sys.stderr)
        return Ended(counts, tables, ended(counts, stopping))


def complain(errors: Iterable[Mapping[str, Any]]) -> None:
    """Name what failed, rows of errors, on standard error."""
    for error in (row["error"] for row in errors):
        print(lines(PaliGemmaError(error["message"], hint=error["hint"], code=error["code"])), file=sys.stderr)


def ended(counts: Counts, stopping: Stopping, *, had: int = 0) -> int:
    """What a command ends with that has run a job; it says so of one that was stopped. `had`: items that had nothing to do."""
    if not counts.finished:
        print("stopped: the same command goes on", file=sys.stderr)
        return stopping.exit_code
    return 0 if not counts.codes else PARTLY_FAILED if had or counts.failed < counts.items else ALL_FAILED


def engine_for(options: JobModel, order: Order, batch: int) -> tuple[Engine, int]:
    """Who does it, and how many items it is given at a time."""
    if options.engine != "ray":
        from ..jobs.job import here

        return here(lambda: _load(options), order), batch
    from ..jobs.ray_engine import on_ray

    gpus = _gpus(options)
    cores = os.cpu_count() or 1
    workers = options.workers or gpus or cores
    load = functools.partial(_loaded, options.model, options.loading)
    share = 1 / math.ceil(workers / gpus) if gpus else 0  # a whole one, or a part of one: a model is on one GPU
    engine = on_ray(load, _config(options), order, batch=batch, workers=workers, cpus=max(cores // workers, 1), gpus=share)
    return engine, batch * max(PER_WORKER // batch, 1)


def _load(options: JobModel) -> Predictor:
    from .batch import load

    return load(dataclasses.replace(options, workers=None))


def _loaded(model: str | None, loading: dict[str, Any]) -> Predictor:
    """In a worker."""
    import paligemma

    return paligemma.load(model, **loading)


def _gpus(options: JobModel) -> int:
    """Those that the model may have: none where a CPU is asked for, or PyTorch is not there."""
    if options.device == "cpu":
        return 0
    try:
        import torch
    except ModuleNotFoundError:
        return 0
    return torch.cuda.device_count()


def _config(options: JobModel) -> PaliGemmaConfig:
    """Of the model, from its headers: what opens pictures needs to know their size."""
    from .. import checkpoint
    from ..checkpoint.finding import base_of, find
    from ..edge.pack_file import is_pack, read_index

    path = find(options.model)
    if is_pack(path):
        return read_index(path).config
    return checkpoint.inspect(base_of(path) if checkpoint.is_adapter(path) else path).config


def summary(counts: Counts) -> dict[str, Any]:
    return {
        "finished": counts.finished,
        "items": counts.items,
        "rows": counts.rows,
        "failed": counts.failed,
        "errors": dict(counts.codes.most_common()),
        "cut_short": counts.cut,
        "items_here": counts.here,
        "seconds": round(counts.seconds, 3),
        "items_per_second": round(counts.rate, 3),
    }


def told(counts: Counts, results: Path, errors: Path) -> str:
    said = [f"{counted(counts.items, 'item')}, {counted(counts.rows, 'result')}"]
    said[0] += f", {counted(counts.failed, 'item')} failed" if counts.failed else ""
    if counts.here:
        said.append(f"{counts.here:,} of them now, in {counts.seconds:.1f} s: {counts.rate:.2f} a second")
    if counts.codes:
        said.append("errors: " + ", ".join(f"{count:,} {printable(code)}" for code, count in counts.codes.most_common()))
    if counts.cut:
        said.append(f"{counts.cut:,} answers reached --max-tokens and were cut off")
    if counts.finished:
        said.append(printable(f"results: {results}" + (f", errors: {errors}" if counts.codes else "")))
    return "\n".join(said)


@contextlib.contextmanager
def watched(how_many: Callable[[], int]) -> Iterator[Callable[[Counts], None]]:
    """What is told the counts, and shows them. `how_many` items there are is asked meanwhile; where that cannot be said, none is shown."""

    def ask() -> None:
        with contextlib.suppress(PaliGemmaError, OSError):
            shown.total = how_many()

    with progress("items") as shown:
        threading.Thread(target=ask, daemon=True).start()
        yield lambda counts: shown.at(counts.items, counts.rate, _errors(counts))


def _errors(counts: Counts) -> str:
    return "".join(f", {count:,} {printable(code)}" for code, count in counts.codes.most_common(3))
