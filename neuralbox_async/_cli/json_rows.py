"""Rows in JSON: an object on each line, or the items of one array, which is read piece by piece."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NoReturn, TypeGuard

from neuralbox_async._cli.input_text import InvalidRowError, Row, check_binary

_PIECE: Final = 1 << 16  # bytes
_MAX_ITEM_LENGTH: Final = (
    64 << 20
)  # characters; otherwise a string that is never closed would read the rest of the file
_BLANKS: Final = re.compile(r"[ \t\r\n]*")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and the infinities are not JSON


_decoder: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def json_line_row(line: str) -> dict[str, Any] | InvalidRowError:
    """Return the row of one line of JSONL."""
    try:
        row: object = _decoder.decode(line)
    except (ValueError, RecursionError) as error:
        reason = f" ({error.msg}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        return InvalidRowError(f"not valid JSON{reason}")
    return row if is_object(row) else InvalidRowError("not a JSON object")


def json_array_rows(file: BinaryIO) -> Iterator[Row]:
    """
    Yield the items of the array in *file*, numbered from 1; the array may be the only member of an object.

    An object is a row; a string is a prompt. Keeps one item in memory. Raises `InvalidRowError` when the file has
    another structure or is not valid JSON: after an error it is unknown where the next item begins.
    """
    text = _JSONText(file)
    in_object = text.take("{")
    if in_object:
        _read_member_name(text)
    if not text.take("["):
        raise InvalidRowError("this is not an array of rows; a file with one object per line is JSONL (--format jsonl)")
    yield from _items(text)
    if in_object and not text.take("}"):
        text.refuse("the object around the rows must have no other members")
    if text.next_character():
        text.refuse("there is text after the end of the array")


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Return whether *value* is a JSON object."""
    return isinstance(value, dict)


def is_wrapped_array(value: object) -> bool:
    """Return whether *value* is an object whose only member is an array of rows, such as ``{"prompts": [...]}``."""
    if not is_object(value) or len(value) != 1:
        return False
    ((name, rows),) = value.items()
    return _may_name_rows(name) and isinstance(rows, list)


def _may_name_rows(name: object) -> bool:
    return name != "messages"  # the array of these is one conversation


def _read_member_name(text: _JSONText) -> None:
    name = text.read_value() if text.next_character() == '"' else None
    if name is None or not text.take(":") or text.next_character() != "[" or not _may_name_rows(name):
        raise InvalidRowError(
            "this is a single object, not an array of rows; JSONL has one object per line, each on one line"
        )


def _items(text: _JSONText) -> Iterator[Row]:
    number = 0
    if text.take("]"):
        return
    while True:
        number += 1
        item = text.read_value()
        if isinstance(item, str):
            yield number, {"prompt": item}
        else:
            yield number, item if is_object(item) else InvalidRowError("neither a JSON object nor a string")
        if text.take("]"):
            return
        if not text.take(","):
            text.refuse("',' or ']' is missing after an item" if text.next_character() else "the array has no end")


class _JSONText:
    """The text of a JSON file, of which a piece is in memory. All methods raise `InvalidRowError`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text = ""
        self._position = 0
        self.line = 1  # of the position

    def next_character(self) -> str:
        """Skip blanks, and return the next character; "" at the end of the file."""
        while True:
            blanks = _BLANKS.match(self._text, self._position)
            self._advance(self._position if blanks is None else blanks.end())
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_piece():
                return ""

    def take(self, character: str) -> bool:
        """Skip blanks, and *character* if it is next; return whether it was."""
        if self.next_character() != character:
            return False
        self._advance(self._position + 1)
        return True

    def read_value(self) -> object:
        """Skip blanks, and return the value that is next."""
        self.next_character()
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                # An incomplete value looks like an invalid one.
                if len(self._text) - self._position <= _MAX_ITEM_LENGTH and self._read_piece():
                    continue
                self._advance(min(error.pos, len(self._text)))
                self.refuse(f"not valid JSON ({error.msg})")
            except (ValueError, RecursionError):
                self.refuse("not valid JSON")
            if end < len(self._text) or not self._read_piece():  # a number may continue
                self._advance(end)
                return value

    def refuse(self, reason: str) -> NoReturn:
        """Raise `InvalidRowError` with *reason* and the line of the position."""
        raise InvalidRowError(f"line {self.line}: {reason}")

    def _advance(self, position: int) -> None:
        self.line += self._text.count("\n", self._position, position)
        self._position = position

    def _read_piece(self) -> bool:
        """Read more, at least as much as there is, and return whether there was more."""
        rest = self._text[self._position :]
        data = self._file.read(max(_PIECE, len(rest)))
        check_binary(data)
        try:
            self._text = rest + self._decode(data, not data)
        except UnicodeDecodeError:
            raise InvalidRowError("not valid UTF-8") from None
        self._position = 0
        return bool(data)
