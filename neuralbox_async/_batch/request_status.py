"""The states of a request of a batch, and which may follow which."""

from __future__ import annotations

import enum


class RequestStatus(enum.IntEnum):  # integers, because their hashes are fast
    r"""
    The states of a request.

        CLAIMED --sent--> SENT --response--> COMPLETED, FAILED
           |              |  \--pending--> ACCEPTED --status requests--> COMPLETED, FAILED
           |              +--429--> REFUSED --sent again--> SENT
           |              +--not of the output type--> INVALID --repair admitted--> CLAIMED
           +--pending since an earlier run--> ACCEPTED

    ACCEPTED becomes INVALID as well. INVALID is the end unless a repair is admitted.
    SENT becomes FAILED as well when the journal cannot record it: then nothing is sent. SENT and ACCEPTED become
    UNRESOLVED when the outcome stays unknown: the request may be billed. CLAIMED, SENT and REFUSED become WITHDRAWN
    when the batch ends before the request leaves this machine (again).
    """

    CLAIMED = enum.auto()
    SENT = enum.auto()
    ACCEPTED = enum.auto()
    REFUSED = enum.auto()
    COMPLETED = enum.auto()
    FAILED = enum.auto()
    UNRESOLVED = enum.auto()
    WITHDRAWN = enum.auto()
    INVALID = enum.auto()


TRANSITIONS: dict[RequestStatus, frozenset[RequestStatus]] = {
    RequestStatus.CLAIMED: frozenset({RequestStatus.SENT, RequestStatus.ACCEPTED, RequestStatus.WITHDRAWN}),
    RequestStatus.SENT: frozenset(RequestStatus) - {RequestStatus.CLAIMED, RequestStatus.SENT},
    RequestStatus.ACCEPTED: frozenset(
        {RequestStatus.COMPLETED, RequestStatus.FAILED, RequestStatus.UNRESOLVED, RequestStatus.INVALID}
    ),
    RequestStatus.REFUSED: frozenset({RequestStatus.SENT, RequestStatus.WITHDRAWN}),
    RequestStatus.INVALID: frozenset({RequestStatus.CLAIMED}),
}
"""The states that may follow each state; none follows the others."""
