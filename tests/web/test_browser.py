"""The page in a real browser, headless Chromium on WebAssembly: the same tokens, boxes, masks and scores as the Python engine, and the page
itself: tasks by hand, a phone, a second visit without the network.

Needs Chromium, ONNX Runtime Web and playwright; `.ci/browser` fetches the first two. Where one is missing the tests are skipped, unless
PALIGEMMA_BROWSER=required, as in CI. PALIGEMMA_SCREENSHOTS names a folder that keeps the pictures of the page.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paligemma
from paligemma.checkpoint.finding import BUNDLED
from paligemma.demo import HONEST
from paligemma.engine.generate import Options, generate
from paligemma.sequence import prompt_ids
from paligemma.tasks import TASKS
from paligemma.tasks.grammar import ObjectGrammar
from paligemma.web.packer import pack_web
from paligemma.web.runtime import INSTALL, PACKAGE, find_runtime, missing
from tests.server.visiting import FLAGS, LATE, chromium

DEMO = BUNDLED / "demo"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paligemma" / "web"
pytestmark = pytest.mark.timeout(240)


def lacking() -> str | None:
    """What is missing for these tests."""
    try:
        import playwright.sync_api  # noqa: F401
    except ModuleNotFoundError:
        return "the package playwright"
    if chromium() is None:
        return "Chromium"
    if missing(CACHE / "node_modules" / PACKAGE / "dist"):
        return f"{PACKAGE} in {CACHE}"
    return None


@pytest.fixture(scope="module", autouse=True)
def everything_is_there():
    if (what := lacking()) is not None:
        assert os.environ.get("PALIGEMMA_BROWSER") != "required", f"{what} is missing"
        pytest.skip(f"needs {what} (.ci/browser fetches it)")


@dataclass
class Site:
    """A folder on a local address. `asked`: paths that were asked for."""

    address: str
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Site]:
    """As `python -m http.server` does."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Site(f"http://127.0.0.1:{server.server_port}/", asked)
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """The bundled model in float32, with ONNX Runtime Web beside it."""
    out = tmp_path_factory.mktemp("web") / "page"
    return pack_web(BUNDLED / "nano-112", out, "float32", runtime=find_runtime(CACHE), examples=DEMO, notes=HONEST[:2])


@pytest.fixture(scope="module")
def site(pack):
    with serve(pack) as site:
        yield site


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium(), args=FLAGS)


@pytest.fixture(scope="module")
def model():
    return paligemma.load("nano-112", device="cpu", dtype="float32")


CASES = [
    ("objects1.png", "caption", {"lang": "en", "length": "normal"}),
    ("objects1.png", "caption", {"lang": "zh", "length": "normal"}),
    ("objects1.png", "answer", {"lang": "en", "question": "what color is the heart?"}),
    ("objects1.png", "detect", {"names": ["owl", "green heart", "fish"]}),
    ("objects1.png", "segment", {"names": ["owl"]}),
    ("objects3.png", "detect", {"names": ["horse", "elephant", "turtle", "butterfly"]}),
    ("objects3.png", "segment", {"names": ["elephant", "turtle"]}),
    ("twins2.png", "detect", {"names": ["green heart"]}),
    ("twins1.png", "segment", {"names": ["green book on the right"]}),
    ("words1.png", "ocr", {}),
    ("words2.png", "ocr", {}),
    ("colours1.png", "run", {"prompt": "caption de"}),
]

ASK = """async ([base, cases]) => {
  const { Model, readFacts } = await import(`${base}app/client.js`);
  const stages = [];
  const model = new Model(base, await readFacts(base), (stage) => stages.push(stage.what));
  const opened = await model.open("wasm");
  const answers = [];
  for (const [image, task, fields] of cases) {
    const picture = await (await fetch(`${base}examples/${image}`)).blob();
    const answer = await model.ask(picture, task, fields);
    for (const one of answer.objects ?? []) if (one.mask) one.mask.covered = Array.from(one.mask.covered);
    answers.push(answer);
  }
  model.worker.terminate();
  return { opened, answers, stages: [...new Set(stages)], isolated: crossOriginIsolated };
}"""


def expected(model, image: str, task: str, fields: dict[str, Any]):
    """(ids, result) of the Python engine."""
    picture, names = DEMO / image, fields.get("names")
    if names:
        result = getattr(model, task)(picture, names)
    elif task == "run":
        result = model.run(picture, fields["prompt"])
    else:
        asked = {"caption": [fields.get("lang")], "answer": [fields.get("question"), fields.get("lang")], "ocr": []}[task]
        result = model.task(task, picture, *asked)
    generation = generate(
        model.network,
        model.encode(picture).soft,
        [prompt_ids(model.tokenizer, result.prompt)],
        Options(max_tokens=TASKS[task].max_tokens),
        eos_id=model.tokenizer.eos_id,
        loc=model.tokenizer.loc,
        constraints=[ObjectGrammar(model.tokenizer, names, masks=task == "segment") if names else None],
    )[0]
    return list(generation.ids), result


def test_answers_are_pythons_token_by_token(browser, site, model):
    """In one thread: a page that is not isolated."""
    page = browser.new_page(service_workers="block")
    page.goto(f"{site.address}page.css")
    found = page.evaluate(ASK, [site.address, CASES])
    page.close()
    assert (found["isolated"], found["opened"]) == (False, {"engine": "wasm", "threads": 1})
    assert found["stages"][:3] == ["download", "start", "image"]
    same(found["answers"], model)


def test_threads_change_no_token(page, site, model):
    """In a page that its own service worker has isolated."""
    page.locator("#ask:enabled").wait_for(timeout=60_000)
    found = page.evaluate(ASK, [site.address, CASES])
    assert found["isolated"]
    assert found["opened"]["threads"] > 1
    same(found["answers"], model)


def same(answers: list[dict[str, Any]], model) -> None:
    for case, answer in zip(CASES, answers, strict=True):
        ids, result = expected(model, *case)
        assert answer["ids"] == ids, case
        assert answer["prompt"] == result.prompt
        assert answer["text"] == result.text
        assert answer["stop"] == result.stop
        if case[1] == "segment":
            compare_places(answer["objects"], list(result), [one.box for one in result])
            for one, mask in zip(answer["objects"], result, strict=True):
                assert (whole(one["mask"], result.width, result.height) != mask.mask).mean() < 0.002
        elif case[1] == "detect":
            compare_places(answer["objects"], list(result), list(result))
        else:
            assert answer["score"] == pytest.approx(result.score, abs=1e-3)


def compare_places(objects, things, boxes) -> None:
    assert objects
    assert len(objects) == len(things)
    for one, thing, box in zip(objects, things, boxes, strict=True):
        assert one["label"] == thing.label
        assert one["box"] == pytest.approx(box.xyxy)
        assert one["score"] == pytest.approx(thing.score, abs=2e-3)


def whole(mask: dict[str, Any], width: int, height: int) -> np.ndarray:
    out = np.zeros((height, width), bool)
    x0, y0, x1, y1 = (mask[edge] for edge in ("x0", "y0", "x1", "y1"))
    out[y0:y1, x0:x1] = np.asarray(mask["covered"], bool).reshape(y1 - y0, x1 - x0)
    return out


# The page


def visit(browser, site, **how):
    """A new visitor; what the browser complains of is collected, and what is asked of other places."""
    page = browser.new_context(**how).new_page()
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.on(
        "request", lambda request: None if request.url.startswith((site.address, "blob:", "data:")) else page.complaints.append(request.url)
    )
    page.goto(site.address)
    return page


@pytest.fixture(scope="module")
def page(browser, site):
    """The page on a desk, as others left it."""
    page = visit(browser, site, viewport={"width": 1180, "height": 860})
    page.locator("#ask:enabled").wait_for(timeout=60_000)  # it has loaded itself once more: what is done to it before is lost
    yield page
    page.context.close()


def ask(page, task: str, example: int | None = None, **fields: str) -> str:
    """By hand: an example, a task, words, the button; the answer as it is written there."""
    if example is not None:
        page.locator("#examples button").nth(example).click()
    page.locator(f'[name="task"][value="{task}"]').check(force=True)
    for name, value in fields.items():
        page.locator(f'[name="{name}"]').fill(value)
    page.locator("#ask:enabled").click(timeout=60_000)
    page.locator("#busy").wait_for(state="hidden", timeout=60_000)
    assert page.locator("#error").is_hidden(), page.locator("#error").inner_text()
    return page.locator("#answer").inner_text()


def keep(page, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("PALIGEMMA_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)
    assert (folder / f"{name}.png").stat().st_size > 10_000


def test_the_page_is_used_by_hand(page, tmp_path):
    assert ask(page, "caption", 0) == "an owl, a green heart and a fish"
    keep(page, "caption", tmp_path)
    assert ask(page, "answer", question="what color is the heart?") == "green"
    assert "owl" in ask(page, "detect", 0)
    keep(page, "detect", tmp_path)
    assert "butterfly" in ask(page, "segment", 2, names="elephant ; butterfly")
    keep(page, "segment", tmp_path)
    assert ask(page, "ocr", 6).split() == ["BABY", "09", "BIKING"]
    page.locator("#file").set_input_files(DEMO / "colours1.png")
    assert ask(page, "run", prompt="caption de") == "gelber Punkt und lila Punkt"
    assert page.complaints == []


def test_the_camera_takes_a_picture(page):
    """Chromium's stand-in for one."""
    ask(page, "caption", 0)
    page.locator("#camera").click()
    page.locator("#shoot").click()
    page.wait_for_function("document.getElementById('view').width > document.getElementById('view').height")
    assert ask(page, "caption")


def test_no_picture_is_taken_before_the_camera_shows_one(page):
    """A camera takes its time; one that was closed meanwhile is no error."""
    page.evaluate("""() => {
      const play = HTMLVideoElement.prototype.play;
      HTMLVideoElement.prototype.play = async function () {
        const stream = this.srcObject;
        await new Promise((resolve) => (window.wake = resolve));
        HTMLVideoElement.prototype.play = play;
        if (this.srcObject !== stream) throw new DOMException("interrupted by a new load", "AbortError"); // as browsers do
        return this.play();
      };
    }""")
    page.locator("#camera").click()
    page.wait_for_function("() => Boolean(window.wake)")
    assert page.locator("#live").is_visible()
    assert page.locator("#shoot").is_hidden()
    page.locator("#camera").click()
    page.evaluate("wake()")
    page.locator("#camera").click()
    page.locator("#shoot").wait_for(state="visible")
    page.locator("#camera").click()
    assert page.locator("#error").is_hidden()


def test_the_last_choice_counts(page):
    """An example that arrives late does not take the place of a later one, and a question waits for what was chosen."""
    page.evaluate(LATE)
    page.locator("#examples button").first.click()
    page.locator("#examples button").nth(4).click()
    assert "green heart" in ask(page, "detect")
    page.evaluate("arrive()")
    page.wait_for_timeout(500)
    assert "green heart" in ask(page, "detect")
    assert page.locator('#examples [aria-pressed="true"]').get_attribute("data-image") == "examples/twins2.png"


def test_the_page_on_a_phone_in_the_dark(browser, site, tmp_path):
    page = visit(browser, site, viewport={"width": 375, "height": 760}, device_scale_factor=2, color_scheme="dark", has_touch=True)
    assert "green heart" in ask(page, "detect", 4)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    keep(page, "phone", tmp_path)
    assert page.complaints == []
    page.context.close()


def test_an_address_that_is_not_secure(browser, site):
    """Such as that of another machine at home: the browser offers no store, no threads and no camera there."""
    page = visit(browser, Site(site.address.replace("127.0.0.1", "plain.test")))
    assert ask(page, "caption", 0) == "an owl, a green heart and a fish"
    assert page.locator("#camera").is_hidden()
    assert "1 thread)" in page.locator("footer").inner_text()
    assert page.complaints == []
    page.context.close()


def test_a_second_visit_fetches_no_weights(page, site):
    ask(page, "caption", 0)
    assert any("decoder-0.data" in path for path in site.asked)
    site.asked.clear()
    page.reload()
    assert ask(page, "caption", 0) == "an owl, a green heart and a fish"
    assert "/web.json" in site.asked
    assert not [path for path in site.asked if path.startswith("/model/")]


def test_errors_are_words(page, tmp_path):
    ask(page, "caption", 0)
    page.locator('[value="detect"]').check(force=True)
    page.locator('[name="names"]').fill(" ; ")
    page.locator("#ask").click()
    page.locator("#error").wait_for(state="visible")
    assert "what to look for" in page.locator("#error").inner_text()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    page.locator("#file").set_input_files(broken)
    page.wait_for_function("document.getElementById('error').textContent.includes('no picture')")
    assert ask(page, "caption") == "an owl, a green heart and a fish"


def options(page, name: str) -> list[str]:
    return page.locator(f'[name="{name}"] option').evaluate_all("all => all.map((one) => one.value)")


def test_what_the_model_was_taught_is_offered(page):
    page.locator('[name="task"][value="caption"]').check(force=True)
    assert sorted(options(page, "lang")) == ["de", "en", "es", "fr", "zh"]
    assert options(page, "length") == ["normal"]
    page.locator('[name="lang"]').select_option("fr")
    page.locator('[name="task"][value="detect"]').check(force=True)
    page.locator('[name="task"][value="caption"]').check(force=True)
    assert page.locator('[name="lang"]').input_value() == "fr"
    page.locator('[name="task"][value="answer"]').check(force=True)
    assert options(page, "lang") == ["en"]
    page.locator('[name="task"][value="caption"]').check(force=True)
    page.locator('[name="lang"]').select_option("en")


@pytest.mark.parametrize(("gone", "nothing_fetched"), [("runtime", True), ("*.wasm", False)])
def test_without_its_runtime_the_page_says_what_to_do(browser, pack, tmp_path, gone, nothing_fetched):
    bare = tmp_path / "bare"
    shutil.copytree(pack, bare, ignore=shutil.ignore_patterns(gone))
    with serve(bare) as site:
        page = visit(browser, site)
        page.locator("#model-status", has_text=f"cannot be fetched from {site.address}runtime/").wait_for(timeout=60_000)
        assert INSTALL in page.locator("#model-status").inner_text()
        assert page.locator("#ask").is_disabled()
        assert nothing_fetched == (not [path for path in site.asked if path.startswith("/model/")])
        page.reload()
        page.locator("#model-status", has_text="cannot be fetched").wait_for(timeout=60_000)
        page.context.close()


def test_keys_are_enough(page):
    """Tasks by arrow keys, the answer by Enter."""
    ask(page, "caption", 0)
    page.locator('[name="task"][value="caption"]').focus()
    page.keyboard.press("ArrowRight")
    page.locator('[name="question"]').focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("is there a crab?")
    page.keyboard.press("Enter")
    page.locator("#answer .text", has_text="no").wait_for(timeout=60_000)
