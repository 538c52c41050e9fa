"""The values without parts: strings, numbers, times and the like, each from one JSON type; nothing is converted."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn
from uuid import UUID

from neuralbox_async._wire import json
from neuralbox_async._wire.json_reader import ExactFloat

Hook = Callable[[Any, Any], Any]
"""A function that cattrs calls with a JSON value and the type that it is for."""

_DATE = r"\d{4}-\d{2}-\d{2}"
_HOUR, _MINUTE = r"([01]\d|2[0-3])", r"[0-5]\d"
_date_text = re.compile(_DATE, re.ASCII)
_date_time_text = re.compile(
    rf"{_DATE}[Tt]{_HOUR}:{_MINUTE}:{_MINUTE}(\.\d+)?([Zz]|[+-]{_HOUR}:{_MINUTE})", re.ASCII
)  # RFC 3339
_uuid_text = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_MAX_SHOWN = 60  # characters of a value in a reason


class MismatchError(ValueError):
    """A value of another type than expected; its text is the reason."""


def mismatch(expected: str, value: object) -> NoReturn:
    shown = ""
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        text = value.text if isinstance(value, ExactFloat) else repr(value)
        shown = f" {text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '...'}"
    raise MismatchError(f"expected {expected}, got {json.type_name(value)}{shown}")


def _str(value: Any, _tp: Any) -> str:
    return value if type(value) is str else mismatch("a string", value)


def _bool(value: Any, _tp: Any) -> bool:
    return value if value is True or value is False else mismatch("true or false", value)


def _int(value: Any, _tp: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return mismatch("an integer", value)


def _float(value: Any, _tp: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        raise MismatchError(f"expected a finite number, got {value}")
    return mismatch("a number", value)


def _decimal(value: Any, _tp: Any) -> Decimal:
    if isinstance(value, ExactFloat):
        try:
            return Decimal(value.text)
        except InvalidOperation:
            return mismatch("a number that Decimal can represent", value)
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    return Decimal(repr(_float(value, _tp)))


def _none(value: Any, _tp: Any) -> None:
    return None if value is None else mismatch("null", value)


def _date_time(value: Any, _tp: Any) -> datetime:
    if isinstance(value, str) and _date_time_text.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper())
        except ValueError:  # no such day
            pass
    return mismatch("a time with its offset, as 2025-01-31T23:59:00Z (RFC 3339)", value)


def _date(value: Any, _tp: Any) -> date:
    if isinstance(value, str) and _date_text.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    return mismatch("a date, as 2025-01-31", value)


def _uuid(value: Any, _tp: Any) -> UUID:
    if isinstance(value, str) and _uuid_text.fullmatch(value):
        return UUID(value)
    return mismatch("a UUID", value)


SCALAR_HOOKS: Mapping[Any, Hook] = {
    str: _str,
    bool: _bool,
    int: _int,
    float: _float,
    Decimal: _decimal,
    datetime: _date_time,
    date: _date,
    UUID: _uuid,
    None: _none,
    type(None): _none,
}
