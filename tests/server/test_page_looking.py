""" "How sure was it, and where did it look?" under an answer on the server's page."""

from __future__ import annotations

import json

from tests.server import axe
from tests.server.page_stub import Fault
from tests.server.visiting import DRAWN, ask, latest, sent, until, visit, why


def test_where_it_looked_is_shown_for_each_word(page, stub):
    ask(page, "caption")
    assert "explain" not in sent(stub)
    before = page.evaluate(DRAWN)
    rows = why(page)
    assert sent(stub)["explain"] is True
    said = [" ".join(row.inner_text().split()) for row in rows.all()]
    assert said == ["owl or bird 20 % looked at the top left 80 %", "fish or eel 4 % looked at the bottom right 99 %"]
    rows.first.hover()
    hot = page.evaluate(DRAWN)
    assert hot != before
    rows.nth(1).click()
    page.locator("h1").hover()
    assert page.evaluate(DRAWN) not in (before, hot)
    assert rows.nth(1).get_attribute("aria-pressed") == "true"
    rows.nth(1).focus()
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.dataset.at") == "0"
    assert page.evaluate(DRAWN) == hot
    if axe.SCRIPT.is_file():
        assert axe.violations(page) == []
    latest(page).locator(".why > summary").click()
    until(page, f"{DRAWN} === {json.dumps(before)}")
    asked = len(stub.asked)
    why(page)
    assert len(stub.asked) == asked, "what is known is not asked for again"


def test_another_answer_takes_the_place_of_the_heat(page):
    ask(page, "caption")
    why(page).first.click()
    ask(page, "detect", names="owl")
    rows = page.locator("#asked article").nth(1).locator(".why li button")
    assert rows.first.get_attribute("aria-pressed") == "false"
    boxes = page.evaluate(DRAWN)
    rows.first.hover()
    assert page.evaluate(DRAWN) != boxes


def test_why_fails_in_words_and_can_be_asked_again(page, stub):
    ask(page, "caption")
    stub.faults.append(Fault(400, "not_explained", "explain: too long"))
    latest(page).locator(".why > summary").click()
    latest(page).locator(".why").get_by_text("explain: too long").wait_for()
    latest(page).locator(".why > summary").click()
    assert why(page).count() == 2


def test_where_a_server_explains_nothing_nothing_of_it_is_offered(browser, stub):
    stub.offered = {"nano-112": {"explains": False}}
    page = visit(browser, stub.address)
    page.locator('#examples [aria-pressed="true"]').wait_for()
    ask(page, "caption")
    assert page.locator(".why").count() == 0
    page.context.close()


def test_an_object_takes_the_place_of_the_heat(page):
    ask(page, "detect", names="owl ; fish")
    rows = why(page)
    rows.first.click()
    page.locator("h1").hover()
    heat = page.evaluate(DRAWN)
    page.locator('#marks [aria-label^="fish"]').hover()
    assert page.evaluate(DRAWN) != heat
    assert rows.first.get_attribute("aria-pressed") == "false"
    rows.first.click()
    page.locator("h1").hover()
    assert page.evaluate(DRAWN) == heat
    page.keyboard.press("Escape")
    assert page.evaluate(DRAWN) != heat
    assert rows.first.get_attribute("aria-pressed") == "false"


def test_a_word_of_an_earlier_answer_stays_shown(page):
    ask(page, "caption")
    why(page)
    ask(page, "ask", question="which colour?")
    rows = page.locator("#asked article").nth(1).locator(".why li button")
    rows.nth(1).click()
    assert rows.nth(1).get_attribute("aria-pressed") == "true"
    heat = page.evaluate(DRAWN)
    page.locator("h1").hover()
    assert page.evaluate(DRAWN) == heat


def test_who_does_not_want_to_know_any_more_is_not_waited_for(page, stub):
    ask(page, "caption")
    stub.held = 0
    latest(page).locator(".why > summary").click()
    page.get_by_text("Looking again").wait_for()
    until(page, lambda: stub.begun == 2)
    latest(page).locator(".why > summary").click()
    until(page, lambda: stub.cancelled == 1)
    stub.held = None
    assert why(page).count() == 2
