"""The states of a stream, the transitions between them, and its iterator of texts, which is read in the same states."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Self

from neuralbox_async._async_only import AsyncIterationOnly
from neuralbox_async._errors import StreamStateError
from neuralbox_async._types import GenerationStart

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class StreamState(enum.Enum):
    """
    The state of a stream.

        NEW --enter--> OPENING --head of the response--> OPEN --terminal event--> ENDED --drained--> COMPLETE
                                                         |  |                      ^
                                                         |  +-failure, recovered---+
                                                         +-failure, not recovered--> INTERRUPTED

    Closing leads from NEW, OPENING and OPEN to CLOSED. From ENDED it leads to COMPLETE when every event was delivered,
    and to CLOSED otherwise. COMPLETE, INTERRUPTED and CLOSED are final: closing changes nothing. A stream that cannot
    be opened stays OPENING, and can only be closed.
    """

    NEW = enum.auto()
    OPENING = enum.auto()
    OPEN = enum.auto()
    ENDED = enum.auto()
    COMPLETE = enum.auto()
    INTERRUPTED = enum.auto()
    CLOSED = enum.auto()


# Each read compares with these; in Python 3.11 a lookup in the class takes longer than a call (benchmark `live`).
ENDED, COMPLETE, CLOSED = StreamState.ENDED, StreamState.COMPLETE, StreamState.CLOSED

_S = StreamState
TRANSITIONS: dict[StreamState, frozenset[StreamState]] = {
    _S.NEW: frozenset({_S.OPENING, _S.CLOSED}),
    _S.OPENING: frozenset({_S.OPEN, _S.CLOSED}),
    _S.OPEN: frozenset({_S.ENDED, _S.INTERRUPTED, _S.CLOSED}),
    _S.ENDED: frozenset({_S.COMPLETE, _S.CLOSED}),
}
"""The states that may follow each state; none follows the others."""


def check_not_ended(state: StreamState) -> None:
    """Raise `StreamStateError` when an iteration begins in a *state* in which nothing follows: it would be empty."""
    if state is StreamState.COMPLETE:
        msg = "the stream was read to its end, and can be read only once; `generation` has its text"
        raise StreamStateError(msg)
    if state is StreamState.CLOSED:
        msg = "the stream is closed: read it inside the block that opened it"
        raise StreamStateError(msg)


def first_known(known: GenerationStart, start: GenerationStart) -> GenerationStart:
    """Return the first id and the first model of *known* and *start*, a repeated one."""
    return GenerationStart(
        start.id if known.id is None else known.id,
        start.model if known.model is None else known.model,
        problems=known.problems or start.problems,
    )


class TextStream(AsyncIterator[str], AsyncIterationOnly):
    """The texts of *stream*, each of which *next_text* returns."""

    def __init__(self, stream: AsyncIterator[Any], next_text: Callable[[], Coroutine[Any, Any, str]]) -> None:
        self._stream, self._next_text = stream, next_text

    def __aiter__(self) -> Self:
        aiter(self._stream)
        return self

    def __anext__(self) -> Coroutine[Any, Any, str]:
        return self._next_text()
