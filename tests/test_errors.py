"""Errors for users: what is said of them where nobody catches them."""

from __future__ import annotations

import pickle
import traceback

from paligemma.errors import UsageError


def test_a_traceback_ends_with_the_hint():
    error = UsageError("there is no such thing", hint="take another", code="no_thing")
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert traceback.format_exception_only(one) == ["paligemma.errors.UsageError: there is no such thing\n", "hint: take another\n"]
        assert (one.message, one.hint, one.code, one.exit_code) == ("there is no such thing", "take another", "no_thing", 2)


def test_without_a_hint_there_is_none():
    assert traceback.format_exception_only(UsageError("no")) == ["paligemma.errors.UsageError: no\n"]
