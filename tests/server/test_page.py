"""The server's page in a real browser, headless Chromium: every task by hand, streaming, errors, the keyboard, a phone, the dark, axe-core.

Needs Chromium, axe-core and playwright; `.ci/browser` fetches the first two. Where one is missing the tests are skipped, unless
PALIGEMMA_BROWSER=required, as in CI. PALIGEMMA_SCREENSHOTS names a folder that keeps the pictures of the page.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paligemma.drawing import COLOURS
from paligemma.mask_formats import compress, from_run_lengths, run_lengths
from paligemma.tasks.languages import LANGUAGES
from tests.server import axe
from tests.server.page_stub import DEMO, Fault, Stub, serve

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

pytestmark = pytest.mark.timeout(120)


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


@pytest.fixture(scope="module", autouse=True)
def everything_is_there():
    if (what := lacking()) is not None:
        assert os.environ.get("PALIGEMMA_BROWSER") != "required", f"{what} is missing"
        pytest.skip(f"needs {what} (.ci/browser fetches it)")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium(), args=FLAGS)


@pytest.fixture(scope="module")
def running():
    with serve(Stub()) as stub:
        yield stub


@pytest.fixture
def stub(running):
    """Canned answers, as nobody has touched them."""
    fresh = Stub(address=running.address)
    for name, value in vars(fresh).items():
        setattr(running, name, value)
    return running


@pytest.fixture
def address(stub) -> str:
    """Of a server: all that most tests know of it."""
    return stub.address


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


@pytest.fixture
def page(browser, address):
    """On a desk, with the first example on the stage."""
    page = visit(browser, address)
    page.locator('#examples [aria-pressed="true"]').wait_for()
    yield page
    page.context.close()


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


def until(page, expression: str) -> None:
    """Waits for it to become true. Playwright's own way would be refused by the page's policy, which forbids eval."""
    deadline = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
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


DROP = """([kind, text, type]) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "from-outside.png", { type }));
  const event = kind === "paste" ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.getElementById("drop").dispatchEvent(event);
}"""

SHAPE = "(({{ width, height }}) => Math.abs(width / height / {} - 1) < 0.01)(document.getElementById('view'))"


def throw(page, kind: str, content: bytes, type: str = "image/png") -> None:
    page.evaluate(DROP, [kind, base64.b64encode(content).decode(), type])


# Tasks


def by_hand(page, tmp_path: Path, name: str) -> None:
    assert "nano-112" in page.locator("#about").inner_text()
    assert ask(page, "caption") == "an owl, a green heart and a fish"
    keep(page, f"{name}caption", tmp_path)
    assert ask(page, "ask", question="what color is the heart?") == "green"
    assert "owl" in ask(page, "detect", "objects1.png")
    keep(page, f"{name}detect", tmp_path)
    assert "elephant" in ask(page, "segment", "objects3.png", names="horse ; elephant")
    keep(page, f"{name}segment", tmp_path)
    assert ask(page, "ocr", "words1.png").split() == ["BABY", "09", "BIKING"]
    assert page.complaints == []


def test_every_task_by_hand(page, tmp_path):
    by_hand(page, tmp_path, "")


def test_the_bundled_model_answers(browser, nano, tmp_path):
    """The server itself, not the stub."""
    page = visit(browser, f"http://127.0.0.1:{nano.port}/")
    page.locator('#examples [aria-pressed="true"]').wait_for()
    by_hand(page, tmp_path, "nano-")
    for task, fields in {
        "describe-box": {},
        "refer": {"sentence": "the owl"},
        "question": {"answer": "green"},
        "run": {"prompt": "caption fr"},
    }.items():
        if page.locator(f'[name="task"][value="{task}"]').locator("xpath=..").get_attribute("hidden") is None:
            ask(page, task, "objects1.png", **fields)
    ask(page, "detect", "objects1.png", names="owl ; fish")
    rows = why(page)
    assert rows.count() == 2
    rows.first.hover()
    keep(page, "nano-why", tmp_path)
    page.context.close()


def test_the_tasks_below_more(page, stub):
    assert "owl" in ask(page, "refer", sentence="the bird on the left")
    assert stub.asked[-1][0] == "refer"
    assert sent(stub)["sentence"] == "the bird on the left"
    assert ask(page, "question", answer="three") == "how many owls are there?"
    assert ask(page, "run", prompt="caption de") == "gelber Punkt und lila Punkt"
    assert sent(stub)["prompt"] == "caption de"


def test_languages_lengths_and_choices(page, stub):
    assert ask(page, "caption", lang="de", length="long") == "Eule, grünes Herz und Fisch"
    assert (sent(stub)["lang"], sent(stub)["length"]) == ("de", "long")
    ask(page, "ask", question="which colour?", choices="red ;  light  green; red")
    assert sent(stub)["choices"] == ["red", "light green"]
    assert """--form-string 'choices=["red","light green"]'""" in requests(page)


def test_a_box_is_drawn_with_the_mouse_and_with_keys(page, stub):
    choose(page, "describe-box")
    edges = page.locator("#stage").bounding_box()
    at = lambda x, y: (edges["x"] + x * edges["width"], edges["y"] + y * edges["height"])  # noqa: E731
    page.mouse.move(*at(0.5, 0.75))
    page.mouse.down()
    page.mouse.move(*at(0.25, 0.25), steps=4)
    page.mouse.up()
    assert ask(page, "describe-box") == "an owl"
    assert sent(stub)["box"] == pytest.approx([28, 28, 56, 84], abs=1)
    page.locator("#frame").focus()
    left, top, right, bottom = sent(stub)["box"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    ask(page, "describe-box")
    assert sent(stub)["box"] == [left + 2, top, right + 2, bottom + 2]
    page.locator('[name="right"]').fill("3")
    page.locator("#ask").click()
    assert "right edge" in failing(page)
    assert page.evaluate("document.activeElement.name") == "right"


def test_models_are_chosen_where_there_are_several(browser, stub):
    stub.models = ("nano-112", "adapter")
    page = visit(browser, stub.address)
    ask(page, "caption", "objects1.png", model="adapter")
    assert sent(stub)["model"] == "adapter"
    assert ', model="adapter")' in requests(page)
    page.context.close()


def options(page, name: str) -> list[str]:
    return sorted(page.locator(f'[name="{name}"] option').evaluate_all("all => all.map((one) => one.value)"))


def offered(page) -> list[str]:
    tasks = page.locator('[name="task"]').evaluate_all("all => all.filter((one) => !one.parentElement.hidden).map((one) => one.value)")
    return sorted(tasks)


def test_what_the_chosen_model_was_taught_is_offered(browser, stub):
    stub.models = ("some", "few", "any")
    languages = {"caption": ["de", "en", "fr"], "ask": ["en"]}
    stub.offered["some"] = {"tasks": ["caption", "ask", "detect", "run"], "languages": languages, "lengths": ["normal", "long"]}
    stub.offered["few"] = {"tasks": ["describe-box", "run"], "languages": {}, "lengths": []}
    page = visit(browser, stub.address)
    until(page, "document.querySelectorAll('[name=model] option').length === 3")
    assert offered(page) == ["ask", "caption", "detect", "run"]
    assert (options(page, "lang"), options(page, "length")) == (["de", "en", "fr"], ["long", "normal"])
    page.locator('[name="lang"]').select_option("fr")
    choose(page, "detect")
    choose(page, "caption")
    assert page.locator('[name="lang"]').input_value() == "fr"
    choose(page, "ask")
    assert options(page, "lang") == ["en"]
    page.locator('[name="model"]').select_option("few")
    assert offered(page) == ["describe-box", "run"]
    assert page.locator('[value="describe-box"]').is_checked()
    assert page.locator('[name="left"]').is_visible()
    assert page.locator('label:has([value="run"])').is_visible(), "what there is is not hidden below More"
    page.locator('[name="model"]').select_option("any")
    choose(page, "caption")
    assert len(offered(page)) == 9
    assert options(page, "lang") == ["ar", "de", "en"]
    page.context.close()


def test_what_the_bundled_model_was_taught_is_offered(browser, nano):
    page = visit(browser, f"http://127.0.0.1:{nano.port}/")
    until(page, "document.querySelectorAll('[name=lang] option').length > 1")
    assert offered(page) == ["ask", "caption", "describe-box", "detect", "ocr", "run", "segment"]
    assert options(page, "lang") == ["de", "en", "es", "fr", "zh"]
    page.context.close()


# Pictures


def test_a_picture_is_dropped_pasted_or_chosen(page, stub):
    throw(page, "drop", png(80, 40))
    until(page, SHAPE.format(2))
    ask(page, "caption")
    assert picture_of(sent(stub)["image"]).size == (80, 40)
    throw(page, "paste", png(30, 90))
    until(page, SHAPE.format(1 / 3))
    ask(page, "caption")
    assert picture_of(sent(stub)["image"]).size == (30, 90)
    page.locator("#file").set_input_files(DEMO / "colours1.png")
    ask(page, "caption")
    assert sent(stub)["image"] == "data:image/png;base64," + base64.b64encode((DEMO / "colours1.png").read_bytes()).decode()
    throw(page, "drop", b"text", "text/plain")
    assert "no picture" in failing(page)
    throw(page, "drop", b"not a PNG")
    until(page, "document.getElementById('error').textContent.includes('browser can open')")


def test_the_camera_takes_a_picture(page, stub):
    """Chromium's stand-in for one."""
    page.locator("#camera").click()
    page.locator("#shoot").click()
    until(page, "document.getElementById('view').width > document.getElementById('view').height")
    ask(page, "caption")
    width, height = picture_of(sent(stub)["image"]).size
    assert width > height


def test_a_large_picture_is_sent_smaller(page, stub):
    out = io.BytesIO()
    Image.new("L", (8000, 6300)).save(out, "PNG")
    page.locator("#file").set_input_files({"name": "large.png", "mimeType": "image/png", "buffer": out.getvalue()})
    page.locator("#picture-note:not(:empty)").wait_for(timeout=60_000)
    assert "8000 × 6300" in page.locator("#picture-note").inner_text()
    assert "owl" in ask(page, "detect", names="owl")
    assert picture_of(sent(stub)["image"]).size == (4096, 3226)


def test_a_kind_that_the_server_does_not_open_is_sent_as_png(page, stub):
    out = io.BytesIO()
    Image.new("RGB", (40, 20), (200, 0, 0)).save(out, "AVIF")
    page.locator("#file").set_input_files({"name": "picture.avif", "mimeType": "image/avif", "buffer": out.getvalue()})
    until(page, SHAPE.format(2))
    ask(page, "caption")
    assert picture_of(sent(stub)["image"]).format == "PNG"


def test_a_video_is_eight_pictures(page, stub, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.webm"), "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(32):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    page.locator("#file").set_input_files(tmp_path / "clip.webm")
    page.locator("#clip img").nth(7).wait_for(timeout=30_000)
    ask(page, "caption")
    grey = [np.asarray(picture_of(image).convert("L")).mean() for image in sent(stub)["images"]]
    assert grey == pytest.approx([16 + 32 * i for i in range(8)], abs=12)
    assert "Clip(" in requests(page)


def test_the_last_choice_counts(page, stub):
    """An example that arrives late does not take the place of a later one, and a question about a picture that is gone is not answered."""
    page.evaluate("""() => {
      const fetch = window.fetch;
      window.fetch = async (...asked) => {
        window.fetch = fetch;
        await new Promise((resolve) => (window.arrive = resolve));
        return fetch(...asked);
      };
    }""")
    page.locator('[data-image$="objects3.png"]').click()
    page.locator('[data-image$="words1.png"]').click()
    page.locator('[data-image$="words1.png"][aria-pressed="true"]').wait_for()
    page.evaluate("arrive()")
    page.wait_for_timeout(300)
    assert page.locator('#examples [aria-pressed="true"]').get_attribute("data-image").endswith("words1.png")
    stub.pace = 0.5
    start(page, "caption")
    until(page, "document.querySelector('#asked .text')?.textContent.startsWith('an')")
    page.locator('[data-image$="objects1.png"]').click()
    page.locator("#stop").wait_for(state="hidden")
    page.wait_for_timeout(700)
    assert page.locator("#asked article").count() == 0
    assert stub.cancelled == 1
    assert page.complaints == []


# Answers


def test_an_answer_is_shown_while_it_is_written(page, stub):
    stub.pace = 0.3
    start(page, "caption")
    until(page, "/^an owl,( a)?( green)? *$/.test(document.querySelector('#asked .text').textContent)")
    assert page.locator("#said").inner_text() == ""
    page.locator("#stop").wait_for(state="hidden", timeout=10_000)
    assert page.locator("#said").text_content() == "an owl, a green heart and a fish"


def test_what_is_found_is_counted_meanwhile(page, stub):
    stub.pace = 0.5
    start(page, "detect", names="owl ; fish")
    until(page, "document.querySelector('#asked .text')?.textContent === '1 so far …'")
    page.locator("#stop").wait_for(state="hidden", timeout=10_000)
    assert latest(page).locator("li").count() == 2


def test_a_question_is_stopped(page, stub):
    stub.pace = 0.5
    start(page, "caption")
    until(page, "document.querySelector('#asked .text').textContent.startsWith('an')")
    page.locator("#stop").click()
    page.locator("#asked article").wait_for(state="detached")
    page.wait_for_timeout(700)
    assert stub.cancelled == 1
    stub.pace = 0
    assert ask(page, "caption") == "an owl, a green heart and a fish"


def test_an_object_is_pointed_at_in_list_and_picture(page):
    ask(page, "detect", names="owl ; green heart ; fish")
    rows, marks = latest(page).locator("li button"), page.locator("#marks button")
    assert rows.count() == marks.count() == 3
    fish = page.locator('#marks [aria-label^="fish"]')
    before = page.evaluate("document.getElementById('drawn').toDataURL()")
    fish.hover()
    assert "on" in rows.nth(2).get_attribute("class")
    assert page.evaluate("document.getElementById('drawn').toDataURL()") != before
    page.locator("h1").hover()
    assert not rows.nth(2).get_attribute("class")
    assert page.evaluate("document.getElementById('drawn').toDataURL()") == before
    rows.nth(0).click()
    page.locator("h1").hover()
    assert page.locator('#marks [aria-label^="owl"]').get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert rows.nth(0).get_attribute("aria-pressed") == "false"


DRAWN = "document.getElementById('drawn').toDataURL()"


def why(page):
    """The rows under "Where did it look?" of the latest answer."""
    latest(page).locator(".why > summary").click()
    rows = latest(page).locator(".why li button")
    rows.first.wait_for(timeout=30_000)
    return rows


def test_where_it_looked_is_shown_for_each_word(page, stub):
    ask(page, "caption")
    assert "explain" not in sent(stub)
    before = page.evaluate(DRAWN)
    rows = why(page)
    assert sent(stub)["explain"] is True
    said = [" ".join(row.inner_text().split()) for row in rows.all()]
    assert said == ["owl or bird 20 % looked at the top left 80 %", "fish looked at the bottom right 99 %"]
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


@pytest.mark.parametrize("size", [(300, 100), (100, 300)])
def test_marks_lie_where_the_objects_are(page, size):
    throw(page, "drop", png(*size))
    ask(page, "detect", names="green heart")
    stage, mark = page.locator("#view").bounding_box(), page.locator("#marks button").bounding_box()
    assert stage["width"] / stage["height"] == pytest.approx(size[0] / size[1], rel=0.02)
    assert (mark["x"] - stage["x"]) / stage["width"] == pytest.approx(0.37, abs=0.01)
    assert (mark["y"] - stage["y"]) / stage["height"] == pytest.approx(0.5, abs=0.01)
    assert mark["height"] / stage["height"] == pytest.approx(0.24, abs=0.01)


def test_the_threshold_asks_nobody(page, stub):
    ask(page, "detect", names="owl ; green heart ; fish")
    asked = len(stub.asked)
    latest(page).locator('input[type="range"]').fill("50")
    assert latest(page).locator("li").all_inner_texts()[1].startswith("green heart")
    assert (latest(page).locator("li").count(), page.locator("#marks button").count()) == (2, 2)
    latest(page).locator('input[type="range"]').fill("100")
    assert page.locator("#marks button").count() == 0
    assert len(stub.asked) == asked


def test_questions_about_one_picture(page):
    ask(page, "detect", names="owl")
    ask(page, "detect", names="green heart ; fish")
    ask(page, "caption")
    assert page.locator("#asked h2").all_inner_texts() == ["What is in this picture?", "Find: green heart, fish", "Find: owl"]
    assert page.locator("#marks button").count() == 0
    page.locator("#asked article").nth(1).locator(".show").click()
    assert page.locator("#marks button").count() == 2
    page.locator("#asked article").nth(1).get_by_role("button", name="Remove").click()
    assert page.locator("#asked article").count() == 2


def test_nothing_is_found(page):
    assert ask(page, "detect", names="crab") == "Nothing of that name was found."


def test_text_is_never_html(page):
    assert ask(page, "ask", question="in bold?") == "<b>green</b>"
    assert page.locator("#asked .text b").count() == 0


def test_a_language_from_right_to_left(page, tmp_path):
    ask(page, "caption", lang="ar")
    shown = latest(page).locator(".text")
    assert shown.get_attribute("lang") == "ar"
    assert shown.evaluate("(one) => getComputedStyle(one).direction") == "rtl"
    keep(page, "rtl", tmp_path)


def test_answers_are_read_aloud(page):
    ask(page, "caption", lang="de")
    assert page.evaluate("heard.filter((one) => one !== 'hush')") == []
    latest(page).locator(".aloud").click()
    assert page.evaluate("heard.at(-1)") == ["Eule, grünes Herz und Fisch", "de"]
    page.locator("#aloud").check()
    ask(page, "detect", names="owl ; fish")
    assert page.evaluate("heard.at(-1)") == ["2 found: owl at the top left; fish at the right.", "en"]
    page.reload()
    assert page.locator("#aloud").is_checked()


# What is taken away


def copied(page, name: str) -> str:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    latest(page).get_by_role("button", name=name, exact=True).click()
    latest(page).get_by_text("Copied.", exact=True).wait_for()
    return page.evaluate("navigator.clipboard.readText()")


def test_answers_are_copied(page):
    ask(page, "segment", names="owl ; fish")
    latest(page).locator('input[type="range"]').fill("50")
    result = json.loads(copied(page, "Copy JSON"))
    assert [one["label"] for one in result["masks"]] == ["owl"]
    coco = json.loads(copied(page, "Copy COCO"))
    (annotation,) = coco["annotations"]
    assert coco["images"] == [{"id": 1, "width": 112, "height": 112, "file_name": "objects1.png"}]
    assert coco["categories"] == [{"id": 1, "name": "owl"}]
    mask = pytest.importorskip("pycocotools.mask")
    assert annotation["area"] == mask.area(annotation["segmentation"])
    x0, y0, width, height = annotation["bbox"]
    assert (x0, y0, x0 + width, y0 + height) == pytest.approx((1.12, 22.4, 17.92, 42.56))
    latest(page).get_by_role("button", name="Copy picture").click()
    latest(page).get_by_text("Copied.", exact=True).wait_for()
    kinds = page.evaluate("async () => (await navigator.clipboard.read()).flatMap((one) => one.types)")
    assert kinds == ["image/png"]
    ask(page, "ocr")
    assert copied(page, "Copy text") == "BABY\n09\nBIKING"


def test_without_a_clipboard_the_picture_is_a_file(browser, stub):
    """An address that is not secure, such as that of another machine at home."""
    page = visit(browser, stub.address.replace("127.0.0.1", "plain.test"))
    ask(page, "detect", "objects1.png", names="owl")
    with page.expect_download() as download:
        latest(page).get_by_role("button", name="Copy picture").click()
    with Image.open(download.value.path()) as image:
        assert image.size == (512, 512)
    latest(page).get_by_role("button", name="Copy JSON").click()
    latest(page).get_by_text("Copied.", exact=True).wait_for()
    assert page.locator("#camera").is_hidden()
    page.context.close()


def requests(page) -> str:
    latest(page).locator(".request > summary").click()
    latest(page).locator("pre").first.wait_for()
    return "\n\n".join(latest(page).locator("pre").all_inner_texts())


def test_the_request_is_shown(page, address):
    ask(page, "detect", names="owl ; it's")
    shown = requests(page)
    assert f"curl {address}v1/detect" in shown
    assert "-F image=@objects1.png" in shown
    assert "--form-string 'classes=owl ; it'\\''s'" in shown
    assert f'paligemma.connect("{address[:-1]}")' in shown
    assert 'model.detect("objects1.png", ["owl", "it\'s"])' in shown
    assert "requests.post(" in shown
    assert len(shown) < 2000
    for program in re.findall(r"^import .*?\)$(?=\n\n|\Z)", shown, re.S | re.M):
        compile(program, "shown", "exec")


# The history


def earlier(page):
    if not page.locator("#kept").is_visible():
        page.locator("#history > summary").click()
    return page.locator("#kept .open")


def test_earlier_pictures_are_kept_here_and_deleted(page, stub, tmp_path):
    ask(page, "detect", "objects1.png", names="owl")
    ask(page, "caption", "objects3.png")
    page.reload()
    page.locator('#examples [aria-pressed="true"]').wait_for()
    earlier(page).nth(1).wait_for()
    keep(page, "history", tmp_path)
    asked = len(stub.asked)
    earlier(page).nth(1).click()
    page.locator("#marks button").wait_for()
    assert latest(page).locator("h2").inner_text() == "Find: owl"
    ask(page, "caption")
    assert len(stub.asked) == asked + 1
    page.locator("#forget").click()
    page.get_by_text("None yet.").wait_for()
    page.locator("#keep").uncheck()
    ask(page, "caption", "words1.png")
    page.reload()
    earlier(page)
    page.get_by_text("None yet.").wait_for()
    assert not page.locator("#keep").is_checked()


# Errors


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


@pytest.mark.parametrize(("status", "code"), [(429, "rate_limited"), (503, "loading")])
def test_a_busy_server_is_asked_again(page, stub, status, code):
    stub.faults.append(Fault(status, code, headers={"Retry-After": "2"}))
    start(page, "caption")
    page.get_by_text("Asking again in 2 s.").wait_for()
    page.get_by_text("Asking again in 1 s.").wait_for()
    assert "asked again in 2 seconds" in page.locator("#said").text_content()
    page.locator("#stop").wait_for(state="hidden")
    assert latest(page).locator(".text").inner_text() == "an owl, a green heart and a fish"
    assert len(stub.asked) == 2


def test_a_server_that_loads_its_model_is_waited_for(browser, stub):
    stub.loading = 1
    page = visit(browser, stub.address)
    assert "still be loading" in failing(page)
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


# Everybody


def tab_to(page, selector: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not come to {selector}")


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


# The page of the index

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


def test_nothing_moves_for_who_wants_that(browser, address):
    page = visit(browser, address, reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.getElementById('ask')).transitionDuration") == "0s"
    page.context.close()


# The page's modules against the Python they follow


def test_masks_are_read_as_they_were_written(page):
    rng = np.random.default_rng(0)
    masks = [rng.random(rng.integers(1, 40, 2)) < share for share in (0, 0.02, 0.5, 0.98, 1) for _ in range(10)]
    tall = np.zeros((3000, 40), bool)
    tall[5:2990, 3] = tall[:, 20] = True
    read = """async (rles) => {
      const { readMask } = await import("/page/app/rle.js");
      return rles.map((rle) => readMask(rle)).map((one) => ({ ...one, covered: Array.from(one.covered) }));
    }"""
    written = [{"size": list(mask.shape), "counts": compress(run_lengths(mask))} for mask in [*masks, tall]]
    for mask, found in zip([*masks, tall], page.evaluate(read, written), strict=True):
        whole = np.zeros(mask.shape, bool)
        part = whole[found["y0"] : found["y1"], found["x0"] : found["x1"]]
        part[:] = np.asarray(found["covered"], bool).reshape(part.shape)
        assert np.array_equal(whole, mask)
        assert found["area"] == mask.sum()
    assert np.array_equal(from_run_lengths([1, 2, 1], 2, 2), [[False, True], [True, False]])  # columns first


def test_events_are_read_in_any_pieces(page):
    read = """async (pieces) => {
      const { events } = await import("/page/app/events.js");
      const found = [];
      const body = new ReadableStream({ start(c) { for (const p of pieces) c.enqueue(Uint8Array.from(p)); c.close(); } });
      for await (const one of events(body)) found.push([one.event, one.data]);
      return found;
    }"""
    text = (
        ': wait\r\n\r\nevent: token\r\ndata: {"text": "grün:"}\r\n\r\ndata: a\ndata:b\n\ndata: [DONE]\n\nevent: cut\ndata: off\n'.encode()
    )
    expected = [["token", '{"text": "grün:"}'], ["message", "a\nb"], ["message", "[DONE]"]]
    for size in (1, 2, 3, 7, len(text)):
        assert page.evaluate(read, [list(text[i : i + size]) for i in range(0, len(text), size)]) == expected


def test_colours_are_pythons(page):
    assert page.evaluate("async () => (await import('/page/shared/draw.js')).COLOURS") == [list(colour) for colour in COLOURS]


def test_every_language_has_a_name(page):
    name = "async (codes) => { const { languageName } = await import('/page/shared/choices.js'); return codes.map(languageName); }"
    assert all(len(name) > 3 for name in page.evaluate(name, list(LANGUAGES)))
