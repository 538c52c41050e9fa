"""Blocking twins of asynchronous methods, with their signatures and docstrings, for `help()` and for type checkers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, cast, overload

from ._loop import EventLoop

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
V = TypeVar("V", bound="View[Any]")


class View(Generic[S]):
    """Owns an asynchronous object; shares the event loop with the views that come from it."""

    _subject: S
    _loop: EventLoop

    @classmethod
    def _of(cls, subject: S, loop: EventLoop) -> Self:
        view = cls.__new__(cls)
        view._subject, view._loop = subject, loop
        return view

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: make one in each process")


class Blocking(Protocol[S, P, R_co]):
    """A function in a class body, which is what this is while running; spelt out because checkers bind only those they see."""

    @overload
    def __get__(self, view: None, owner: type[View[S]]) -> Callable[Concatenate[View[S], P], R_co]: ...
    @overload
    def __get__(self, view: View[S], owner: type[View[S]]) -> Callable[P, R_co]: ...


class Deriving(Protocol[P]):
    """The same, for a method that returns another view of the same class."""

    def __get__(self, view: V, owner: type[V]) -> Callable[P, V]: ...


def blocking(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> Blocking[S, P, R]:
    """Return the blocking twin of a coroutine *method*."""

    @functools.wraps(method)
    def call(view: View[S], *args: P.args, **kwargs: P.kwargs) -> R:
        return view._loop.call(functools.partial(method, view._subject, *args, **kwargs))

    return cast("Blocking[S, P, R]", call)


def blocking_stream(method: Callable[Concatenate[S, P], Any], kind: type[V]) -> Blocking[S, P, V]:
    """Return the twin of a plain *method* that makes an asynchronous stream; it returns the *kind* of view of that."""

    def make(view: View[S], *args: P.args, **kwargs: P.kwargs) -> V:
        return kind._of(method(view._subject, *args, **kwargs), view._loop)

    return cast("Blocking[S, P, V]", _like(method, make, kind))


def deriving(method: Callable[Concatenate[S, P], S]) -> Deriving[P]:
    """Return the twin of a plain *method* that derives an object: it returns a view of that, of its own class."""

    def derive(view: View[S], *args: P.args, **kwargs: P.kwargs) -> View[S]:
        return view._of(method(view._subject, *args, **kwargs), view._loop)

    return cast("Deriving[P]", _like(method, derive, Self))
