"""Pages of a folder -> the pictures in them that have no alt text, as items of a job.

`<img>` without `alt` lacks one. `alt=""` says that a picture is there for its looks, and so do `role="presentation"` and `aria-hidden`:
such ones are left alone, as are pictures of other sites.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import InputError
from ..image import UNREADABLE
from ..printable import printable
from ..sources import below
from . import pictures
from .items import Item, fail, within

PAGES = frozenset({".html", ".htm"})
USES = "uses"
"""Name in what is kept of an item: where pages have it."""


def items_of_pages(site: Path) -> list[Item]:
    """Each picture once, in the order of the pages; `kept["uses"]` lists page and src of every `<img>` that shows it. A page that cannot be
    read is an item that fails.

    Raises `InputError` where the folder has no pages.
    """
    pages = list(below(site, PAGES)) if site.is_dir() else []
    if not pages:
        raise InputError(f"{printable(str(site))}: no folder with pages", hint=f"pages: *{' *'.join(sorted(PAGES))}", code="not_found")
    uses: dict[str, list[dict[str, str]]] = {}
    failing: list[Item] = []
    for page in pages:
        name = within(page, site)
        try:
            text = page.read_text("utf-8", errors="replace")
        except OSError as error:
            why = functools.partial(fail, printable(str(page)), f"cannot be read ({error.strerror})", UNREADABLE)
            failing.append(Item(name, printable(str(page)), {USES: [{"page": name, "src": ""}]}, _open=why))
            continue
        for src in lacking(text):
            if (picture := _picture(src, posixpath.dirname(name))) is not None:
                uses.setdefault(picture, []).append({"page": name, "src": src})
    return [_item(site, name, where) for name, where in uses.items()] + failing


def lacking(page: str) -> Iterator[str]:
    """The `src` of every `<img>` that lacks an alt text, in order."""
    parser = _Images()
    parser.feed(page)
    parser.close()
    return iter(parser.found)


class _Images(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        roles = (has.get("role") or "").lower().split()
        decorative = "presentation" in roles or "none" in roles or (has.get("aria-hidden") or "").lower() == "true"
        if tag == "img" and "alt" not in has and has.get("src") and not decorative:
            self.found.append(has["src"] or "")


def _picture(src: str, folder: str) -> str | None:
    """Its path within the site, of which `/` is the root; None where it lies elsewhere."""
    try:
        address = urlsplit(src.strip())
    except ValueError:
        return None
    if address.scheme or address.netloc or not address.path:
        return None
    path = unquote(address.path)
    return posixpath.normpath(path.lstrip("/") if path.startswith("/") else posixpath.join(folder, path))


def _item(site: Path, name: str, uses: list[dict[str, str]]) -> Item:
    where = f"{printable(uses[0]['page'])}: {printable(name)}"
    if name.startswith("../"):
        opened = functools.partial(fail, where, "it lies outside of the site's folder", "path")
    else:
        opened = functools.partial(pictures.from_name, name, site, site, where, False, 1)
    return Item(name, where, {USES: uses}, _open=opened)
