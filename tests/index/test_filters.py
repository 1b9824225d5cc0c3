"""Conditions in words -> SQL that means the same."""

from __future__ import annotations

import pytest

from paligemma.errors import UsageError
from paligemma.index.filters import Has, condition
from paligemma.index.store import Index, writing
from paligemma.results import Box
from tests.index.making import entry, facts

pytest.importorskip("lancedb")
ODD = 'it\'s; DROP TABLE "x" -- %_\\'
LOOKED = {"classes": ("dog", ODD)}


def box(label: str) -> Box:
    return Box(label, 0, 0, 1, 1)


def dogs(count: int) -> tuple[Box, ...]:
    return tuple(box("dog") for _ in range(count))


@pytest.fixture(scope="module", params=["not yet indexed", "indexed", "half indexed", "changed since"])
def index(tmp_path_factory, request) -> Index:
    """Picture n has n dogs; 5 was never looked at; 6 has what is hard to quote; in 7 no dogs were looked for, but a cat was found."""
    where = tmp_path_factory.mktemp("filters")
    with writing(where, facts()) as writer:
        if request.param == "changed since":  # it had others before
            writer.add([entry(n, objects=dogs(9 - n), **LOOKED) for n in range(5)])
            writer.tidy()
        put = writer.replace if request.param == "changed since" else writer.add
        put([entry(n, objects=dogs(n), **LOOKED) for n in range(5)])
        if request.param != "not yet indexed":
            writer.tidy()
        writer.add([entry(5), entry(6, objects=(box(ODD),), **LOOKED), entry(7, objects=(box("cat"),), classes=("cat",))])
        if request.param in ("indexed", "changed since"):
            writer.tidy()
    return Index.open(where)


@pytest.mark.parametrize(
    ("count", "found"),
    [
        (">0", {1, 2, 3, 4}), (">2", {3, 4}), (">=2", {2, 3, 4}), ("2", {2}), ("=2", {2}), ("== 2", {2}), ("<2", {0, 1, 6}),
        (" <= 1 ", {0, 1, 6}),
        ("!=1", {0, 2, 3, 4, 6}), ("0", {0, 6}), (">99", set()),
        (">=0", {0, 1, 2, 3, 4, 6}), ("<0", set()), ("<=0", {0, 6}), ("!=0", {1, 2, 3, 4}), ("!=4", {0, 1, 2, 3, 6}), ("4", {4}),
    ],
)  # fmt: skip
def test_counts(index, count, found):
    rows = index.listed(10, condition([Has("dog", count)]))
    assert {entry.modified for entry in index.entries([row.row for row in rows])} == found


def test_all_must_be_met(index):
    assert index.count(condition([Has("dog", ">1"), Has("dog", "<4")], "path != '2.png'")) == 1
    assert index.count(condition([Has("dog"), Has("cat")])) == 0
    assert index.count(condition([Has("cat", "<2"), Has("cat", ">=0")])) == 1


def test_a_label_is_only_ever_a_label(index):
    assert index.count(condition([Has(ODD)])) == 1
    assert index.count(condition([Has("dog' OR 'a' = 'a")])) == 0


@pytest.mark.parametrize(
    ("label", "count"), [("dog", ""), ("dog", "two"), ("dog", "> -1"), ("dog", ">1; x"), ("dog", "=>1"), ("", ">1"), ("dog", "٢")]
)
def test_what_is_no_condition(label, count):
    with pytest.raises(UsageError):
        Has(label, count)


@pytest.mark.parametrize("where", ["nonsense ===", "no_such_column = 3", "path = ", "width > 'a' AND"])
def test_sql_that_is_not_understood_is_the_users(index, where):
    with pytest.raises(UsageError, match="not understood"):
        index.count(condition([], where))
