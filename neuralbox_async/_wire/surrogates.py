"""
Surrogates in texts: JSON may escape the two halves of a character separately, and a stream may cut between them.

UTF-8 cannot carry a lone surrogate, so a text with one can be neither written to a file nor sent as history.
"""

from __future__ import annotations


def without_lone_surrogates(text: str) -> str:
    """Return *text* as UTF-8 can carry it: surrogate pairs joined, and U+FFFD for each lone surrogate."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class SurrogateJoiner:
    """
    Joins surrogate pairs that are cut between two pieces of one text.

    A high surrogate at the end of a piece waits for the next piece. The pieces that it returns are, joined, the same as
    `without_lone_surrogates` of the whole text.
    """

    __slots__ = ("high",)

    def __init__(self) -> None:
        self.high = ""  # the high surrogate that waits

    def feed(self, piece: str) -> str:
        """Return what is whole after *piece*."""
        text = self.high + piece
        self.high = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return without_lone_surrogates(text[:-1] if self.high else text)

    def flush(self) -> str:
        """Return the rest at the end of the text: U+FFFD for a high surrogate that waits, or ``""``."""
        rest, self.high = self.high, ""
        return without_lone_surrogates(rest)
