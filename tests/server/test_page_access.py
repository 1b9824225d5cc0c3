"""The server's page for everybody: by keys alone, by axe-core, on a phone, in the dark, without motion."""

from __future__ import annotations

import pytest

from tests.server import axe
from tests.server.visiting import ask, choose, earlier, failing, keep, requests, start, tab_to, visit


def test_keys_are_enough(page):
    """From an example to an answer, its objects and its request, without a mouse."""
    tab_to(page, "#examples button:nth-child(2)")
    page.keyboard.press("Enter")
    page.locator('#examples button:nth-child(2)[aria-pressed="true"]').wait_for()
    tab_to(page, '[name="task"]')
    page.keyboard.press("ArrowRight")
    assert page.locator('[value="detect"]').is_checked()
    tab_to(page, '[name="names"]')
    page.keyboard.press("Control+A")
    page.keyboard.type("horse ; elephant")
    page.keyboard.press("Enter")
    page.locator("#asked li button").first.wait_for()
    tab_to(page, "#asked li button")
    assert page.locator('#marks [aria-label^="horse"]').count() == 1
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator('#marks [aria-label^="elephant"]').get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    page.locator("#file").focus()  # back to the picture
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "horse 90 %"
    page.keyboard.press("ArrowRight")
    assert page.locator("#asked li button.on b").inner_text() == "elephant"
    tab_to(page, "#asked .actions .aloud")
    page.keyboard.press("Enter")
    assert page.evaluate("heard.at(-1)[0]").startswith("2 found: horse")
    tab_to(page, "#asked .request summary")
    page.keyboard.press("Enter")
    page.locator("#asked pre").first.wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out(browser, address, scheme, tmp_path):
    """axe-core: before the first answer, with objects, with everything open, with an error."""
    page = visit(browser, address, color_scheme=scheme, viewport={"width": 1440, "height": 900})
    page.locator('#examples [aria-pressed="true"]').wait_for()
    assert axe.violations(page) == []
    page.evaluate("document.querySelector('main').append(new Image())")
    assert any("alt" in one for one in axe.violations(page))  # it does look
    page.evaluate("document.querySelector('main > img').remove()")
    ask(page, "caption", lang="ar")
    ask(page, "segment", "objects3.png", names="horse ; elephant")
    keep(page, f"wide-{scheme}", tmp_path)
    choose(page, "describe-box")
    requests(page)
    earlier(page).first.wait_for()
    start(page, "detect", names="")
    failing(page)
    assert axe.violations(page) == []
    choose(page, "describe-box")
    assert axe.violations(page) == []
    page.context.close()


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_in_the_dark(browser, address, width, tmp_path):
    how = {"viewport": {"width": width, "height": 760}, "device_scale_factor": 2, "color_scheme": "dark", "has_touch": True}
    page = visit(browser, address, **how)
    ask(page, "detect", "objects1.png", names="owl ; green heart ; fish")
    requests(page)
    earlier(page).first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    keep(page, f"phone-{width}", tmp_path)
    assert axe.violations(page) == []
    assert page.complaints == []
    page.context.close()


def test_nothing_moves_for_who_wants_that(browser, address):
    page = visit(browser, address, reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.getElementById('ask')).transitionDuration") == "0s"
    page.context.close()
