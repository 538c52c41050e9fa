"""The JSON values in generated texts: what is found, what is a problem, and that the time is bounded."""

from __future__ import annotations

import attrs
import pytest
from call_counts import calls_of

from neuralbox_async._parsed import InvalidOutputError, Problem
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
        ("{\u2018a\u2019: \u2018it\u2019s\u2019}", {"a": "it\u2019s"}),
        ("{\u00aba\u00bb: \u00bbb\u00ab, \u201aa2\u2018: 1}", {"a": "b", "a2": 1}),
        # Brackets in prose, closed or not, before the value and after it.
        ('I thought [hard] about {"a": 1}', {"a": 1}),
        ('see [1]: {"a": 1} and [2]', {"a": 1}),
        ('In [0, 1) or {x or [1, 2 there is {"a": 1}', {"a": 1}),
        ('{"a": 1} in [0, 1', {"a": 1}),
        ('The [\' key, [" and { of {"a": 1}', {"a": 1}),
        ("It's like [':\n{\"a\": 1}\nand [\u2018", {"a": 1}),
        ('First {"a": 0, ..., then {"a": 1}', {"a": 1}),
        ('First {"a": [0, x\n```json\n{"a": 1}\n```\n', {"a": 1}),
        ('A draft: {"a": "\n\nThe answer:\n{"a": 1}', {"a": 1}),
        # What a model thinks before the answer is none, unless nothing follows.
        ('<think>\n```json\n{"a": 0}\n```\n</think>\n{"a": 1}', {"a": 1}),
        ('\ufeff<thinking>{"a": 0} or </think>? [</thinking>{"a": 1}\nis "</thinking>"', {"a": 1}),
        ('<think>{"a": 1}</think>\n', {"a": 1}),
        ('<think>x</think>\n<thinking>{"a": 0}</thinking>\n{"a": 1}', {"a": 1}),
        ('<think>{"a": 0} or {"a": 1}', {"a": 1}),
        ('\n\ufeff\n<think>{"a": 0}</think>\n{"a": 1}', {"a": 1}),
        ('{"a": 1, "b": "<think>"}\n</think>', {"a": 1, "b": "<think>"}),
        # An empty object is the answer if there is no other.
        ('It is {"a": 1}, or {} if nothing is known.', {"a": 1}),
        ('{"a": 1}\n```\n{}\n```', {}),
        ("It is {}, I think.", {}),
    ],
)
def test_objects(text, value):
    """An object is found in each way in which models write it; the last that fits is the answer."""
    assert value == output_type_of(dict).parse(text)


@pytest.mark.parametrize("text", ["5", "```\n5\n```", "5 // the answer", "\n5\n", "<think>4</think>5"])
def test_scalars(text):
    """A number alone in the text, or alone in a fence, is a value."""
    assert 5 == output_type_of(int).parse(text)


@pytest.mark.parametrize(
    "text", ["[5, 6] as in [1]", "see [1]: [5, 6]", "[1] and [5, 6]", "```\n[5, 6]\n```\n[7, 8]", "[5, 6] // or [7, 8]"]
)
def test_arrays(text):
    """An array of one number in prose is a reference, unless there is no other."""
    assert [5, 6] == output_type_of(list[int]).parse(text)
    assert [1] == output_type_of(list[int]).parse("It is [1].")


@pytest.mark.parametrize(
    "tp, text, whole",
    [
        (int, "12", False),
        (int, "12\n", True),
        (float, " 1.5", False),
        (float, "1.5e", False),
        (float, "// half\n1.5", False),
        (int, "```\n12", False),
        (int, "```\n12\n```", True),
        (bool, "true", True),
        (bool, "tru", False),
        (str, '"a12"', True),
        (str, '"a12', False),
        (list, "[12]", True),
        (list, "[12", False),
        (dict, '{"a": 12', False),
        (dict, '{"a": 12}', True),
        (dict, '{"a": 12} as in [12', True),
    ],
)
def test_texts_that_were_cut(tp, text, whole):
    """In a text that was cut off, a number at its end is not whole: it may have had more digits."""
    if whole:
        output_type_of(tp).parse(text, cut=True)
    else:
        with pytest.raises(InvalidOutputError):
            output_type_of(tp).parse(text, cut=True)


def test_a_number_in_an_open_fence():
    """A code fence that is not closed was cut off, so that a number at its end may go on."""
    with pytest.raises(InvalidOutputError, match="ends before"):
        output_type_of(int).parse("```\n12")


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
        ('[{"a": 1} {"a": 2}, {"a": 3}', "malformed JSON: expected a comma"),
        ('{"a": {"a": 1} "b": {"a": 2}, "c": {"a": 3}', "malformed JSON: expected a comma"),
        ('[{}, {"a": 1}, ', "ends before"),
        ('I said {"a": 1} or {', "ends before"),
        ('see [1]\n{"a": 1, "b": {"a": 1} x}', "malformed JSON: expected a comma"),
        ("[" * 500 + "]" * 500 + ",", "expected an object, got an array"),
        # With a trailing comma, so that it is not read by the standard library, whose limit depends on the version.
        ("[" * 10_000 + "1," + "]" * 10_000, "malformed JSON: nested too deeply"),
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
    "tp, text, value",
    [
        (dict[str, int], "see [1", None),
        (dict[str, int], 'see [1]: {"a": 1, "b', {"a": 1}),
        (dict[str, int], 'I thought [hard, {x] and [1, 2: {"a": 1, ', {"a": 1}),
        (dict[str, int], '{"a": "no"} is wrong: {', {}),
        (dict[str, int], '{"a": "no"} is wrong: {"a": 1}, ', {"a": 1}),
        (dict[str, int], '{"a": 1} is right, not {"a": "no"}', {"a": 1}),
        (dict[str, int], '{"a": 1} as in [2', {"a": 1}),
        (dict[str, int], '{"a": "no"}', {"a": "no"}),
        (dict[str, int], '```\n{"a": 1}\n```\nIt is {"b": ', {"a": 1}),
        (dict[str, int], '{"a": 0}\n```\n{"a": 1, ', {"a": 1}),
        (list[str], 'see [1]: ["a", "b', ["a", "b"]),
        (list[str], '["a", "b"] as in [1', ["a", "b"]),
        (list[int] | None, "[1, 2, ", [1, 2]),
    ],
)
def test_growing_in_prose(tp, text, value):
    """The growing value is the last one that can become the value of the type, not the first bracket."""
    assert value == output_type_of(tp).parse_partial(text)


HOSTILE = [
    *("[", "{", '{"a":', "[1 x]", '"', "```\n", "/*", "{'a': '", "[1,", "\u201c", "#", "{/*", "[1]", "{}", "[[1]]"),
    *('{"a":1}', '{"a":"b"}\n', "[]{}", "[']", '["', "[1,{}", "{'", "[1]\n```\n", "```\n[1]\n```\n", "[1 ", "[//"),
    *('[{"a":1} x', '{"a": 1 x}', '{"a": {"a": 1', "[-", "['\n", '{"\\', '["\\"', "[1]]", "{'a':1,}", "[\n#"),
]


@pytest.mark.long
@pytest.mark.parametrize("piece", HOSTILE, ids=ascii)
def test_hostile_texts(piece):
    """A long text of brackets, quotes, fences or small values is read in a bounded number of steps."""
    text = piece * (30_000 // len(piece))
    output_type, array_type = output_type_of(dict[str, str]), output_type_of(list[str])

    assert calls_of(lambda: output_type.parse(text)) < 10 * len(text)
    assert calls_of(lambda: array_type.parse(f"see: {text}")) < 10 * len(text)
    assert calls_of(lambda: output_type.parse_partial(text)) < 10 * len(text)


@pytest.mark.long
@pytest.mark.parametrize("piece", ["[1]", '{"a":1}', "{'a':1,}", '["a"]\n'])
def test_many_values(piece):
    """Of many values in a text, a bounded number is tried."""
    tried = []
    output_type = attrs.evolve(output_type_of(dict[str, str]), attempt=lambda value: tried.append(value) or missing())

    with pytest.raises(InvalidOutputError):
        output_type.parse(piece * 5_000)
    assert 1 < len(tried) < 100


def missing():
    raise InvalidOutputError((Problem("$", "missing"),))


def test_thoughts_in_a_stream():
    """A growing value is that after the thoughts, as soon as they have ended."""
    output_type = output_type_of(dict[str, int])

    assert None is output_type.parse_partial('<think>\n```json\n{"a": 0}\n```\n</think>\nHere')
    assert {"a": 1} == output_type.parse_partial('<think>\n```json\n{"a": 0}\n```\n</think>\n{"a": 1, "b')
    for blank in ("\ufeff", "\n\ufeff", "\ufeff\n"):
        assert None is output_type.parse_partial(blank + '<think>{"a": 0} or {"a": 1')
    assert None is output_type.parse_partial('<think>x</think> <think>{"a": 0}')


@pytest.mark.parametrize("text", ['<think>{"a": 0} or', '<think>{"a": 0}</think>', '<think>x</think><think>{"a": 0}'])
def test_thoughts_that_are_cut_off(text):
    """What a model thought before its text was cut off is no answer."""
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(dict).parse(text, cut=True)
    assert "the text ends" in str(caught.value)


class Sliced(str):  # noqa: SLOT000 - of a test
    """A text that counts the characters of its slices."""

    copied = 0

    def __getitem__(self, key):
        Sliced.copied += len(part := str(self)[key])
        return Sliced(part)

    def lstrip(self, *args):
        return Sliced(super().lstrip(*args))

    def removeprefix(self, prefix):
        return Sliced(super().removeprefix(prefix))


def test_many_thoughts():
    """However many blocks of thoughts a text begins with, the rest is copied once."""
    text = Sliced("<think></think>\n" * 1_000 + '{"a": 1}')
    assert {"a": 1} == growing_value(text)
    assert Sliced.copied < 2 * len(text)
