"""Errors at the edge: whatever went wrong -> one line on stderr, a hint, an exit code. Knows every kind, asks for none to be imported."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback

from ..errors import PaliGemmaError, ResourceError, UsageError, lacks_memory, no_torch
from ..printable import printable
from ..training.stopping import exit_code as stopped_by
from . import COMMANDS

PARTLY_FAILED = 6
"""Exit code where some of what was asked for could not be done."""
STDIN = "/dev/stdin"
"""Stands for a lone `-` while the parser looks at the words: to the parser a `-` is an option without a name."""

_LACK = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EROFS: "read_only",
    errno.EACCES: "not_allowed",
    errno.EMFILE: "too_many_files",
}
_WRONG_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL)
"""What names a place to write to that cannot be."""


class Stopped(BaseException):
    """The process was asked to end (SIGTERM)."""


_STOPPED_BY = {KeyboardInterrupt: 2, Stopped: 15, BrokenPipeError: 13}
"""Numbers of SIGINT, SIGTERM and SIGPIPE, which not every system has by name."""


def stop(signum: int, frame: object) -> None:
    """Signal handler: let `finally` blocks run, then end."""
    raise Stopped


def lines(error: PaliGemmaError) -> str:
    """`error[code]: what`, in several lines where it is a list, and, where there is one, `hint: what to do`."""
    text = "\n".join(printable(line) for line in f"error[{error.code}]: {error.message}".split("\n"))
    hint = "\n".join(map(printable, error.hint.split("\n"))) if error.hint else ""
    return f"{text}\nhint: {hint}" if hint else text


def show_warning(message: Warning | str, *_: object) -> None:
    """In place of `warnings.showwarning`: one line, without the place in our code."""
    print(f"warning: {printable(str(message))}", file=sys.stderr)


def exit_code(error: BaseException) -> int:
    """What the process ends with: see `cli/__init__.py`."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    for kind, number in _STOPPED_BY.items():
        if isinstance(error, kind):
            return stopped_by(number)
    told = explain(error)
    return 1 if told is None else told.exit_code


def report(error: BaseException, *, debug: bool = False) -> int:
    """Print the error and return the exit code that goes with it."""
    if isinstance(error, BrokenPipeError):
        # The reader left (`| head`). Python would complain again when it flushes stdout at exit: give it somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif not isinstance(error, SystemExit):
        if debug:
            traceback.print_exception(error)
        if not isinstance(error, KeyboardInterrupt | Stopped):
            _say(error)
    return exit_code(error)


def _say(error: BaseException) -> None:
    told = explain(error)
    if told is None:
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        hint = "this should not happen; please report it with the output of --debug"
        print(f"error[bug]: {printable(message)}\nhint: {hint}", file=sys.stderr)
    else:
        print(lines(told), file=sys.stderr)


def explain(error: BaseException) -> PaliGemmaError | None:
    """The error in the words of `paligemma.errors`, None when it is a bug of ours."""
    if isinstance(error, PaliGemmaError):
        return error
    if type(error).__module__.startswith("cyclopts"):
        chain: list[str] = list(getattr(error, "command_chain", None) or ())
        command = " ".join(["paligemma", *chain])
        example = next((commands[name][2] for commands in COMMANDS.values() for name in chain[:1] if name in commands), "")
        see = f"see {command} --help"
        text = one_line(error)
        if text.endswith("parameter IMAGE... requires an argument"):  # the one word that is given was taken for what stands last
            text = f"{command} needs pictures" + (
                " and then, in quotes, what to ask: one of the two is missing" if _takes_words(example) else ""
            )
        return UsageError(text, hint=f"for example: {command} {example} ({see})" if example else see)
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return no_torch()
    if isinstance(error, OSError) and error.errno in _LACK:
        return ResourceError(f"{error.filename or 'output'}: {os.strerror(error.errno)}", code=_LACK[error.errno])
    if isinstance(error, OSError) and error.errno in _WRONG_PLACE and error.filename:
        return UsageError(f"{error.filename}: {os.strerror(error.errno).lower()}", hint="choose another place")
    if lacks_memory(error):
        return ResourceError(
            f"out of memory: {one_line(error) or 'the system refused an allocation'}",
            hint="use a smaller --batch, fewer --frames, fewer --max-tokens, --dtype bfloat16 or a smaller model",
            code="out_of_memory",
        )
    return None


def _takes_words(example: str) -> bool:
    """Whether the command of this example wants something behind its pictures that is no option."""
    return any(not word.startswith("-") for word in shlex.split(example)[1:2])


def one_line(error: BaseException) -> str:
    """The message of a foreign error: its first line, without a full stop."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line if line.endswith("...") else line.removesuffix(".")
