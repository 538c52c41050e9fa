"""Rows of tables that lack a value: none becomes a prompt with the word "nan", which would be paid for."""

from __future__ import annotations

import datetime as dt
import decimal
import math

import pytest

from neuralbox_async import InvalidParameterError
from neuralbox_async._batch.inputs import RequestDefaults
from neuralbox_async._cluster.settings import RowFormat

DEFAULTS = RequestDefaults(model="gpt-5")
MISSING = {
    "None": None,
    "nan": math.nan,
    "decimal": decimal.Decimal("nan"),
    "signaling decimal": decimal.Decimal("sNaN"),
}
COLUMNS = ("prompt", "messages", "system", "temperature", "max_tokens", "model", "key")
PRESENT = ("nan", "", 0, False, [], {}, [math.nan], dt.date(2026, 1, 2), math.inf)

LIBRARIES = ("numpy.float32", "numpy.NaT", "numpy.masked", "pandas.NA", "pandas.NaT")


def missing(name):
    """Return the value *name* that stands for a missing one; skip the test without its library."""
    if name in MISSING:
        return MISSING[name]
    library, _, attribute = name.partition(".")
    module = pytest.importorskip(library)
    if library == "numpy":
        values = {"float32": module.float32("nan"), "NaT": module.datetime64("NaT", "s"), "masked": module.ma.masked}
        return values[attribute]
    return getattr(module, attribute)


NAMES = pytest.mark.parametrize("name", [*MISSING, *LIBRARIES])


@NAMES
@pytest.mark.parametrize("template", ["Say {text}", "Say {text!s:>5}", "Say {a[text]}", "Say {n:{text}}"])
def test_templates(name, template):
    """A row that lacks a value which the template names has an error; others of its members may be missing."""
    value = missing(name)
    row = {"text": value, "a": {"text": value}, "n": 1}
    row_format = RowFormat(prompt=template)

    with pytest.raises(InvalidParameterError, match="text"):
        row_format.item(row)
    assert {"prompt": "Say 1"} == RowFormat(prompt="Say {n}").item(row)


@NAMES
@pytest.mark.parametrize("template", ["{author[name]}", "{author[first.name]}", "{author.name}", "{author[x].y[z]:>9}"])
def test_members_of_members(name, template):
    """The error names the member that is missing, not what was to be taken from it."""
    with pytest.raises(InvalidParameterError, match="'author' is "):
        RowFormat(prompt=template).item({"author": missing(name)})
    with pytest.raises(InvalidParameterError, match=r"'a\[b.c\]' is "):
        RowFormat(prompt="{a[b.c][d]}").item({"a": {"b.c": missing(name)}})


@NAMES
@pytest.mark.parametrize("key", ["id", lambda row: row["id"]], ids=["member", "function"])
def test_keys(name, key):
    """A row whose key is missing has an error: the hash of its request would be another key than it is to have."""
    with pytest.raises(InvalidParameterError, match="key"):
        DEFAULTS.request(RowFormat(key=key).item({"prompt": "x", "id": missing(name)}))


@pytest.mark.parametrize("row", [{"id": "k", "text": None}, {"id": "k"}, {"id": "k", "text": "x", "model": ""}])
@pytest.mark.parametrize("key", ["id", lambda row: row["id"]], ids=["member", "function"])
def test_keys_of_rows_that_are_not_sent(row, key):
    """They are known although the rows have no request."""
    assert "k" == RowFormat(prompt="{text}", key=key).key_of(row)
    assert RowFormat(prompt="{text}", key=key).key_of({"text": "x"}) is None
    assert "own" == RowFormat(prompt="{text}").key_of({"key": "own"})
    assert RowFormat(prompt="{text}").key_of(5) is None


@NAMES
@pytest.mark.parametrize("column", COLUMNS)
def test_columns(name, column):
    """A row without a template never has the missing value in its request: it is refused, or has the default."""
    row = {"prompt": "x", column: missing(name)} if column != "messages" else {column: missing(name)}
    try:
        request = DEFAULTS.request(RowFormat().item(row))
    except (InvalidParameterError, TypeError):  # a worker takes the error of any value for one of its row
        return
    assert name == "None"
    assert DEFAULTS.request("x") == request


@pytest.mark.parametrize("value", PRESENT, ids=repr)
def test_values_that_are_there(value):
    """Other values are formatted as `str.format` does, whatever their type."""
    template = "Say {text} {text!r} {{}} {n:>4} {a[0]} {n.real}"
    row = {"text": value, "n": 7, "a": [8]}

    assert {"prompt": template.format_map(row)} == RowFormat(prompt=template).item(row)


@pytest.mark.parametrize("template", ["{", "{}", "{0}", "{other}", "{a[5]}", "{n.other}", "{n:q}", "{a:>9}", "{n[x]}"])
def test_templates_that_do_not_fit(template):
    """A template that names what a row lacks makes an error of that row."""
    with pytest.raises(InvalidParameterError, match="prompt names"):
        RowFormat(prompt=template).item({"n": 7, "a": [8]})


def test_numpy():
    """Values of numpy are there, also if their comparison is neither true nor false."""
    numpy = pytest.importorskip("numpy")
    for value in (numpy.array([1.0, math.nan]), numpy.array([1, 2]), numpy.False_, numpy.True_, numpy.float32(1)):
        assert {"prompt": str(value)} == RowFormat(prompt="{text}").item({"text": value})


@pytest.mark.parametrize("template", ["{}", "{0}", "{.real}"])
def test_templates_with_positions(template):
    """A row has members with names only, and the error says so."""
    with pytest.raises(InvalidParameterError, match="position"):
        RowFormat(prompt=template).item({"text": "t"})
