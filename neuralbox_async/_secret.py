"""Strings whose `repr` hides them, so that no frame, repr or log shows a key; and the masking of keys in responses."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar, cast

T = TypeVar("T")

_MASK = "***"


class Secret(str):
    """
    A string whose `repr` is ``'***'`` and that refuses to be pickled.

    It stays an ordinary `str` for the code that sends it. Only code that prints values (debuggers, tracebacks with
    locals, the reprs of dicts and headers) does not see the text.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{_MASK}'"

    def __reduce__(self) -> NoReturn:
        msg = "a secret cannot be pickled"
        raise TypeError(msg)


def as_secret(value: T) -> T:
    """Return *value* as a `Secret` when it is a string, so that no frame of a traceback shows it."""
    return cast("T", Secret(value)) if isinstance(value, str) else value


def as_secret_values(headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return *headers* with each value as a `Secret`."""
    return {name: as_secret(value) for name, value in headers.items()} if isinstance(headers, Mapping) else headers


def mask(value: object, secret: str) -> object:
    """
    Return *value* with each occurrence of *secret* replaced by ``***``; *value* itself when there is none.

    Looks into strings and bytes, and into mappings, lists and tuples of them. Returns mappings as dicts and tuples as
    lists when they change. Other values are returned unchanged; a value that is nested too deeply is replaced whole.
    """
    try:
        return _masked(value, secret, secret.encode())
    except RecursionError:
        return _MASK


def _masked(value: Any, secret: str, encoded: bytes) -> object:
    # By type: `str(value)` of a large body takes seconds.
    if isinstance(value, str):
        return value.replace(secret, _MASK) if secret in value else value
    if isinstance(value, bytes):
        return value.replace(encoded, _MASK.encode()) if encoded in value else value
    if isinstance(value, Mapping):
        names, items = list(value), list(value.values())
        masked = [_masked(item, secret, encoded) for item in (*names, *items)]
        is_same = all(map(operator.is_, masked, (*names, *items)))
        return value if is_same else dict(zip(masked[: len(names)], masked[len(names) :], strict=True))
    if isinstance(value, list | tuple):
        masked = [_masked(item, secret, encoded) for item in value]
        return value if all(map(operator.is_, masked, value)) else masked
    return value
