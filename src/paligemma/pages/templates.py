"""Templates of pages: all text in them is text, never markup, and a name that is missing is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..printable import printable

if TYPE_CHECKING:
    from jinja2 import Environment


def templates(folder: str) -> Environment:
    """Those in a folder of the package; each may `{% include "style.css" %}`."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loader = ChoiceLoader([PackageLoader("paligemma", folder), PackageLoader("paligemma", "pages")])
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_harmless
    )  # fmt: skip


def _harmless(value: Any) -> Any:
    """Direction marks and the like must not reorder the page."""
    return printable(value, keep="\n") if isinstance(value, str) and not hasattr(value, "__html__") else value
