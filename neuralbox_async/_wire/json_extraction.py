"""
The JSON values in a generated text, which models wrap and write in many ways.

Accepted are code fences and prose around a value, several values, trailing commas, comments, typographic or single
quotes as delimiters, Python's constants, and NaN. Nothing is guessed: a text that ends inside of a value has none.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn, Self

import attrs

from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire import json as wire_json
from neuralbox_async._wire.partial_json import MAX_DEPTH, lenient_decoder

_CUT = Problem("$", "the text ends before the JSON value does")
_NOTHING = Problem("$", "there is no JSON value in the text")
_MAX_WORK = 4  # times the length of the text: characters that failed attempts may read in all

_fence = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)(?:^[ \t]*\1|\Z)", re.DOTALL | re.MULTILINE)
_blank = re.compile(r"(?:[\s\ufeff]+|//[^\n]*|\#[^\n]*|/\*.*?\*/)+", re.DOTALL)
_unfinished = re.compile(r"/\*(?!.*\*/)|[/-]\Z", re.DOTALL)  # a comment, or a number of which only the sign is there
_number = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_rest_of_number = re.compile(r"[-+.\deE]*\Z", re.ASCII)
_word = re.compile(r"-?[A-Za-z]+")
_start = re.compile(r"[\[{]")
_brackets_and_strings = re.compile(r'"(?:[^"\\\n]|\\.)*"|[\[{]|[\]}]')
_surrogates = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_end_of_string = re.compile(r"\s*(?:[,:\]}]|//|#|/\*|/?\Z)")
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
# Each quote that opens a string, with those that close it.
_QUOTES: Final = {'"': '"', "'": "'", "\u201c": "\u201d\u201c", "\u201d": "\u201d", "\u201e": "\u201c\u201d"}
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_MISSING: Final = object()


class ExactFloat(float):
    """A float that keeps the digits it was written with."""

    def __new__(cls, text: str) -> Self:
        self = super().__new__(cls, text)
        self.text = text
        return self

    text: str


_exact_decoder = json.JSONDecoder(strict=False, parse_int=lenient_decoder.parse_int, parse_float=ExactFloat)


@attrs.frozen
class FoundValue:
    """A JSON *value* in a text, and how many characters it takes there."""

    value: Any
    length: int


def values_in(text: str, *, exact: bool = False) -> list[FoundValue]:
    """
    Return the JSON values in *text*, at least one: those in code fences once more at the end, for they are the answer.

    *exact*: numbers with a fraction are `ExactFloat`. Strings, numbers and constants count only alone in the text, or
    alone in a fence; in prose they would be guesses. Raises `InvalidOutputError` if there is none, or if the text ends
    inside of a value.
    """
    whole = text.strip().removeprefix("\ufeff").lstrip()
    try:
        return [FoundValue(_exact_decoder.decode(whole) if exact else wire_json.loads(whole), len(whole))]
    except (ValueError, RecursionError):
        pass  # the value is in it, or it has none
    if not whole:
        raise InvalidOutputError((_NOTHING,))
    scan = _Scan(exact=exact)
    found = scan.values_of(whole)
    if scan.cut:
        raise InvalidOutputError((_CUT,))
    for fence in _fence.finditer(whole):
        in_fence = _Scan(exact=exact)
        values = in_fence.values_of(fence[2])
        if not in_fence.cut:  # otherwise its end is a part of a string
            found += values
    if not found:
        raise InvalidOutputError((scan.problem or _NOTHING,))
    return found


def growing_value(text: str) -> Any | None:
    """
    Return the JSON array or object that *text* begins, as far as it has arrived; None while there is none.

    Members whose value has not begun are absent, as are numbers and constants that may go on; strings grow.
    """
    position, work = 0, _MAX_WORK * (len(text) + 1)
    while (match := _start.search(text, position)) is not None and work > 0:
        reader = _Reader(text, exact=False)
        try:
            reader.read(match.start())
        except _EndOfTextError:
            pass
        except _MalformedError as error:
            if not reader.progressed:
                work -= error.position - match.start() + 1
                position = match.start() + 1
                continue
        return reader.root if reader.root is not _MISSING else None
    return None


class _EndOfTextError(Exception):
    """The text ends inside of a value."""


class _MalformedError(Exception):
    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position, self.reason = position, reason


class _Scan:
    """The search for values in pieces of a text; *cut*: a piece ends inside of one, *problem*: of a malformed one."""

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact
        self.cut = False
        self.problem: Problem | None = None

    def values_of(self, piece: str) -> list[FoundValue]:
        """Return the values in *piece*: a value of any type that is all of it, or the arrays and objects in it."""
        if (alone := self._alone(piece)) is not None:
            return [alone]
        found: list[FoundValue] = []
        position, work = 0, _MAX_WORK * (len(piece) + 1)
        while (match := _start.search(piece, position)) is not None and work > 0:
            start = match.start()
            reader = _Reader(piece, exact=self._exact)
            try:
                value, position = reader.read(start)
                found.append(FoundValue(value, position - start))
            except _EndOfTextError:
                self.cut = True
                break
            except _MalformedError as error:
                work -= error.position - start + 1
                position = start + 1
                if reader.progressed:  # it is a malformed value, whose inner values are not the answer
                    self.problem = Problem("$", f"malformed JSON: {error.reason}")
                    position = _balanced_end(piece, start)
        return found

    def _alone(self, piece: str) -> FoundValue | None:
        reader = _Reader(f"{piece}\n", exact=self._exact)  # a number ends before the line does
        try:
            start = reader.skip(0)
            value, end = reader.read(start)
            if reader.skip(end, at_end=True) > len(piece):
                return FoundValue(value, end - start)
        except (_EndOfTextError, _MalformedError):
            pass
        return None


def _balanced_end(text: str, start: int) -> int:
    """Return the position after the bracket that closes the one at *start*, or the end; strings count as text."""
    depth = 0
    for match in _brackets_and_strings.finditer(text, start):
        if match[0] in "[{":
            depth += 1
        elif match[0] in "]}":
            depth -= 1
            if depth <= 0:
                return match.end()
    return len(text)


class _Reader:
    """
    A tolerant reader of one JSON value in *text*.

    *root*: the array or object as far as it was read; *progressed*: it has an element or a member, so it is no prose.
    """

    def __init__(self, text: str, *, exact: bool) -> None:
        self._text = text
        self._exact = exact
        self._depth = 0
        self.root: Any = _MISSING
        self.progressed = False

    def skip(self, position: int, *, at_end: bool = False) -> int:
        """Return the position after white space and comments. Raises if that is the end of the text."""
        if (match := _blank.match(self._text, position)) is not None:
            position = match.end()
        if position >= len(self._text) and not at_end:
            raise _EndOfTextError
        if not at_end and _unfinished.match(self._text, position):
            raise _EndOfTextError
        return position

    def read(self, position: int) -> tuple[Any, int]:
        """Return the value at *position* and the position after it."""
        read: list[Any] = []
        position = self._read_into(read.append, position)
        return read[0], position

    def _fail(self, position: int, reason: str) -> NoReturn:
        raise _MalformedError(position, reason)

    def _read_into(self, keep: Callable[[Any], object], position: int) -> int:
        """Read the value at *position*, *keep* it, and return the position after it."""
        char = self._text[position]
        if char in "[{":
            container: Any = [] if char == "[" else {}
            keep(container)  # before it is read: it is there when the text ends
            if self.root is _MISSING:
                self.root = container
            self._depth += 1
            if self._depth > MAX_DEPTH:
                self._fail(position, "nested too deeply")
            position = (self._fill_array if char == "[" else self._fill_object)(container, position + 1)
            self._depth -= 1
            return position
        if char in _QUOTES:
            text, position, closed = self._string(position)
            keep(text)
            if not closed:
                raise _EndOfTextError
            return position
        value, position = self._number_or_constant(position)
        keep(value)
        return position

    def _fill_array(self, items: list[Any], position: int) -> int:
        position = self.skip(position)
        while self._text[position] != "]":
            position = self._read_into(items.append, position)
            self.progressed = True
            position = self._separator(position, "]")
        return position + 1

    def _fill_object(self, members: dict[str, Any], position: int) -> int:
        position = self.skip(position)
        while self._text[position] != "}":
            if self._text[position] not in _QUOTES:
                self._fail(position, "expected the name of a member in quotes")
            name, position, closed = self._string(position)
            if not closed:
                raise _EndOfTextError
            position = self.skip(position)
            if self._text[position] != ":":
                self._fail(position, f"expected a colon after {name[:40]!r}")
            self.progressed = True
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
                raise _EndOfTextError
            if match[0] in _CONSTANTS:
                return _CONSTANTS[match[0]], match.end()
        elif (match := _number.match(self._text, position)) is not None:
            if _rest_of_number.match(self._text, match.end()):
                raise _EndOfTextError
            decoder = _exact_decoder if self._exact else lenient_decoder
            value, end = decoder.raw_decode(match[0])
            return value, position + end
        return self._fail(position, f"expected a JSON value, got {self._text[position : position + 20]!r}")

    def _string(self, position: int) -> tuple[str, int, bool]:
        """Return the text of the string at *position*, the position after it, and whether it is closed."""
        text, closing = self._text, _QUOTES[self._text[position]]
        pieces: list[str] = []
        position += 1
        start = position
        while position < len(text):
            char = text[position]
            if char == "\\":
                pieces.append(text[start:position])
                piece, position = self._escape(position)
                pieces.append(piece)
                start = position
            elif char in closing and (closing == '"' or _end_of_string.match(text, position + 1)):
                pieces.append(text[start:position])
                return _joined(pieces), position + 1, True
            else:
                position += 1
        pieces.append(text[start:])
        beginning = _joined(pieces)
        is_half = "\ud800" <= beginning[-1:] <= "\udbff"  # of a surrogate pair
        return beginning[:-1] if is_half else beginning, position, False

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
