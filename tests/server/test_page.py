"""The server's page in a real browser: every task by hand, answers as they are written, what can be done with them, earlier pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.server.visiting import ask, choose, earlier, failing, keep, latest, png, requests, sent, start, throw, until, visit, why


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


# Answers


def test_an_answer_is_shown_while_it_is_written(page, stub):
    stub.held = 3
    start(page, "caption")
    until(page, "document.querySelector('#asked .text')?.textContent.trim() === 'an owl, a'")
    assert page.locator("#said").inner_text() == ""
    stub.held = None
    page.locator("#stop").wait_for(state="hidden")
    assert page.locator("#said").text_content() == "an owl, a green heart and a fish"


def test_what_is_found_is_counted_meanwhile(page, stub):
    stub.held = 1
    start(page, "detect", names="owl ; fish")
    until(page, "document.querySelector('#asked .text')?.textContent === '1 so far …'")
    stub.held = None
    page.locator("#stop").wait_for(state="hidden")
    assert latest(page).locator("li").count() == 2


def test_a_question_is_stopped(page, stub):
    stub.held = 1
    start(page, "caption")
    until(page, "document.querySelector('#asked .text')?.textContent.startsWith('an')")
    page.locator("#stop").click()
    page.locator("#asked article").wait_for(state="detached")
    until(page, lambda: stub.cancelled == 1)
    stub.held = None
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


def test_earlier_pictures_are_kept_here_and_deleted(page, stub, tmp_path):
    earlier(page)
    page.get_by_text("None yet.").wait_for()
    ask(page, "detect", "objects1.png", names="owl")
    earlier(page).wait_for()
    ask(page, "caption", "objects3.png")
    earlier(page).nth(1).wait_for()
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
    page.locator('#kept [aria-label$="What is in this picture?; Find: owl"]').wait_for()
    page.locator("#forget").click()
    page.get_by_text("None yet.").wait_for()
    page.locator("#keep").uncheck()
    ask(page, "caption", "words1.png")
    page.reload()
    earlier(page)
    page.get_by_text("None yet.").wait_for()
    assert not page.locator("#keep").is_checked()
