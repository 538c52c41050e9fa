"""Text is counted in pieces, and none of it is lost by that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async.testing._text import count_tokens, echo, pieces


@given(st.text(st.one_of(st.characters(), st.sampled_from(" \n\t\u2028\u0085ab"))))
def test_pieces_join_to_the_text(text):
    """The pieces of any text join to exactly that text, and none is empty."""
    assert text == "".join(pieces(text))
    assert all(pieces(text))
    assert len(pieces(text)) == count_tokens(text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", []),
        ("   ", ["   "]),
        ("one two", ["one ", "two"]),
        (" one\n\ntwo ", [" one\n\n", "two "]),
        ("x" * 70, ["x" * 32, "x" * 32, "x" * 6]),
    ],
)
def test_a_piece_is_a_word_and_its_space(text, expected):
    """A piece is a word with the space after it, and no longer than a token may be."""
    assert expected == pieces(text)


def test_the_echo_counts_images():
    """The echo says how many images came along."""
    assert "You said: Hi" == echo("Hi", 0)
    assert "You said: Hi [1 image]" == echo("Hi", 1)
    assert "You said: Hi [2 images]" == echo("Hi", 2)
