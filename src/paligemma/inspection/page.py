"""Findings -> one HTML page that needs nothing else: no network, no script. Everything from the data is text to it, never markup."""

from __future__ import annotations

import os
from pathlib import Path

from markupsafe import Markup

from ..errors import ResourceError, UsageError
from ..pages.plots import length_plot
from ..pages.templates import templates
from ..printable import printable
from .attention import attention_plot
from .findings import Findings
from .lengths import Lengths
from .words import bytes_in_words, seconds_in_words

TEMPLATE = "page.html"


def write_page(found: Findings, path: Path) -> None:
    """The file is whole or not there. Raises `ResourceError` where it cannot be written."""
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.write_text(page(found), encoding="utf-8", errors="backslashreplace")
        os.replace(unfinished, path)
    except OSError as error:
        raise _cannot(path, error) from error


def check_place(path: Path) -> None:
    """Says before the work what would stop `write_page` after it. Makes the folder."""
    if path.is_dir() or not path.name:
        raise UsageError(f"{printable(str(path))}: a folder, expected the name of a page", hint="for example --out data-check.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot(path, error) from error
    if not os.access(path.parent, os.W_OK):
        raise ResourceError(f"{printable(str(path.parent))}: this folder may not be written to", hint="choose another --out")


def _cannot(path: Path, error: OSError) -> ResourceError:
    return ResourceError(f"{printable(str(path))}: the page cannot be written ({error.strerror})", hint="choose another --out")


def page(found: Findings) -> str:
    environment = templates("inspection")
    environment.filters |= {"bytes": bytes_in_words, "seconds": seconds_in_words, "n": lambda number: f"{number:,}"}
    first = next((sample for sample in found.samples if sample.tokens), None)
    return environment.get_template(TEMPLATE).render(
        found=found,
        lengths=Markup(_lengths(found.lengths)) if found.lengths.histogram else "",
        attention=Markup(attention_plot(first.image_tokens, first.mask_ar)) if first else "",
        first=first,
        most=max((one.things for one in found.counts.classes), default=1),
    )


def _lengths(lengths: Lengths) -> str:
    label = f"Lengths of the texts in tokens; {lengths.limit} fit"
    return length_plot(lengths.histogram, ("tokens of prompt and answer", "records"), label, size=(560, 150), limit=lengths.limit)
