"""Pictures and videos on the server's page: dropped, pasted, chosen, photographed, too large, of kinds that servers do not open."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.server.page_stub import DEMO
from tests.server.visiting import LATE, ask, failing, picture_of, png, requests, sent, start, throw, until

SHAPE = "(({{ width, height }}) => Math.abs(width / height / {} - 1) < 0.01)(document.getElementById('view'))"


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


@pytest.fixture
def clip(tmp_path):
    """32 pictures of one grey each, from black to nearly white."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.webm"), "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(32):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return tmp_path / "clip.webm"


def test_a_video_is_eight_pictures(page, stub, clip):
    page.locator("#file").set_input_files(clip)
    page.locator("#clip img").nth(7).wait_for(timeout=30_000)
    ask(page, "caption")
    grey = [np.asarray(picture_of(image).convert("L")).mean() for image in sent(stub)["images"]]
    assert grey == pytest.approx([16 + 32 * i for i in range(8)], abs=12)
    assert "Clip(" in requests(page)


def test_no_picture_of_a_video_is_drawn_before_the_browser_has_it(page, clip):
    """Chromium may say that it has sought while it still draws the picture before; here each arrives late."""
    page.evaluate(
        """() => {
          window.order = [];
          const { requestVideoFrameCallback } = HTMLVideoElement.prototype;
          HTMLVideoElement.prototype.requestVideoFrameCallback = function (told) {
            return requestVideoFrameCallback.call(this, () => setTimeout(() => (order.push("there"), told()), 60));
          };
          const { drawImage } = CanvasRenderingContext2D.prototype;
          CanvasRenderingContext2D.prototype.drawImage = function (source, ...rest) {
            if (source instanceof HTMLVideoElement) order.push("drawn");
            return drawImage.call(this, source, ...rest);
          };
        }"""
    )
    page.locator("#file").set_input_files(clip)
    page.locator("#clip img").nth(7).wait_for(timeout=30_000)
    assert page.evaluate("order") == ["there", *["there", "drawn"] * 8]


def test_the_last_choice_counts(page, stub):
    """An example that arrives late does not take the place of a later one, and a question about a picture that is gone is not answered."""
    page.evaluate(LATE)
    page.locator('[data-image$="objects3.png"]').click()
    page.locator('[data-image$="words1.png"]').click()
    page.locator('[data-image$="words1.png"][aria-pressed="true"]').wait_for()
    page.evaluate("arrive()")
    page.wait_for_timeout(300)
    assert page.locator('#examples [aria-pressed="true"]').get_attribute("data-image").endswith("words1.png")
    stub.held = 1
    start(page, "caption")
    until(page, "document.querySelector('#asked .text')?.textContent.startsWith('an')")
    page.locator('[data-image$="objects1.png"]').click()
    page.locator("#stop").wait_for(state="hidden")
    until(page, lambda: stub.cancelled == 1)
    page.wait_for_timeout(700)
    assert page.locator("#asked article").count() == 0
    assert page.complaints == []
