"""What is asked of every picture, spelt in one way: `NAME` or `NAME:WHAT`.

caption  caption:de  caption:en:long     detect:cat;dog     segment:the red car     refer:the man on the left
ask:how many dogs are there?             question:two       ocr                     run:any prompt as it is
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, did_you_mean
from ..tasks import answer, caption, detect, ocr, question, refer, run, segment
from ..tasks.languages import check_language

if TYPE_CHECKING:
    from ..predictor import Predictor
    from ..results import Result


@dataclass(frozen=True)
class Asked:
    """A verb of the predictor, and what stands behind the pictures when it is called."""

    verb: str
    what: tuple[Any, ...] = ()

    def __str__(self) -> str:
        """The spelling, in its one normal form."""
        words = [";".join(one) if isinstance(one, tuple) else str(one) for one in self.what]
        return ":".join([self.verb, *words])

    @property
    def in_places(self) -> bool:
        """Whether the answer is boxes or masks, which can be chosen among."""
        return self.verb in ("detect", "segment")

    def ask(self, predictor: Predictor, pictures: Sequence[Any], **how: Any) -> list[Result]:
        """One result a picture, in one batch."""
        what = [list(one) if isinstance(one, tuple) else one for one in self.what]
        return getattr(predictor, self.verb)(list(pictures), *what, **how)


def asked(spelling: str) -> Asked:
    """Raises `UsageError` for a name that is none, and for what its task refuses."""
    name, colon, what = spelling.partition(":")
    name, what = name.strip(), what if name.strip() == "run" else what.strip()  # a whole prompt is taken as it is
    if name not in _READ:
        hint = did_you_mean(name, _READ, "tasks: caption, ask:QUESTION, detect:NAMES, segment:NAMES, refer:SENTENCE, ocr, question:ANSWER")
        raise UsageError(f"no task is called {name!r:.60}", hint=hint)
    if colon and not what:
        raise UsageError(f"--task {spelling}: nothing stands behind the colon", hint=f"leave the colon out, or say what: {name}:...")
    return Asked(name, _READ[name](what))


def all_asked(spellings: Sequence[str]) -> tuple[Asked, ...]:
    """Several, each once. Raises `UsageError` besides where there is none, or one twice."""
    found = tuple(map(asked, spellings))
    if not found:
        raise UsageError("no task is given", hint='--task caption, --task detect:"cat;dog"; several are asked about each picture')
    twice = next((one for one in found if found.count(one) > 1), None)
    if twice is not None:
        raise UsageError(f"--task {twice} is given twice", hint="once is enough")
    return found


def _caption(what: str) -> tuple[Any, ...]:
    words = tuple(word.strip() for word in what.split(":")) if what else ()
    if len(words) > 2:
        raise UsageError(f"a caption is asked for with a language and a length, found {what!r:.60}", hint="caption:de:short")
    caption.prompt(*words)
    return (check_language(words[0]), *words[1:]) if words else ()


def _names(write: Callable[[Any], str]) -> Callable[[str], tuple[Any, ...]]:
    def read(what: str) -> tuple[Any, ...]:
        names = tuple(detect.class_names(what))
        write(names)
        return (names,)

    return read


def _words(write: Callable[[str], str]) -> Callable[[str], tuple[Any, ...]]:
    def read(what: str) -> tuple[Any, ...]:
        write(what)
        return (what,)

    return read


def _nothing(what: str) -> tuple[Any, ...]:
    if what:
        raise UsageError(f"ocr is asked with nothing, found {what!r:.60}", hint="--task ocr")
    ocr.prompt()
    return ()


_READ: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "caption": _caption,
    "ask": _words(answer.prompt),
    "detect": _names(detect.prompt),
    "segment": _names(segment.prompt),
    "refer": _words(refer.prompt),
    "ocr": _nothing,
    "question": _words(question.prompt),
    "run": _words(run.prompt),
}
"""Name -> what stands behind its colon, read and tried in a prompt."""
