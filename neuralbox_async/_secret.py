"""A string that does not show itself, so that a key can travel through other people's frames, reprs and logs."""

from __future__ import annotations

from typing import NoReturn


class Secret(str):
    """
    A string whose `repr` is ``'***'`` and that refuses to be pickled.

    It stays an ordinary `str` for whoever sends it: only what prints values (debuggers, tracebacks with locals,
    the reprs of dicts and headers) is kept from the text.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce__(self) -> NoReturn:
        msg = "a key is not pickled"
        raise TypeError(msg)
