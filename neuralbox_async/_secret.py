"""Keep secrets out of reprs, logs and tracebacks: strings whose `repr` hides them, and masks for keys in responses."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import NoReturn, TypeGuard, TypeVar, cast

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

_MASK = "***"


class Secret(str):
    """
    A string whose `repr` is ``'***'`` and that refuses to be pickled.

    It is an ordinary `str` for the code that sends it. Code that prints values (debuggers, tracebacks with locals, the
    reprs of dicts and headers) does not see the text.
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


def without_frames(error: E) -> E:
    """Return *error* without traceback and context: their frames hold received bytes, which may echo the key."""
    error.__context__ = None
    return error.with_traceback(None)


def mask(value: object, secret: str) -> object:
    """
    Return *value* with each occurrence of *secret* replaced by ``***``; *value* itself without an occurrence.

    Looks into strings and bytes, and into mappings, lists and tuples of them. Returns mappings as dicts and tuples as
    lists when they change. Other values are returned unchanged; a value that is nested too deeply is replaced whole.
    """
    try:
        return _masked(value, secret, secret.encode())
    except RecursionError:
        return _MASK


def _masked(value: object, secret: str, encoded: bytes) -> object:
    # By type: `str(value)` of a large body takes seconds.
    if isinstance(value, str):
        return value.replace(secret, _MASK) if secret in value else value
    if isinstance(value, bytes):
        return value.replace(encoded, _MASK.encode()) if encoded in value else value
    if _is_mapping(value):
        members = {_masked(name, secret, encoded): _masked(item, secret, encoded) for name, item in value.items()}
        is_same = all(map(operator.is_, members, value)) and all(map(operator.is_, members.values(), value.values()))
        return value if is_same else members
    if _is_array(value):
        items = [_masked(item, secret, encoded) for item in value]
        return value if all(map(operator.is_, items, value)) else items
    return value


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _is_array(value: object) -> TypeGuard[Iterable[object]]:
    return isinstance(value, list | tuple)
