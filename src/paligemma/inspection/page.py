"""Findings -> one HTML page that needs nothing else: no network, no script. Everything from the data is text to it, never markup."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..errors import ResourceError, UsageError
from ..printable import printable
from .findings import Findings
from .plots import attention_plot, length_plot
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
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("paligemma", "inspection"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    environment.filters |= {"bytes": bytes_in_words, "seconds": seconds_in_words, "n": lambda number: f"{number:,}"}
    first = next((sample for sample in found.samples if sample.tokens), None)
    return environment.get_template(TEMPLATE).render(
        found=found,
        lengths=Markup(length_plot(found.lengths.histogram, found.lengths.limit)) if found.lengths.histogram else "",
        attention=Markup(attention_plot(first.image_tokens, first.mask_ar)) if first else "",
        first=first,
        most=max((one.things for one in found.counts.classes), default=1),
    )


def _harmless(value: Any) -> Any:
    """Direction marks and the like in the data must not reorder the page."""
    return printable(value, keep="\n") if isinstance(value, str) and not isinstance(value, Markup) else value
