"""The page: every part is there, it needs nothing else, and nothing that a model or a file says is taken for markup."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from paligemma.evaluation.calibration import reliability
from paligemma.evaluation.places import Place
from paligemma.evaluation.plots import reliability_plot
from paligemma.evaluation.predictions import Prediction, appending
from paligemma.evaluation.report import truth, write_report
from paligemma.evaluation.run_file import Run
from paligemma.evaluation.scores import score
from paligemma.results import Box, Detections, Mask, Masks
from tests.evaluation.making import HEIGHT, WIDTH, answered, detected, picture, rectangle, rle, segmented
from tests.evaluation.test_scores import FAILED, RUN, some

EVIL = "<script>alert(1)</script>&\"'"


def page(folder, predictions, run: Run | None = None, metric: str = "auto") -> str:
    with appending(folder / "predictions.jsonl") as add:
        add(predictions)
    if run:
        run.save(folder)
    return write_report(score(folder, metric), folder).read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Checks that tags close in order; collects text and links."""

    VOID = ("meta", "img")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def pictures_of(html: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"data:image/webp;base64,([^\"]+)", html)]


def test_every_part_is_there(tmp_path):
    predictions = [*some(40), FAILED]
    path = str(picture(tmp_path))
    predictions = [Prediction(**{**vars(one), "pictures": (path,)}) if one.result else one for one in predictions]
    html = page(tmp_path, predictions, RUN, "exact")
    read = Reader(html)
    for words in (
        "exact match on val.jsonl val", "PaliGemma 1 3B at 448 px", "is where 95 of 100", "40 answers", "1 record failed", "DocVQA", "78",
        "By type", "Expected calibration error", "The worst", "Drawn at random", "two words", "ended by the model", "records a second",
        "x.png: no such file", "median length",
    ):  # fmt: skip
        assert words.lower() in read.text.lower(), words
    assert len(pictures_of(html)) == 24
    assert all(link.startswith("data:image/webp;base64,") for link in read.links), "nothing from elsewhere"
    assert "default-src 'none'" in html


def test_nothing_is_taken_for_markup(tmp_path):
    predictions = [
        answered(EVIL, EVIL, (EVIL, "1"), prompt=EVIL, about={EVIL: EVIL, "b": str(n)}, pictures=(EVIL,), where=EVIL) for n in range(2)
    ]
    predictions = [Prediction(**{**vars(one), "id": f"{n}{EVIL}"}) for n, one in enumerate(predictions)]
    failed = Prediction("x", "answer", EVIL, error={"code": EVIL, "message": EVIL})
    run = Run(**{**vars(RUN), "description": EVIL, "data_path": EVIL, "recipe": EVIL, "options": {EVIL: EVIL}, "model_path": EVIL})
    html = page(tmp_path, [*predictions, failed], run, "exact")
    assert "<script" not in html
    assert EVIL in Reader(html).text


def test_objects_are_drawn_beside_the_truth(tmp_path):
    path = str(picture(tmp_path))
    cat = Place("cat", (2, 2, 22, 22), rle(rectangle(2, 2, 22, 22)))
    found = detected("a", [cat], [Box("cat", 2, 2, 20, 20, 0.9)], pictures=(path,), prompt="detect cat")
    html = page(tmp_path, [found])
    true, answer = pictures_of(html)
    assert true.size == answer.size
    assert np.abs(np.asarray(true.convert("RGB"), int) - np.asarray(answer.convert("RGB"), int)).max() > 50
    assert "cat x 2-20, y 2-20 90%" in Reader(html).text


def test_truths_by_kind():
    cat = Place("cat", (2, 2, 22, 22), rle(rectangle(2, 2, 22, 22)))
    crowd = Place("cat", (0, 0, 9, 9), rle(rectangle(0, 0, 9, 9)), ignored=True)
    boxes = truth(detected("a", [cat, crowd], []))
    assert isinstance(boxes, Detections)
    assert [box.label for box in boxes] == ["cat"]
    masks = truth(segmented("a", [cat, crowd], [Mask("cat", Box("cat", 2, 2, 22, 22), rectangle(2, 2, 22, 22))]))
    assert isinstance(masks, Masks)
    assert (masks.width, masks.height, masks[0].area) == (WIDTH, HEIGHT, 400)


def test_a_picture_that_is_gone_is_said(tmp_path):
    html = page(tmp_path, [answered("a", "1", pictures=(str(tmp_path / "gone.png"),))])
    assert "no picture: " in Reader(html).text
    assert "gone.png: no such file" in Reader(html).text


@pytest.mark.parametrize("metric", ["cider", "ocr", "anls"])
def test_every_kind_of_value_fits(tmp_path, metric):
    Reader(page(tmp_path, some(12), None, metric))


def test_plots_are_drawn_inside_their_frame():
    rng = np.random.default_rng(0)
    scores = rng.random(300)
    plots = [
        reliability_plot(reliability(scores, (rng.random(300) < scores).astype(float))),
        reliability_plot(reliability(np.array([1.0]), np.array([0.0]))),
    ]
    for plot in plots:
        root = ElementTree.fromstring(plot)
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        points = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter("circle")]
        assert points
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
    dots = list(ElementTree.fromstring(plots[0]).iter("circle"))
    assert len(dots) == 10
    assert [float(dot.attrib["cx"]) for dot in dots] == sorted(float(dot.attrib["cx"]) for dot in dots)
