"""The JSON values in generated texts: what is found, what is a problem, and that the time is bounded."""

from __future__ import annotations

import pytest

from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.json_extraction import growing_value
from neuralbox_async._wire.output_types import output_type_of


@pytest.mark.parametrize(
    "text, value",
    [
        ('{"a": 1}', {"a": 1}),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('~~~\n{"a": 1}\n~~~\n', {"a": 1}),
        ('Text [1] before.\n```\n{"a": 1}\n```\nand [2] after', {"a": 1}),
        ('An example: {"a": 0}. The answer: {"a": 1}', {"a": 1}),
        ('```json\n{"a": "```py\nx\n```"}\n```', {"a": "```py\nx\n```"}),
        ("{'a': 'it's', 'b': None,}", {"a": "it's", "b": None}),
        ("{\u201ca\u201d: \u201csay \u201chi\u201d now\u201d}", {"a": "say \u201chi\u201d now"}),
        ('{"a": 1, // one\n "b": 2 /* two */, # three\n}', {"a": 1, "b": 2}),
        ('{"url": "http://x/#y", }', {"url": "http://x/#y"}),
        ('{"a": "line\nbreak", }', {"a": "line\nbreak"}),
        ('{"a": "\\ud83d\\ude00", }', {"a": "\U0001f600"}),
        ("```\n{'a': 1}", {"a": 1}),
    ],
)
def test_objects(text, value):
    """An object is found in each way in which models write it; the last that fits is the answer."""
    assert value == output_type_of(dict).parse(text)


@pytest.mark.parametrize("text", ["5", "```\n5\n```", "5 // the answer", "\n5\n"])
def test_scalars(text):
    """A number alone in the text, or alone in a fence, is a value."""
    assert 5 == output_type_of(int).parse(text)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "no JSON value"),
        ("The answer is 5.", "no JSON value"),
        ('{"a": 1', "ends before"),
        ('{"a": 1} or rather {"a": 2, "b', "ends before"),
        ('[{"a": 1}, {"a": ', "ends before"),
        ('```json\n{"a": [1, 2', "ends before"),
        ('{"a": 1, "b": {"a": 2} "c": 3}', "malformed JSON: expected a comma"),
        ('{"a": 1, ...}', "malformed JSON: expected the name"),
        ("[" * 500 + "]" * 500 + ",", "no JSON value"),
    ],
)
def test_problems(text, reason):
    """A text that is cut, malformed or without a value has no value; no part of it is taken for one."""
    with pytest.raises(InvalidOutputError, match=reason):
        output_type_of(dict).parse(text)


def test_not_a_number():
    """NaN is read, and is a problem at its place, not of the whole text."""
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(dict[str, float]).parse('{"a": NaN, "b": 1}')

    assert [("$.a", "expected a finite number, got nan")] == [(p.path, p.reason) for p in caught.value.problems]


def test_the_problems_of_the_longest_value():
    """When no value fits, the problems are those of the longest one."""
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(dict[str, int]).parse('{"a": 1, "b": "c"} as in [1]')

    assert ["$.b"] == [problem.path for problem in caught.value.problems]


@pytest.mark.parametrize(
    "text, value",
    [
        ("", None),
        ("Here [it] is: ", None),
        ("Here [it] is: {", {}),
        ('{"a": tr', {}),
        ('{"a": 12', {}),
        ('{"a": 12.', {}),
        ('{"a": -', {}),
        ('{"a": 12,', {"a": 12}),
        ('{"a": [1, {"b": "te', {"a": [1, {"b": "te"}]}),
        ('{"a": "x\\u00', {"a": "x"}),
        ('```json\n{"a": "b", "c', {"a": "b"}),
    ],
)
def test_growing(text, value):
    """The growing value has what is certain: strings as far as they are, no number or constant that may go on."""
    assert value == growing_value(text)


@pytest.mark.parametrize(
    "piece", ["[", "{", '{"a":', "[1 x]", '"', "```\n", "/*", "{'a': '", "[1,", "\u201c", "#", "{/*"], ids=ascii
)
def test_hostile_texts(piece):
    """A long text of brackets, quotes or fences is read in a bounded number of steps."""
    with pytest.raises(InvalidOutputError):
        output_type_of(dict).parse(piece * 10_000)
    growing_value(piece * 10_000)
