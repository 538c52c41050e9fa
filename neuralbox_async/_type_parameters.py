"""The type of the values of typed answers, a parameter of the classes that have such values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # that of Python 3.13, which has defaults; every type checker knows it

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")
