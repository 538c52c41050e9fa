"""Blocking twins of async methods, with their signatures and docstrings, for `help()` and for type checkers."""

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, cast

from neuralbox_sync._loop import EventLoop

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class View(Generic[S]):
    """A blocking view of an async object: the *subject*, its loop, and an *owner* to keep alive; a context manager."""

    close: Callable[[], None]

    def __init__(self, subject: S, loop: EventLoop, owner: object = None) -> None:
        self._subject, self._loop, self._owner = subject, loop, owner

    def __repr__(self) -> str:
        return f"{type(self).__name__}({vars(self).get('_subject')})"  # None, if the constructor failed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        except BaseException:
            self.close()  # an interrupt may arrive before anything is closed
            raise


class Blocking(Protocol[S, P, R_co]):
    """The type of a method; explicit, because some type checkers do not bind `self` of a plain `Callable`."""

    def __get__(self, view: View[S], owner: type[View[S]]) -> Callable[P, R_co]: ...


def blocking(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> Blocking[S, P, R]:
    """Return the blocking twin of a coroutine *method*."""

    @functools.wraps(method)
    def twin(self: View[S], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._loop.call(functools.partial(method, self._subject, *args, **kwargs))  # pyright: ignore[reportPrivateUsage]

    return cast("Blocking[S, P, R]", twin)


def like(method: Callable[Concatenate[Any, P], Any]) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """Return a decorator that gives a twin of *method* its parameters and docstring."""

    def decorate(twin: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        signature = inspect.signature(method).replace(return_annotation=inspect.signature(twin).return_annotation)
        vars(functools.update_wrapper(twin, method))["__signature__"] = signature
        return twin

    return decorate
