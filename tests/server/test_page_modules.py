"""Parts of the server's page by themselves, in the browser, against what Python writes and has."""

from __future__ import annotations

import numpy as np

from paligemma.drawing import COLOURS, HEAT
from paligemma.mask_formats import compress, from_run_lengths, run_lengths
from paligemma.tasks.languages import LANGUAGES


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
    for module, colours in (("shared/draw.js", COLOURS), ("app/heat.js", HEAT)):
        assert page.evaluate("async (module) => (await import(`/page/${module}`)).COLOURS", module) == [list(colour) for colour in colours]


def test_every_language_has_a_name(page):
    name = "async (codes) => { const { languageName } = await import('/page/shared/choices.js'); return codes.map(languageName); }"
    assert all(len(name) > 3 for name in page.evaluate(name, list(LANGUAGES)))
