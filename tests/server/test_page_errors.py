"""What goes wrong on the server's page is said in words, and goes on once it can: keys, busy servers, a network that is gone."""

from __future__ import annotations

import pytest

from tests.server.page_stub import Fault
from tests.server.visiting import ask, failing, keep, latest, requests, start, until, visit


def test_a_key_is_asked_for(browser, stub, tmp_path):
    stub.key = "secret"
    page = visit(browser, stub.address)
    page.locator("#locked").wait_for()
    keep(page, "key", tmp_path)
    page.locator("#key").fill("wrong")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('key-hint').textContent.includes('does not know this key')")
    page.locator("#key").fill("secret")
    page.keyboard.press("Enter")
    page.locator('#examples [aria-pressed="true"]').wait_for()
    assert page.locator("#locked").is_hidden()
    assert ask(page, "caption") == "an owl, a green heart and a fish"
    shown = requests(page)
    assert "YOUR_KEY" in shown
    assert "secret" not in shown
    stub.key = "changed"
    start(page, "caption")
    page.locator("#locked").wait_for()
    page.locator("#key").fill("changed")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#asked article:not([aria-busy])').length === 2")
    assert page.evaluate("Object.values(localStorage).join()").find("changed") == -1
    page.context.close()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(413, "request_too_large"), "Choose a smaller one"),
        (Fault(400, "image_invalid", "not a JPEG, PNG, WEBP, GIF or BMP picture"), "cannot use this picture"),
        (Fault(400, "context_length_exceeded", "600 text tokens, 512 are allowed"), "600 text tokens"),
        (Fault(404, "model_not_found"), "Load the page again"),
        (Fault(500, "internal_error"), "mistake of its own"),
        (Fault(503, "deadline", "the time is up", after=2), "the time is up"),
        (Fault(200, "cut", after=2), "connection was lost"),
    ],
    ids=lambda value: value.code if isinstance(value, Fault) else "",
)
def test_errors_are_words(page, stub, fault, words):
    stub.faults.append(fault)
    start(page, "caption")
    assert words in failing(page)
    page.locator("#stop").wait_for(state="hidden")
    assert page.locator("#asked article").count() == 0
    assert ask(page, "caption") == "an owl, a green heart and a fish"


TOLD = """() => {
  window.told = [];
  for (const name of ["said", "status"]) {
    const one = document.getElementById(name);
    new MutationObserver(() => told.push(one.textContent)).observe(one, { childList: true });
  }
}"""
"""What is told is kept, however soon something else is told."""


@pytest.mark.parametrize(("status", "code"), [(429, "rate_limited"), (503, "loading")])
def test_a_busy_server_is_asked_again(page, stub, status, code):
    stub.faults.append(Fault(status, code, headers={"Retry-After": "2"}))
    page.evaluate(TOLD)
    start(page, "caption")
    latest(page).locator(".text").get_by_text("an owl, a green heart and a fish", exact=True).wait_for()
    page.locator("#stop").wait_for(state="hidden")
    told = page.evaluate("told.filter((text) => text.includes('again in'))")
    assert [text[text.index("again in") :] for text in told] == ["again in 2 seconds.", "again in 2 s.", "again in 1 s."]
    assert latest(page).locator(".text").inner_text() == "an owl, a green heart and a fish"
    assert len(stub.asked) == 2


def test_a_server_that_loads_its_model_is_waited_for(browser, stub):
    stub.loading = True
    page = visit(browser, stub.address)
    assert "still be loading" in failing(page)
    stub.loading = False
    page.locator('#examples [aria-pressed="true"]').wait_for()
    assert page.locator("#error").is_hidden()
    page.context.close()


def test_waiting_for_a_busy_server_is_stopped(page, stub):
    stub.faults.append(Fault(429, "rate_limited", headers={"Retry-After": "60"}))
    start(page, "caption")
    page.get_by_text("Asking again in 60 s.").wait_for()
    page.locator("#stop").click()
    page.locator("#stop").wait_for(state="hidden")
    assert page.locator("#error").is_hidden()


def test_the_network_is_gone(page):
    page.context.set_offline(True)
    start(page, "ask", question="is it gone?")
    assert "cannot be reached" in failing(page)
    page.context.set_offline(False)
    page.locator("#ask").click()
    latest(page).get_by_text("green", exact=True).wait_for()


def test_what_is_missing_is_said(page):
    start(page, "detect", names=" ; ")
    assert "Say what to find" in failing(page)
    assert page.evaluate("document.activeElement.name") == "names"
    assert page.locator('[name="names"]').get_attribute("aria-describedby") == "error"
