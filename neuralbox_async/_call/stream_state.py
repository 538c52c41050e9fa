"""The states of a stream, and the transitions between them."""

from __future__ import annotations

import enum


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


_S = StreamState
TRANSITIONS: dict[StreamState, frozenset[StreamState]] = {
    _S.NEW: frozenset({_S.OPENING, _S.CLOSED}),
    _S.OPENING: frozenset({_S.OPEN, _S.CLOSED}),
    _S.OPEN: frozenset({_S.ENDED, _S.INTERRUPTED, _S.CLOSED}),
    _S.ENDED: frozenset({_S.COMPLETE, _S.CLOSED}),
}
"""The states that may follow each state; none follows the others."""
