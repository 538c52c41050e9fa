"""`View`, on which the blocking client, its streams and its batches are based, and their docstrings."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from neuralbox_async import MessageLike, Messages
from neuralbox_sync._loop import EventLoop, despite_interrupt

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")
V = TypeVar("V")

_ASYNC_ONLY = re.compile(r"\basync (?=with\b|for\b)|\bAsync(?=Batch\b|Stream\b)")  # in docstrings


class View(Generic[S]):
    """A blocking view of an async object: the *subject*, its loop, and an *owner* to keep alive; a context manager."""

    close: Callable[[], None]

    def __init__(self, subject: S, loop: EventLoop, owner: object = None) -> None:
        self._subject, self._loop, self._owner = subject, loop, owner

    def __repr__(self) -> str:
        return f"{type(self).__name__}({vars(self).get('_subject')})"  # None, if the constructor failed

    def __enter__(self: V) -> V:  # noqa: PYI019 - jedi takes the `Self` of a base class for the base class
        return self

    def __exit__(self, *_: object) -> None:
        despite_interrupt(self.close)  # one may arrive before anything is closed

    if not TYPE_CHECKING:  # type checkers find the mistake because there is no such method

        def __aenter__(self) -> NoReturn:
            raise TypeError(f"{type(self).__name__} needs `with`, not `async with`; async code uses neuralbox_async")

        def __aexit__(self, *_: object) -> None:
            """Never called; without it, Python reports its absence instead of the error."""


def read_here(messages: Messages) -> Messages:
    """Return *messages*; those of an iterator or a queryset as a list, because its code belongs to this thread."""
    given: Any = messages
    if isinstance(given, str | list | tuple | Mapping) or hasattr(given, "model_dump"):
        return messages
    return list(cast("Iterable[MessageLike]", given)) if isinstance(given, Iterable) else messages


def documented_by(method: Callable[..., Any]) -> Callable[[F], F]:
    """
    Return a decorator for the blocking twin of *method*: it extends its docstring to that of *method*.

    ``async with`` and ``async for`` become ``with`` and ``for``. The twin has the first paragraph already, for editors.
    """

    def decorate(twin: F) -> F:
        twin.__doc__ = method.__doc__ and _ASYNC_ONLY.sub("", method.__doc__)
        return twin

    return decorate
