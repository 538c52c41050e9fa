"""Blocking twins of async methods, with their signatures and docstrings, for `help()` and for type checkers."""

import functools
import inspect
import re
import types
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, cast

from neuralbox_sync._loop import EventLoop, despite_interrupt

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")

_ASYNC_ONLY = re.compile(r"\basync (?=with\b|for\b)|\bAsync(?=Batch\b|Stream\b)")  # in docstrings


class View(Generic[S]):
    """A blocking view of an async object: the *subject*, its loop, and an *owner* to keep alive; a context manager."""

    close: Callable[[], None]

    def __init__(self, subject: S, loop: EventLoop, owner: object = None) -> None:
        self._subject, self._loop, self._owner = subject, loop, owner

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # A twin has the name under which it is found, whatever class its async method is from: it can be pickled.
        for name, member in vars(cls).items():
            if isinstance(member, types.FunctionType) and member.__module__ == __package__:
                member.__qualname__ = f"{cls.__qualname__}.{name}"

    @property
    def _here(self) -> EventLoop:
        return self._loop

    def __repr__(self) -> str:
        return f"{type(self).__name__}({vars(self).get('_subject')})"  # None, if the constructor failed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        despite_interrupt(self.close)  # one may arrive before anything is closed


class Blocking(Protocol[S, P, R_co]):
    """The type of a method; explicit, because some type checkers do not bind `self` of a plain `Callable`."""

    def __get__(self, view: View[S], owner: type[View[S]]) -> Callable[P, R_co]: ...


def blocking(method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> Blocking[S, P, R]:
    """Return the blocking twin of a coroutine *method*."""
    partial = functools.partial

    def twin(self: View[S], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._here.call(partial(method, self._subject, *args, **kwargs))  # pyright: ignore[reportPrivateUsage]

    # Without `__wrapped__`: FastAPI and others would find a coroutine function there, and await the result. So the twin
    # needs the globals of *method*, in which its annotations are evaluated; its own code uses none.
    copied = types.FunctionType(twin.__code__, method.__globals__, method.__name__, None, twin.__closure__)
    copied.__module__ = __package__ or ""
    copied.__annotations__, copied.__doc__ = method.__annotations__, _blocking_docstring(method)
    vars(copied)["__signature__"] = inspect.signature(method)
    return cast("Blocking[S, P, R]", copied)


def like(method: Callable[Concatenate[Any, P], Any]) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """Return a decorator that gives a twin of *method* its parameters and docstring."""

    def decorate(twin: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        returned, names = twin.__annotations__["return"], (twin.__module__, twin.__qualname__)
        vars(functools.update_wrapper(twin, method))["__signature__"] = inspect.signature(method).replace(
            return_annotation=returned
        )
        twin.__module__, twin.__qualname__ = names
        twin.__annotations__ = {**method.__annotations__, "return": returned}
        twin.__doc__ = _blocking_docstring(method)
        return twin

    return decorate


def _blocking_docstring(method: Callable[..., Any]) -> str | None:
    """Return the docstring of *method* with ``with`` and ``for`` in place of ``async with`` and ``async for``."""
    return method.__doc__ and _ASYNC_ONLY.sub("", method.__doc__)
