"""JSON objects that are not wholly readable: nested too deeply, malformed or cut off. What they say first is kept."""

from __future__ import annotations

import json
import re
from typing import Any, Final

MAX_DEPTH: Final = 128
"""Levels of nesting of a member that is kept: pickling, copying and encoding recurse, and fail at a few hundred."""

# Scanning takes longer than decoding.
_MAX_SCANNED_BYTES = 1024 * 1024
_MAX_STEPS = 20_000
_LEADING = "\ufeff \t\n\r"  # RFC 8259, sections 2 and 8.1
_BLANKS = r"[ \t\n\r]*+"
_UNCLOSED_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+'
_STRING = _UNCLOSED_STRING + '"'
# Up to the next brackets outside of strings; the groups are the last string before them, and the brackets.
_next_brackets = re.compile(rf'(?:[^"\[\]{{}}]++|({_STRING}))*+([\[{{]++|[\]}}]++)', re.DOTALL)
_next_name = re.compile(rf"{_BLANKS}({_STRING}){_BLANKS}:{_BLANKS}", re.DOTALL)
_separator = re.compile(f"{_BLANKS},")
_unclosed_string = re.compile(_UNCLOSED_STRING, re.DOTALL)


def _int_or_digits(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:  # see sys.set_int_max_str_digits
        return digits


lenient_decoder: Final = json.JSONDecoder(strict=False, parse_int=_int_or_digits)
"""A decoder that reads an integer with more digits than Python converts as the string of its digits."""


def without_deep_members(data: bytes | str) -> tuple[bytes | str, tuple[str, ...]]:
    """
    Return the JSON object *data* with null for each member nested more than `MAX_DEPTH` levels, and their names.

    *data* that is not an object, or is too large to be scanned, is returned unchanged.
    """
    if _brackets_in(data) <= MAX_DEPTH or len(data) > _MAX_SCANNED_BYTES:
        return data, ()
    try:
        text = (data if isinstance(data, str) else data.decode()).lstrip(_LEADING)
    except UnicodeDecodeError:
        return data, ()
    if not text.startswith("{"):
        return data, ()
    kept, names, copied = list[str](), list[str](), 0
    name, start, depth, deepest, position, steps = "", 0, 0, 0, 0, 0
    while (match := _next_brackets.match(text, position)) is not None:
        steps += 1
        if steps > _MAX_STEPS:
            return data, ()
        brackets, position = match[2], match.end()
        if brackets[0] in "[{":
            if depth == 1:  # a member begins
                name, start, deepest = match[1] or "", match.start(2), 0
            depth += len(brackets)
            deepest = max(deepest, depth - 1)
        else:
            if depth - len(brackets) <= 1 and deepest > MAX_DEPTH:  # it ends
                kept += text[copied:start], "null"
                names.append(_decoded(name))
                copied = match.start(2) + depth - 1
            depth -= len(brackets)
            deepest = deepest if depth > 1 else 0
    return ("".join([*kept, text[copied:]]), tuple(names)) if names else (data, ())


def _brackets_in(data: bytes | str) -> int:
    return data.count(b"[") + data.count(b"{") if isinstance(data, bytes) else data.count("[") + data.count("{")


def leading_members(data: bytes) -> dict[str, Any]:
    """
    Return the members of the JSON object *data* that precede the place where it is malformed.

    A string that is cut off there is returned as far as it goes, and bytes that are not UTF-8 are replaced. Empty when
    *data* is larger than a mebibyte.
    """
    members: dict[str, Any] = {}
    text = data.decode("utf-8", "replace").lstrip(_LEADING) if len(data) <= _MAX_SCANNED_BYTES else ""
    position = 1 if text.startswith("{") else len(text)
    while (name := _next_name.match(text, position)) is not None:
        try:
            members[_decoded(name[1])], position = lenient_decoder.raw_decode(text, name.end())
        except (ValueError, RecursionError):
            if (beginning := _unclosed_string.match(text, name.end())) is not None:
                members[_decoded(name[1])] = _without_half(_decoded(f'{beginning[0]}"'))
            break
        if (separator := _separator.match(text, position)) is None:
            break
        position = separator.end()
    return members


def _decoded(string: str) -> str:
    """Return the text of a JSON *string* up to its first malformed escape."""
    try:
        return str(lenient_decoder.raw_decode(string)[0])
    except json.JSONDecodeError as error:
        escape = string.rfind("\\", 0, error.pos + 1)
        return _decoded(f'{string[:escape]}"') if escape > 0 else ""


def _without_half(text: str) -> str:
    """Return *text* without the first half of a surrogate pair at its end."""
    return text[:-1] if text[-1:] and "\ud800" <= text[-1] <= "\udbff" else text
