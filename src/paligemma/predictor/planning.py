"""What a verb would ask, in place of asking it: for those who bring pictures, prompts and answers together in their own time.

planner = Planner(predictor)
planned = planner.plan("detect", seen, ["cat", "dog"], min_score=0.5)      seen: a picture's size is enough
ids = prompt_ids(predictor.tokenizer, planned.query.prompt)                -> an engine, which writes ids
result = planned.query.read(generation)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..engine.options import Options
from ..tasks import check_verb
from .asking import How, Query, read_how
from .pictures import Seen
from .verbs import Predictor

R = TypeVar("R")


def verb_named(predictor: Predictor, verb: str) -> Callable[..., Any]:
    """The predictor's method of that name. Raises `UsageError` for one that is not of `tasks.VERBS`."""
    check_verb(verb)
    return getattr(predictor, verb)


@dataclass(frozen=True)
class Planned(Generic[R]):
    """A prompt, what its answer may be made of, how to read it; and how its tokens are to be chosen."""

    query: Query[R]
    options: Options


class Sharing(Predictor):
    """A predictor that shares the model of another, and switches adapters with it."""

    def __init__(self, predictor: Predictor):
        own, others = predictor._own, predictor._calibrations
        super().__init__(predictor.network, predictor.tokenizer, predictor.codec, calibration=own, path=predictor.path, calibrations=others)
        self.use_adapter(predictor.adapter)


class Planner(Sharing):
    """The verbs of a predictor, each of which returns what it would have asked."""

    def plan(self, verb: str, seen: Seen, *asked: Any, **how: Any) -> Planned[Any]:
        """`verb`: one of `tasks.VERBS`; `asked`, `how`: as it takes them. Raises what the verb raises before it looks at a picture."""
        return verb_named(self, verb)(seen, *asked, **how)

    def _ask(self, query: Callable[[int, Seen], Query[R]], image: Any, stream: bool, how: How, max_tokens: int) -> Planned[R]:
        options, _ = read_how(how, max_tokens)
        return Planned(query(0, image), options)
