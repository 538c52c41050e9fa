"""JSON is decoded the same with orjson and without it, in one pass."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import JSON_VALUES

from neuralbox_async._wire import json as wire_json

pytestmark = pytest.mark.usefixtures("json_library")


@pytest.mark.parametrize(
    "text, value",
    [
        ('{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        ('{"a": 18446744073709551616, "b": -9223372036854775809}', {"a": 2**64, "b": -(2**63) - 1}),
        ('{"a": 1e400}', {"a": float("inf")}),
        ('{"a": "\\ud800"}', {"a": "\ud800"}),
        ('{"a": -Infinity}', {"a": -float("inf")}),
        ('{"a": 0.1, "b": 1E5, "c": -0}', {"a": 0.1, "b": 100000.0, "c": 0}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("\ufeff{}", {}),
        ("[" * 500 + "]" * 500, None),
    ],
)
def test_edge_cases(text, value):
    """Large integers, infinite numbers, lone surrogates, a BOM and depth have the same result with both libraries."""
    actual = wire_json.loads(text.encode())

    assert json.loads(text.removeprefix("\ufeff")) == actual
    if value is not None:
        assert value == actual


def test_lenience():
    """Control characters in strings are accepted, and an integer of thousands of digits is the string of its digits."""
    assert {"a": "1\n2\t3\0"} == wire_json.loads(b'{"a": "1\n2\t3\0"}')
    assert {"a": "9" * 5000, "b": "-" + "9" * 5000, "c": 10**30} == wire_json.loads(
        b'{"a": %b, "b": -%b, "c": 1%b}' % (b"9" * 5000, b"9" * 5000, b"0" * 30)
    )


@given(JSON_VALUES)
def test_any_value(value):
    """Any JSON is decoded as by the standard library, NaN and infinities included."""
    text = json.dumps(value)

    assert repr(json.loads(text)) == repr(wire_json.loads(text.encode()))


@given(st.text("09x\u0663 ", max_size=8), st.integers(15, 22), st.text("0,e\u00e9", max_size=60))
def test_long_numbers(start, digits, end):
    """19 digits in a row are noticed wherever they begin, in text and in bytes; digits of other scripts are not."""
    text = f"{start}x{'7' * digits}x{end}"
    is_long = re.search("[0-9]{19}", text) is not None
    expected = is_long and wire_json.orjson is not None  # the standard library keeps them anyway
    assert expected is wire_json.has_long_number(text) is wire_json.has_long_number(text.encode())


@pytest.mark.parametrize("text", ["{}", " {} ", '\r\n\t {"a": [1, {"b": "c"}]}\n', '{"a": 1e400}', "5", '"\u00a0"'])
def test_one_pass_of_the_standard_library(parses, text):
    """The standard library decodes a text once, also with white space around it."""
    assert json.loads(text) == wire_json.loads_exactly(text.encode())
    assert ["standard library"] == parses


@pytest.mark.parametrize("text", ["{} {}", "{}\u00a0", "\x0b{}", "", " ", "\ufeff\ufeff{}", "nul"])
def test_other_text(text):
    """Text around the value that is not white space of JSON raises a `ValueError`."""
    with pytest.raises(ValueError, match="line 1"):
        wire_json.loads(text.encode())
    with pytest.raises(ValueError, match="line 1"):
        wire_json.loads(text)


@given(st.binary() | st.text() | JSON_VALUES.map(json.dumps))
def test_fastest_loads(data):
    """The fastest decoder returns the same as `loads` or raises a `ValueError`; only long numbers may differ."""
    try:
        actual = wire_json.fastest_loads()(data)
    except ValueError:
        return
    assert wire_json.has_long_number(data) or repr(wire_json.loads(data)) == repr(actual)
