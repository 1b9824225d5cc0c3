"""Lessons: what they say is true of the picture, is read back by the task's own parser, and is asked as the predictor asks it."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from paligemma.checkpoint import finding
from paligemma.nano import lessons
from paligemma.nano.batches import LONG, SHORT
from paligemma.nano.lessons import Lesson, Mix, Teacher
from paligemma.nano.names import LANGUAGES, plural, things, with_article
from paligemma.nano.world import SIZE, Scene
from paligemma.sequence import training_example
from paligemma.tasks import TASKS, caption, detect, segment
from paligemma.tasks.grammar import ObjectGrammar
from paligemma.tokenizer import Tokenizer

HALF_A_BIN = 0.5 / 1023 * SIZE + 1e-9


@dataclass(frozen=True)
class Seen:
    """An object as the owner map shows it."""

    index: int
    label: str
    box: tuple[int, int, int, int]

    @property
    def centre(self) -> tuple[float, float]:
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def noun(self) -> str:
        return self.label.split()[-1]


def look(scene: Scene) -> list[Seen]:
    """The truth about a scene, from its mask pixels alone."""
    found = []
    for index in np.unique(scene.owner[scene.owner >= 0]):
        rows, columns = np.nonzero(scene.owner == index)
        label = things()[scene.objects[index].thing].names["en"]
        found.append(Seen(int(index), label, (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)))
    return found


@pytest.fixture(scope="module")
def pictured(train_scenes) -> list[Scene]:
    return [scene for scene in train_scenes if scene.objects]


@pytest.fixture(scope="module")
def printed(train_scenes) -> list[Scene]:
    return [scene for scene in train_scenes if scene.lines]


def taught(
    ask: Callable[[Scene, np.random.Generator], Lesson], scenes: list[Scene], kind: str, times: int = 3
) -> list[tuple[Scene, Lesson]]:
    """Lessons of one kind about each scene."""
    rng = np.random.default_rng(0)
    found = [(scene, ask(scene, rng)) for scene in scenes for _ in range(times)]
    found = [(scene, lesson) for scene, lesson in found if lesson.kind == kind]
    assert len(found) > 100
    return found


def test_the_same_random_numbers_give_the_same_lessons(teacher, train_scenes):
    def all_of_them() -> list[Lesson]:
        rng = np.random.default_rng(1)
        return [ask(scene, rng) for scene in train_scenes[:40] for ask in (teacher.long, teacher.short)]

    assert all_of_them() == all_of_them()


# Boxes and masks


def test_boxes_read_back_are_those_of_the_picture(teacher, pictured):
    for scene, lesson in taught(teacher.detect, pictured, "detect"):
        parsed = detect.parse(lesson.suffix)
        assert (parsed.leftover, parsed.invalid) == ("", 0)
        wanted = [seen for seen in look(scene) if seen.label in lesson.asked]
        assert [seen.index for seen in wanted] == list(lesson.targets)
        assert [found.label for found in parsed.objects] == [seen.label for seen in wanted], "everything asked for, and nothing else"
        for found, seen in zip(parsed.objects, wanted, strict=True):
            assert np.abs(np.array(found.box(SIZE, SIZE).xyxy) - seen.box).max() <= HALF_A_BIN
        centres = [found.box(SIZE, SIZE) for found in parsed.objects]
        assert [b.x0 + b.x1 for b in centres] == sorted(b.x0 + b.x1 for b in centres), "from left to right"


def test_four_in_ten_detections_ask_for_something_absent(teacher, pictured):
    asked = taught(teacher.detect, pictured, "detect")
    absent = [[name for name in lesson.asked if name not in {seen.label for seen in look(scene)}] for scene, lesson in asked]
    assert max(map(len, absent)) == 1
    assert 0.3 < np.mean([bool(names) for names in absent]) < 0.45
    assert 0.05 < np.mean([not lesson.suffix for _, lesson in asked]) < 0.15, "now and then nothing of what is asked is there"
    assert all(len(set(lesson.asked)) == len(lesson.asked) <= 4 for _, lesson in asked)
    first = [lesson.asked.index(names[0]) for (_, lesson), names in zip(asked, absent, strict=True) if names and len(lesson.asked) > 1]
    assert len(set(first)) > 1, "the absent one has no place of its own"


def test_detections_sometimes_leave_out_what_is_there(teacher, pictured):
    fewer = [len(lesson.targets) < len(scene.objects) for scene, lesson in taught(teacher.detect, pictured, "detect")]
    assert 0.1 < np.mean(fewer) < 0.6


def referred(scene: Scene, phrase: str) -> list[Seen]:
    """The objects a phrase means, from left to right."""
    label, _, side = phrase.partition(" on the ")
    same = sorted((seen for seen in look(scene) if seen.label == label), key=lambda seen: seen.centre)
    assert len(same) > 1 if side else len(same) in (1, 2), f"{phrase!r} means too many, or says more than is needed"
    return {"": same, "left": same[:1], "right": same[-1:]}[side]


def test_masks_read_back_are_those_of_the_picture(teacher, codes, pictured):
    asked = taught(teacher.segment, pictured, "segment")
    for scene, lesson in asked:
        parsed = segment.parse(lesson.suffix)
        assert (parsed.leftover, parsed.invalid) == ("", 0)
        assert {found.label for found in parsed.objects} == set(lesson.asked)
        assert {seen.index for phrase in lesson.asked for seen in referred(scene, phrase)} == set(lesson.targets), "all that are meant"
        for found, index in zip(parsed.objects, lesson.targets, strict=True):
            (seen,) = (seen for seen in referred(scene, found.label) if seen.index == index)
            assert np.abs(np.array(found.box(SIZE, SIZE).xyxy) - seen.box).max() <= HALF_A_BIN
            spot = scene.objects[index]
            assert found.codes == tuple(codes[spot.thing, spot.view])
        assert list(lesson.targets) == sorted(lesson.targets), "from left to right"
    assert 0.03 < np.mean([len(lesson.asked) == 2 for _, lesson in asked]) < 0.2
    assert {lesson.asked[0].split()[-1] for _, lesson in asked} >= {"left", "right"}
    assert 0.02 < np.mean([len(lesson.targets) > len(lesson.asked) for _, lesson in asked]) < 0.2, "one name, two things"


def test_without_codes_masks_are_written_with_the_first_code(test_scenes):
    scene = next(scene for scene in test_scenes if scene.objects)
    parsed = segment.parse(Teacher().segment(scene, np.random.default_rng(0)).suffix)
    assert parsed.objects[0].codes == (0,) * 16


def test_the_grammar_allows_what_is_taught(teacher, pictured, nano_tokenizer):
    """Constrained decoding can give exactly the right answer, in the order in which it was taught."""
    for ask, kind, masks in ((teacher.detect, "detect", False), (teacher.segment, "segment", True)):
        for _, lesson in taught(ask, pictured[:60], kind)[:60]:
            state = ObjectGrammar(nano_tokenizer, lesson.asked, masks=masks).start()
            for id in nano_tokenizer.encode(lesson.suffix):
                assert id in state.allowed(), (lesson.suffix, nano_tokenizer.piece(id))
                state = state.advance(id)
            assert not list(state.allowed()) or nano_tokenizer.eos_id in state.allowed()


# Questions


def question(lesson: Lesson) -> str:
    assert lesson.prefix.startswith("answer en ")
    return lesson.prefix.removeprefix("answer en ")


def test_counts_are_those_of_the_picture(teacher, pictured):
    nouns = {plural(thing.noun): thing.noun for thing in things()}
    asked = taught(teacher.count, pictured, "count")
    for scene, lesson in asked:
        (wanted,) = re.fullmatch(r"how many (.+) are there\?", question(lesson)).groups()
        found = [seen.noun for seen in look(scene)]
        assert lesson.suffix == str(len(found) if wanted == "objects" else found.count(nouns[wanted]))
    answers = Counter(lesson.suffix for _, lesson in asked)
    assert set(answers) == set("01234")
    assert max(answers.values()) / len(asked) < 0.5, "no answer is right half of the time"


def test_is_there_asks_equally_for_what_is_and_what_is_not(teacher, pictured):
    asked = taught(teacher.presence, pictured, "presence")
    names = {"is there " * (with_article(n) != n) + "are there " * (with_article(n) == n) + with_article(n) + "?": n
             for thing in things() for n in (thing.label, thing.noun)}  # fmt: skip
    for scene, lesson in asked:
        name = names[question(lesson)]
        assert lesson.suffix == ("yes" if name in {n for seen in look(scene) for n in (seen.label, seen.noun)} else "no")
    assert {"heart", "red heart", "owl", "scissors"} <= {names[question(lesson)] for _, lesson in asked}
    assert 0.4 < np.mean([lesson.suffix == "yes" for _, lesson in asked]) < 0.6


def test_relations_hold_in_the_picture(teacher, pictured):
    asked = taught(teacher.relation, pictured, "relation")
    compare = {
        "left of": lambda a, b: b[0] - a[0],
        "right of": lambda a, b: a[0] - b[0],
        "above": lambda a, b: b[1] - a[1],
        "below": lambda a, b: a[1] - b[1],
    }
    for scene, lesson in asked:
        first, phrase, second = re.fullmatch(r"is the (.+) (left of|right of|above|below) the (.+)\?", question(lesson)).groups()
        (a,) = (seen for seen in look(scene) if seen.label == first)
        (b,) = (seen for seen in look(scene) if seen.label == second)
        distance = compare[phrase](a.centre, b.centre)
        assert abs(distance) >= lessons.CLEAR
        assert lesson.suffix == ("yes" if distance > 0 else "no")
    assert 0.4 < np.mean([lesson.suffix == "yes" for _, lesson in asked]) < 0.6
    assert min(Counter(re.search(" (left|right|above|below) ", lesson.prefix)[1] for _, lesson in asked).values()) > 10


def test_the_side_of_one_thing_another_is_on(teacher, pictured):
    asked = taught(teacher.side, pictured, "side")
    for scene, lesson in asked:
        pattern = r"is the (.+) (?:(left) or (right) of|(above) or (below)) the (.+)\?"
        first, *words, second = re.fullmatch(pattern, question(lesson)).groups()
        (a,) = (seen for seen in look(scene) if seen.label == first)
        (b,) = (seen for seen in look(scene) if seen.label == second)
        axis = int(words[0] is None)
        assert abs(a.centre[axis] - b.centre[axis]) >= lessons.CLEAR
        assert lesson.suffix == words[2 * axis + int(a.centre[axis] > b.centre[axis])]
    assert min(Counter(lesson.suffix for _, lesson in asked).values()) > len(asked) / 8


def test_where_a_thing_is(teacher, pictured):
    asked = taught(teacher.place, pictured, "place")
    for scene, lesson in asked:
        (label,) = re.fullmatch(r"where is the (.+)\?", question(lesson)).groups()
        (seen,) = (seen for seen in look(scene) if seen.label == label)
        x, y = (coordinate / SIZE for coordinate in seen.centre)
        for word, holds in (("left", x < 1 / 3), ("right", x >= 2 / 3), ("top", y < 1 / 3), ("bottom", y >= 2 / 3)):
            assert (word in lesson.suffix.split()) == holds
        assert (lesson.suffix == "middle") == (1 / 3 <= x < 2 / 3 and 1 / 3 <= y < 2 / 3)
    assert len({lesson.suffix for _, lesson in asked}) == 9


def test_names_in_prompts_are_mentioned_with_what_they_mean(teacher, pictured):
    rng = np.random.default_rng(0)
    names = {name for thing in things() for name in (thing.label, thing.noun, plural(thing.noun))}
    met = Counter()
    for scene in pictured:
        seen = {s.index: s for s in look(scene)}
        for ask in (teacher.detect, teacher.segment, teacher.relation, teacher.side, teacher.place, teacher.presence, teacher.colour):
            lesson = ask(scene, rng)
            for mention in lesson.mentions:
                text = lesson.prefix[: mention.end]
                name = max((n for n in names if text.endswith(f" {n}")), key=len, default="")
                meant = [s for s in seen.values() if name in (s.label, s.noun, plural(s.noun))]
                if " on the " in text.rsplit(";")[-1]:
                    meant = referred(scene, text.rsplit(" ; ")[-1].removeprefix("segment "))
                assert mention.present == bool(meant)
                met[lesson.kind, mention.present, mention.box is None] += 1
                if mention.box is not None:
                    y0, x0, y1, x1 = (round(SIZE * v) for v in mention.box)
                    assert any(s.box == (x0, y0, x1, y1) for s in meant)
                    assert len(meant) == 1
    assert met["detect", False, True] > 10
    assert met["detect", True, True] > 10, "several of a kind have no one box"
    assert met["relation", True, False] > 10
    assert met["segment", True, False] > 10


COLOURS = {
    "red": lambda r, g, b: r > 1.5 * max(g, b),
    "green": lambda r, g, b: g > 1.08 * max(r, b),
    "blue": lambda r, g, b: b > 1.05 * max(r, g),
    "yellow": lambda r, g, b: min(r, g) > 1.5 * b and abs(r - g) < 0.35 * r,
    "orange": lambda r, g, b: r > 1.2 * g > 1.2 * b,
    "purple": lambda r, g, b: min(r, b) > 1.1 * g,
}


def test_colours_are_those_of_the_pixels(teacher, pictured):
    asked = taught(teacher.colour, pictured, "colour")
    for scene, lesson in asked:
        (noun,) = re.fullmatch(r"what color is the (.+)\?", question(lesson)).groups()
        (seen,) = (seen for seen in look(scene) if seen.noun == noun)
        assert seen.label == f"{lesson.suffix} {noun}"
        pixels = scene.pixels[scene.mask(seen.index)].astype(float)
        most_coloured = pixels[np.ptp(pixels, axis=1) >= np.percentile(np.ptp(pixels, axis=1), 60)]
        assert COLOURS[lesson.suffix](*most_coloured.mean(0)), (lesson, most_coloured.mean(0))
    assert {lesson.suffix for _, lesson in asked} == set(COLOURS)


def test_questions_about_print(teacher, printed):
    rng = np.random.default_rng(0)
    kinds = Counter()
    for scene in printed * 3:
        lesson = teacher.text_question(scene, rng)
        kinds[lesson.kind] += 1
        match question(lesson):
            case "what is the first word?":
                assert lesson.suffix == min(scene.lines, key=lambda line: line.centres[0][1]).text
            case "how many words are there?":
                assert lesson.suffix == str(len(scene.lines))
            case _:
                assert (lesson.kind, lesson.suffix) == ("presence", "no")
    assert min(kinds.values()) > 20


# Texts


def test_print_is_read_from_top_to_bottom(teacher, printed):
    for scene in printed:
        lines = sorted(scene.lines, key=lambda line: np.mean([y for _, y in line.centres]))
        assert teacher.ocr(scene).suffix.split("\n") == [line.text for line in lines]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_captions_name_everything_from_left_to_right(teacher, pictured, lang):
    joints = {"en": ", | and ", "de": ", | und ", "es": ", | y ", "fr": ", | et ", "zh": "、|和"}
    english = {thing.names[lang]: thing.names["en"] for thing in things()}
    for scene in pictured:
        lesson = teacher.caption(scene, lang)
        assert (lesson.kind, lesson.prefix) == (f"caption {lang}", f"caption {lang}")
        named = re.split(joints[lang], lesson.suffix)
        if lang == "en":
            named = [re.sub("^an? ", "", name) for name in named]
        assert [english[name] for name in named] == [seen.label for seen in sorted(look(scene), key=lambda seen: seen.centre[0])]


def test_a_box_is_described_by_what_is_in_it(teacher, pictured):
    for scene, lesson in taught(teacher.describe_box, pictured, "describe_box"):
        (found,) = detect.parse(lesson.prefix.removeprefix("caption ")).objects
        inside = [seen for seen in look(scene) if np.abs(np.array(found.box(SIZE, SIZE).xyxy) - seen.box).max() <= HALF_A_BIN]
        assert [re.sub("^an? ", "", lesson.suffix)] == [seen.label for seen in inside]


def test_an_empty_scene_has_lessons_too(teacher):
    empty = Scene(np.zeros((SIZE, SIZE, 3), np.uint8), (), (), np.full((SIZE, SIZE), -1, np.int8))
    rng = np.random.default_rng(0)
    given = [ask(empty, rng) for _ in range(60) for ask in (teacher.long, teacher.short)]
    assert {lesson.kind for lesson in given} == {"detect", "count", "presence", *(f"caption {lang}" for lang in LANGUAGES)}
    for lesson in given:
        assert lesson.suffix in {"", "0", "no", "nothing", "nichts", "nada", "rien", "什么都没有"}


# Together


def test_all_kinds_of_lessons_are_given(teacher, train_scenes):
    rng = np.random.default_rng(0)
    long = Counter(teacher.long(scene, rng).kind for scene in train_scenes)
    short = Counter(teacher.short(scene, rng).kind for scene in train_scenes * 4)
    assert set(long) == {"detect", "segment", "ocr"}
    assert set(short) == {*(f"caption {lang}" for lang in LANGUAGES), "count", "presence", "relation", "colour", "describe_box", "word"}
    assert min(long.values()) > 30
    assert min(short.values()) > 10


@pytest.mark.parametrize(
    ("mix", "kinds"),
    [
        (Mix(caption=1.0), "caption"),
        (Mix(caption=0.0, count=1.0), "count"),
        (Mix(caption=0.0, count=0.0, presence=1.0), "presence"),
        (Mix(caption=0.0, count=0.0, presence=0.0, relation=0.0, colour=0.0), "describe_box"),
        (Mix(caption=0.0, count=0.0, presence=0.0, relation=1.0), "relation presence"),  # where no two things can be compared
        (Mix(caption=0.0, count=0.0, presence=0.0, relation=0.0, colour=1.0), "colour count"),  # where nothing has a colour
        (Mix(caption=0.0, count=0.0, presence=0.0, relation=0.0, colour=0.0, side=1.0), "side presence"),
        (
            Mix(caption=0.0, count=0.0, presence=0.0, relation=0.0, colour=0.0, place=1.0),
            "place presence",
        ),  # where nothing is one of a kind
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mix_decides_what_is_asked(mix, kinds, pictured):
    rng = np.random.default_rng(0)
    asked = {Teacher(mix=mix).short(scene, rng).kind.split()[0] for scene in pictured}
    assert asked == set(kinds.split())


def test_a_mix_decides_what_is_asked_about_print(printed):
    rng = np.random.default_rng(0)
    for mix, kind in ((Mix(first_word=1.0), "word"), (Mix(first_word=0.0, word_count=1.0), "count")):
        assert {Teacher(mix=mix).short(scene, rng).kind for scene in printed} == {kind}
    assert {Teacher(mix=Mix(first_word=0.0, word_count=0.0)).short(scene, rng).kind for scene in printed} == {"presence"}


def test_training_texts_are_what_the_tasks_write(teacher, train_scenes):
    """Reading and writing an answer again changes nothing, whatever the task."""
    task = {"detect": "detect", "segment": "segment", "ocr": "ocr", "describe_box": "describe_box"}
    rng = np.random.default_rng(0)
    for scene in train_scenes:
        for lesson in (teacher.long(scene, rng), teacher.short(scene, rng)):
            module = TASKS[task.get(lesson.kind, "caption" if lesson.kind.startswith("caption") else "answer")]
            parsed = module.parse(lesson.suffix)
            if isinstance(parsed, detect.Parsed):
                fields = [(o.label, o.bins) if lesson.kind == "detect" else (o.label, o.bins, o.codes) for o in parsed.objects]
                assert module.target(fields) == lesson.suffix
            else:
                assert module.target(parsed) == lesson.suffix


def test_no_lesson_is_cut_off(teacher, train_scenes, nano_tokenizer):
    rng = np.random.default_rng(0)
    for scene in train_scenes:
        for lesson, length in ((teacher.long(scene, rng), LONG), (teacher.short(scene, rng), SHORT)):
            assert not training_example(nano_tokenizer, lesson.prefix, lesson.suffix, length).truncated


def test_not_even_the_longest_possible_lesson_is_cut_off():
    """Any names, not only those that were drawn: the labels with the most tokens, in as many places as there can be."""
    shipped = Tokenizer.load(finding.BUNDLED / finding.DEFAULT)

    def fits(prefix: str, suffix: str, length: int) -> bool:
        return not training_example(shipped, prefix, suffix, length).truncated

    spelt = {lang: sorted((t.names[lang] for t in things()), key=lambda name: -len(shipped.encode(" " + name)))[:6] for lang in LANGUAGES}
    bins = (1000, 1001, 1002, 1003)
    for labels in itertools.permutations(spelt["en"], 2):
        assert fits(segment.prompt(labels), segment.target((label, bins, [127] * 16) for label in labels), LONG)
        for asked in (f"is the {labels[0]} above or below the {labels[1]}?", f"is the {labels[0]} left or right of the {labels[1]}?"):
            assert fits(TASKS["answer"].prompt(asked), "bottom right", SHORT)
    four = spelt["en"][:4]
    assert fits(detect.prompt(four), detect.target((label, bins) for label in four), LONG)
    assert fits(TASKS["ocr"].prompt(), "\n".join(["W" * 7] * 3), LONG)
    for lang, names in spelt.items():
        assert fits(caption.prompt(lang), lessons.enumerate_names(names[:4], lang), SHORT)


@pytest.mark.filterwarnings("ignore::paligemma.predictor.CutShort")
def test_prompts_are_those_that_the_predictor_sends(teacher, train_scenes):
    from PIL import Image

    from paligemma.predictor import Predictor
    from tests import tiny

    model = Predictor(tiny.tiny_model(), tiny.tiny_tokenizer(), tiny.random_codec())
    kinds = set()
    rng = np.random.default_rng(0)
    for scene in train_scenes[:40]:
        picture = model.encode(Image.fromarray(scene.pixels))
        for lesson in (teacher.long(scene, rng), *(teacher.short(scene, rng) for _ in range(3))):
            kinds.add(lesson.kind)
            match lesson.kind.split():
                case ["caption", lang]:
                    result = model.caption(picture, lang, max_tokens=1)
                case ["detect"]:
                    result = model.detect(picture, list(lesson.asked), max_tokens=1)
                case ["segment"]:
                    result = model.segment(picture, list(lesson.asked), max_tokens=1)
                case ["ocr"]:
                    result = model.ocr(picture, max_tokens=1)
                case ["describe_box"]:
                    (spot,) = [s for s in scene.objects if detect.box_tokens(*lessons.shares(s)) in lesson.prefix]
                    result = model.describe_box(picture, (spot.x0, spot.y0, spot.x1, spot.y1), max_tokens=1)
                case _:
                    result = model.ask(picture, question(lesson), max_tokens=1)
            assert result.prompt == lesson.prefix
    assert {"detect", "segment", "ocr", "describe_box", "caption en", "count"} <= kinds
