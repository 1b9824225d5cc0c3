"""`paligemma alt-text`: captions for the pictures of a web site or a folder, in several languages, short enough, and where they belong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from ..errors import UsageError
from ..printable import printable
from .failures import STDIN
from .jobs import DEFAULTS, JobModel, complain, ended, engine_for, watched
from .options import INPUT, OUTPUT, Json, named
from .show import as_json, counted

if TYPE_CHECKING:
    from ..jobs.alt_texts import AltText, Place, Rules
    from ..jobs.items import Item, Ways
    from ..jobs.job import Counts

TEXTS = Group("Texts", sort_key=0)
LEAST = 10
"""Characters of a text, at least: it ends with a whole word where one fits."""
NAMED = 10
"""Doubtful texts that are named at the end; with --json all of them."""


def alt_text(
    source: Annotated[str, named("SOURCE", "A folder, a pattern, a picture; with --out also a .jsonl, .parquet or .tar of them.")],
    /,
    *,
    lang: Annotated[str, Parameter(group=TEXTS)] = "en",
    length: Annotated[Literal["short", "normal", "long"], Parameter(group=TEXTS)] = "normal",
    most: Annotated[int, Parameter(group=TEXTS)] = 125,
    doubt: Annotated[float, Parameter(group=TEXTS)] = 0.5,
    html: Annotated[bool, Parameter(group=INPUT, negative="", show_default=False)] = False,
    batch: Annotated[int, Parameter(group=INPUT)] = 8,
    image_root: Annotated[Path | None, Parameter(group=INPUT)] = None,
    allow_urls: Annotated[bool, Parameter(group=INPUT, negative="", show_default=False)] = False,
    out: Annotated[Path | None, Parameter(alias="-o", group=OUTPUT)] = None,
    overwrite: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False,
    json: Json = False,
    options: JobModel = DEFAULTS,
) -> int:
    """Write alt texts: files beside the pictures (photo.jpg.en.txt), or with --out one table. What is there is kept.

    Parameters
    ----------
    lang
        Languages, separated by commas: en,de.
    length
        What the model is asked for, before anything is cut off.
    most
        Characters of a text. Longer ones are cut at the end of a sentence or a word.
    doubt
        Texts whose score is lower are doubtful: a person should look at them.
    html
        Describe what the folder's pages show in <img> without alt; a row for each, with page and src.
    batch
        How many pictures go through the model at a time.
    image_root
        The folder that pictures named in a table must lie in. By default the table's own.
    allow_urls
        Fetch https addresses that a table names.
    out
        A table, .csv, .jsonl or .parquet, instead of files beside the pictures.
    overwrite
        Write all texts anew, also those that a person changed.
    """
    from ..checkpoint.finding import find
    from ..jobs.alt_texts import Rules, alt_texts
    from ..jobs.asked import all_asked
    from ..jobs.facts import facts
    from ..jobs.following import follow
    from ..jobs.items import Ways
    from ..jobs.job import run
    from ..jobs.journal import opened
    from ..jobs.parts import ERRORS, RESULTS
    from ..jobs.rows import Lines, rows_of
    from ..jobs.work import Order
    from ..tasks.languages import check_language
    from ..training.stopping import Stopping

    if batch < 1 or most < LEAST:
        raise UsageError(f"--batch is at least 1 and --most at least {LEAST}, got {batch} and {most}")
    langs = list(dict.fromkeys(check_language(one.strip()) for one in lang.split(",") if one.strip()))
    if not langs:
        raise UsageError("--lang names no language", hint="for example --lang en,de")
    order, ways, rules = Order(all_asked([f"caption:{one}:{length}" for one in langs])), Ways(image_root, allow_urls), Rules(most, doubt)
    place, folder, found = _place(source, ways, out, html, overwrite)
    complete: set[str] = set()

    def lacking() -> Iterator[Item]:
        for item in found():
            if place.lacks(item, langs):
                yield item
            elif item.video is None:
                complete.add(item.id)

    ordered = facts(source, ways, order, "jsonl", find(options.model), options.numbers) | {"pages": html}
    next(iter(found()), None)  # nothing is made where there is nothing to describe
    texts: list[AltText] = []
    errors: list[dict[str, Any]] = []

    with Stopping() as stopping, _explained(folder), opened(folder, ordered, Lines()) as journal:
        follow(journal, lacking())  # since an earlier run the source may have changed, and some may have got their texts
        engine, span = engine_for(options, order, batch)
        with watched(lambda: sum(place.lacks(item, langs) for item in found())) as tell:
            counts = run(lacking(), journal, engine, span=span, stopped=lambda: stopping.requested, tell=tell)
        if counts.finished:
            added = place.add(alt_texts(rows_of(journal.files(RESULTS)), rules))
            texts += added.taken
            errors += [*rows_of(journal.files(ERRORS)), *added.refused]
            counts.codes.update(row["error"]["code"] for row in added.refused)
            counts.failed += len({row["id"] for row in added.refused} - {one.id for one in added.taken})
            if not added.refused:
                journal.forget()
    complete -= {one.id for one in texts}
    _say(texts, errors, len(complete), counts, rules, out, json)
    return ended(counts, stopping, had=len(complete))


def _place(source: str, ways: Ways, out: Path | None, html: bool, overwrite: bool) -> tuple[Place, Path, Callable[[], Iterable[Item]]]:
    """Where texts go; the folder of the job, a hidden one, which pictures are not looked for in; what lists the pictures."""
    from ..jobs.alt_tables import AltTable
    from ..jobs.alt_texts import SideFiles, picture_files
    from ..jobs.html_pictures import USES, items_of_pages
    from ..jobs.items import items

    if html and out is None:
        raise UsageError("--html makes a table, of pages and what they show", hint="for example --out alt.csv")
    if (ways.root is not None or ways.allow_urls) and (html or out is None):
        what = "--image-root and --allow-urls are about pictures that a table names"
        raise UsageError(what, hint="leave them out" if html else "for a source that is one: --out alt.csv")
    if out is None:
        if source == STDIN:
            raise UsageError("beside standard input no text can lie", hint="write one table: --out alt.csv")
        base, pictures = picture_files(source)
        return SideFiles(pictures, overwrite=overwrite), base / ".alt-text.job", lambda: items(source, ways)
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise UsageError(f"--out {printable(str(out))} is the source", hint="choose another --out")
    job = out.with_name(f".{out.name}.job")
    if html:
        shown = items_of_pages(Path(source))
        return AltTable(out, uses={item.id: item.kept[USES] for item in shown}, overwrite=overwrite), job, lambda: shown
    return AltTable(out, overwrite=overwrite), job, lambda: (item for item in items(source, ways, without=out) if item.video is None)


@contextlib.contextmanager
def _explained(job: Path) -> Iterator[None]:
    """What a job that was not finished says to another one, in the words of this command."""
    try:
        yield
    except UsageError as error:
        if error.code == "other_job":
            error.hint = f"the command of that job goes on with it; to do without what it has done, remove {job}"
        raise


def _say(
    texts: Sequence[AltText], errors: Sequence[dict[str, Any]], complete: int, counts: Counts, rules: Rules, out: Path | None, json: bool
) -> None:
    """What was done, on standard output; what failed, on standard error."""
    doubtful, cut = [one for one in texts if one.doubtful], sum(one.cut for one in texts)
    pictures = len({one.id for one in texts})
    complain(errors)
    if json:
        facts = {"finished": counts.finished, "pictures": pictures, "texts": len(texts), "had_theirs": complete, "cut": cut}
        look = [{"id": one.id, "lang": one.lang, "score": one.score, "text": one.text} for one in doubtful]
        failed = [{"id": row["id"], **row["error"]} for row in errors]
        print(as_json(facts | {"doubtful": look, "failed": failed, "out": None if out is None else str(out)}))
        return
    print(f"{counted(len(texts), 'alt text')} of {counted(pictures, 'picture')}" + (f"; {complete:,} had theirs" if complete else ""))
    if cut:
        print(f"{cut:,} cut to {rules.most} characters")
    if doubtful:
        some = ", ".join(f"{printable(one.id)} ({one.lang}, {one.score:.0%})" for one in doubtful[:NAMED])
        more = f" and {len(doubtful) - NAMED:,} more" if len(doubtful) > NAMED else ""
        print(f"{len(doubtful):,} doubtful, to be looked at: {some}{more}")
    if errors:
        print(f"{len(errors):,} failed")
    if out is not None and texts:
        print(printable(f"table: {out}"))
