"""Files against rows: what is new, changed, moved, copied, gone."""

from __future__ import annotations

import pytest

from paligemma.errors import InputError
from paligemma.image import UNREADABLE
from paligemma.index.changes import Changes, File, Origin, Row, files
from tests.index.making import paint


def row(path: str, digest: str, *, modified: int = 1, lacks: bool = False) -> Row:
    return Row(f"id-{path}", path, digest, modified, 10, lacks)


def file(path: str, modified: int = 1) -> File:
    return File(path, modified, 10)


A, B = row("a", "A"), row("b", "B")


@pytest.mark.parametrize(
    ("now", "before", "read", "what", "gone"),
    [
        ([file("a"), file("b")], [A, B], {}, {}, []),
        ([file("a", 2)], [A], {"a": "A"}, {"a": Origin("touched", A, "id-a")}, []),
        ([file("a", 2)], [A], {"a": "X"}, {"a": Origin("changed", None, "id-a")}, []),
        ([file("new")], [A], {"new": "X"}, {"new": Origin("added", None, None)}, ["id-a"]),
        ([file("new")], [A], {"new": "A"}, {"new": Origin("moved", A, "id-a")}, []),
        ([file("a"), file("c")], [A], {"c": "A"}, {"c": Origin("copied", A, None)}, []),
        ([file("c"), file("d")], [A], {"c": "A", "d": "A"}, {"c": Origin("moved", A, "id-a"), "d": Origin("copied", A, None)}, []),
        (
            [file("a", 2), file("b", 2)],
            [A, B],
            {"a": "B", "b": "A"},
            {"a": Origin("changed", B, "id-a"), "b": Origin("changed", A, "id-b")},
            [],
        ),
        ([file("b", 2)], [A, B], {"b": "A"}, {"b": Origin("changed", A, "id-b")}, ["id-a"]),
    ],
    ids=["nothing", "touched", "changed", "another", "moved", "copied", "moved twice", "swapped", "moved over another"],
)
def test_where_files_come_from(now, before, read, what, gone):
    changes = Changes.between(now, before)
    assert {due.path for due in changes.due} == read.keys()
    assert changes.unchanged == len(now) - len(read)
    assert {path: changes.origin(path, digest) for path, digest in read.items()} == what
    assert changes.gone({}) == gone


def test_a_row_that_lacks_something_is_due_and_is_not_settled():
    lacking = row("a", "A", lacks=True)
    changes = Changes.between([file("a"), file("b")], [lacking, B])
    assert [due.path for due in changes.due] == ["a"]
    assert changes.settled == {"B"}
    assert changes.origin("a", "A") == Origin("described", lacking, "id-a")


def test_a_file_that_is_no_picture_any_more_leaves():
    changes = Changes.between([file("a", 2), file("b")], [A, B])
    assert changes.gone({"a": InputError("damaged")}) == ["id-a"]
    assert changes.gone({"a": InputError("not now", code=UNREADABLE)}) == []


def test_what_lies_in_a_folder_that_cannot_be_read_is_there():
    hidden = row("shut/a", "A")
    changes = Changes.between([File("shut", 0, -1), file("b"), file("c")], [hidden, B])
    assert [due.path for due in changes.due] == ["shut", "c"]
    assert changes.origin("c", "A") == Origin("copied", hidden, None)
    assert changes.gone({"shut": InputError("shut", code=UNREADABLE)}) == []


def test_files_are_pictures_below_the_folder(tmp_path):
    paint(tmp_path / "b" / "x 2.png", "red")
    paint(tmp_path / "a.png", "red")
    (tmp_path / ".hidden").mkdir()
    paint(tmp_path / ".hidden" / "y.png", "red")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = {one.path: one for one in files(tmp_path)}
    assert found.keys() == {"a.png", "b/x 2.png", "gone.png"}
    assert found["a.png"].size == (tmp_path / "a.png").stat().st_size
    assert found["gone.png"].size == -1


@pytest.mark.parametrize("what", ["empty", "missing", "a file"])
def test_a_folder_without_pictures_is_refused(what, tmp_path):
    place = tmp_path / "x"
    if what == "empty":
        place.mkdir()
    elif what == "a file":
        paint(tmp_path / "x.png", "red").rename(place)
    with pytest.raises(InputError) as refused:
        files(place)
    assert refused.value.code == "not_found"


def test_of_two_rows_of_one_path_one_goes():
    other = row("a", "A")._replace(id="id-second")
    changes = Changes.between([file("a"), file("b")], [A, other, B])
    assert (changes.due, changes.gone({})) == ([], ["id-second"])
    alike = Changes.between([file("a"), file("b")], [A, A, B])
    assert ([due.path for due in alike.due], alike.gone({})) == (["a"], ["id-a"])
