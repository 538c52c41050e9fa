"""The tokenizer and the echo."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async.testing._text import count_tokens, echo, tokenize


@given(st.text(st.one_of(st.characters(), st.sampled_from(" \n\t\u2028\u0085ab"))))
def test_tokens_join_to_the_text(text):
    """The tokens of any text join to exactly that text, and none is empty."""
    assert text == "".join(tokenize(text))
    assert all(tokenize(text))
    assert len(tokenize(text)) == count_tokens(text)


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
def test_a_token_is_a_word_and_its_space(text, expected):
    """A token is a word with the space after it, of bounded length."""
    assert expected == tokenize(text)


def test_the_echo_counts_images():
    """The echo includes the number of images."""
    assert "You said: Hi" == echo("Hi", 0)
    assert "You said: Hi [1 image]" == echo("Hi", 1)
    assert "You said: Hi [2 images]" == echo("Hi", 2)
