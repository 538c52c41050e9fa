"""Blocking twins of asynchronous methods, with their signatures and docstrings, for `help()` and for type checkers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, Protocol, Self, TypeVar, cast, overload

from neuralbox_sync._loop import EventLoop

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class View(Generic[S]):
    """Owns an asynchronous object; shares the event loop with the views that come from it. A context manager."""

    def __init__(self, subject: S, loop: EventLoop) -> None:
        self._subject, self._loop = subject, loop

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: make one in each process")

    def close(self) -> None:
        raise NotImplementedError


class Blocking(Protocol[S, P, R_co]):
    """A function in the body of a `View[S]`; in so many words, because checkers bind no plain `Callable`."""

    @overload
    def __get__(self, view: None, owner: type[View[S]]) -> Callable[Concatenate[View[S], P], R_co]: ...
    @overload
    def __get__(self, view: View[S], owner: type[View[S]]) -> Callable[P, R_co]: ...


def blocking(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> Blocking[S, P, R]:
    """Return the blocking twin of a coroutine *method*."""

    @functools.wraps(method)
    def twin(self: View[S], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._loop.call(functools.partial(method, self._subject, *args, **kwargs))

    return cast("Blocking[S, P, R]", twin)


def like(method: Callable[Concatenate[Any, P], Any]) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """Return a decorator that gives a twin of *method* its parameters and docstring."""

    def dress(twin: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        returned = inspect.signature(twin).return_annotation
        vars(functools.update_wrapper(twin, method))["__signature__"] = inspect.signature(method).replace(
            return_annotation=returned
        )
        return twin

    return dress
