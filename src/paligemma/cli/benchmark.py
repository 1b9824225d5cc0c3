"""`paligemma bench`: how quick a model is on this machine, in words, as a table, and as a picture or a page."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal  # noqa: F401

from cyclopts import Group, Parameter

from ..errors import ResourceError, UsageError
from ..printable import printable
from .options import MODEL, MODEL_VARIABLE, OUTPUT, DType, Json, ModelOptions  # noqa: F401  (the parser looks for names of inherited fields here)
from .show import as_json

if TYPE_CHECKING:
    from ..benchmark.figures import Benchmark
    from ..benchmark.measuring import Asked

MEASURE = Group("Measure", sort_key=2)
ENDINGS = (".html", ".png")


@Parameter(name="*")
@dataclass(frozen=True)
class BenchModel(ModelOptions):
    """Which model, and where it runs."""

    model: Annotated[str | None, Parameter(alias="-m", group=MODEL, env_var=MODEL_VARIABLE)] = None
    """A folder, an .npz file, a pack or a Hugging Face id that was pulled. The bundled small model by default."""


DEFAULTS = BenchModel()


def bench(
    *,
    quick: Annotated[bool, Parameter(group=MEASURE, negative="", show_default=False)] = False,
    batches: Annotated[str | None, Parameter(group=MEASURE)] = None,
    tokens: Annotated[int | None, Parameter(group=MEASURE)] = None,
    repeats: Annotated[int | None, Parameter(group=MEASURE)] = None,
    against: Annotated[list[str] | None, Parameter(group=MEASURE, consume_multiple=True, negative="")] = None,
    out: Annotated[Path | None, Parameter(alias="-o", group=OUTPUT)] = None,
    json: Json = False,
    options: BenchModel = DEFAULTS,
) -> int:
    """Measure how quick a model is on this machine, and how near to what the machine allows.

    Parameters
    ----------
    quick
        A first look: short answers, few repeats, one picture at a time.
    batches
        How many pictures go through the model at a time, one after the other; by default 1,2,4.
    tokens
        Of every answer; by default 32.
    repeats
        Of everything; by default 3. Medians are shown, and how far they spread.
    against
        Other models to measure side by side, such as the packs of this one; other options are for --model alone.
    out
        Also write a page (report.html) or a picture (report.png).
    """
    from ..benchmark import words
    from ..benchmark.measuring import QUICK, Plan, measure

    if out is not None:
        _check_place(out)
    said: dict[str, Any] = {"tokens": tokens, "repeats": repeats, "batches": None if batches is None else sizes(batches)}
    plan = dataclasses.replace(QUICK if quick else Plan(), **{name: value for name, value in said.items() if value is not None})
    with _progress() as tell:
        found = measure(_asked(options, against or []), plan, tell)
    for warning in words.warnings(found):
        print(printable(f"warning: {warning}"), file=sys.stderr)
    if out is not None:
        _write(found, out)
    if json:
        print(as_json(found.to_dict() | {"words": [words.said(model) for model in found.models], "warnings": words.warnings(found)}))
    else:
        print(words.report(found))
        print(f"\nwritten: {printable(str(out))}" if out is not None else "\nas a page or a picture: --out report.html, --out report.png")
    return 0


def sizes(text: str) -> tuple[int, ...]:
    """`1,2,4` -> (1, 2, 4). Raises `UsageError` for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"--batches must be whole numbers above 0, got {text!r}", hint="for example --batches 1,2,4")
    return tuple(map(int, parts))


def _asked(options: BenchModel, against: list[str]) -> list[Asked]:
    """The models; paths as text, for they go to other processes."""
    from ..benchmark.measuring import Asked

    given = {name: getattr(options, name) for name in ("tokenizer", "codec", "device", "dtype", "engine", "quantize")}
    given = {name: str(value) for name, value in given.items() if value is not None}
    return [Asked(options.model or "bundled", given), *map(Asked, against)]


def _check_place(out: Path) -> None:
    """Say before the work what would stop the writing after it."""
    if out.suffix.lower() not in ENDINGS or out.is_dir():
        raise UsageError(f"--out {out}: expected a file that ends in {' or '.join(ENDINGS)}", hint="for example --out report.html")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}", hint="make it first, or choose another place")


def _write(found: Benchmark, out: Path) -> None:
    from ..benchmark import page, picture

    try:
        (page if out.suffix.lower() == ".html" else picture).save(found, out)
    except OSError as error:
        raise ResourceError(f"{out} cannot be written ({error.strerror or error})", hint="choose another --out") from error


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal: what is being done, and how much of it all is."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns: Any = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        line = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(line, description=escape(what), completed=done, total=total)
