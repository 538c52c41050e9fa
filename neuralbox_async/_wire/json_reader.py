"""A tolerant reader of one JSON value in a text, as models write it; see `json_extraction`, which finds the values."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn, Self

from neuralbox_async._wire.partial_json import MAX_DEPTH

QUOTES: Final = {
    '"': '"',
    "'": "'",
    "\u201c": "\u201d\u201c",
    "\u201d": "\u201d",
    "\u201e": "\u201c\u201d",
    "\u2018": "\u2019\u2018",
    "\u2019": "\u2019",
    "\u201a": "\u2018\u2019",
    "\u00ab": "\u00bb",
    "\u00bb": "\u00ab\u00bb",
}
"""Each quote that opens a string, with those that close it."""

_blank = re.compile(r"(?:[\s\ufeff]+|//[^\n]*|\#[^\n]*|/\*.*?\*/)+", re.DOTALL)
_unfinished = re.compile(r"/\*(?!.*\*/)|[/-]\Z", re.DOTALL)  # a comment, or a number of which only the sign is there
_number = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_rest_of_number = re.compile(r"[-+.\deE]*\Z", re.ASCII)
_word = re.compile(r"-?[A-Za-z]+")
_surrogates = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_end_of_string = re.compile(r"\s*(?:[,:\]}]|//|#|/\*|/?\Z)")
_end_of_piece = {closing: re.compile(rf"[\\{closing}]") for closing in QUOTES.values()}
_CONSTANTS: Final[dict[str, Any]] = {
    "true": True,
    "false": False,
    "null": None,
    "True": True,
    "False": False,
    "None": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# Single quotes are apostrophes in prose: a string in them that is not closed has no line breaks.
_APOSTROPHES: Final = frozenset("'\u2018\u2019\u201a")
_MISSING: Final = object()


class ExactFloat(float):
    """A float that keeps the digits it was written with; infinite for an integer that Python does not convert."""

    def __new__(cls, text: str) -> Self:
        self = super().__new__(cls, text)
        self.text = text
        return self

    text: str


def _int_or_exact(digits: str) -> int | ExactFloat:
    try:
        return int(digits)
    except ValueError:  # see sys.set_int_max_str_digits
        return ExactFloat(digits)


_decoder = json.JSONDecoder(strict=False)
_long_decoder = json.JSONDecoder(strict=False, parse_int=_int_or_exact)  # a call for each integer: not the first choice
_exact_decoder = json.JSONDecoder(strict=False, parse_int=_int_or_exact, parse_float=ExactFloat)


def decode(text: str, start: int = 0, *, exact: bool = False) -> tuple[Any, int]:
    """
    Return the JSON value at *start* and the position after it; NaN and control characters in strings are accepted.

    *exact*: numbers with a fraction are `ExactFloat`, as are integers with more digits than Python converts in any
    case. Raises `json.JSONDecodeError`, or `RecursionError`.
    """
    if exact:
        return _exact_decoder.raw_decode(text, start)
    try:
        return _decoder.raw_decode(text, start)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer with more digits than Python converts
        return _long_decoder.raw_decode(text, start)


class EndOfTextError(Exception):
    """The text ends inside of a value."""


class MalformedError(Exception):
    """The text is not JSON at *position*."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position, self.reason = position, reason


class Reader:
    """
    A tolerant reader of one JSON value in *text*.

    *root*: the array or object as far as it was read. *is_json*: it has a member, or an array or object in it, so that
    it is no bracket in prose. *steps*: how many values were read.
    """

    def __init__(self, text: str, *, exact: bool) -> None:
        self._text = text
        self._exact = exact
        self._depth = 0
        self.root: Any = _MISSING
        self.is_json = False
        self.steps = 0

    def skip(self, position: int, *, at_end: bool = False) -> int:
        """Return the position after white space and comments. Raises if that is the end of the text."""
        if (match := _blank.match(self._text, position)) is not None:
            position = match.end()
        if position >= len(self._text) and not at_end:
            raise EndOfTextError
        if not at_end and _unfinished.match(self._text, position):
            raise EndOfTextError
        return position

    def read(self, position: int) -> tuple[Any, int]:
        """Return the value at *position* and the position after it. Raises `EndOfTextError` or `MalformedError`."""
        read: list[Any] = []
        position = self._read_into(read.append, position)
        return read[0], position

    def _fail(self, position: int, reason: str) -> NoReturn:
        raise MalformedError(position, reason)

    def _read_into(self, keep: Callable[[Any], object], position: int) -> int:
        """Read the value at *position*, *keep* it, and return the position after it."""
        self.steps += 1
        char = self._text[position]
        if char in "[{":
            container: Any = [] if char == "[" else {}
            keep(container)  # before it is read: it is there when the text ends
            if self.root is _MISSING:
                self.root = container
            self._depth += 1
            if self._depth > MAX_DEPTH:
                self.is_json = True
                self._fail(position, "nested too deeply")
            position = (self._fill_array if char == "[" else self._fill_object)(container, position + 1)
            self._depth -= 1
            self.is_json |= self._depth > 0
            return position
        if char in QUOTES:
            text, position, closed = self._string(position)
            keep(text)
            if not closed:
                raise EndOfTextError
            return position
        value, position = self._number_or_constant(position)
        keep(value)
        return position

    def _fill_array(self, items: list[Any], position: int) -> int:
        position = self.skip(position)
        while self._text[position] != "]":
            position = self._read_into(items.append, position)
            self.is_json |= self._depth > 1
            position = self._separator(position, "]")
        return position + 1

    def _fill_object(self, members: dict[str, Any], position: int) -> int:
        position = self.skip(position)
        while self._text[position] != "}":
            if self._text[position] not in QUOTES:
                self._fail(position, "expected the name of a member in quotes")
            name, position, closed = self._string(position)
            if not closed:
                raise EndOfTextError
            position = self.skip(position)
            if self._text[position] != ":":
                self._fail(position, f"expected a colon after {name[:40]!r}")
            self.is_json = True
            position = self._read_into(functools.partial(members.__setitem__, name), self.skip(position + 1))
            position = self._separator(position, "}")
        return position + 1

    def _separator(self, position: int, closing: str) -> int:
        position = self.skip(position)
        if self._text[position] == ",":
            return self.skip(position + 1)  # a comma may trail
        if self._text[position] != closing:
            self._fail(position, f"expected a comma or {closing!r}, got {self._text[position]!r}")
        return position

    def _number_or_constant(self, position: int) -> tuple[Any, int]:
        if (match := _word.match(self._text, position)) is not None:
            if match.end() == len(self._text):
                raise EndOfTextError
            if match[0] in _CONSTANTS:
                return _CONSTANTS[match[0]], match.end()
        elif (match := _number.match(self._text, position)) is not None:
            if _rest_of_number.match(self._text, match.end()):
                raise EndOfTextError
            value, end = decode(match[0], exact=self._exact)
            return value, position + end
        return self._fail(position, f"expected a JSON value, got {self._text[position : position + 20]!r}")

    def _string(self, position: int) -> tuple[str, int, bool]:
        """Return the text of the string at *position*, the position after it, and whether it is closed."""
        text, opening = self._text, self._text[position]
        closing = QUOTES[opening]
        pieces: list[str] = []
        start = opened = position + 1
        position = start
        search = _end_of_piece[closing].search
        while (match := search(text, position)) is not None:
            self.steps += 1
            position = match.start()
            if text[position] == "\\":
                pieces.append(text[start:position])
                piece, position = self._escape(position)
                pieces.append(piece)
                start = position
            elif closing == '"' or _end_of_string.match(text, position + 1):
                pieces.append(text[start:position])
                return _joined(pieces), position + 1, True
            else:
                position += 1
        if opening in _APOSTROPHES and not self.is_json and text.find("\n", opened) >= 0:
            self._fail(opened, "a string is not closed")
        pieces.append(text[start:])
        beginning = _joined(pieces)
        is_half = "\ud800" <= beginning[-1:] <= "\udbff"  # of a surrogate pair
        return beginning[:-1] if is_half else beginning, len(text), False

    def _escape(self, position: int) -> tuple[str, int]:
        escape = self._text[position + 1 : position + 2]
        if escape == "u":
            digits = self._text[position + 2 : position + 6]
            if len(digits) == 4 and re.fullmatch("[0-9a-fA-F]{4}", digits):
                return chr(int(digits, 16)), position + 6
            if position + 6 > len(self._text):
                return "", len(self._text)  # the text ends in it
            self._fail(position, "a malformed escape in a string")
        return _ESCAPES.get(escape, escape), position + 2


def _joined(pieces: list[str]) -> str:
    """Return the text of *pieces*, in which two escapes of a surrogate pair are one character."""
    text = "".join(pieces)
    if text.isascii():
        return text
    return _surrogates.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
