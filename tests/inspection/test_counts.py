"""Classes, tasks, answers: counted as they stand there."""

from paligemma.data.records import Thing
from paligemma.inspection.counts import RARE, count

from .making import found, items, told

BOX = (0.0, 0.0, 4.0, 4.0)


def test_everything_is_counted_once():
    records = (
        found(1, Thing("cat", BOX), Thing(" cat ", BOX), Thing("dog", BOX)),
        found(2, picture="b.png"),
        told(3, "what?", "yes", "yes", "no", picture="b.png", task="answer"),
    )
    counts = count(items(*records, classes=("dog", "cat", "bird")))
    assert [(one.name, one.things, one.records) for one in counts.classes] == [("cat", 2, 1), ("dog", 1, 1), ("bird", 0, 0)]
    assert (counts.records, counts.pictures, counts.things, counts.empty) == (3, 2, 3, 1)
    assert counts.tasks == {"detect": 2, "answer": 1}
    assert dict(counts.answers.most) == {"yes": 1, "no": 1}
    assert counts.unused == ("bird",)


def test_rare_is_below_the_limit_and_above_nothing():
    records = [found(i, Thing("cat", BOX)) for i in range(RARE)] + [found(99, Thing("dog", BOX))]
    counts = count(items(*records, classes=("cat", "dog", "bird")))
    assert [(one.name, one.seldom) for one in counts.classes] == [("cat", ""), ("dog", "rare"), ("bird", "never")]
    assert [one.name for one in counts.rare] == ["dog"]


def test_texts_have_no_classes():
    assert count(items(told(1, "p", "a"), classes=("cat",))).classes == ()
