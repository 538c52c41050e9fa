"""Surrogates: joined across pieces, and never left alone in a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async._wire.surrogates import SurrogateJoiner, without_lone_surrogates

EMOJI, HIGH, LOW, REPLACED = "\U0001f600", "\ud83d", "\ude00", "\ufffd"
TEXTS = st.text(st.sampled_from(["a", "é", "€", EMOJI, HIGH, LOW, "\udbff", "\udc00", "\ud800", "\udfff"]), max_size=6)


@pytest.mark.parametrize(
    "text, whole",
    [
        ("", ""),
        ("plain", "plain"),
        ("é" + EMOJI, "é" + EMOJI),
        (HIGH + LOW, EMOJI),
        (HIGH, REPLACED),
        (LOW, REPLACED),
        (LOW + HIGH, REPLACED * 2),
        (f"a{HIGH}b{HIGH}{LOW}", f"a{REPLACED}b{EMOJI}"),
    ],
)
def test_without_lone_surrogates(text, whole):
    """Pairs are joined, and each lone surrogate becomes U+FFFD."""
    assert whole == without_lone_surrogates(text)


@given(TEXTS | st.text())
def test_any_text(text):
    """The result can be encoded, keeps every other character, and does not change again."""
    whole = without_lone_surrogates(text)

    assert whole == without_lone_surrogates(whole) == whole.encode().decode()
    assert [char for char in text if char.isascii()] == [char for char in whole if char.isascii()]


@given(st.lists(TEXTS))
def test_any_pieces(pieces):
    """The pieces of a text are, joined, the whole text, and each can be encoded."""
    joiner = SurrogateJoiner()
    fed = [*map(joiner.feed, pieces), joiner.flush()]

    assert without_lone_surrogates("".join(pieces)) == "".join(fed)
    assert "" == joiner.high == joiner.flush()
    for piece in fed:
        piece.encode()
