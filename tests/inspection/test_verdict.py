"""Each finding that matters becomes a remark of its level, and nothing else does."""

import dataclasses
from pathlib import Path

import pytest

from paligemma.data.records import Fault
from paligemma.inspection.counts import ClassCount
from paligemma.inspection.lengths import Lengths
from paligemma.inspection.repeats import Contradiction, Repeats, SameFiles
from paligemma.inspection.sampled import Sampled
from paligemma.inspection.terminal import verdict
from paligemma.inspection.trips import Rounding
from paligemma.inspection.verdict import judge

from .making import findings, source

COSTS = findings().costs
assert COSTS is not None
FAULT = Fault("line 1", "picture", "a.png: cut short")
TWO = Contradiction("a.png", "what?", (("line 1", "cat"), ("line 2", "dog")), (0, 1))
NOTHING = Repeats(SameFiles(), 0, (), 0, (), ())


@pytest.mark.parametrize(
    ("changes", "level", "code"),
    [
        ({"sources": (source(refused="too many", hint="mend them"),)}, "error", "refused"),
        ({"sources": (source(quarantine={"json": 1}, bad_share=0.005),)}, "warning", "unusable_records"),
        ({"sampled": Sampled(2, 2, (FAULT,))}, "warning", "unreadable"),
        ({"sampled": Sampled(1, 2, (FAULT,))}, "error", "unreadable"),
        ({"sampled": Sampled(2, 2, frames=((1, 1), (2, 1)))}, "error", "frames"),
        ({"lengths": Lengths(10, 5, 9, 12, "line 1", ((5, 12, 2),), cut=1)}, "warning", "cut"),
        ({"lengths": Lengths(10, 5, 9, 12, "line 1", ((5, 12, 2),), no_room=1)}, "warning", "no_room"),
        ({"lengths": Lengths(10, 5, 9, 12, "line 1", ((5, 12, 2),), no_room=2)}, "error", "no_room"),
        ({"lengths": Lengths(10, unwritten=1, reasons=(("line 1", "no name"),))}, "warning", "unwritten"),
        ({"lengths": Lengths(10, unwritten=2, reasons=(("line 1", "no name"),))}, "error", "unwritten"),
        ({"held_out": source(path="valid", refused="too many", hint="mend them")}, "error", "refused"),
        ({"held_out": source(path="valid", quarantine={"json": 1}, bad_share=0.005)}, "warning", "unusable_records"),
        ({"sampled": Sampled(2, 2, rounding=Rounding(5, masks=5, iou_mean=0.5))}, "warning", "iou_ceiling"),
        ({"sampled": Sampled(2, 2, rounding=Rounding(5, masks=5, iou_mean=0.9))}, "fine", "iou_ceiling"),
        ({"sampled": Sampled(2, 2, rounding=Rounding(5, tiny=3))}, "warning", "tiny"),
        ({"repeats": dataclasses.replace(NOTHING, contradictions=1, contradicting=(TWO,))}, "warning", "contradictions"),
        ({"repeats": dataclasses.replace(NOTHING, repeated=2, repeated_where=("line 2",))}, "warning", "repeated"),
        ({"repeats": dataclasses.replace(NOTHING, leaked=(Path("a.png"),))}, "warning", "leaked"),
        ({"repeats": dataclasses.replace(NOTHING, files=SameFiles(((Path("a"), Path("b")),), 2, 2))}, "warning", "same_pictures"),
        ({"counts": dataclasses.replace(findings().counts, classes=(ClassCount("cat", 3, 3),))}, "warning", "rare_classes"),
        ({"counts": dataclasses.replace(findings().counts, classes=(ClassCount("cat", 0, 0),))}, "warning", "unused_classes"),
        ({"held_out": None}, "warning", "not_held_out"),
        ({"costs": dataclasses.replace(COSTS, batch=3)}, "warning", "batch"),
        ({"costs": dataclasses.replace(COSTS, updates=3)}, "warning", "few_updates"),
        ({"costs": dataclasses.replace(COSTS, memory=None, refused="it does not fit", hint="--micro 2")}, "error", "memory"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_finding_becomes_a_remark(changes, level, code):
    found = findings(**changes)
    remarks = judge(found)
    assert (level, code) in [(remark.level, remark.code) for remark in remarks]
    others = {remark.code for remark in remarks if remark.level != "fine"} - {code}
    assert not others, "one thing is wrong, and several are said"
    assert dataclasses.replace(found, remarks=remarks).fit == (level != "error")


def test_where_all_is_well_everything_is_fine():
    remarks = judge(findings())
    assert {remark.level for remark in remarks} == {"fine"}
    assert {remark.code for remark in remarks} == {"readable", "pictures", "lengths", "repeats", "memory"}


def test_nothing_is_said_to_be_there_once_that_was_not_compared():
    some = judge(findings(repeats=dataclasses.replace(NOTHING, files=SameFiles((), 90, 10))))
    (said,) = [remark.text for remark in some if remark.code == "repeats"]
    assert "of 90 files of equal length 10 were compared" in said
    leaked = judge(findings(repeats=dataclasses.replace(NOTHING, leaked=(Path("a.png"),))))
    assert "repeats" not in {remark.code for remark in leaked}


def test_more_records_than_are_listed_are_counted():
    found = findings(lengths=Lengths(10, unwritten=1234, reasons=(("line 1", "no name"),)))
    assert any(remark.text.startswith("1,234 records cannot be made a text") for remark in judge(found))


def test_the_worst_comes_first_and_is_counted():
    found = findings(held_out=None, sources=(source(refused="too many\nlong list"),))
    found = dataclasses.replace(found, remarks=judge(found))
    assert [remark.level for remark in found.remarks] == sorted((r.level for r in found.remarks), key=["error", "warning", "fine"].index)
    assert verdict(found) == "not fit to train on: 1 error, 1 warning"
    assert verdict(findings()) == "fit to train on"
