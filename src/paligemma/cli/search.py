"""`paligemma index`, `paligemma search`: a folder of pictures, searchable in words, by picture, by what is read and seen in them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal  # noqa: F401  (as below)

from cyclopts import Group, Parameter

from ..errors import CheckpointError, InputError, UsageError, did_you_mean
from ..printable import printable
from .batch import load
from .failures import PARTLY_FAILED, lines
from .options import MODEL, MODEL_VARIABLE, OUTPUT, DType, Json, ModelOptions, named  # noqa: F401  (the parser looks for names of inherited fields here)
from .progress import progress
from .show import as_json, counted
from .tasks import edges, names

if TYPE_CHECKING:
    from ..index.building import Report
    from ..index.query import Hit, Query
    from ..index.store import Index

WHERE = "paligemma-index"
"""The index, in the current folder, unless another is named."""
KINDS = ("vectors", "captions", "text", "objects")
HELD = {"captions": "captions", "text": "text", "objects": "labels"}
"""Of these all but vectors: the column that is null where a picture was not asked for it."""
SHOWN = 3
"""Pictures that are named where many could not be opened again."""
BUILD = Group("Index", sort_key=0)
ASK = Group("Search for", sort_key=0)


@Parameter(name="*")
@dataclass(frozen=True)
class SearchOptions(ModelOptions):
    """Which PaliGemma describes pictures, or sorts them again."""

    model: Annotated[str | None, Parameter(alias="-m", group=MODEL, env_var=MODEL_VARIABLE)] = None
    """A folder, an .npz file or a Hugging Face id that was pulled. The bundled small model by default."""
    encoder: Annotated[str | None, Parameter(group=MODEL)] = None
    """A SigLIP, which makes the vectors: folder, .npz file or pulled id. By default that of the index, at first the bundled one."""


DEFAULTS = SearchOptions()


def index(
    folder: Annotated[Path, named("FOLDER", "Pictures, with all folders below. Videos are left out.")],
    /,
    *,
    out: Annotated[str, Parameter(alias="-o", group=BUILD)] = WHERE,
    what: Annotated[str, Parameter(group=BUILD)] = "vectors",
    classes: Annotated[str | None, Parameter(group=BUILD)] = None,
    min_score: Annotated[float, Parameter(group=BUILD)] = 0.3,
    lang: Annotated[str, Parameter(group=BUILD)] = "en",
    overwrite: Annotated[bool, Parameter(group=BUILD, negative="", show_default=False)] = False,
    batch: Annotated[int, Parameter(group=BUILD)] = 32,
    threads: Annotated[int, Parameter(group=BUILD)] = 4,
    json: Json = False,
    options: SearchOptions = DEFAULTS,
) -> int:
    """Make or renew the index of a folder.

    Parameters
    ----------
    out
        Where the index is: a folder, or an object store (s3://bucket/index). It may be searched while it is written.
    what
        Vectors, without which there is no index, and what a PaliGemma adds to them, separated by commas: captions, text, objects.
    classes
        Objects to find, separated by `;`.
    min_score
        Leave out objects that the model is less sure of.
    lang
        Of captions, separated by commas: en,de.
    overwrite
        Forget what is there.
    batch
        Pictures that go through a model at a time.
    threads
        That read and decode pictures ahead of the model.
    """
    from ..index.building import Builder
    from ..index.changes import absolute, files
    from ..index.encoder import encoder_of, to_keep
    from ..index.entries import Facts
    from ..index.filters import quoted
    from ..index.store import writing

    for name, value in (("batch", batch), ("threads", threads)):
        if value < 1:
            raise UsageError(f"--{name} must be at least 1, got {value}")
    wanted = _wanted(what, classes, min_score, lang, options)
    root = absolute(folder)
    files(root)  # before a model is loaded
    source = _encoder_at(out, overwrite)
    encoder = encoder_of(out, source, options.encoder, device=options.device)
    predictor = load(options) if wanted else None
    if predictor is not None:
        wanted = dataclasses.replace(wanted, model=_author(predictor.config.name, options.model))
    warnings.simplefilter("ignore")  # a caption that is cut short is still one
    facts = Facts(encoder.name, encoder.dimensions, to_keep(options.encoder or source), str(root))
    with writing(out, facts, overwrite=overwrite) as writer, _watched() as (begin, tell):
        others = {what: column for what, column in HELD.items() if not wanted.asks(what)}
        by_another = f"model IS NOT NULL AND model <> {quoted(wanted.model or '')}"
        had = {what: writer.count(f"{column} IS NOT NULL AND {by_another}") for what, column in others.items() if wanted}
        report = Builder(writer, root, encoder, wanted, predictor, batch, threads, tell, begin).run()
        held = writer.count()
        lacking = {what: writer.count(f"{column} IS NULL") for what, column in others.items()}
    lost = [what for what, count in had.items() if count and lacking[what] == held]
    return _said(report, held, lacking, lost, out, json)


def search(
    words: Annotated[str | None, named("WORDS", 'What the pictures show: "two cats and a red car".')] = None,
    /,
    *,
    index: Annotated[str, Parameter(alias="-i", group=ASK)] = WHERE,
    picture: Annotated[str | None, Parameter(group=ASK)] = None,
    region: Annotated[str | None, Parameter(group=ASK, allow_leading_hyphen=True)] = None,
    text: Annotated[str | None, Parameter(group=ASK)] = None,
    has: Annotated[list[str] | None, Parameter(group=ASK, negative="")] = None,
    count: Annotated[list[str] | None, Parameter(group=ASK, negative="")] = None,
    where: Annotated[str | None, Parameter(group=ASK)] = None,
    top: Annotated[int, Parameter(group=ASK)] = 20,
    rerank: Annotated[bool, Parameter(group=ASK, negative="", show_default=False)] = False,
    lang: Annotated[str, Parameter(group=ASK)] = "en",
    out: Annotated[Path | None, Parameter(alias="-o", group=OUTPUT)] = None,
    json: Json = False,
    options: SearchOptions = DEFAULTS,
) -> int:
    """Search an index: in words, by a picture or a part of one, by what is read or seen in the pictures.

    Parameters
    ----------
    index
        Where it is.
    picture
        Pictures that look like this file.
    region
        Only this part of it: left, top, right, bottom in pixels.
    text
        Pictures in which these words are printed, of an index made with --what vectors,text.
    has
        Only pictures with an object of this name, of an index made with --what vectors,objects. Several: once for each.
    count
        How many of them: "2", ">2", "<=3". Once for each --has.
    where
        Only pictures that meet a condition in SQL: "width > 1000 AND path LIKE 'holiday/%'".
    top
        How many are shown.
    rerank
        A PaliGemma sorts the best 50 again by how likely it finds the words.
    lang
        Of the words, for --rerank.
    out
        Also write a gallery: a page (gallery.html) or a picture (gallery.png).
    """
    from ..index.encoder import encoder_of
    from ..index.gallery import ENDINGS, write
    from ..index.query import Query, needs_encoder
    from ..index.query import search as found_in
    from ..index.reranking import BEST
    from ..index.reranking import rerank as sorted_again
    from ..index.store import Index

    if out is not None and out.suffix.lower() not in ENDINGS:
        raise UsageError(f"--out {printable(str(out))}: a gallery is a page or a picture", hint="name it gallery.html or gallery.png")
    if rerank and words is None:
        raise UsageError("--rerank sorts by how likely words are, but there are no words")
    query = Query(words, _picture(picture, region), text, _has(has or [], count or []), where)
    opened = Index.open(index)
    encoder = encoder_of(index, opened.facts.source, options.encoder, device=options.device) if needs_encoder(query) else None
    hits = found_in(opened, query, encoder, max(top, BEST) if rerank else top)
    root, lost = Path(opened.facts.root), list[InputError]()
    if rerank and query.words is not None:
        hits = sorted_again(load(options), hits, query.words, root, lang=lang, failed=lost.append)[:top]
        for error in lost[:SHOWN]:
            print(lines(error), file=sys.stderr)
        if lost:
            print(
                printable(f"{counted(len(lost), 'picture')} below {root} could not be looked at again: last in the list"), file=sys.stderr
            )
    _show(hits, opened, json)
    if not hits:
        _note(query, opened)
    if out is not None:
        write(hits, root, _asked(query, picture, region), out)
        print(printable(f"written: {out}"), file=sys.stderr)
    return PARTLY_FAILED if lost else 0


def _wanted(what: str, classes: str | None, min_score: float, lang: str, options: SearchOptions) -> Any:
    from ..index.describing import Wanted
    from ..predictor.reading import Search
    from ..tasks.detect import class_names
    from ..tasks.languages import check_language

    kinds = [kind.strip() for kind in what.split(",") if kind.strip()]
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"--what: an index cannot hold {kind!r}", hint=did_you_mean(kind, KINDS, f"known: {', '.join(KINDS)}"))
    if ("objects" in kinds) != (classes is not None):
        raise UsageError(
            "objects need names to look for" if classes is None else "--classes is for objects",
            hint='--what vectors,objects --classes "cat ; dog"',
        )
    languages = tuple(dict.fromkeys(check_language(one) for one in lang.split(","))) if "captions" in kinds else ()
    if not {"captions", "text", "objects"} & set(kinds):
        return Wanted()
    found = class_names(names(classes)) if classes is not None else ()
    return Wanted(languages, "text" in kinds, found, min_score=Search(min_score=min_score).min_score)


def _author(name: str, model: str | None) -> str:
    """The name of a PaliGemma as an index writes it down: the same wherever it lies, and another for another that lies in its place."""
    from ..checkpoint.finding import find
    from ..evaluation.run_file import fingerprint

    return f"{name}-{fingerprint(find(model))[:16]}"


def _encoder_at(where: str, overwrite: bool) -> str:
    """What made the vectors of the index that is there; "" where there is none, or it cannot be read and is to be made anew."""
    from ..index.store import Index

    with contextlib.suppress(InputError, *([CheckpointError] if overwrite else [])):
        return Index.open(where).facts.source
    return ""


def _picture(path: str | None, region: str | None) -> Any:
    from ..image import open_image
    from ..index.query import part

    if path is None:
        if region is not None:
            raise UsageError("--region is a part of a picture, and there is none", hint="--picture FILE --region 10,20,110,220")
        return None
    picture = open_image(Path(path))
    return picture if region is None else part(picture, edges(region))


def _has(labels: Sequence[str], counts: Sequence[str]) -> tuple[Any, ...]:
    from ..index.filters import Has

    if counts and len(counts) != len(labels):
        raise UsageError(f"{len(counts)} times --count for {len(labels)} times --has: expected one for each", hint='--has dog --count ">2"')
    return tuple(Has(label, count) for label, count in zip(labels, counts or [">0"] * len(labels), strict=True))


def _asked(query: Query, picture: str | None, region: str | None) -> str:
    """What was searched for, for people."""
    parts = [query.words] if query.words else []
    parts += [f"like {picture}" + (f" at {region}" if region else "")] if picture else []
    parts += [f"reads “{query.text}”"] if query.text else []
    parts += [f"{one.label} {one.count}" for one in query.has]
    return printable("; ".join([*parts, *([query.where] if query.where else [])]))


def _show(hits: Sequence[Hit], opened: Index, json: bool) -> None:
    for place, hit in enumerate(hits, 1):
        if json:
            print(as_json({"place": place, **hit.to_dict(), "source": os.path.join(opened.facts.root, hit.entry.path)}))
        else:
            captions = hit.entry.captions or {}
            said = captions.get("en") or next(iter(captions.values()), "")
            number = (
                f"{hit.likelihood:9.2f}" if hit.likelihood is not None else f"{hit.similarity:9.3f}" if hit.similarity is not None else ""
            )
            print(printable("  ".join(part for part in (f"{place:>3}", number, hit.entry.path, said) if part)))
    if not hits and not json:
        print("nothing found")


def _note(query: Query, opened: Index) -> None:
    """Why nothing can be found, where the index does not hold what is asked for."""
    from ..index.filters import quoted

    for asked, column, what in ((query.has, "labels", "objects"), (query.text, "text", "text")):
        if asked and not opened.count(f"{column} IS NOT NULL"):
            more = f' --classes "{" ; ".join(dict.fromkeys(one.label for one in query.has))}"' if what == "objects" else ""
            print(printable(f"note: this index holds no {what}: paligemma index FOLDER --what vectors,{what}{more}"), file=sys.stderr)
    for one in query.has:
        if opened.count("labels IS NOT NULL") and not opened.count(f"array_has(classes, {quoted(one.label)})"):
            how = f'paligemma index FOLDER --what vectors,objects --classes "{one.label}"'
            print(printable(f"note: no picture of this index was searched for {one.label!r}: {how}"), file=sys.stderr)


def _said(report: Report, held: int, lacking: Mapping[str, int], lost: Sequence[str], out: str, json: bool) -> int:
    """Print what was done. `lacking`: what was not asked for this time -> how many pictures are without it; `lost`: of which there was
    some, and is none any more. -> the exit code."""
    from ..image import UNREADABLE

    for path, error in report.failed.items():
        print(lines(error), file=sys.stderr)
        if json:
            print(as_json({"path": path, "error": {"code": error.code, "message": error.message}}))
    done = {name: report.counts[name] for name in ("added", "changed", "moved", "copied", "touched", "described", "removed", "unchanged")}
    if json:
        print(as_json({"index": out, "pictures": held, **done, "failed": len(report.failed)}))
    else:
        told = ", ".join(f"{count:,} {name}" for name, count in done.items() if count)
        print(printable(f"{out}: {counted(held, 'picture')} ({told or 'nothing to do'})"))
    for what, count in lacking.items():
        if 0 < count < held:
            print(f"note: no {what} of {counted(count, 'picture')}, unlike the others: add --what vectors,{what}", file=sys.stderr)
    for what in lost:
        print(f"note: what another model said is gone, its {what} too: add --what vectors,{what} to have them anew", file=sys.stderr)
    if report.failed:
        for_now = sum(error.code == UNREADABLE for error in report.failed.values())
        if for_now < len(report.failed):
            print(f"{counted(len(report.failed) - for_now, 'picture')} could not be read: not in the index", file=sys.stderr)
        if for_now:
            print(f"{counted(for_now, 'name')} could not be opened: what the index had there stays", file=sys.stderr)
        return PARTLY_FAILED if held else InputError.exit_code
    return 0


@contextlib.contextmanager
def _watched() -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """What is called with the number of pictures to look at, and with how many more are done."""
    done, begun = 0, 0.0

    def begin(total: int) -> None:
        nonlocal begun
        shown.total, begun = total, time.monotonic()
        shown.at(0, 0.0)

    def tell(count: int) -> None:
        nonlocal done
        done += count
        shown.at(done, done / max(time.monotonic() - begun, 1e-9))

    with progress("pictures") as shown:
        yield begin, tell
