"""`paligemma demo`: every task on the bundled pictures, in the terminal, as drawings and as a page."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import OUTPUT, ModelOptions
from .show import as_json

DEFAULTS = ModelOptions(model="bundled")


def demo(
    *,
    out: Annotated[Path, Parameter(alias="-o", group=OUTPUT)] = Path("paligemma-demo"),
    json: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False,
    options: ModelOptions = DEFAULTS,
) -> int:
    """Every task on bundled pictures: answers, drawings and one page to look at.

    Parameters
    ----------
    out
        The folder to write.
    json
        One JSON object a line instead of text.
    """
    from .. import demo as demonstration
    from .batch import load

    def say(line: str = "") -> None:
        if not json:
            print(line, flush=True)

    for line in (*demonstration.HONEST, demonstration.REAL_CHECKPOINT, ""):
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
    page = album.finish(model.name, model.summary)
    say(f"{right} of {total} as expected. Drawings in {out}{'/'}, the page to look at: {page}")
    return 0
