"""A sealed file shows every change of a single bit, and every cut."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma.sealed import seal, unseal

VALUE = {"step": 12, "text": "später\n", "list": [1, 2.5, None, True, {"a": "b"}]}
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json, max_size=5))
def test_what_was_sealed_comes_back(value):
    assert unseal(seal(value)) == value


def test_every_flipped_bit_shows():
    data = seal(VALUE)
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            with pytest.raises(ValueError, match=r"."):
                unseal(bytes(changed))


def test_every_cut_and_addition_shows():
    data = seal(VALUE)
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"."):
            unseal(data[:length])
    for more in (b" ", b"\n", b"\0", b"{}"):
        with pytest.raises(ValueError, match=r"."):
            unseal(data + more)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"3", b'{"sha256_of_the_rest": 3}', b"\xff\xfe", b'{"a": NaN, "sha256_of_the_rest": "x"}']
)
def test_what_was_never_sealed(data):
    with pytest.raises(ValueError, match=r"."):
        unseal(data)


def test_what_json_does_not_have_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        seal({"a": math.nan})
    with pytest.raises(TypeError):
        seal({"a": {1, 2}})
