"""The page that searches an index: results as a gallery, for everybody, by key where one is asked for."""

from __future__ import annotations

import base64

import pytest

from tests.server import axe
from tests.server.page_stub import DEMO
from tests.server.visiting import keep, visit

THUMBNAIL = "data:image/png;base64," + base64.b64encode((DEMO / "objects1.png").read_bytes()).decode()


OWL = {"captions": {"en": "an owl and a heart", "de": "Eule und Herz"}, "text": "NO PARKING", "alt": "an owl", "picture": THUMBNAIL}


GONE = {"captions": None, "text": None, "alt": "", "picture": None}


HITS = [{"path": "album/owl.png", **OWL}, {"path": f"album/{'a-long-name' * 9}.png", **GONE}]


def test_the_search_page_is_led_to_only_where_there_is_an_index(browser, stub):
    without = visit(browser, stub.address)
    without.locator('#examples [aria-pressed="true"]').wait_for()
    assert not without.locator("#to-search").is_visible()
    stub.search = HITS
    page = visit(browser, stub.address)
    page.get_by_role("link", name="Search the pictures on this server").click()
    page.get_by_text("1,234 pictures on this server, 1,234 with captions, 7 with objects.").wait_for()
    page.get_by_role("link", name="Ask a picture").click()
    page.locator('#examples [aria-pressed="true"]').wait_for()
    assert page.complaints == without.complaints == []
    for one in (page, without):
        one.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1440])
def test_nobody_is_kept_out_of_the_search(browser, stub, width, scheme, tmp_path):
    """axe-core, on a phone and on a desk: as it begins, with pictures, with an error."""
    stub.search = HITS
    page = visit(browser, stub.address, color_scheme=scheme, viewport={"width": width, "height": 800})
    page.locator("#to-search").wait_for()
    page.locator('#examples [aria-pressed="true"]').wait_for()
    assert axe.violations(page) == [], "with the link to it"
    page.goto(f"{stub.address}page/search.html")
    page.get_by_text("1,234 pictures on this server").wait_for()
    assert axe.violations(page) == []
    page.locator("#words").fill("an owl")
    page.keyboard.press("Enter")
    page.get_by_text("2 pictures, the best first").wait_for()
    assert stub.asked == [("search", {"words": "an owl"})]
    assert page.locator("#found img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 112
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    keep(page, f"search-{width}-{scheme}", tmp_path)
    assert axe.violations(page) == []
    page.evaluate("document.querySelector('main').append(new Image())")
    assert any("alt" in one for one in axe.violations(page))  # it does look
    page.evaluate("document.querySelector('main > img').remove()")
    page.locator("#words").fill("")
    page.locator("#form button").click()
    page.get_by_text("Say what to look for").wait_for()
    assert axe.violations(page) == []
    assert page.complaints == []
    page.context.close()


def test_the_search_asks_for_the_key_too(browser, stub):
    stub.search, stub.key = HITS, "secret"
    page = visit(browser, stub.address)
    page.goto(f"{stub.address}page/search.html")
    page.locator("#key").wait_for()
    assert axe.violations(page) == []
    page.locator("#key").fill("secret")
    page.keyboard.press("Enter")
    page.get_by_text("1,234 pictures on this server").wait_for()
    page.context.close()
