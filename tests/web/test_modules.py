"""The page's modules against the Python they follow: tokenizer, grammar, parser, resizing, pasting, scores. In Node, where there is one."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paligemma.checkpoint.finding import BUNDLED
from paligemma.engine.options import Generation
from paligemma.engine.scores import Calibration, box_score, mask_score, text_score
from paligemma.image import to_pixels
from paligemma.tasks import answer, caption, detect, ocr, segment
from paligemma.tasks.grammar import ObjectGrammar
from paligemma.tasks.languages import LANGUAGES
from paligemma.tokenizer import FILE_NAMES, Tokenizer
from paligemma.web.facts import model_facts, token_facts
from paligemma.web.pieces import vocabulary
from tests import tiny
from tests.test_tokenizer import gemma_pieces, model_file
from tests.web.node import Node, needs_node

pytestmark = needs_node


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Node:
    return Node(tmp_path_factory.mktemp("node"))


def tokenizer_of(data: bytes) -> tuple[Tokenizer, dict]:
    """A tokenizer, and what the page is given of it."""
    tokenizer = Tokenizer.from_bytes(data)
    return tokenizer, {"vocabulary": vocabulary(data, tokenizer), "tokens": dict(token_facts(tokenizer))}


def bundled_tokenizer() -> bytes:
    return next(BUNDLED / "nano-112" / name for name in FILE_NAMES if (BUNDLED / "nano-112" / name).is_file()).read_bytes()


def tiny_tokenizer() -> bytes:
    return tiny.tiny_tokenizer()._pieces.data


KINDS = {
    "bundled": bundled_tokenizer,
    "sentencepiece": tiny_tokenizer,
    "json": tiny.tiny_tokenizer_json,
    "gemma": lambda: model_file(gemma_pieces()),  # as many pieces as Gemma has, with its markup and runs of line breaks
}
LETTERS = "abc deghi lonrst  ABZ 0123,;.?!'\n\t▁äéßœ 猫头鹰🦉é\u200d\ufeff"
SPECIAL = [
    "<loc0000>",
    "<loc1023>",
    "<loc1024>",
    "<seg127>",
    "<seg128>",
    "<bos>",
    "<eos>",
    "<image>",
    "<unused7>",
    "<0x0A>",
    "<loc",
    "  ",
    "\n\n",
]


def texts(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    words = [*" ".join(tiny.SENTENCES).split(), "owl", "green heart", "猫头鹰", "corazón"]

    def one() -> str:
        parts = [rng.choice(words) + rng.choice(["", " "]), rng.choice(SPECIAL), "".join(rng.choices(LETTERS, k=rng.randrange(9)))]
        return "".join(rng.choices(parts, weights=(6, 1, 2), k=rng.randrange(12)))

    return ["", " ", "\n", *tiny.SENTENCES, *(one() for _ in range(count))]


TOKENIZER = "import { Tokenizer } from './app/tokenizer.js';\n---\nconst tokenizer = new Tokenizer(value.vocabulary, value.tokens);\n"


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_pythons(node, kind):
    tokenizer, given = tokenizer_of(KINDS[kind]())
    asked = texts(len(kind), 400)
    ids = [tokenizer.encode(text) for text in asked]
    rng = random.Random(1)
    lists = [*ids, *([rng.randrange(tokenizer.vocab_size + 3) for _ in range(12)] for _ in range(200))]
    script = f"{TOKENIZER}result = [value.texts.map((t) => tokenizer.encode(t)), value.lists.map((l) => tokenizer.decode(l))];"
    found, decoded = node(script, given | {"texts": asked, "lists": lists})
    assert found == ids
    assert decoded == [tokenizer.decode(one) for one in lists]


def test_another_tokenizer_is_refused(node):
    _, given = tokenizer_of(bundled_tokenizer())
    given["tokens"]["checks"][0][1][0] += 1
    script = """import { Tokenizer } from './app/tokenizer.js';
    ---
    try { new Tokenizer(value.vocabulary, value.tokens); } catch (error) { result = error.message; }"""
    assert "wrongly" in node(script, given)


# Objects

NAMES = [["owl"], ["owl", "green heart", "fish"], ["a", "ab", "abc"]]


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("names", NAMES, ids=len)
def test_the_grammar_allows_what_pythons_does(node, names, masks):
    """Random walks, which often return to the same corner of the picture, so that boxes come twice and run out."""
    tokenizer, given = tokenizer_of(bundled_tokenizer())
    rng = random.Random(5)
    walks, expected = [], []
    for _ in range(12):
        grammar, ids, allowed = ObjectGrammar(tokenizer, names, masks=masks, max_objects=6), [], []
        while ranges := grammar.allowed(ids).ranges:
            allowed.append([[r.start, r.stop] for r in ranges])
            options = [id for r in ranges for id in (r.start, r.stop - 1, rng.choice(r))]
            ids.append(rng.choice(options))
        walks.append(ids)
        expected.append([*allowed, []])
    script = """import { Grammar } from './app/grammar.js';
    import { Tokenizer } from './app/tokenizer.js';
    ---
    const tokenizer = new Tokenizer(value.vocabulary, value.tokens);
    result = value.walks.map((ids) => {
      const grammar = new Grammar(tokenizer, value.names, value.masks, { ...value.objects, most: 6 });
      return [...ids.map((id) => { const allowed = grammar.allowed(); grammar.advance(id); return allowed; }), grammar.allowed()];
    });"""
    objects = model_facts(tiny.TINY_1, "int8")["objects"]
    assert node(script, given | {"walks": walks, "names": names, "masks": masks, "objects": objects}) == expected


def test_boxes_run_out_as_in_python(node):
    """A walk that stays in the corner with the fewest boxes."""
    tokenizer, given = tokenizer_of(bundled_tokenizer())
    grammar, ids, allowed = ObjectGrammar(tokenizer, ["owl", "fish"], max_objects=12), [], []
    rng = random.Random(2)
    while ranges := grammar.allowed(ids).ranges:
        allowed.append([[r.start, r.stop] for r in ranges])
        corners = [r.stop - 1 for r in ranges if r.start in tokenizer.loc]
        ids.append(max(corners) if corners else rng.choice([r.start for r in ranges]))
    script = """import { Grammar } from './app/grammar.js';
    import { Tokenizer } from './app/tokenizer.js';
    ---
    const tokenizer = new Tokenizer(value.vocabulary, value.tokens);
    const grammar = new Grammar(tokenizer, ["owl", "fish"], false, { ...value.objects, most: 12 });
    result = value.ids.map((id) => { const allowed = grammar.allowed(); grammar.advance(id); return allowed; });"""
    assert node(script, given | {"ids": ids, "objects": model_facts(tiny.TINY_1, "int8")["objects"]}) == allowed


@pytest.mark.parametrize("masks", [False, True])
def test_objects_and_scores_are_read_as_in_python(node, masks):
    tokenizer, given = tokenizer_of(bundled_tokenizer())
    rng = random.Random(3)
    names = ["owl", "green heart"]
    box = "<loc0010><loc0020><loc0400><loc1023>"
    codes = "".join(f"<seg{i * 7:03d}>" for i in range(16))
    written = [
        "",
        "owl",
        f"{box} owl",
        f"{box}{codes}",
        f"{box}{codes} owl ; {box} green  heart",
        f"{box} Owl ; {box}{codes} GREEN heart",
        f"<loc0001>{box}",
        f"<loc0001><loc0002> owl ; {box}{codes} owl",
        f"{box}{codes}<seg001> owl",
        f"{box[::-1]} ; ; {box} fish",
        "<loc0900><loc0020><loc0400><loc1023> owl",
    ]
    answers = []
    for text in written:
        ids = tokenizer.encode(text)
        probs, kinds = ([rng.uniform(0.2, 1) for _ in ids] for _ in range(2))
        answers.append({"ids": ids, "probs": probs, "kinds": kinds, "logprob": -rng.random(), "stop": rng.choice(["eos", "length"])})
    script = """import { readObjects, box } from './app/objects.js';
    import { boxScore, calibrated, maskScore, textScore } from './app/scores.js';
    import { Tokenizer } from './app/tokenizer.js';
    ---
    const tokenizer = new Tokenizer(value.vocabulary, value.tokens);
    const separates = (id) => tokenizer.decode([id]).includes(";");
    result = value.answers.map((answer) => {
      const { objects, invalid } = readObjects(answer.ids, tokenizer, value.names, value.masks, value.objects);
      const score = value.masks ? maskScore : boxScore;
      return [invalid, textScore(answer), objects.map((one) => [one.label, one.bins, one.codes, box(one.bins, 640, 480, tokenizer.loc),
        calibrated(score(answer, one, separates), [1.3, -0.2])])];
    });"""
    objects = model_facts(tiny.TINY_1, "int8")["objects"]
    found = node(script, given | {"answers": answers, "names": names, "masks": masks, "objects": objects})
    task, score = (segment, mask_score) if masks else (detect, box_score)
    scale = Calibration({"box": (1.3, -0.2)})
    for one, (invalid, text, things) in zip(answers, found, strict=True):
        parsed = task.parse_ids(one["ids"], tokenizer, names)
        generation = Generation(tuple(one["ids"]), tuple(one["probs"]), tuple(one["kinds"]), one["logprob"], one["stop"])
        assert invalid == parsed.invalid
        assert text == pytest.approx(text_score(generation))
        assert [thing[:2] for thing in things] == [[o.label, list(o.bins)] for o in parsed.objects]
        assert [thing[2] for thing in things] == [None if o.codes is None else list(o.codes) for o in parsed.objects]
        for o, thing in zip(parsed.objects, things, strict=True):
            assert thing[3] == pytest.approx(o.box(640, 480).xyxy)
            assert thing[4] == pytest.approx(scale("box", score(generation, o, lambda id: ";" in tokenizer.piece(id))))


# Pixels

SIZES = [(112, 112), (300, 200), (64, 400), (90, 140), (100, 140), (40, 57), (13, 7), (223, 225), (56, 80), (1, 1)]


@pytest.mark.parametrize("resize", ["bicubic", "bilinear", "bilinear-antialias"])
def test_pixels_are_pythons(node, resize):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (height, width, 3), np.uint8) for width, height in SIZES]
    script = """import { toPixels } from './app/resize.js';
    ---
    result = value.pictures.map(([width, height, rgb]) => Array.from(toPixels(Uint8Array.from(rgb), width, height, 56, value.resize)));"""
    given = [[picture.shape[1], picture.shape[0], picture.ravel().tolist()] for picture in pictures]
    found = node(script, {"pictures": given, "resize": resize})
    for picture, pixels in zip(pictures, found, strict=True):
        expected = to_pixels(Image.fromarray(picture), 56, resize)
        assert (np.asarray(pixels, np.float32).reshape(3, 56, 56) == expected).all()


def test_masks_land_where_python_puts_them(node):
    rng = np.random.default_rng(4)
    soft = [rng.standard_normal((64, 64)).astype(np.float32) for _ in range(6)]
    bins = [(0, 0, 1023, 1023), (100, 200, 700, 300), (5, 5, 6, 6), (500, 0, 1023, 511), (0, 341, 1023, 682), (1000, 1000, 1023, 1023)]
    script = """import { paste } from './app/paste.js';
    ---
    result = value.soft.map((soft, i) => {
      const { x0, y0, x1, y1, covered } = paste(Float32Array.from(soft), 64, value.bins[i], 150, 90, [0, 1024]);
      return [x0, y0, x1, y1, Array.from(covered)];
    });"""
    found = node(script, {"soft": [one.ravel().tolist() for one in soft], "bins": bins})
    for one, box, (x0, y0, x1, y1, covered) in zip(soft, bins, found, strict=True):
        expected = segment.paste(one, box, 150, 90)
        mask = np.zeros_like(expected)
        mask[y0:y1, x0:x1] = np.asarray(covered, bool).reshape(y1 - y0, x1 - x0)
        assert (mask == expected).all()


# Tasks


def test_prompts_are_pythons(node):
    _, given = tokenizer_of(bundled_tokenizer())
    asked = [
        ("caption", {"lang": "de", "length": "long"}, caption.prompt("de", "long")),
        ("caption", {"lang": "en", "length": "normal"}, caption.prompt("en")),
        ("answer", {"lang": "fr", "question": " is {lang} a $& ? "}, answer.prompt("is {lang} a $& ?", "fr")),
        ("detect", {"names": " cat;dog ; the  big  cat;cat"}, detect.prompt("cat ; dog ; the big cat")),
        ("segment", {"names": ["a cat"]}, segment.prompt("a cat")),
        ("ocr", {}, ocr.prompt()),
        ("run", {"prompt": " as it is "}, " as it is "),
    ]
    script = f"""import {{ question }} from './app/tasks.js';
    {TOKENIZER}
    result = value.asked.map(([task, fields]) => question(task, fields, value.facts, tokenizer)).map((q) => [q.prompt, q.maxTokens]);"""
    facts = model_facts(tiny.TINY_1, "int8")
    found = node(script, given | {"facts": facts, "asked": [one[:2] for one in asked]})
    assert found == [[prompt, facts["tasks"][task]["max_tokens"]] for task, _, prompt in asked]


def test_what_was_taught_is_offered_and_nothing_else():
    everything = model_facts(tiny.TINY_1, "int8")["tasks"]
    assert everything["caption"]["languages"] == everything["answer"]["languages"] == list(LANGUAGES)
    assert list(everything["caption"]["prompts"]) == list(caption.LENGTHS)
    own = ("caption de", "caption fil", "describe de", "answer en", "detect")
    tasks = model_facts(dataclasses.replace(tiny.TINY_1, taught=own), "int8")["tasks"]
    assert list(tasks) == ["caption", "answer", "detect", "run"]
    assert tasks["caption"]["languages"] == ["de", "fil"], "and no fi"
    assert list(tasks["caption"]["prompts"]) == ["normal", "long"]
    assert tasks["answer"]["languages"] == ["en"]
    other = dataclasses.replace(tiny.TINY_1, taught=("the leftmost",))
    assert list(model_facts(other, "int8")["tasks"]) == ["run"]


def test_facts_are_json():
    assert json.loads(json.dumps(model_facts(tiny.TINY_2, "int4")))["image"]["size"] == 28


def test_the_modules_are_small():
    from tests.web.node import APP

    lines = {path.name: len(path.read_text().splitlines()) for path in Path(APP).glob("*.js")}
    assert max(lines.values()) <= 300, lines


def test_files_without_a_store_are_held_in_memory(node):
    script = """import { bytesOf, fetchAll } from './app/files.js';
    ---
    const facts = { vocabulary: { path: "v", bytes: 5, sha256: "a".repeat(64) }, graphs: {} };
    const told = [];
    globalThis.fetch = async () => new Response("hello");
    const file = (await fetchAll(facts, "http://here/model/", (done) => told.push(done))).get("v");
    const part = new TextDecoder().decode(await file.slice(1, 3).arrayBuffer());
    result = [await file.text(), part, Array.from(await bytesOf(file)), told.at(-1)];
    globalThis.fetch = async () => new Response("hell");
    result.push(await fetchAll(facts, "http://here/model/", () => {}).catch((error) => error.message));
    globalThis.fetch = async () => new Response("", { status: 404 });
    result.push(await fetchAll(facts, "http://here/model/", () => {}).catch((error) => error.message));"""
    text, part, data, told, short, gone = node(script, {})
    assert (text, part, bytes(data), told) == ("hello", "el", b"hello", 5)
    assert "v has 4 bytes, expected 5" in short
    assert "v cannot be fetched (404)" in gone
