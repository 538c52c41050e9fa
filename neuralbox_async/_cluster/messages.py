"""
The messages between a coordinator and its workers: values that can be pickled, without a key, a prompt or a client.

A worker sends an `Exchange` and gets a `Reply`. Its parts: `Wanted` claims, which a `Grant` answers, `Settled` claims,
and observations of the server.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias

import attrs

from neuralbox_async._batch import journal_lines
from neuralbox_async._batch.coordinator import ServerSignal
from neuralbox_async._batch.key_status import Unresolved
from neuralbox_async._errors import APIConnectionError, NeuralBoxError


class Decision(enum.Enum):
    """The answer to a claim."""

    SEND = enum.auto()  # its start is in the journal: send it before the lease expires
    DONE = enum.auto()  # it has its generation
    ASK = enum.auto()  # accepted: the outcome is to be retrieved by the id of its generation
    UNRESOLVED = enum.auto()  # sent, without an outcome; it may be billed
    INVALID = enum.auto()  # its generations are not of the output type; a repair may be claimed
    CHANGED = enum.auto()  # earlier runs sent another request with this key
    STOPPED = enum.auto()  # nothing more is sent


ClaimKind: TypeAlias = Literal["new", "again", "repair"]
"""Of a claim: of a request, of one that got a 429 and is sent again, or of the repair of an invalid generation."""

Outcome: TypeAlias = Literal[
    "completed", "invalid", "failed", "accepted", "refused", "unresolved", "withdrawn", "released"
]
"""Of a claim. After ``"accepted"``, ``"refused"`` and ``"invalid"`` the worker still holds it."""


_IDEMPOTENCY_KEY: Any = attrs.Factory(lambda self: self.idempotency_key, takes_self=True)


@attrs.frozen(kw_only=True)
class Wanted:
    """
    A claim of *key*, for a request of *model* whose body has the hash *request_hash* (None: the key itself is that).

    *id*: of this claim, unique. *idempotency_key*: of a request that has one already; None: *id*. *previous*: the id of
    the claim that this one follows, unless its *kind* is ``"new"``; None: whatever the session holds of *key*.
    """

    id: str
    key: str
    model: str
    request_hash: str | None = None
    kind: ClaimKind = "new"
    idempotency_key: str | None = None
    previous: str | None = None


@attrs.frozen(kw_only=True)
class Grant:
    """
    The answer to the claim *id*.

    *idempotency_key*: to be sent, of SEND. *claim_id*: of the claim that the request, which an outcome is to be
    reported of, was sent for. *reserved*: tokens of the budget. *unresolved*: what is known of a request without an
    outcome. *lines*: of the journal: of the generation of DONE, or of the invalid generations. *text*, *body*: what had
    arrived of the response of UNRESOLVED.
    """

    id: str
    decision: Decision
    idempotency_key: str = ""
    claim_id: str = ""
    reserved: int | None = None
    unresolved: Unresolved | None = None
    lines: tuple[bytes, ...] = ()
    text: str = ""
    body: bytes = b""


@attrs.frozen(kw_only=True)
class Held:
    """
    A claim that a worker holds, for a coordinator that was restarted. *counted*: whether it has a permit.

    *claim_id*: see `Settled`.
    """

    key: str
    model: str
    idempotency_key: str
    reserved: int | None
    counted: bool
    claim_id: str = _IDEMPOTENCY_KEY


@attrs.frozen(kw_only=True)
class Settled:
    """
    The outcome of the claim of *key*, whose request had *idempotency_key*.

    *line*: for the journal; None without one. *tokens_used*: None when they are unknown. *claim_id*: what identifies
    the request: one that is sent once more has the idempotency key of the first one.
    """

    key: str
    model: str
    idempotency_key: str
    outcome: Outcome
    line: bytes | None = None
    tokens_used: int | None = None
    claim_id: str = _IDEMPOTENCY_KEY


def unsent_line(key: str) -> bytes:
    """Return the line of the journal for the request of *key*, whose start it has, and which was not sent."""
    error = APIConnectionError("the request was cancelled before it was sent")
    return journal_lines.failed(key, error, None, attempts=0, elapsed=0.0)


@attrs.frozen
class Observed:
    """The end of a request that started *age* seconds ago, and what it shows of the server."""

    signal: ServerSignal
    age: float


@attrs.frozen(kw_only=True)
class LimitReport:
    """
    What a response showed of the rate limits: its *headers* about them, or a 429.

    *counted*: whether the request counted against the limits. *retry_after* (seconds), *limit_hour*, *limit_day*: of a
    429, if *refused*.
    """

    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    counted: bool = True
    refused: bool = False
    retry_after: float | None = None
    limit_hour: int | None = None
    limit_day: int | None = None


@attrs.frozen
class JournalMark:
    """
    What a journal had at a moment: *size* bytes of lines with this *checksum*.

    *journal*: its own id, empty if one machine has made it; *writer*: the id of the coordinator.
    """

    size: int
    checksum: int
    journal: str
    writer: str


@attrs.frozen(kw_only=True)
class Exchange:
    """
    What the worker *session* has to report and wants, its *number* from 1. A repeated one has the same number.

    *holding*: all claims that it holds, for a coordinator that does not know the session, with a new number; *mark*:
    that of the last reply, for the same. *left*: the session ends.
    """

    session: str
    number: int
    wanted: tuple[Wanted, ...] = ()
    settled: tuple[Settled, ...] = ()
    observed: tuple[Observed, ...] = ()
    limits: tuple[LimitReport, ...] = ()
    prices: Mapping[str, int] = attrs.field(factory=dict[str, int])
    fatal: NeuralBoxError | None = None
    holding: tuple[Held, ...] | None = None
    mark: JournalMark | None = None
    left: bool = False


@attrs.frozen(kw_only=True)
class Reply:
    """
    The answer to an `Exchange`.

    *known*: False when the coordinator does not know the session: nothing was done, and the exchange is to be sent
    again, with *holding*. *grants*: the claims that are answered; the others are to be sent again. *busy*: the ids of
    claims whose keys others hold. *revoked*: keys that the session held and that are no more its own. *retry_in*:
    seconds until claims can be granted, as far as it is known. *closed_for*: seconds of a rate limit during which
    nothing may be sent. *lease*: seconds for which the session's claims are its own. *unpriced*: models whose prices
    the budget needs. *stopped_by*: the reason why nothing more is sent. *mark*: of the journal, with all that.
    """

    known: bool = True
    grants: tuple[Grant, ...] = ()
    busy: frozenset[str] = frozenset()
    revoked: tuple[str, ...] = ()
    retry_in: float = 0.0
    closed_for: float = 0.0
    lease: float = 30.0
    unpriced: tuple[str, ...] = ()
    stopped_by: NeuralBoxError | None = None
    mark: JournalMark | None = None


class Link(Protocol):
    """The way to a coordinator. Blocking; from one thread at a time."""

    def exchange(self, message: Exchange, /) -> Reply:
        """Return the reply to *message*. Raises any exception when the coordinator cannot be reached."""
        ...
