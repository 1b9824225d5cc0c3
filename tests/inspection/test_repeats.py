"""Copies of pictures, repeated records, contradictions: a table of what is one and what is not."""

from pathlib import Path

import pytest

from paligemma.data.records import DataSet, Record, Thing
from paligemma.inspection.items import items_of
from paligemma.inspection.repeats import find_repeats, same_files

from .making import found, items, told

BOX, OTHER = (0.0, 0.0, 4.0, 4.0), (1.0, 1.0, 4.0, 4.0)
CAT, DOG = Thing("cat", BOX), Thing("dog", OTHER)


def seen(*records: Record) -> tuple[int, int]:
    """Repeated, contradictions."""
    repeats = find_repeats(items(*records), (), 100)
    return repeats.repeated, repeats.contradictions


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (told(1, "what?", "cat"), told(2, "what?", "dog"), (0, 1)),
        (told(1, "what?", "cat"), told(2, "what?", " Cat"), (1, 0)),
        (told(1, "what?", "cat", "dog"), told(2, "what?", "dog"), (0, 0)),  # they have an answer in common
        (told(1, "what?", "cat"), told(2, "who?", "dog"), (0, 0)),
        (told(1, "what?", "cat"), told(2, "what?", "dog", picture="b.png"), (0, 0)),
        (told(1, "caption en", "a cat"), told(2, "caption en", "a dog"), (0, 0)),  # a picture has many captions
        (told(1, "caption en", "a cat"), told(2, "caption en", "a cat"), (1, 0)),
        (found(1, CAT, asked=("cat",)), found(2, DOG, asked=("cat",)), (0, 1)),
        (found(1, CAT, DOG), found(2, DOG, CAT), (1, 0)),  # the order says nothing
        (found(1, CAT), found(2, CAT, DOG), (0, 1)),  # one record an object: the usual mistake
        (found(1, CAT), found(2), (0, 1)),
        (found(1, CAT), found(2, CAT, task="segment"), (0, 0)),
    ],
)
def test_two_records_about_one_picture(one: Record, other: Record, expected: tuple[int, int]):
    assert seen(one, other) == expected


def test_what_one_source_has_no_name_for_is_no_contradiction():
    def opened(*classes: str, thing: Thing) -> DataSet:
        return DataSet(Path(classes[0]), "coco", "detect", (found(1, thing),), classes=classes)

    both = find_repeats(items_of([opened("cat", thing=CAT), opened("dog", thing=DOG)]), (), 100)
    assert both.contradictions == 0
    alike = find_repeats(items_of([opened("cat", "dog", thing=CAT), opened("cat", "dog", thing=DOG)]), (), 100)
    assert alike.contradictions == 1


def test_a_contradiction_names_both_places():
    repeats = find_repeats(items(told(1, "what?", "cat"), told(2, "what?", "dog")), (), 100)
    (contradiction,) = repeats.contradicting
    assert contradiction.answers == (("line 1", "cat"), ("line 2", "dog"))
    assert contradiction.numbers == (0, 1)
    assert (contradiction.picture, contradiction.question) == ("a.png", "what?")


def files(folder: Path, **contents: bytes) -> dict[str, Path]:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def test_a_copy_of_a_picture_is_the_same_picture(tmp_path):
    there = files(tmp_path, a=b"abc", b=b"abc", c=b"abd", d=b"abcd")
    records = [told(i, "what?", name, picture=str(there[name])) for i, name in enumerate("abcd")]
    repeats = find_repeats(items(*records), (), 100)
    assert repeats.files.groups == ((there["a"], there["b"]),)
    assert (repeats.files.surplus, repeats.files.candidates, repeats.files.read) == (1, 3, 3)
    assert repeats.contradictions == 1  # "a" and "b" answer otherwise about one picture


def test_what_is_held_out_too_is_found_by_name_and_by_content(tmp_path):
    there = files(tmp_path, a=b"abc", b=b"abc", c=b"xyz", d=b"uvw")
    records = [told(i, "what?", "x", picture=str(there[name])) for i, name in enumerate("ac")]
    repeats = find_repeats(items(*records), [there["b"], there["d"]], 100)
    assert repeats.leaked == (there["a"],)
    assert repeats.files.groups == ()  # the copy is not among what is learnt from
    assert find_repeats(items(*records), [there["c"]], 100).leaked == (there["c"],)


def test_no_more_files_are_read_than_allowed(tmp_path):
    there = files(tmp_path, **{f"{length}-{copy}": b"x" * length for length in range(1, 41) for copy in range(2)})
    found = same_files(list(there.values()), 10)
    assert (found.candidates, found.read) == (80, 10)
    assert len(found.groups) == 5  # whole groups are compared, else none would be found
    assert {len(group[0].read_bytes()) for group in found.groups} != set(range(1, 6))  # spread over all


def test_a_file_that_is_gone_is_left_to_others(tmp_path):
    assert same_files([tmp_path / "gone", tmp_path / "gone2"], 10).candidates == 0
