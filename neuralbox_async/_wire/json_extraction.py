"""
The JSON values in a generated text, which models wrap and write in many ways.

Accepted are code fences and prose around a value, several values, trailing commas, comments, typographic or single
quotes as delimiters, Python's constants, and NaN. Nothing is guessed: a text that ends inside of a value has none.

Each character is read a bounded number of times, whatever the text is: the event loop waits for it.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Callable
from typing import Any, Final

import attrs

from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire import json as wire_json
from neuralbox_async._wire.json_reader import QUOTES, EndOfTextError, MalformedError, Reader, decode

_CUT = Problem("$", "the text ends before the JSON value does")
_NOTHING = Problem("$", "there is no JSON value in the text")
_IRREGULAR = Problem("$", "the text has too many brackets to look for a JSON value in it")
_MAX_WORK: Final = 10_000  # values that failed attempts may read in all; a value counts for 64 characters
_MAX_PARTIAL_WORK: Final = 2_000  # the same for a growing value, which is looked for many times
_CHARACTERS: Final = 64
_MAX_TRIED: Final = 64
_MAX_FENCES: Final = 64  # the last ones are read

_KINDS: Final = {"[": "array", "{": "object"}
CONTAINERS: Final = frozenset(_KINDS.values())
"""The JSON types that can be found in prose."""

_fence = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)(^[ \t]*\1|\Z)", re.DOTALL | re.MULTILINE)
_thoughts = re.compile(r"<(think|thinking)>")  # as some models write them
_blank = re.compile(r"[\s\ufeff]*")  # also a byte order mark
# Brackets after which a value may follow; most of those in prose are none.
_start = re.compile(
    r"\{{(?=\s*(?:[{quotes}}}/#]|\Z))|\[(?=\s*(?:[{quotes}\[{{\]\-\dtfnTFNI/#]|\Z))".format(quotes="".join(QUOTES))
)
_brackets_and_strings = re.compile(r'"(?:[^"\\\n]|\\.)*"|[\[{]|[\]}]')
_json_before = re.compile(r"""[,\[{}\]"']\s*\Z|["'\u2018-\u201e\u00bb\u00ab]\s*:\s*\Z""")
_json_after = re.compile(r"\s*[,:\]}]")
_WHITE_SPACE: Final = " \t\n\r"  # RFC 8259, section 2
_MAX_PLAIN: Final = 1024 * 1024  # characters for orjson, which reserves twelve times their size
_NEAR: Final = 40  # characters around a value that are looked at


@attrs.frozen
class FoundValue:
    """A JSON *value* in a text, from *start* to *end*; *in_fence*: in a code fence."""

    value: Any
    start: int
    end: int
    in_fence: bool = False

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """The highest is that of the answer: in a fence, not empty, no reference such as ``[1]``, the last one."""
        value = self.value
        is_reference = isinstance(value, list) and len(value) < 2 and all(isinstance(item, int) for item in value)  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
        return self.in_fence, not is_reference and value != {}, self.start


@attrs.frozen
class Search:
    """The values that were *found* in a text, the best one first, and the *problem* of the longest malformed one."""

    found: list[FoundValue]
    problem: Problem | None = None
    malformed_length: int = 0


def values_in(text: str, *, exact: bool = False, kinds: frozenset[str] = CONTAINERS, cut: bool = False) -> Search:
    """
    Return the JSON values in *text*, at least one.

    *exact*: numbers with a fraction are `ExactFloat`. *kinds*: the JSON types of the wanted value: a bracket that ends
    with the text is no part of prose if it could begin that. *cut*: the text was cut off, so that a number at its end
    is not whole. Strings, numbers and constants count only alone in the text, or alone in a fence; in prose they would
    be guesses. Raises `InvalidOutputError` if there is none, or if the text ends inside of a value.
    """
    whole = _without_thoughts(text.strip())
    if not whole:
        raise InvalidOutputError((_NOTHING,))
    if cut and _thoughts.match(whole):
        raise InvalidOutputError((_CUT,))
    # A number that nothing follows may go on.
    scan = _Scan(whole if cut and text[-1].isdigit() else f"{whole}\n", exact=exact, kinds=kinds)
    found = scan.with_fences(scan.values())
    if scan.growing is not None:
        raise InvalidOutputError((_CUT,))
    if scan.is_irregular:
        raise InvalidOutputError((_IRREGULAR,))
    if not found:
        raise InvalidOutputError((scan.problem or (_CUT if scan.ends_inside else _NOTHING),))
    return Search(_best_first(found), scan.problem, scan.malformed_length)


def growing_value(text: str, *, kinds: frozenset[str] = CONTAINERS, fits: Callable[[Any], bool] | None = None) -> Any:
    """
    Return the JSON array or object in *text* as far as it has arrived; None while there is none.

    That is the last one that can become the value: of one of the *kinds*, and, if it is whole, one that *fits*.
    Members whose value has not begun are absent, as are numbers and constants that may go on; strings grow.
    """
    whole = _without_thoughts(text)
    if _thoughts.match(whole):
        return None
    scan = _Scan(whole, exact=False, kinds=kinds, work=_MAX_PARTIAL_WORK)
    found = [value for value in scan.values() if _kind(value.value) in kinds]
    if scan.is_irregular:
        return None
    if scan.growing is not None and _kind(scan.growing.value) in kinds:
        found.append(scan.growing)
    grows_from = -1 if scan.growing is None else scan.growing.start
    if len(found) > 1 and fits is not None:
        for value in _best_first(scan.with_fences(found)):
            if value.start == grows_from or fits(value.value):
                return value.value
    return found[-1].value if found else None


def plain_value(text: str, *, exact: bool) -> Any:
    """Return the JSON value that *text* is, by the fastest decoder. Raises `ValueError` or `RecursionError`."""
    orjson = None if exact or len(text) > _MAX_PLAIN else wire_json.orjson
    if orjson is not None and not wire_json.has_long_number(text):
        return orjson.loads(text)  # what only the standard library reads (infinite numbers) is found by the scan
    text = text.strip(_WHITE_SPACE)
    value, end = decode(text, exact=exact)
    if end != len(text):
        raise ValueError("the text goes on after the value")
    return value


def _without_thoughts(text: str) -> str:
    """Return *text* after the thoughts that it begins with, if anything is there: what they have is no answer."""
    start = end = _after_blank(text, 0)
    while (match := _thoughts.match(text, end)) and (close := text.find(f"</{match[1]}>", match.end())) >= 0:
        end = _after_blank(text, close + len(match[1]) + 3)
    return text[end:] or text[start:]


def _after_blank(text: str, position: int) -> int:
    match = _blank.match(text, position)
    return position if match is None else match.end()


def _kind(value: object) -> str:
    return "array" if isinstance(value, list) else "object"


def _best_first(found: list[FoundValue]) -> list[FoundValue]:
    """Return the *found* values by their rank, and no more of them than can be tried; the longest is one of them."""
    if len(found) == 1:
        return found
    tried = sorted(found, key=lambda value: value.rank, reverse=True)[:_MAX_TRIED]
    longest = max(found, key=lambda value: value.end - value.start)
    return tried if longest in tried else [*tried, longest]


class _Scan:
    """
    The search for arrays and objects in *text*.

    * *growing*: the one that the text ends in; *ends_inside*: it ends in something else that is perhaps a value.
    * *problem*: of a malformed value, the longest one.
    * *is_irregular*: it was ended because failed attempts had read too much.
    """

    def __init__(self, text: str, *, exact: bool, kinds: frozenset[str], work: int = _MAX_WORK) -> None:
        self.text, self._exact, self._kinds, self._work = text, exact, kinds, work
        self.growing: FoundValue | None = None
        self.ends_inside = self.is_irregular = False
        self.problem: Problem | None = None
        self.malformed_length = 0
        self._in_malformed = False  # perhaps in a value that is malformed and not closed

    def values(self, start: int = 0) -> list[FoundValue]:
        """Return the values after *start*: one that is all of the text, or the arrays and objects in it."""
        text = self.text
        blank = Reader(text, exact=self._exact)
        first = blank.skip(start, at_end=True)
        if first < len(text) and text[first] not in _KINDS and (alone := self._alone(text, first)) is not None:
            return [alone]
        found: list[FoundValue] = []
        position, self._in_malformed = start, False
        while (match := _start.search(text, position)) is not None:
            self._work -= 1
            if self._work < 0:
                self.is_irregular = True
                break
            at = match.start()
            reader = Reader(text, exact=self._exact)
            try:
                value, position = self._read(reader, text, at)
            except EndOfTextError:
                position = at + 1
                if self._grows(reader, text, at):
                    break
            except MalformedError as error:
                position = self._malformed(reader, text, at, error) or at + 1
            else:
                if at == first and blank.skip(position, at_end=True) >= len(text):
                    return [FoundValue(value, at, position)]
                if not self._is_inner(text, at, position):
                    found.append(FoundValue(value, at, position))
        return found

    def with_fences(self, found: list[FoundValue]) -> list[FoundValue]:
        """Return the values that were *found*, those in code fences marked, and others that are in fences."""
        starts = [value.start for value in found]
        others: list[FoundValue] = []
        for fence in list(_fence.finditer(self.text))[-_MAX_FENCES:]:
            start, end = fence.span(2)
            first, last = bisect.bisect_left(starts, start), bisect.bisect_left(starts, end)
            if first and found[first - 1].end > start:
                continue  # it is in a string
            if first == last:
                others += self._in_fence(start, end, is_closed=bool(fence[3]))
            for index in range(first, last):
                found[index] = attrs.evolve(found[index], in_fence=True)
        return [*found, *others]

    def _in_fence(self, start: int, end: int, *, is_closed: bool) -> list[FoundValue]:
        text = self.text[:end] if is_closed else self.text.rstrip()
        inner = _Scan(text, exact=self._exact, kinds=self._kinds, work=self._work)
        values = inner.values(start)
        self._work = inner._work
        self.ends_inside |= inner.ends_inside
        # If a value goes on after the fence, the fence ends in a string.
        return [attrs.evolve(value, in_fence=True) for value in values] if inner.growing is None else []

    def _read(self, reader: Reader, text: str, start: int) -> tuple[Any, int]:
        try:
            return decode(text, start, exact=self._exact)
        except json.JSONDecodeError as error:
            self._work -= (error.pos - start) // _CHARACTERS
        except RecursionError:
            pass
        return reader.read(start)

    def _alone(self, text: str, start: int) -> FoundValue | None:
        """Return the string, number or constant at *start*, if nothing follows."""
        reader = Reader(text, exact=self._exact)
        try:
            value, end = reader.read(start)
            if reader.skip(end, at_end=True) >= len(text):
                return FoundValue(value, start, end)
        except EndOfTextError:
            self.ends_inside = True
        except MalformedError:
            pass
        return None

    def _grows(self, reader: Reader, text: str, start: int) -> bool:
        """Return whether the value at *start*, in which the text ends, is one, and no bracket in prose."""
        self._work -= reader.steps + (len(text) - start) // _CHARACTERS
        is_value = reader.is_json or _KINDS[text[start]] in self._kinds
        if not is_value or (self._in_malformed and _is_after_json(text, start)):
            return False
        self.growing = FoundValue(reader.root, start, len(text))
        return True

    def _malformed(self, reader: Reader, text: str, start: int, error: MalformedError) -> int | None:
        """Return the position after the malformed value at *start*; None if it is not closed, or is none."""
        self._work -= reader.steps + (error.position - start) // _CHARACTERS
        if not reader.is_json:
            return None
        end = _balanced_end(text, start)  # its inner values are not the answer
        self._in_malformed |= end is None
        length = (end or len(text)) - start
        self._work -= length // _CHARACTERS
        if length > self.malformed_length:
            self.problem, self.malformed_length = Problem("$", f"malformed JSON: {error.reason}"), length
        return end

    def _is_inner(self, text: str, start: int, end: int) -> bool:
        """Return whether the value from *start* to *end* is perhaps a part of a malformed one that is not closed."""
        return self._in_malformed and (_is_after_json(text, start) or _json_after.match(text, end) is not None)


def _balanced_end(text: str, start: int) -> int | None:
    """Return the position after the bracket that closes the one at *start*, None without one; strings count as text."""
    depth = 0
    for match in _brackets_and_strings.finditer(text, start):
        if match[0] in "[{":
            depth += 1
        elif match[0] in "]}":
            depth -= 1
            if depth <= 0:
                return match.end()
    return None


def _is_after_json(text: str, position: int) -> bool:
    return _json_before.search(text, max(0, position - _NEAR), position) is not None
