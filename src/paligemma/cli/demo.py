"""`paligemma demo`: every task on the bundled pictures, in the terminal, as drawings and as a page."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .options import OUTPUT, Json, ModelOptions
from .show import as_json

if TYPE_CHECKING:
    from ..demo import Answered

DEFAULTS = ModelOptions(model="bundled")


def demo(
    *,
    out: Annotated[Path, Parameter(alias="-o", group=OUTPUT)] = Path("paligemma-demo"),
    json: Json = False,
    options: ModelOptions = DEFAULTS,
) -> int:
    """Every task on bundled pictures: answers, drawings and one page to look at.

    Parameters
    ----------
    out
        The folder to write.
    """
    from .. import demo as demonstration
    from ..checkpoint.finding import BUNDLED, find
    from .batch import load

    def say(line: str = "") -> None:
        if not json:
            print(line, flush=True)

    bundled = find(options.model).parent == BUNDLED
    for line in (*demonstration.HONEST, demonstration.REAL_CHECKPOINT, "") if bundled else ():
        say(line)
    pictures = demonstration.bundled_pictures()
    model = load(options)
    album = demonstration.Album(out)
    right = total = 0
    for picture in pictures:
        say(picture.name)
        answers = []
        for answered in demonstration.answer(model, picture):
            answers.append(answered)
            total += 1
            right += answered.right
            mark = "ok" if answered.right else "--"
            say(f"  {mark}  {answered.item.title}")
            say(textwrap.indent(str(answered.result), "        "))
            if not answered.right:
                say(textwrap.indent(f"expected: {answered.expected}", "        "))
            if json:
                print(as_json(_as_dict(picture.name, answered)), flush=True)
        album.add(picture, answers)
        say()
    page = album.finish(model.description, demonstration.HONEST if bundled else ())
    say(f"{right} of {total} as expected. Drawings are in {out}, the page to look at is {page}")
    return 0


def _as_dict(picture: str, answered: Answered) -> dict[str, Any]:
    item = answered.item
    asked = {"source": picture, "task": item.task, **item.arguments, "expect": item.expect}
    return asked | {"right": answered.right, "seconds": round(answered.seconds, 3), "result": answered.result.to_dict()}
