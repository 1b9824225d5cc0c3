"""A visitor of the server's page in a real browser, headless Chromium: what the tests of the page do by hand.

Needs Chromium, axe-core and playwright; `.ci/browser` fetches the first two. Where one is missing the tests are skipped, unless
PALIGEMMA_BROWSER=required, as in CI. PALIGEMMA_SCREENSHOTS names a folder that keeps the pictures of the page.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.server import axe
from tests.server.page_stub import Stub

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    "--host-resolver-rules=MAP plain.test 127.0.0.1",
]  # fmt: skip


VOICE = """
  window.heard = [];
  Object.defineProperty(window, "speechSynthesis", { value: {
    speak: (one) => window.heard.push([one.text, one.lang]), cancel: () => window.heard.push("hush"),
  } });
"""


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def lacking() -> str | None:
    """What is missing for these tests."""
    try:
        import playwright.sync_api  # noqa: F401
    except ModuleNotFoundError:
        return "the package playwright"
    if chromium() is None:
        return "Chromium"
    return None if axe.SCRIPT.is_file() else f"axe-core in {axe.CACHE}"


def visit(browser, address: str, **how):
    """A new visitor; what the browser complains of is collected, and what is asked of other places."""
    page = browser.new_context(**{"viewport": {"width": 1180, "height": 900}, **how}).new_page()
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: None if request.url.startswith((address, "blob:", "data:")) else page.complaints.append(request.url))
    page.add_init_script(VOICE)
    page.goto(address)
    return page


def start(page, task: str, example: str | None = None, **fields: str) -> None:
    """By hand: an example, a task, words, the button."""
    if example is not None:
        page.locator(f'[data-image$="{example}"]').click()
        page.locator(f'[data-image$="{example}"][aria-pressed="true"]').wait_for()
    choose(page, task)
    for name, value in fields.items():
        box = page.locator(f'[name="{name}"]')
        box.select_option(value) if name in ("lang", "length", "model") else box.fill(value)
    page.locator("#ask").click()


def choose(page, task: str) -> None:
    radio = page.locator(f'[name="task"][value="{task}"]')
    if not radio.locator("xpath=..").is_visible():
        page.locator("#more > summary").click()
    radio.check(force=True)


def latest(page):
    return page.locator("#asked article").first


def ask(page, task: str, example: str | None = None, **fields: str) -> str:
    """The answer as it is written there."""
    start(page, task, example, **fields)
    page.locator("#stop").wait_for(state="hidden", timeout=60_000)
    assert page.locator("#error").is_hidden(), page.locator("#error").inner_text()
    return latest(page).locator(".text, ul").first.inner_text()


def failing(page) -> str:
    page.locator("#error:not(:empty)").wait_for()
    return page.locator("#error").inner_text()


def until(page, holds: str | Callable[[], object]) -> None:
    """Waits for it to become true, in the page or here. Playwright's own way would be refused by the page's policy, which forbids eval."""
    deadline = time.monotonic() + 20
    while not (page.evaluate(holds) if isinstance(holds, str) else holds()):
        assert time.monotonic() < deadline, holds
        page.wait_for_timeout(50)


def keep(page, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("PALIGEMMA_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)
    assert (folder / f"{name}.png").stat().st_size > 10_000


def sent(stub: Stub) -> dict:
    """The last request's fields."""
    return stub.asked[-1][1]


def picture_of(data_url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2])))


def png(width: int = 64, height: int = 48) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (10, 120, 200)).save(out, "PNG")
    return out.getvalue()


DRAWN = "document.getElementById('drawn').toDataURL()"


def requests(page) -> str:
    latest(page).locator(".request > summary").click()
    latest(page).locator("pre").first.wait_for()
    return "\n\n".join(latest(page).locator("pre").all_inner_texts())


def earlier(page):
    if not page.locator("#history[open]").count():
        page.locator("#history > summary").click()
    return page.locator("#kept .open")


def tab_to(page, selector: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not come to {selector}")


DROP = """([kind, text, type]) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "from-outside.png", { type }));
  const event = kind === "paste" ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.getElementById("drop").dispatchEvent(event);
}"""


def throw(page, kind: str, content: bytes, type: str = "image/png") -> None:
    page.evaluate(DROP, [kind, base64.b64encode(content).decode(), type])


def why(page):
    """The rows under "Where did it look?" of the latest answer."""
    latest(page).locator(".why > summary").click()
    rows = latest(page).locator(".why li button")
    rows.first.wait_for(timeout=30_000)
    return rows


LATE = """() => {
  const fetch = window.fetch;
  window.fetch = async (...asked) => {
    window.fetch = fetch;
    await new Promise((resolve) => (window.arrive = resolve));
    return fetch(...asked);
  };
}"""
"""The next thing that is fetched arrives once `arrive()` is called."""
