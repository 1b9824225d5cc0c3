"""`paligemma doctor`: what is shown, and the exit code."""

from __future__ import annotations

import pytest

from paligemma.doctor import Check

GOOD, BAD = Check("mask", True, "as drawn"), Check("cache", False, "3.2 apart", "update\x1b[31m torch")


@pytest.mark.parametrize(("checks", "code", "last"), [([GOOD, GOOD], 0, "all is well"), ([GOOD, BAD], 1, "1 of the checks failed")])
def test_the_list_and_the_code(checks, code, last, call, model, monkeypatch):
    monkeypatch.setattr("paligemma.doctor.examine", lambda _: iter(checks))
    model.description = "a model\nfrom odd\x1b[31m"
    done = call("doctor")
    assert done.code == code
    assert done.lines[:3] == ["a model", r"from odd\x1b[31m", ""]
    assert "ok    mask              as drawn" in done.lines
    assert done.lines[-1] == last
    assert "\x1b" not in done.out


def test_as_json(call, model, monkeypatch):
    monkeypatch.setattr("paligemma.doctor.examine", lambda _: iter([GOOD, BAD]))
    done = call("doctor", "--json")
    assert done.code == 1
    assert [record["ok"] for record in done.records] == [True, False]
    assert done.records[1]["advice"] == BAD.advice
