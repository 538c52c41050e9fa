"""What is known of one JSON value while it is structured."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs

from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire import json

T = TypeVar("T")

TOO_DEEP: Final = Problem("$", "its values of unions are nested too deeply to be checked")
_MAX_COPIES: Final = 20_000  # parts of a value: a few hundredths of a second, for which the event loop waits


@attrs.define
class Fit:
    """The *member* of a union that a part of a value fits, and the *value* of that."""

    member: Any
    value: Any


class Memory:
    """
    What is known of the arrays and objects in one value, by their ids: *results* and *fits* of unions, and *explained*.

    Otherwise each level of a recursive union would try all below it once for each of its types: exponentially often.
    *copies_left*: how many parts may be made once more, so that another type of a union has its own. *is_copying*: one
    is being made. *explained*: how many parts the detailed hooks have tried, which fit no type. *last_texts*: the last
    part that was encoded for pydantic, and its texts.
    """

    def __init__(self) -> None:
        self.results: dict[tuple[object, ...], Any] = {}
        self.fits: dict[tuple[object, ...], Fit] = {}
        self.copies_left = _MAX_COPIES
        self.is_copying = False
        self.explained = 0
        self.last_texts: tuple[Any, tuple[str, str]] | None = None


class _Current(threading.local):
    memory: Memory | None = None


_current = _Current()


def begin() -> Memory | None:
    """Begin with another value. Return what `end` takes: the value's class may structure others in its constructor."""
    outer = _current.memory
    if outer is not None:
        _current.memory = None
    return outer


def end(outer: Memory | None) -> None:
    """Forget the value, whose parts may have the ids of others."""
    _current.memory = outer


def memory() -> Memory:
    """Return the memory of the current value, which few types need (benchmark scenario `parse`)."""
    found = _current.memory
    if found is None:
        found = _current.memory = Memory()
    return found


def may_copy(value: Any) -> bool:
    """Return whether all parts of the JSON *value* may be made once more, and count them."""
    found, parts = memory(), [value]
    while parts and found.copies_left > 0:
        part = parts.pop()
        found.copies_left -= 1
        if json.is_object(part) or json.is_array(part):
            parts.extend(part.values() if json.is_object(part) else part)
    return not parts


def explain() -> int:
    """Count one more part of the value that fits no type. Return how many there are."""
    found = memory()
    found.explained += 1
    return found.explained


def once(key: tuple[object, ...], function: Callable[[], T]) -> T:
    """Return the result of *function*, or raise its `InvalidOutputError`, as at the first time with this *key*."""
    results = memory().results
    if key not in results:
        try:
            results[key] = function()
        except InvalidOutputError as error:
            results[key] = error.copy()  # the value would stay until the garbage collector runs
    if isinstance(result := results[key], InvalidOutputError):
        raise result.copy()  # another one: cattrs adds notes
    found: T = result
    return found


def unless_refused(key: tuple[object, ...], function: Callable[[], T]) -> T:
    """Return the result of *function*, or raise its `InvalidOutputError` as at the last time with this *key*."""
    results = memory().results
    if (refused := results.get(key)) is not None:
        raise refused.copy()
    try:
        return function()
    except InvalidOutputError as error:
        results[key] = error.copy()
        raise
