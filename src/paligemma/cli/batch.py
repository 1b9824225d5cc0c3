"""The loop behind every task command: open inputs, ask the model a batch at a time, show each result, go on past what cannot be read."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, InputError, UsageError
from ..image import Clip
from ..printable import printable
from ..results import Result, Text
from ..sources import Source, expand
from .failures import PARTLY_FAILED, STDIN, lines
from .options import MODEL_VARIABLE, ModelOptions, TaskOptions
from .show import Drawings, as_json, as_text, error_dict

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..predictor import Predictor

Call = Callable[..., Any]
"""(predictor, pictures, **how) -> results: a method of the predictor with what is asked filled in."""

BUNDLED_NOTE = (
    "note: the bundled model knows only the small drawn world it was trained on, not photographs. For those: --model with a published\n"
    "      checkpoint (`paligemma models` lists them). `--model bundled` asks for the small one by name and leaves this note out."
)


@dataclass(frozen=True)
class Together:
    """Several inputs as one: pictures and the frames of videos, in order, for one prompt."""

    parts: Sequence[Source]

    @property
    def name(self) -> str:
        return " + ".join(part.name for part in self.parts)

    def open(self) -> Clip:
        opened = [part.open() for part in self.parts]
        return Clip(tuple(frame for one in opened for frame in (one.frames if isinstance(one, Clip) else (one,))))


def load(options: ModelOptions) -> Predictor:
    """The predictor that the options ask for."""
    import paligemma

    if options.model == "" and os.environ.get(MODEL_VARIABLE) != "":
        raise UsageError("--model names nothing", hint="leave it out for the small bundled model")
    if not options.model and sys.stderr.isatty():
        print(BUNDLED_NOTE, file=sys.stderr)
    try:
        names = ("tokenizer", "codec", "device", "dtype", "engine", "quantize")
        return paligemma.load(options.model, **{name: getattr(options, name) for name in names})
    except CheckpointError as error:
        if options.model is not None and options.model == os.environ.get(MODEL_VARIABLE):
            error.message = f"{MODEL_VARIABLE}: {error.message}"
        raise


def ask_all(task: str, images: Sequence[str], options: TaskOptions, call: Call) -> int:
    """Put `call` to every input and show what comes back. Returns the exit code: 0, 6 if some inputs failed, 3 if all did."""
    import paligemma

    warnings.simplefilter("ignore", paligemma.CutShort)  # counted and said once, at the end
    sources = _find(images, options)
    several = len(sources) > 1
    files = [Path(part.name) for source in sources for part in (source.parts if isinstance(source, Together) else [source])]
    drawings = None if options.out is None else Drawings(Path(options.out), several, files)
    failed = cut = 0
    with _progress(task, len(sources)) as advance:
        for source, result, picture in _answers(sources, options, call):
            if isinstance(result, InputError):
                failed += 1
                print(lines(result), file=sys.stderr)
                if options.json:
                    print(as_json({"source": source.name, "task": task, "error": error_dict(result)}), flush=True)
            else:
                cut += getattr(result, "stop", None) == "length"
                if options.json:
                    print(as_json({"source": source.name, "task": task, "result": result.to_dict()}), flush=True)
                elif not options.stream:
                    print(as_text(result, source.name if several else None), flush=True)
                if drawings:
                    drawings.save(result, source.name, picture)
            advance()
    if drawings and drawings.saved:
        where = drawings.saved[0] if len(drawings.saved) == 1 else f"{drawings.saved[0].parent} ({len(drawings.saved)} pictures)"
        print(printable(f"drawn: {where}"), file=sys.stderr)
    if cut:
        print(f"warning: {cut} of {len(sources)} answers reached --max-tokens and {'was' if cut == 1 else 'were'} cut off", file=sys.stderr)
    if failed and several:
        print(f"{failed} of {len(sources)} inputs failed", file=sys.stderr)
    if failed == len(sources):
        return InputError.exit_code
    return PARTLY_FAILED if failed else 0


def _find(images: Sequence[str], options: TaskOptions) -> Sequence[Source | Together]:
    arguments = ["-" if image == STDIN else image for image in images]
    sources = expand(arguments, allow_urls=options.allow_urls, stdin=sys.stdin.buffer, frames=options.frames)
    return [Together(sources)] if options.together else sources


def _answers(
    sources: Sequence[Source | Together], options: TaskOptions, call: Call
) -> Iterator[tuple[Source | Together, Result | InputError, Image | None]]:
    """(input, its result or why there is none, its picture), in order. The model is loaded when the first input has been opened."""
    model: Predictor | None = None
    size = 1 if options.stream else options.batch
    for start in range(0, len(sources), size):
        group = sources[start : start + size]
        opened = [_attempt(source.open) for source in group]
        good = [item for item in opened if not isinstance(item, InputError)]
        results = iter(())
        if good:
            if model is None:
                model = _asked(options)
                if sys.stderr.isatty():
                    print(f"model: {model.description.splitlines()[0]}", file=sys.stderr)
            if options.stream:
                results = iter([_attempt(_watched, call, model, good[0], options.how, group[0].name if len(sources) > 1 else None)])
            else:
                results = iter(_all_or_one_by_one(call, model, good, options.how))
        for source, item in zip(group, opened, strict=True):
            if isinstance(item, InputError):
                yield source, item, None
            else:
                yield source, _named(next(results), source.name), item.frames[0] if isinstance(item, Clip) else item


def _asked(options: TaskOptions) -> Predictor:
    """What answers: the model, or it with its explanations."""
    model = load(options)
    if not options.explain:
        return model
    from ..predictor.explaining import Explainer

    return Explainer(model)


def _all_or_one_by_one(call: Call, model: Predictor, pictures: list[Any], how: dict[str, Any]) -> list[Result | InputError]:
    """A batch; where one of its pictures does not suit the question (a box outside it), each by itself, so that only that one fails."""
    try:
        return call(model, pictures, **how)
    except InputError as error:
        if len(pictures) == 1:
            return [error]
        return [_attempt(lambda picture=picture: call(model, [picture], **how)[0]) for picture in pictures]


def _named(result: Result | InputError, name: str) -> Result | InputError:
    """The model does not know what a picture is called; what cannot be opened says its name itself."""
    return InputError(f"{name}: {result.message}", hint=result.hint, code=result.code) if isinstance(result, InputError) else result


def _attempt(action: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return action(*arguments)
    except InputError as error:
        return error


def _watched(call: Call, model: Predictor, picture: Any, how: dict[str, Any], name: str | None) -> Result:
    """Print an answer piece by piece while it is written, then what was made of it, if that says more."""
    stream = call(model, picture, stream=True, **how)
    if name is not None:
        print(f"{printable(name)}: ", end="")
    for piece in stream:
        print(printable(piece, keep="\n\t"), end="", flush=True)
    print()
    if not isinstance(stream.result, Text):
        print(as_text(stream.result), flush=True)
    return stream.result


@contextlib.contextmanager
def _progress(task: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr where a person watches several inputs; otherwise nothing. Yields what to call after each input."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Results that go to a file must not be caught by the bar.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        line = bar.add_task(task, total=total)
        yield lambda: bar.advance(line)
