"""Text, JSON and XML of annotation files: strict, and with the place of what is wrong."""

from __future__ import annotations

import json

import pytest

from paligemma.data.reading import BOM, decoded, glance, json_of, numbered_lines, parsed_json, read_bytes, xml_of
from paligemma.data.records import Flaw
from paligemma.errors import InputError


def test_lines_have_numbers_and_blank_ones_do_not_count():
    data = BOM + b"one\r\n\n  \ntwo\n" + BOM + b"three"
    lines = dict(numbered_lines(data))
    assert lines == {1: b"one", 4: b"two", 5: BOM + b"three"}
    with pytest.raises(Flaw, match="byte order mark") as caught:
        decoded(lines[5])
    assert caught.value.code == "encoding"


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"{", "json", "column"),
        (b'{"a": 1,}', "json", "column 9"),
        (b"{'a': 1}", "json", "column 2"),
        (b"[" * 100_000, "json", "deeply"),
        (b"1" * 5000, "json", "digits"),
        (b'{"a": "\xe9"}', "encoding", "byte 8"),
        (b'{"a": 1}\n{"a": 2}', "json", "line 2"),
    ],
)
def test_no_json(data, code, message):
    with pytest.raises(Flaw, match=message) as caught:
        parsed_json(decoded(data))
    assert caught.value.code == code


def test_a_whole_file_stops_the_reading(tmp_path):
    file = tmp_path / "x.json"
    with pytest.raises(InputError, match=r"x\.json: no JSON: Expecting"):
        json_of(b'{"images": [', file)
    file.write_text("{}", "utf-16")
    with pytest.raises(InputError, match="UTF-16"):
        read_bytes(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_bytes(tmp_path)


BOMB = '<!DOCTYPE a [<!ENTITY x "' + "x" * 50 + '"><!ENTITY y "' + "&x;" * 50 + '">]><annotation>&y;</annotation>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type"),
        ('<?xml version="1.0"?><annotation><object></annotation>', "broken XML"),
        ("<annotation>&undefined;</annotation>", "broken XML"),
        ("", "broken XML"),
        ("<annotation>\0</annotation>", "broken XML"),
    ],
)
def test_xml_that_is_refused(text, message):
    with pytest.raises(Flaw, match=message):
        xml_of(text.encode())


def test_a_bomb_in_another_encoding_is_no_utf_8():
    with pytest.raises(Flaw) as caught:
        xml_of(BOMB.encode("utf-16"))
    assert caught.value.code == "encoding"


def test_a_bomb_of_every_second_byte_is_no_xml():
    """UTF-16 of ASCII is UTF-8 too, and a parser that guesses would read it."""
    with pytest.raises(Flaw, match="broken XML"):
        xml_of(BOMB.encode("utf-16-le"))


def test_xml():
    assert xml_of(BOM + b'<?xml version="1.0" encoding="utf-8"?><a><b>K&#228;tzchen &lt;3</b></a>').findtext("b") == "Kätzchen <3"


@pytest.mark.parametrize(
    ("value", "is_list", "keys", "inner"),
    [
        ({"images": [{"id": 1, "file_name": "a"}], "n": {"x": 1}}, False, {"images", "n"}, {"id", "file_name", "x"}),
        ([{"image": 'a "quoted": {', "prefix": ""}], True, set(), {"image", "prefix"}),
        ({"17": {"question": "?", "imageId": "n"}}, False, {"17"}, {"question", "imageId"}),
        ({}, False, set(), set()),
    ],
)
def test_glance(tmp_path, value, is_list, keys, inner):
    (tmp_path / "x.json").write_text(json.dumps(value), "utf-8-sig")
    seen = glance(tmp_path / "x.json")
    assert seen is not None
    assert (seen.is_list, set(seen.keys), set(seen.inner)) == (is_list, keys, inner)


def test_a_glance_at_the_start_of_a_long_file_and_at_none(tmp_path):
    long = {"info": {}, "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(20_000)], "annotations": []}
    (tmp_path / "x.json").write_text(json.dumps(long))
    seen = glance(tmp_path / "x.json")
    assert seen is not None
    assert {"info", "images"} <= seen.keys
    assert "file_name" in seen.inner
    (tmp_path / "y.json").write_bytes(b"\x89PNG")
    assert glance(tmp_path / "y.json") is None
