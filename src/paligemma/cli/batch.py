"""The loop behind every task command: open inputs, ask the model a batch at a time, show each result, go on past what cannot be read."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError, UsageError
from .failures import STDIN, lines
from .options import ModelOptions, TaskOptions
from .show import Drawings, as_json, as_text, error_dict

if TYPE_CHECKING:
    from ..predictor import Predictor
    from ..results import Result
    from ..sources import Source

Call = Callable[..., list[Any]]
"""(predictor, inputs, options=...) -> one result per input."""

PARTLY_FAILED = 6
BUNDLED_NOTE = (
    "note: the bundled model knows only the small world it was drawn from, not photographs. For those: --model with a published\n"
    "      checkpoint (`paligemma models` lists them). `--model bundled` asks for the small one by name and leaves this note out."
)


def load(options: ModelOptions) -> Predictor:
    """The predictor that the options ask for."""
    import paligemma

    if options.model is None and sys.stderr.isatty():
        print(BUNDLED_NOTE, file=sys.stderr)
    return paligemma.load(
        options.model, tokenizer=options.tokenizer, codec=options.codec, device=options.device, dtype=options.dtype
    )


def ask_all(task: str, images: Sequence[str], options: TaskOptions, call: Call) -> int:
    """Put `call` to every input and show what comes back. Returns the exit code: 0, 6 if some inputs failed, 3 if all did."""
    if options.batch < 1:
        raise UsageError(f"--batch must be at least 1, got {options.batch}")
    sources = _find(images, options)
    several = len(sources) > 1
    drawings = Drawings(options.out, several) if options.out else None
    failed = 0
    with _progress(task, len(sources) if several else 0) as advance:
        for source, result in _answers(sources, options, call):
            if isinstance(result, InputError):
                failed += 1
                print(lines(result), file=sys.stderr)
                if options.json:
                    print(as_json({"source": source.name, "task": task, "error": error_dict(result)}), flush=True)
            else:
                if options.json:
                    print(as_json({"source": source.name, "task": task, "result": result.to_dict()}), flush=True)
                else:
                    print(as_text(result, source.name if several else None), flush=True)
                if drawings:
                    drawings.save(result, source.name)
            advance()
    if failed and several:
        print(f"{failed} of {len(sources)} inputs failed", file=sys.stderr)
    if failed == len(sources):
        return InputError.exit_code
    return PARTLY_FAILED if failed else 0


def _find(images: Sequence[str], options: TaskOptions) -> list[Source]:
    from ..sources import expand

    arguments = ["-" if image == STDIN else image for image in images]
    return expand(arguments, allow_urls=options.allow_urls, stdin=sys.stdin.buffer, frames=options.frames)


def _answers(sources: Sequence[Source], options: TaskOptions, call: Call) -> Iterator[tuple[Source, Result | InputError]]:
    """(input, its result or why there is none), in order. The model is loaded when the first input has been opened."""
    predictor: Predictor | None = None
    for start in range(0, len(sources), options.batch):
        group = sources[start : start + options.batch]
        opened = [_opened(source) for source in group]
        good = [item for item in opened if not isinstance(item, InputError)]
        results = iter(())
        if good:
            predictor = predictor or load(options)
            results = iter(call(predictor, good))
        for source, item in zip(group, opened, strict=True):
            yield source, item if isinstance(item, InputError) else next(results)


def _opened(source: Source) -> Any:
    try:
        return source.open()
    except InputError as error:
        return error


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
