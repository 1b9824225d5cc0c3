"""Tasks: what to ask a PaliGemma, and how to read its answer. Strings and values; no model, no torch.

A task is one module: `prompt(...)` writes the question, `target(...)` the answer a model is trained on, `parse(text)` reads an answer,
whatever it is, without an error. To add one, write the module and add it to the tuple below. If it answers in words, `Predictor.task` and
`paligemma run --task` know it then, and a verb of its own is a matter of taste; if it answers in places, it needs one, of its name.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..errors import UsageError, did_you_mean
from ..results import Result
from . import answer, caption, describe_box, detect, ocr, question, refer, run, segment


class Task(Protocol):
    """What every module here has. `parse` gives text, or `detect.Parsed` where the answer holds boxes; `target` is its inverse."""

    @property
    def name(self) -> str: ...
    @property
    def result(self) -> type[Result]:
        """What the predictor returns."""
        ...

    @property
    def max_tokens(self) -> int:
        """Longest answer unless the user says otherwise: a few sentences 128, a page 512, about 100 boxes or 40 masks 1024."""
        ...

    def prompt(self, *args: Any, **kwargs: Any) -> str: ...
    def target(self, *args: Any, **kwargs: Any) -> str: ...
    def parse(self, text: str, *args: Any, **kwargs: Any) -> Any: ...


_ALL: tuple[Task, ...] = (caption, answer, question, ocr, detect, segment, refer, describe_box, run)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}

VERBS = ("caption", "ask", "question", "ocr", "describe_box", "run", "detect", "segment", "refer")
"""Methods of a predictor, and of a server's client, that ask about a picture."""


def check_verb(verb: str) -> None:
    """Raises `UsageError` for one that is not of `VERBS`, with the closest one."""
    if verb not in VERBS:
        raise UsageError(f"there is no verb {verb!r}", hint=did_you_mean(verb, VERBS, "verbs: " + ", ".join(VERBS)))


def task_named(name: str) -> Task:
    """The task of that name; an unknown name raises `UsageError` with the closest."""
    if name in TASKS:
        return TASKS[name]
    raise UsageError(f"no task is called {name!r}", hint=did_you_mean(name, TASKS, "tasks: " + ", ".join(TASKS)))
