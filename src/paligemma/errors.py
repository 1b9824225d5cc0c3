"""The errors a user can meet: one sentence (what, where, expected, found), a hint, and the exit code that goes with them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PaliGemmaError(ValueError):
    """Base of every error meant for the user. `code` is a stable snake_case name, `exit_code` what the command line returns."""

    exit_code = 1
    default_code = "error"

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code
        if hint:
            self.add_note(f"hint: {hint}")  # below a traceback


class UsageError(PaliGemmaError):
    """The call itself is wrong: unknown option value, unknown preset, options that contradict each other."""

    exit_code = 2
    default_code = "usage"


class InputError(PaliGemmaError):
    """An image, video, prompt or record cannot be used."""

    exit_code = 3
    default_code = "bad_input"


class CheckpointError(PaliGemmaError):
    """A checkpoint, tokenizer, adapter or index is refused."""

    exit_code = 4
    default_code = "bad_checkpoint"


class ResourceError(PaliGemmaError):
    """The machine lacks something: memory, disk, device, PyTorch."""

    exit_code = 5
    default_code = "resource"


class TrainingError(PaliGemmaError):
    """A training run cannot go on: its loss or gradients are no numbers."""

    exit_code = 7
    default_code = "diverged"


def no_torch(what: str = "this", *, otherwise: str | None = None) -> ResourceError:
    """Where PyTorch is not installed: `what` needs it. `otherwise`: what else could be done."""
    install = "pip install 'paligemma[torch]'"
    return ResourceError(
        f"{what} needs PyTorch, which is not installed", hint=f"{install}, or {otherwise}" if otherwise else install, code="no_torch"
    )


def lacks_memory(error: BaseException) -> bool:
    """Whether it says that an allocation was refused. PyTorch, which is not imported for this, has two ways to say so."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def did_you_mean(name: object, known: Iterable[str], otherwise: str | None = None, *, cutoff: float = 0.6) -> str | None:
    """A hint for a name that is unknown: the closest of those that are known; `otherwise` where none is close."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff)
    return f"did you mean {close[0]!r}?" if close else otherwise
