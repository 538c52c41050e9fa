"""Clear errors for ``with`` and ``for`` on objects that need ``async with`` and ``async for``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn


class AsyncOnly:
    """The base of async context managers, whose ``with`` raises a `TypeError` that names ``async with``."""

    if not TYPE_CHECKING:  # type checkers find the mistake because there is no such method

        def __enter__(self) -> NoReturn:
            name = type(self).__name__
            raise TypeError(f"{name} needs `async with`, not `with`; blocking code uses neuralbox_sync")

        def __exit__(self, *_: object) -> None:
            """Never called; without it, Python reports its absence instead of the error."""


class AsyncIterationOnly:
    """The base of async iterators, whose ``for`` raises a `TypeError` that names ``async for``."""

    if not TYPE_CHECKING:  # as above

        def __iter__(self) -> NoReturn:
            name = type(self).__name__
            raise TypeError(f"{name} needs `async for`, not `for`; blocking code uses neuralbox_sync")
