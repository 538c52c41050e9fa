"""JSON: read and written the same with orjson and without."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
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
        ('{"a": 0.1, "b": 1E5, "c": -0}', {"a": 0.1, "b": 100000.0, "c": 0}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("\ufeff{}", {}),
        ("[" * 500 + "]" * 500, None),
    ],
)
def test_both_libraries_read_the_same(text, value):
    """Huge integers, infinite numbers, lone surrogates, BOM and depth: one result."""
    found = wire_json.loads(text.encode())

    assert json.loads(text.removeprefix("\ufeff")) == found
    if value is not None:
        assert value == found


@given(JSON_VALUES)
def test_loads_agrees_with_the_standard_library(value):
    """Any JSON is read as the standard library reads it, but for NaN and its kind, which are refused."""
    text = json.dumps(value)
    try:
        found = wire_json.loads(text.encode())
    except ValueError:
        assert any(word in text for word in ("NaN", "Infinity"))
    else:
        assert repr(json.loads(text)) == repr(found)
