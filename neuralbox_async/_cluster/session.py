"""
The session of a worker process with the coordinator: few exchanges for many claims and outcomes.

Claims wait here until an exchange brings their answers. Nothing is sent after the lease has expired, which the worker
counts from before its last exchange. An outcome is kept until the coordinator has confirmed it.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._batch.coordinator import ServerSignal
from neuralbox_async._batch.errors import BatchStateError, JournalError
from neuralbox_async._batch.notifier import Notifier
from neuralbox_async._cluster.messages import Decision, Exchange, Grant, Held, Observed, Settled, Wanted, unsent_line
from neuralbox_async._errors import NeuralBoxError
from neuralbox_async._lazy_imports import anyio
from neuralbox_async._logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._cluster.learned_limits import LearnedLimits
    from neuralbox_async._cluster.messages import JournalMark, Link, Reply

_MIN_INTERVAL, _MAX_INTERVAL = 0.01, 0.25  # seconds between two exchanges
_PART_OF_LATENCY = 0.02  # which a free place may wait for an exchange
_SETTLE_WITHIN = 0.25  # seconds after which an outcome is reported at the latest
_BUSY_INTERVAL = 0.5  # seconds until a claim is repeated whose key another one holds
_RECONNECT_INTERVAL = 0.5
_MAX_AHEAD = 64  # claims that wait for a place
_SMOOTHING = 0.3
_RATE_WINDOW = 0.5  # seconds


class ClaimLostError(JournalError):
    """The lease had expired, and the key belongs to another claim now; the request was not sent."""


@attrs.define(eq=False)
class _Open:
    """A claim without an answer; *is_busy*: another one holds its key; *next_at*: it is not sent again before."""

    wanted: Wanted
    answered: anyio.Event = attrs.field(factory=lambda: anyio.Event())  # noqa: PLW0108 - loaded late
    grant: Grant | None = None
    was_sent: bool = False
    is_busy: bool = False
    next_at: float = 0.0


@attrs.frozen
class _Ended:
    """A request that *started* then, and what its end shows of the server."""

    signal: ServerSignal
    started: float


class WorkerSession:
    """
    One worker process in one batch. All methods belong to one event loop; `run` has to run while it is used.

    *connect* returns the link to the coordinator, each time that it has to be found again; it blocks, and may raise.
    *reconnect_timeout*: seconds after which a lost coordinator is not waited for any more; *on_lost* is called each
    time that it could not be reached.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Link],
        limits: LearnedLimits,
        *,
        reconnect_timeout: float,
        width: int,
        on_lost: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        self.unpriced: tuple[str, ...] = ()
        self.stopped_by: NeuralBoxError | None = None
        self.ahead = width // 4 + 1  # claims that may wait for a place, so that no place waits for an exchange
        self._on_lost = on_lost
        self._connect, self._limits, self._reconnect_timeout = connect, limits, reconnect_timeout
        self._link: Link | None = None
        self._changed, self._confirmed = Notifier(), Notifier()
        self._open: dict[str, _Open] = {}
        self._cancelled: dict[str, Wanted] = {}  # claims in the exchange that runs
        self._held: dict[str, Held] = {}
        self._ended_claims: list[Held] = []  # whose outcomes are in no message yet
        self._revoked: set[str] = set()  # claims
        self._settled: list[Settled] = []
        self._ended: list[_Ended] = []
        self._prices: dict[str, int] = {}  # to be reported
        self._known_prices: dict[str, int] = {}
        self._fatal: NeuralBoxError | None = None
        self._number = 0
        self._unconfirmed = 0  # outcomes in the exchange that runs
        self._flushing = 0
        self._expires = -math.inf
        self._last, self._interval, self._retry_at = -math.inf, _MIN_INTERVAL, 0.0
        self._lease = 30.0
        self._latency = self._rate = self._trip = 0.0
        self._ended_since, self._counted_since = 0, -math.inf
        self._failure: NeuralBoxError | None = None
        self._mark: JournalMark | None = None  # of the last reply

    # ----------------------------------------------------------------------------------------------------------- claims

    async def claim(self, wanted: Wanted) -> Grant:
        """Return the answer to *wanted*, as soon as there is one. Raises `NeuralBoxError` without a coordinator."""
        if self._failure is not None:
            raise self._failure
        self._open[wanted.id] = one = _Open(wanted)
        self._changed.notify_all()
        try:
            await one.answered.wait()
        except BaseException:
            if one.grant is not None:
                self._give_back(wanted, one.grant)
            elif one.was_sent:
                self._cancelled[wanted.id] = wanted
            raise
        finally:
            self._open.pop(wanted.id, None)
        if one.grant is None:
            raise self._lost_error()
        return one.grant

    def _lost_error(self) -> NeuralBoxError:
        return self._failure or BatchStateError("the worker has ended")

    def _give_back(self, wanted: Wanted, grant: Grant) -> None:
        """Report that nothing will be sent for *grant*, because its claim was cancelled."""
        if grant.decision in {Decision.SEND, Decision.ASK, Decision.INVALID}:
            is_start = grant.decision is Decision.SEND
            self.settle(
                Settled(
                    key=wanted.key,
                    model=wanted.model,
                    idempotency_key=grant.idempotency_key or wanted.id,
                    claim_id=grant.claim_id,
                    outcome="withdrawn" if is_start else "unresolved",
                    line=unsent_line(wanted.key) if is_start else None,
                    tokens_used=0,
                )
            )
            if is_start:
                self._ended.append(_Ended(ServerSignal.NONE, time.monotonic()))

    async def check_lease(self, claim_id: str) -> None:
        """Wait until the lease is valid. Raises `ClaimLostError` when the claim is not this session's any more."""
        while time.monotonic() >= self._expires and self._failure is None:
            await self._confirmed.wait(1.0)
        if self._failure is not None or claim_id in self._revoked:
            raise ClaimLostError("the lease of this request expired before it was sent")

    @property
    def has_failed(self) -> bool:
        """Whether no coordinator can be reached any more."""
        return self._failure is not None

    @property
    def busy(self) -> int:
        """The number of claims whose keys other claims hold."""
        return sum(one.is_busy for one in self._open.values())

    def holds(self, key: str, claim_id: str | None) -> bool:
        """Return whether this session holds *key*, for that claim: it may have lost it, and got it for another row."""
        held = self._held.get(key)
        return held is not None and held.claim_id == claim_id

    def settle(self, settled: Settled) -> None:
        """Report an outcome."""
        if settled.outcome not in {"accepted", "refused", "invalid"}:
            self._revoked.discard(settled.claim_id)
            if self.holds(settled.key, settled.claim_id):
                self._ended_claims.append(self._held.pop(settled.key))
        self._settled.append(settled)
        self._changed.notify_all()

    def observe(self, key: str, claim_id: str, signal: ServerSignal, started: float) -> None:
        """Report the end of the request of a claim, which started at *started* (`time.monotonic`)."""
        if self.holds(key, claim_id):
            self._held[key] = attrs.evolve(self._held[key], counted=False)
        self._ended.append(_Ended(signal, started))
        self._latency += _SMOOTHING * (time.monotonic() - started - self._latency)
        self._ended_since += 1
        self._changed.notify_all()

    def quote(self, model: str, price: int) -> None:
        """Report the price of *model*."""
        self._prices[model] = self._known_prices[model] = price

    def fail(self, error: NeuralBoxError) -> None:
        """Report an *error* after which no request can succeed."""
        self._fatal = self._fatal or error
        self._changed.notify_all()

    async def flush(self) -> None:
        """Wait until the coordinator has confirmed all outcomes so far. Raises `NeuralBoxError` without one."""
        self._flushing += 1
        try:
            while self._settled or self._unconfirmed:
                if self._failure is not None:
                    raise self._failure
                self._changed.notify_all()
                await self._confirmed.wait(1.0)
        finally:
            self._flushing -= 1

    # -------------------------------------------------------------------------------------------------------- exchanges

    async def run(self) -> None:
        """Exchange messages until it is cancelled, or the coordinator is lost for good."""
        try:
            while True:
                delay = self._due - time.monotonic()
                if delay > 0:
                    await self._changed.wait(delay)
                else:
                    await self._exchange()
        except NeuralBoxError as error:
            self._failure = error
        finally:
            for one in self._open.values():
                one.answered.set()
            self._confirmed.notify_all()

    async def leave(self) -> None:
        """Tell the coordinator that this session ends, if it can be reached."""
        if self._failure is None and self._number > 0:
            self._number += 1
            try:
                await self._deliver(Exchange(session=self.name, number=self._number, left=True), patience=0.0)
            except NeuralBoxError:
                logger.info("the coordinator of the batch could not be reached at the end of a worker")

    @property
    def _due(self) -> float:
        """When the next exchange is to start."""
        soon = self._last + self._interval
        due = self._last + self._lease / 3
        if self._fatal is not None or (self._flushing and self._settled):
            return soon
        if self._settled:
            due = min(due, self._last + max(self._interval, _SETTLE_WITHIN))
        for one in self._open.values():
            if not one.was_sent or (self._ended and not one.is_busy):
                return soon  # it is new, or a request of this worker has made room
            due = min(due, max(soon, one.next_at))
        return due

    async def _exchange(self) -> None:
        started = time.monotonic()
        self._number += 1
        settled, self._settled, self._ended_claims = self._settled, [], []
        ended, self._ended = self._ended, []
        prices, self._prices = self._prices, {}
        limits, self._limits.reports = self._limits.reports, []
        fatal, self._fatal = self._fatal, None
        self._unconfirmed = len(settled)
        wanted: list[Wanted] = []
        for one in self._open.values():
            if one.grant is not None:  # its row may have sent the request by the time this message arrives
                continue
            if one.next_at <= started or not one.was_sent or (ended and not one.is_busy):
                wanted.append(one.wanted)
                one.was_sent = True
        message = Exchange(
            session=self.name,
            number=self._number,
            wanted=tuple(wanted),
            settled=tuple(settled),
            observed=tuple(Observed(one.signal, started - one.started) for one in ended),
            limits=tuple(limits),
            prices=prices,
            fatal=fatal,
        )
        reply, sent_at = await self._deliver(message)
        self._unconfirmed = 0
        self._apply(reply, sent_at)
        self._adapt(started)
        self._confirmed.notify_all()

    async def _deliver(self, message: Exchange, patience: float | None = None) -> tuple[Reply, float]:
        """Return the reply, and when the message was sent. Raises `NeuralBoxError` when no coordinator takes it."""
        lost_at: float | None = None
        while True:
            sent_at = time.monotonic()
            try:
                # Not abandoned on cancellation: only one thread may use a link.
                reply = await anyio.to_thread.run_sync(self._send, message)
            except NeuralBoxError:
                raise
            except Exception as error:  # noqa: BLE001 - of any transport
                lost_at = sent_at if lost_at is None else lost_at
                self._link = None
                self._on_lost()
                if sent_at - lost_at >= (self._reconnect_timeout if patience is None else patience):
                    lost = "the coordinator of the batch was lost; outcomes that it has not confirmed are unresolved"
                    raise BatchStateError(f"{lost} ({type(error).__name__})") from None
                await anyio.sleep(_RECONNECT_INTERVAL)
                continue
            if reply.known:
                return reply, sent_at
            if reply.stopped_by is not None:  # it has closed its journal
                raise reply.stopped_by
            self._number += 1  # otherwise it would look like a late copy
            message = attrs.evolve(
                message,
                number=self._number,
                holding=tuple({one.key: one for one in (*self._ended_claims, *self._held.values())}.values()),
                mark=self._mark,
                prices=self._known_prices.copy(),
            )

    def _send(self, message: Exchange) -> Reply:
        if self._link is None:
            self._link = self._connect()
        return self._link.exchange(message)

    def _apply(self, reply: Reply, sent_at: float) -> None:
        self._lease, self._expires = reply.lease, sent_at + reply.lease
        self.unpriced, self._mark = reply.unpriced, reply.mark
        self.stopped_by = self.stopped_by or reply.stopped_by
        self._limits.close_for(reply.closed_for)
        self._revoked.update(self._held[key].claim_id for key in reply.revoked if key in self._held)
        now = time.monotonic()
        for grant in reply.grants:
            if (one := self._open.get(grant.id)) is not None:
                self._hold(one.wanted, grant)
                one.grant = grant
                one.answered.set()
            elif (wanted := self._cancelled.get(grant.id)) is not None:
                self._give_back(wanted, grant)
        self._cancelled.clear()
        for one in self._open.values():
            if one.grant is None:
                one.is_busy = one.wanted.id in reply.busy
                one.next_at = now + (_BUSY_INTERVAL if one.is_busy else reply.retry_in)

    def _hold(self, wanted: Wanted, grant: Grant) -> None:
        if grant.decision in {Decision.SEND, Decision.ASK, Decision.INVALID}:
            self._revoked.discard(grant.claim_id)
            self._held[wanted.key] = Held(
                key=wanted.key,
                model=wanted.model,
                idempotency_key=grant.idempotency_key or wanted.id,
                claim_id=grant.claim_id,
                reserved=grant.reserved,
                counted=grant.decision is Decision.SEND,
            )
        elif grant.decision is not Decision.STOPPED and self.holds(wanted.key, wanted.previous):
            del self._held[wanted.key]  # another one has had the key since the claim before

    def _adapt(self, started: float) -> None:
        """Set the interval, and the claims that may wait, by what requests and exchanges take."""
        now = time.monotonic()
        if now - self._counted_since >= _RATE_WINDOW:
            self._rate = self._ended_since / (now - self._counted_since)
            self._ended_since, self._counted_since = 0, now
        self._trip += _SMOOTHING * (min(_MAX_INTERVAL, now - started) - self._trip)
        self._interval = min(_MAX_INTERVAL, max(_MIN_INTERVAL, _PART_OF_LATENCY * self._latency))
        if self._rate:
            self.ahead = min(_MAX_AHEAD, 1 + math.ceil(2 * self._rate * (self._interval + self._trip)))
        self._last = now
