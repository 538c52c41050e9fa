"""JSON: orjson when the extra `speed` is installed, with the results of the standard library either way."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Any, TypeGuard

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._wire.partial_json import lenient_decoder

if TYPE_CHECKING:
    from collections.abc import Callable

orjson: Any
try:
    import orjson
except ImportError:  # the extra `speed` is not installed
    orjson = None

_EXCERPT_LENGTH = 200
_MAX_ORJSON_BYTES = 8 * 1024 * 1024  # it reserves twelve times the size of its input
_WHITE_SPACE = " \t\n\r"  # RFC 8259, section 2
# Written out: the search for a counted repetition takes twice as long.
_LONG_NUMBER = re.compile(r"[0-9]" * 19)
_LONG_NUMBER_BYTES = re.compile(rb"[0-9]" * 19)
# Of 19 digits in a row, three are next to each other among every sixth character, wherever one begins to count.
_SAMPLE_STEP = 6
_SAMPLE = re.compile(r"[0-9][0-9][0-9]")
_SAMPLE_BYTES = re.compile(rb"[0-9][0-9][0-9]")


def loads(data: bytes | str) -> Any:
    """
    Return the JSON value in *data*.

    NaN, infinities and control characters in strings are accepted, which some servers send, and an integer that has
    more digits than Python converts is the string of its digits. Raises `ValueError` or `RecursionError` if *data* is
    not UTF-8, not JSON, or nested too deeply.
    """
    return loads_exactly(data) if has_long_number(data) else loads_approximately(data)


def loads_approximately(data: bytes | str) -> Any:
    """Return the same as `loads`, except that integers beyond 64 bits may be floats. Check with `has_long_number`."""
    if orjson is not None and len(data) <= _MAX_ORJSON_BYTES:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass  # where the two differ (infinite numbers, lone surrogates, depth), the standard library decides
    return loads_exactly(data)


def loads_exactly(data: bytes | str) -> Any:
    """Return the same as `loads`, by the standard library."""
    text = data if isinstance(data, str) else _decoded(data.removeprefix(BOM_UTF8))
    # Not `decode`, which looks for white space with regular expressions: a fifth of the time of a short event.
    text = text.strip(_WHITE_SPACE)
    try:
        value, end = _decoder.raw_decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer with more digits than Python converts
        value, end = lenient_decoder.raw_decode(text)
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def fastest_loads() -> Callable[[bytes | str], Any]:
    """
    Return the fastest decoder. It returns the same as `loads` or raises one of its errors, also where `loads` does not.

    Only integers beyond 64 bits may be floats.
    """
    return _loads_without_bom if orjson is None else orjson.loads


def _loads_without_bom(data: bytes | str) -> Any:
    text = data if isinstance(data, str) else _decoded(data)
    if "\\u" in text and ("\\ud" in text or "\\uD" in text):
        msg = "perhaps a lone surrogate"  # which orjson refuses as well
        raise ValueError(msg)
    return loads_exactly(text)


def _decoded(data: bytes) -> str:
    # Without the name of an error handler, CPython 3.14 needs five times the size of malformed *data*, not twice.
    return data.decode("utf-8", "strict")


def has_long_number(data: bytes | str) -> bool:
    """Return whether *data* has 19 digits in a row, perhaps an integer that orjson would read as a float."""
    if orjson is None or len(data) > _MAX_ORJSON_BYTES:
        return False
    # A search through all of a text takes longer than decoding it (benchmark scenario `parse`).
    if isinstance(data, bytes):
        return bool(_SAMPLE_BYTES.search(data[::_SAMPLE_STEP]) and _LONG_NUMBER_BYTES.search(data))
    return bool(_SAMPLE.search(data[::_SAMPLE_STEP]) and _LONG_NUMBER.search(data))


# Made once: json.loads and json.dumps with options make a decoder or encoder for each text, a third of an event's cost.
_decoder = json.JSONDecoder(strict=False)
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def dumps(value: Any, *, parameter: str = "messages") -> bytes:
    """
    Return *value* as compact JSON in UTF-8: the same bytes with orjson installed and without.

    Raises `InvalidParameterError`, which names *parameter*, for values that are not JSON or that UTF-8 cannot carry.
    """
    try:
        return _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParameterError(parameter, str(error)[:_EXCERPT_LENGTH], "JSON that UTF-8 can encode") from None


def quoted(text: str) -> bytes:
    """Return *text* as a JSON string in UTF-8. Raises `UnicodeEncodeError` or `TypeError` for lone surrogates."""
    return json.encoder.encode_basestring(text).encode() if orjson is None else orjson.dumps(text)


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Return whether *value* is a JSON object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[Any]]:
    """Return whether *value* is a JSON array."""
    return isinstance(value, list)


def is_count(value: object) -> TypeGuard[int]:
    """Return whether *value* is an integer of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def type_name(value: object) -> str:
    """Return the JSON type of *value* for a message, such as ``"a string"``."""
    names: dict[type[Any], str] = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return next((names[cls] for cls in type(value).__mro__ if cls in names), type(value).__name__)


def excerpt(body: bytes) -> str:
    """Return the beginning of *body* as one line."""
    return one_line(body[: 4 * _EXCERPT_LENGTH].decode("utf-8", "replace"))


def one_line(text: str) -> str:
    """Return *text* as one line, shortened."""
    line = " ".join(text.split())
    return line if len(line) <= _EXCERPT_LENGTH else f"{line[:_EXCERPT_LENGTH]}..."
