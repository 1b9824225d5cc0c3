"""JSON that is bounded, and means the same to every program that reads it."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma.server.refusals import Refused
from paligemma.server.settings import Limits
from paligemma.server.strict_json import parse

LIMITS = Limits()
MIB = 1 << 20


def refusal(data: bytes) -> tuple[Refused, float]:
    """And the seconds that it took: of this thread, the least of three, for what else the machine does only adds to them."""
    times = []
    for _ in range(3):
        begun = time.thread_time()
        with pytest.raises(Refused) as caught:
            parse(data, LIMITS)
        times.append(time.thread_time() - begun)
    return caught.value, min(times)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "invalid_json"), (b"{", "invalid_json"), (b'{"a"', "invalid_json"), (b'"', "invalid_json"), (b"]", "invalid_json"),
        (b"1 2", "invalid_json"), (b"{'a': 1}", "invalid_json"), (b"[1,]", "invalid_json"), (b"\xff", "invalid_json"),
        (b'"\xed\xa0\x80"', "invalid_json"), (b"\xef\xbb\xbf{}", "invalid_json"), ("{}".encode("utf-16"), "invalid_json"),
        (b'"a\nb"', "invalid_json"), (b'"\0"', "invalid_json"),
        (b'{"t": NaN}', "invalid_json"), (b"Infinity", "invalid_json"), (b"-Infinity", "invalid_json"), (b"1e400", "invalid_json"),
        (b"-1e400", "invalid_json"), (b"1" * 21, "invalid_json"), (b"1" * 5000, "invalid_json"),
        (b'{"a": 1, "a": 2}', "invalid_json"), (b'{"x": {"a": 1, "\\u0061": 2}}', "invalid_json"),
        (rb'"\ud800"', "invalid_json"), (rb'{"\uDC00": 1}', "invalid_json"), (rb'[["\ud800x"]]', "invalid_json"),
        (rb'["\ud800", "\udc00"]', "invalid_json"),
        (b"[" * 65 + b"]" * 65, "json_too_deep"), (b"[" * 100_000, "json_too_deep"), (b'{"a":' * 100_000, "json_too_deep"),
        (b"[" + b"0," * 10_000 + b"0]", "json_too_large"), (b"[" + b"[]," * 5_000 + b"0]", "json_too_large"),
        (b"[" + b'"" ' * 30_000 + b"]", "json_too_large"), (b'"' + b"\\n" * (MIB + 1) + b'"', "json_too_large"),
        (b'"' + b'\\"' * 65_537 + b'"', "json_too_large"), (b"[0." + b"1" * MIB + b"]", "json_too_large"),
        (b"[" + b" " * MIB + b"]", "json_too_large"),
    ],
)  # fmt: skip
def test_what_is_refused(data: bytes, code: str):
    refused, seconds = refusal(data)
    assert (refused.status, refused.code) == (400, code)
    assert seconds < 0.1


@pytest.mark.parametrize(
    "data",
    [
        b" " * (32 * MIB), b"1" * (32 * MIB), b"[" * (32 * MIB), b"]" * (32 * MIB), b'"' * (32 * MIB), b"," * (32 * MIB),
        b"\\" * (32 * MIB),
        b'"' + b"\\" * (32 * MIB), b'"' + b"x" * (32 * MIB), b'[""' * (8 * MIB), b'"",' * (10 * MIB), b"{}" * (16 * MIB),
        b'"' + b'\\"' * (MIB + 1) + b'"',
    ],
    ids=lambda data: repr(data[:4]),
)  # fmt: skip
def test_large_nonsense_is_refused_at_once(data: bytes):
    assert refusal(data)[1] < 0.2  # usually a quarter of it


def test_a_picture_is_no_hindrance():
    """The slashes of its base64 may be escaped, as some programs do."""
    data = b'{"image": "' + b"abcd" * (7 * MIB) + b'", "x": "' + rb"\/" * 500_000 + b'"}'
    value = parse(data, LIMITS)
    assert (len(value["image"]), value["x"]) == (28 * MIB, "/" * 500_000)


def test_what_is_right():
    assert parse(rb'{"a": "\u0000\ud83d\ude00\ud7ff", "b": [1, -2.5e3, null, true], "": {}}', LIMITS) == {
        "a": "\0😀\ud7ff", "b": [1, -2500.0, None, True], "": {},
    }  # fmt: skip
    assert parse(b"[" * 64 + b"]" * 64, LIMITS)
    assert parse(b"18446744073709551615", LIMITS) == (1 << 64) - 1
    assert len(parse(b"[" + b"0," * 9_997 + b"0]", LIMITS)) == 9_998


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=40)
@given(VALUES, st.booleans())
def test_json_of_any_value_is_that_value(value: object, ascii_only: bool):
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode(), LIMITS) == value


@given(st.binary(max_size=40) | st.text('[]{},:"\\u0dD8e1-.tn ', max_size=60).map(str.encode))
def test_any_bytes_are_read_as_python_reads_them_or_refused(data: bytes):
    with contextlib.suppress(Refused):  # anything else would be an error of ours
        assert parse(data, LIMITS) == json.loads(data)


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b'{"model": "m", "stop": [' + b"0," * 10_000 + b"0]}", "stop"),
        (b'{"a": "b", "c": {"d": [' + b'"x",' * 10_000 + b"0]}}", "c"),
        (b'{"a": [{"b": 1}], "c": {"x": ' + b"[0," * 6 + b"0," * 10_000, "c"),
        (b"[" + b"0," * 10_000 + b"0]", None),
        (b'{"' + b"k" * 65 + b'": [' + b"0," * 10_000 + b"0]}", None),
        (b'{"<b>": [' + b"0," * 10_000 + b"0]}", None),
        (b'{"a": 0, ' + b'"b": 0, ' * 10_000 + b'"c": 0}', None),
    ],
)
def test_the_field_that_has_too_many_values_is_named(data: bytes, param: str | None):
    with pytest.raises(Refused, match=param or "the body") as caught:
        parse(data, LIMITS)
    assert (caught.value.code, caught.value.param) == ("json_too_large", param)
