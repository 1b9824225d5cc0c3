"""`paligemma label`: a source of pictures -> boxes or masks by a model in the files of annotation tools, the most doubtful first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..errors import UsageError
from ..printable import printable
from ..tasks.detect import SEMICOLON
from .jobs import DEFAULTS, Job, JobModel, outside, summary, told
from .options import ANSWERS, INPUT, OUTPUT, Json, named
from .show import as_json, counted


def label(
    source: Annotated[str, named("SOURCE", "A folder, a pattern, a .jsonl, .parquet or .tar (WebDataset), or a picture.")],
    /,
    *,
    classes: Annotated[str, Parameter(group=ANSWERS)],
    masks: Annotated[bool, Parameter(group=ANSWERS, negative="", show_default=False)] = False,
    min_score: Annotated[float, Parameter(group=ANSWERS)] = 0.0,
    max_objects: Annotated[int | None, Parameter(group=ANSWERS)] = None,
    max_tokens: Annotated[int | None, Parameter(group=ANSWERS)] = None,
    batch: Annotated[int, Parameter(group=INPUT)] = 8,
    tiles: Annotated[bool, Parameter(group=INPUT, negative="", show_default=False)] = False,
    image_root: Annotated[Path | None, Parameter(group=INPUT)] = None,
    allow_urls: Annotated[bool, Parameter(group=INPUT, negative="", show_default=False)] = False,
    to: Annotated[Literal["coco", "yolo", "voc", "labelstudio", "cvat", "fiftyone"], Parameter(group=OUTPUT)],
    out: Annotated[Path, Parameter(alias="-o", group=OUTPUT)],
    limit: Annotated[int | None, Parameter(group=OUTPUT)] = None,
    overwrite: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False,
    json: Json = False,
    options: JobModel = DEFAULTS,
) -> int:
    """Let a model label pictures, for people to correct.

    Parameters
    ----------
    classes
        The names of what is to be found, separated by `;`: "cat;dog". One name that has a comma ends with `;`: "owl, grey;".
    masks
        Outlines instead of boxes. Not with voc and fiftyone.
    min_score
        Leave out what the model is less sure of. Another one over a finished job asks nothing anew.
    max_objects
        Stop after this many in a picture; by default 64.
    max_tokens
        Longest answer. By default what suits the task.
    batch
        How many pictures go through the model at a time.
    tiles
        Search large pictures in overlapping parts besides, for what is too small to be seen in the whole. Not with --masks.
    image_root
        The folder that pictures named in a table must lie in. By default the table's own.
    allow_urls
        Fetch https addresses that a table names.
    to
        What reads the labels.
    out
        The folder: in it one for each --to, and job, from which a stopped command goes on and another --to is written at once.
    limit
        Write only the pictures that the model is most doubtful of, so many.
    overwrite
        Replace labels that are there, which may have been corrected; and results of another job.
    """
    from ..checkpoint.finding import find
    from ..jobs.asked import asked
    from ..jobs.items import Ways, items
    from ..jobs.parts import ERRORS, RESULTS
    from ..jobs.work import Order
    from ..labelling.export import check, export, one_picture_each, ranked
    from ..labelling.formats import FORMATS
    from ..labelling.pictures import NOT_A_PICTURE

    if batch < 1 or (limit is not None and limit < 1):
        raise UsageError(f"--batch and --limit are at least 1, got {batch} and {limit}")
    if tiles and masks:
        raise UsageError("--tiles searches for boxes, not for masks", hint="leave one of them out")
    if not 0 <= min_score <= 1:
        raise UsageError(f"--min-score is from 0 to 1, got {min_score:g}")
    if "," in classes and SEMICOLON not in classes:  # a whole job would look for one thing that nobody meant
        split = SEMICOLON.join(part.strip() for part in classes.split(","))
        what = f"--classes {printable(classes)!r} is one name with a comma in it"
        raise UsageError(what, hint=f'for several names: "{printable(split)}"; for this one: "{printable(classes)}{SEMICOLON}"')
    outside(source, out, "--out", within=f"{to}/{FORMATS[to].pictures}")
    folder = check(out, to, masks=masks, overwrite=overwrite)
    task = asked(f"{'segment' if masks else 'detect'}:{classes}")
    places = {} if max_objects is None else {"max_objects": max_objects}  # no least score: it is for what is written of the results
    ways = Ways(image_root, allow_urls)
    job = Job(source, ways, Order((task,), {"max_tokens": max_tokens}, places, tiles=tiles), out / "job")
    found = one_picture_each(items(source, ways))
    done = job.go(found, options, batch=batch, overwrite=overwrite, lasting=[NOT_A_PICTURE])
    written = 0
    if done.counts.finished and done.counts.rows:
        labelled = ranked(done.tables[RESULTS], limit, min_score)
        export(items(source, ways), labelled, folder, to, classes=task.what[0], model=find(options.model).name)
        written = len(labelled)
    if json:
        print(as_json(summary(done.counts) | {"written": written, "labels": str(folder) if written else None}))
    else:
        print(told(done.counts, done.tables[RESULTS], done.tables[ERRORS]))
        print(printable(f"labels of {counted(written, 'picture')}: {folder}" if written else "no labels were written"))
    if done.counts.finished and done.counts.codes.keys() - {NOT_A_PICTURE}:
        more = f"; with --overwrite, for it replaces {folder}" if written else ""
        hint = f"once the pictures that failed are mended or removed, the same command labels what lacks{more}"
        print(printable(f"hint: {hint}"), file=sys.stderr)
    return done.exit_code
