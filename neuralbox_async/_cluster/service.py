"""
`CoordinatorService`: the coordinator of a batch on a cluster, to be put into an actor.

It is the one writer of the journal and the one owner of budget and rate limits. Workers call `exchange`; the driver
calls `report`, which also shows that it lives. It is thread-safe, and closes its journal itself when nobody needs it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._batch.budget import Budget
from neuralbox_async._batch.errors import BatchStateError, JournalError, outcome_unknown_error
from neuralbox_async._batch.pacer import Pacer
from neuralbox_async._call.rate_limits import RateLimits
from neuralbox_async._cluster.claims import Claims, Session, add_unresolved
from neuralbox_async._cluster.live_journal import LiveJournal
from neuralbox_async._cluster.messages import Decision, Reply
from neuralbox_async._errors import RateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from neuralbox_async._batch.options import OnChanged
    from neuralbox_async._cluster.messages import Exchange, Grant, JournalMark, LimitReport, Wanted
    from neuralbox_async._errors import NeuralBoxError

_MAX_IN_FLIGHT = 1_000_000  # the workers' own limits are lower
_MAX_KEYS = 10_000  # in a report
_HOUSEKEEPING_INTERVAL = 0.5  # seconds
_HOUSEKEEPINGS_PER_SYNC = 2
_MAX_RETRY_IN = 2.0  # seconds after which a worker asks again at the latest


@attrs.frozen(kw_only=True)
class ServiceOptions:
    """
    The options of a coordinator, validated by the driver.

    *lease*: seconds after which a worker that does not report is lost; *driver_lease*: the same for the driver.
    *restarted*: whether it replaces a coordinator that was lost, whose workers may live; then the journal is there.
    *journal_mark*: in the last report of a coordinator before, what the journal begins with. *run*: the id of the run.
    """

    journal: str
    budget: int | None = None
    max_rate: float | None = None
    on_unknown: str = "skip"
    on_changed: OnChanged = "raise"
    lease: float = 30.0
    driver_lease: float = 30.0
    restarted: bool = False
    journal_mark: JournalMark | None = None
    run: str = ""


@attrs.frozen(kw_only=True)
class ClusterReport:
    """
    The account and the requests of a batch on a cluster so far.

    * *completed*: generations of this run. *failed*: requests with an error; *refused*: responses with status 429.
      *done_before*: requests that the journal had as done when they were claimed.
    * *unresolved*: requests of all runs that may have been billed without a response; *unresolved_keys*: their keys,
      the first 10,000.
    * *in_flight*: claims that workers hold. *workers*: processes that report.
    * *tokens_used*: NeuralBox tokens billed, by all runs of the journal; *tokens_used_before*: of these, by earlier
      ones. *tokens_possibly_billed*: the price, as far as it is known, of the unresolved ones.
    * *stopped_by*: the error after which nothing more is sent, or None.
    * *calls*: exchanges with workers. *journal_size*: bytes. *journal_mark*: what the journal has, for a coordinator
      that replaces this one.
    """

    completed: int
    failed: int
    refused: int
    done_before: int
    unresolved: int
    unresolved_keys: tuple[str, ...]
    in_flight: int
    workers: int
    tokens_used: int
    tokens_used_before: int
    tokens_possibly_billed: int
    stopped_by: NeuralBoxError | None
    calls: int
    journal_size: int = 0
    journal_mark: JournalMark | None = attrs.field(default=None, repr=False)


@attrs.define(eq=False)
class _Peer:
    """A worker's session, when it is lost unless it reports, and the last exchange, which it may repeat."""

    session: Session
    expires: float
    number: int = 0
    reply: Reply = attrs.field(factory=Reply)


class CoordinatorService:
    """
    The coordinator of one batch.

    Making it opens the journal. Raises `JournalLockedError`, `JournalError`, and `OutcomeUnknownError` with
    ``on_unknown="raise"``. *on_detached* is called, in a thread, when it has ended after its driver had.
    *last_numbers*: of the exchanges of sessions that were lost or have left, which it shares with those of this process
    that had the batch before, and adds to.
    """

    def __init__(
        self,
        options: ServiceOptions,
        on_detached: Callable[[], object] = lambda: None,
        last_numbers: dict[str, int] | None = None,
    ) -> None:
        self._options, self._on_detached, self._is_detached = options, on_detached, False
        self._lock = threading.Lock()
        self._journal = LiveJournal(
            options.journal,
            begins_as=options.journal_mark,
            must_exist=options.restarted,
            run=options.run if options.on_changed == "retry" else None,
        )
        try:
            for _ in self._journal.open():
                pass
            _check_unknown(self._journal, options)
        except BaseException:
            self._journal.close()
            raise
        self._spent_before = self._journal.spent
        self._budget = _budget(self._journal, options)
        self._limits = RateLimits()
        self._pacer = Pacer(self._limits, max_in_flight=_MAX_IN_FLIGHT, rate=options.max_rate)
        self._claims = Claims(
            self._journal,
            self._budget,
            self._pacer,
            resends_unknown=options.on_unknown == "retry",
            on_changed=options.on_changed,
            waits_for_absent=options.restarted,
        )
        self._peers: dict[str, _Peer] = {}
        self._last_numbers: dict[str, int] = {} if last_numbers is None else last_numbers
        self._outcomes: Counter[str] = Counter()
        self._calls = 0
        now = time.monotonic()
        self._absent_until = now + options.lease
        self._driver_expires = now + 2 * options.driver_lease
        self._finished = threading.Event()  # no worker is expected any more
        self._closed = False
        threading.Thread(target=self._keep_house, name="neuralbox-coordinator", daemon=True).start()

    # ------------------------------------------------------------------------------------------------------ for workers

    def exchange(self, message: Exchange) -> Reply:
        """Apply what a worker reports, and answer its claims. A repeated message gets the same reply."""
        with self._lock:
            self._calls += 1
            if self._closed:
                return Reply(known=False, stopped_by=self._claims.stopped_by or _ended())
            now = time.monotonic()
            peer = self._peers.get(message.session)
            if peer is not None and message.number <= peer.number:  # repeated, perhaps after the next one
                peer.expires = now + self._options.lease
                return peer.reply
            revoked: tuple[str, ...] = ()
            if peer is None:
                is_late_copy = message.number <= self._last_numbers.get(message.session, 0)
                if is_late_copy or (message.number > 1 and message.holding is None):
                    return Reply(known=False)
                if message.mark is not None:
                    self._check_seen(message.mark)
                peer = self._peers[message.session] = _Peer(Session(), 0.0)
                revoked = self._claims.adopt(peer.session, message.holding or (), message.wanted, now)
            peer.reply = self._apply(peer.session, message, revoked, now)
            peer.number, peer.expires = message.number, now + self._options.lease
            if message.left:
                self._forget(message.session)
            return peer.reply

    def _check_seen(self, mark: JournalMark) -> None:
        try:
            self._journal.check_seen(mark)
        except JournalError as error:
            self._claims.stop(error)

    def _apply(self, session: Session, message: Exchange, revoked: tuple[str, ...], now: float) -> Reply:
        for model, price in message.prices.items():
            self._budget.quote(model, price)
        for report in message.limits:
            self._learn(report)
        for settled in message.settled:
            self._claims.settle(session, settled)
            self._outcomes[settled.outcome] += 1
        # Of an adopted session, the permits are those that are still in use.
        for observed in message.observed if message.holding is None else ():
            self._claims.observe(session, observed, now)
        if message.fatal is not None:
            self._claims.stop(message.fatal)
        self._claims.opens_in = 0.0
        # Those that were refused go first.
        wanted = sorted(message.wanted, key=lambda one: one.kind == "new")
        grants = [grant for one in wanted if (grant := self._claims.grant(session, one, now)) is not None]
        self._outcomes["done before"] += sum(grant.decision is Decision.DONE for grant in grants)
        return Reply(
            grants=tuple(grants),
            busy=self._busy(session, wanted, grants),
            revoked=revoked,
            retry_in=min(_MAX_RETRY_IN, self._claims.opens_in),
            closed_for=max(0.0, self._limits.closed_until - now),
            lease=self._options.lease,
            unpriced=self._budget.unpriced if self._budget.limited else (),
            stopped_by=self._claims.stopped_by,
            mark=self._journal.mark,
        )

    def _busy(self, session: Session, wanted: Iterable[Wanted], grants: list[Grant]) -> frozenset[str]:
        granted = {grant.id for grant in grants}
        left = [one for one in wanted if one.id not in granted]
        return frozenset(
            one.id for one in left if self._claims.previous(session, one) is None and self._claims.is_busy(one)
        )

    def _learn(self, report: LimitReport) -> None:
        if report.refused:
            error = RateLimitError(
                "429",
                status_code=429,
                retry_after=report.retry_after,
                limit_hour=report.limit_hour,
                limit_day=report.limit_day,
            )
            self._limits.record_refused(error)
        else:
            self._limits.observe(report.headers, counted=report.counted)

    # ------------------------------------------------------------------------------------------------- for the driver

    def report(self) -> ClusterReport:
        """Return the report so far. The driver calls it often, to show that it lives."""
        with self._lock:
            self._driver_expires = time.monotonic() + self._options.driver_lease
            keys = [key for key in self._journal.unresolved_keys if not self._claims.is_held(key)]
            return ClusterReport(
                completed=self._outcomes["completed"],
                failed=self._outcomes["failed"],
                refused=self._outcomes["refused"],
                done_before=self._outcomes["done before"],
                unresolved=len(keys),
                unresolved_keys=tuple(keys[:_MAX_KEYS]),
                in_flight=self._claims.count,
                workers=len(self._peers),
                tokens_used=self._budget.spent,
                tokens_used_before=self._spent_before,
                tokens_possibly_billed=self._budget.possibly_billed,
                stopped_by=self._claims.stopped_by,
                calls=self._calls,
                journal_size=self._journal.mark.size,
                journal_mark=self._journal.mark,
            )

    @property
    def is_idle(self) -> bool:
        """Whether no worker reports, and none is waited for."""
        with self._lock:
            return not self._peers and not self._claims.count and not self._claims.waits_for_absent

    def stop(self) -> None:
        """Let nothing more start; workers still report the outcomes of what is in flight. Idempotent."""
        with self._lock:
            self._claims.stop(BatchStateError("the batch was closed before this request was sent"))

    def detach(self) -> None:
        """Go on without the driver until the outcomes of what is in flight are recorded."""
        with self._lock:
            self._is_detached = True

    def finish(self, *, early: bool = False) -> bool:
        """
        End: all tasks have returned, or are lost; *early*: or were cancelled, so that outcomes may be on their way.

        Idempotent. Returns whether the journal is closed; while a worker still holds claims, or may hold some of a lost
        coordinator, it is not yet.
        """
        self.stop()
        self._finished.set()
        with self._lock:
            self._claims.waits_for_absent = self._claims.waits_for_absent and early
            self._close_if_idle()
            return self._closed

    # -------------------------------------------------------------------------------------------------------- private

    def _keep_house(self) -> None:
        turns = 0
        while not self._closed:
            time.sleep(_HOUSEKEEPING_INTERVAL)
            turns += 1
            with self._lock:
                self._check_leases(time.monotonic())
                self._close_if_idle()
            if turns % _HOUSEKEEPINGS_PER_SYNC == 0:
                self._sync()
        if self._is_detached:
            self._on_detached()

    def _check_leases(self, now: float) -> None:
        for name, peer in list(self._peers.items()):
            if now > peer.expires:
                self._forget(name)
        if self._claims.waits_for_absent and now > self._absent_until:
            self._claims.waits_for_absent = False
        if now > self._driver_expires:
            self._claims.stop(BatchStateError("the program that started the batch has ended"))
            self._is_detached = True
            self._finished.set()

    def _forget(self, name: str) -> None:
        peer = self._peers.pop(name)
        self._last_numbers[name] = peer.number
        self._claims.lose(peer.session)

    def _close_if_idle(self) -> None:
        # Workers that a lost coordinator served may still report, for the time of a lease.
        if (
            self._finished.is_set()
            and not self._claims.count
            and not self._claims.waits_for_absent
            and not self._closed
        ):
            self._closed = True
            self._pacer.close()
            self._journal.close()

    def _sync(self) -> None:
        # Without the lock: it takes as long as the disk needs. The journal is open until this thread ends.
        try:
            if not self._closed:
                self._journal.check()
                self._journal.sync()
        except JournalError as error:
            with self._lock:
                if not self._closed:
                    self._claims.stop(error)


def _ended() -> BatchStateError:
    return BatchStateError("the batch has ended")


def _check_unknown(journal: LiveJournal, options: ServiceOptions) -> None:
    keys = journal.unresolved_keys if options.on_unknown == "raise" and not options.restarted else ()
    if keys:
        raise outcome_unknown_error(keys)


def _budget(journal: LiveJournal, options: ServiceOptions) -> Budget:
    """Return the budget, less the spending of earlier runs and the requests that they may have been billed for."""
    budget = Budget(options.budget, None, journal.spent)
    for model, price in journal.prices.items():
        budget.quote(model, price)
    for unresolved in journal.unresolved:
        add_unresolved(budget, unresolved, takes_rest=options.restarted)
    return budget
