"""Stop sequences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async.gateway._stops import StopCutter


def cut(pieces, stops):
    """Return the text that is passed on, and whether it was stopped."""
    cutter = StopCutter(stops)
    passed = [cutter.feed(piece) for piece in pieces]
    return "".join(passed) + cutter.flush(), cutter.stopped


@pytest.mark.parametrize(
    "text, stops, expected",
    [
        ("one two three", [], ("one two three", False)),
        ("one two three", [" two"], ("one", True)),
        ("one two three", ["four"], ("one two three", False)),
        ("one two", ["wo", " two"], ("one", True)),  # the longest of those that end there
        ("one two", ["two", "o"], ("", True)),  # the first that is complete
        ("aab", ["ab"], ("a", True)),
        ("aaa", ["aaaa"], ("aaa", False)),
        ("ab", ["ab"], ("", True)),
        ("abcX", ["abcX", "bc"], ("a", True)),
        ("", ["x"], ("", False)),
    ],
)
def test_cut(text, stops, expected):
    """The text ends before the sequence that is complete first, however it is cut into pieces."""
    for size in range(1, len(text) + 2):
        assert expected == cut([text[i : i + size] for i in range(0, len(text), size)], stops)


@given(st.lists(st.text("ab", max_size=4), max_size=8), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_pieces_make_no_difference(pieces, stops):
    """The result is that of the whole text, and nothing of a stop sequence was passed on before it was complete."""
    text = "".join(pieces)
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    if ends:
        expected = text[: ends[0] - max(len(stop) for stop in stops if text[: ends[0]].endswith(stop))], True
    else:
        expected = text, False

    assert expected == cut(pieces, stops)
    assert expected == cut([text], stops)
