"""Explanations as values: what they print, their JSON, and pages that show every part."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from paligemma.errors import UsageError
from paligemma.explanation import MOST_MAPS, Explanation, Likely, Part, Step, mean_grid
from paligemma.results import Answer, Box, Detections

COLD, WARM = ((0.1, 0.0, 0.0), (0.0, 0.0, 0.0)), ((0.0, 0.0, 0.0), (0.0, 0.0, 0.3))


def explanation(words: int = 2) -> Explanation:
    steps = (
        Step("red", 0.75, (Likely("red", 0.75), Likely(" blue", 0.2), Likely("\x1b[2J", 0.001)), COLD),
        *(Step(" car", 0.5, (Likely(" car", 0.5),), WARM) for _ in range(words - 1)),
    )
    parts = tuple(Part(step.text.strip(), place, place + 1, step.heat, step.prob) for place, step in enumerate(steps))
    return Explanation(Answer("red car", 0.6, "answer en what?"), steps, parts, 60, 40, picture=Image.new("RGB", (60, 40), "green"))


def test_the_hottest_place_is_the_middle_of_a_patch():
    cold, warm = explanation().parts
    assert cold.hottest == (1 / 6, 0.25)
    assert warm.hottest == (5 / 6, 0.75)


def test_it_prints_the_answer_and_a_line_a_part():
    assert str(explanation()).splitlines() == [
        "red car",
        "  red  75%  looked at x 10, y 10  or blue 20%",
        "  car  50%  looked at x 50, y 30",
    ]


def test_of_an_object_other_names_are_told_not_other_places():
    place = Step("<loc0307>", 0.6, (Likely("<loc0307>", 0.6), Likely("<loc0308>", 0.4)), COLD)
    name = Step(" cat", 0.7, (Likely(" cat", 0.7), Likely(" dog", 0.3)), COLD)
    box = Box("cat", 10, 10, 20, 20, 0.7)
    part = Part("cat", 0, 5, COLD, 0.7, box.xyxy)
    nameless = Part("", 0, 4, COLD, 0.7, box.xyxy)
    told = Explanation(Detections((box,), 60, 40), (*[place] * 4, name), (part, nameless), 60, 40)
    assert told.others(part) == (Likely(" dog", 0.3),)
    assert told.others(nameless) == ()
    assert str(told).splitlines()[1] == "  cat  70%  looked at x 10, y 10  or dog 30%"


def test_its_json_is_the_results_with_more():
    plain = explanation().to_dict()
    more = plain.pop("explanation")
    assert plain == explanation().result.to_dict()
    assert more["grid"] == [2, 3]
    assert more["tokens"][0]["likely"][1] == {"text": " blue", "prob": 0.2}
    assert more["tokens"][1]["heat"] == [[0.0, 0.0, 0.0], [0.0, 0.0, 0.3]]
    assert [(part["label"], part["start"], part["stop"]) for part in more["parts"]] == [("red", 0, 1), ("car", 1, 2)]
    assert Answer.from_dict(explanation().to_dict()) == explanation().result
    assert Explanation.of(explanation().result, more) == explanation()


def test_a_mean_of_grids():
    assert mean_grid([COLD, WARM]) == ((0.05, 0.0, 0.0), (0.0, 0.0, 0.15))


def test_every_part_has_a_picture_up_to_a_limit():
    two, many, more = (explanation(words).draw() for words in (2, MOST_MAPS, MOST_MAPS + 9))
    assert two.height < many.height < more.height < many.height + 60  # a line says that there are more


def test_heat_shows_where_it_is():
    drawn = np.asarray(explanation().draw(), float)
    bright = drawn.sum(-1)
    # Beside the picture stands its copy with the first map: 300 pixels wide, hot at the upper left.
    top = next(row for row in range(len(drawn)) if tuple(drawn[row, 20]) == (0, 128, 0))
    copy = bright[top : top + 200, 320:620]
    assert copy[:100, :100].mean() > 1.3 * copy[100:, 200:].mean()


def test_it_is_drawn_on_its_own_picture_only():
    with pytest.raises(UsageError, match="60 x 40"):
        explanation().draw(Image.new("RGB", (40, 60)))
