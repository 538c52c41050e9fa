"""
The `Coordinator` of a batch: the one owner of the account's state (journal, budget, rate limits).

Requests reach it through awaitable methods that pass values, so that it can stand in another process. Each method
updates the journal first, then the budget. A journal that cannot be written is reported by the methods that record an
outcome as a return value: the outcome stands nevertheless, because it is paid for.
"""

from __future__ import annotations

import enum
import math
import time
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._batch.claim import Claim
from neuralbox_async._batch.errors import JournalError
from neuralbox_async._batch.notifier import Notifier
from neuralbox_async._errors import InvalidParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neuralbox_async._batch.budget import Budget
    from neuralbox_async._batch.journal import Journal
    from neuralbox_async._batch.journal_entries import JournalEntry
    from neuralbox_async._batch.pacer import Pacer
    from neuralbox_async._batch.results import BatchResult
    from neuralbox_async._types import GenerationId


class ServerSignal(enum.Enum):
    """The information about the server in the end of a request."""

    ADMITTED = enum.auto()  # it accepted the request, whatever its outcome
    PUSHED_BACK = enum.auto()  # it refused the request: 429
    FAILED = enum.auto()  # no response, or the model is unavailable
    NONE = enum.auto()  # the request ended for another reason


_ADMITTED = ServerSignal.ADMITTED  # in Python 3.11 the lookup takes as long as a call


@attrs.frozen(kw_only=True)
class AccountReport:
    """
    The account in this batch.

    *spent_before*: NeuralBox tokens that earlier runs spent. *possibly_billed*: the price, as far as it is known, of
    requests of all runs that may have been billed without a response. *rate_limited*: responses with status 429.
    """

    spent_before: int
    possibly_billed: int
    rate_limited: int


class Coordinator:
    """
    Coordinates the requests of one batch: who has which key, who may send, and what was spent.

    *journal*: None without one. *on_limit* is called with the time (`time.monotonic`) when a rate limit that delays
    the batch ends, or None when none does.
    """

    def __init__(
        self, journal: Journal | None, budget: Budget, pacer: Pacer, on_limit: Callable[[float | None], None]
    ) -> None:
        self._journal, self._budget, self._pacer, self._on_limit = journal, budget, pacer, on_limit
        self.has_journal = journal is not None
        """Whether there is a journal to be synced."""
        self._changed = Notifier()
        self._sending = True
        self.postponed = 0  # requests that wait to be sent again; they go first
        self._journal_error: JournalError | None = None
        self._rate_limited = 0

    # ---------------------------------------------------------------------------------------------------------- claim

    async def response_of(self, claim: Claim) -> tuple[str, bytes]:
        """Return what had arrived of a response to *claim* in earlier runs: a text, or else a part of its body."""
        if self._journal is None or claim.unresolved is None:
            return "", b""
        return self._journal.response_of(claim.unresolved)

    async def earlier_result(self, claim: Claim) -> JournalEntry:
        """Return the ``"done"`` entry of *claim* from an earlier run. Raises `JournalError`."""
        if self._journal is None:
            raise AssertionError("without a journal, nothing is done")
        return self._journal.done_entry(claim.key)

    async def invalid_entries(self, claim: Claim) -> tuple[JournalEntry, ...]:
        """Return the ``"invalid"`` entries of *claim* from earlier runs. Raises `JournalError`."""
        return () if self._journal is None else self._journal.entries_at(claim.invalid)

    async def claim(self, key: str, model: str, *, may_number: bool, request_hash: str | None = None) -> Claim:
        """
        Claim *key* for a request of *model*; *request_hash*: see `Claim`.

        A key that this batch has claimed already gets a number if it *may_number*; otherwise raises
        `InvalidParameterError`.
        """
        if self._journal is None:
            return Claim(key, model)
        claimed = self._journal.claim(key, request_hash)
        if claimed is None and may_number:
            key = self._journal.number(key)
            claimed = self._journal.claim(key, request_hash)
        if claimed is None:
            raise InvalidParameterError("key", key, "different for each request of a batch")
        status, unresolved, changed, invalid = claimed
        return Claim(key, model, status, unresolved, request_hash, changed, invalid)

    def expects_claims(self, remaining: int | None) -> bool:
        """
        Return whether inputs that were not read yet may be done or pending since earlier runs.

        *remaining*: how many inputs there are, None when that is unknown: perhaps without an end.
        """
        if self._journal is None:
            return False
        # Done ones need not be found, except to count them.
        return self._journal.pending_left > 0 or (remaining is not None and self._journal.done_left > 0)

    # ---------------------------------------------------------------------------------------------------------- admit

    @property
    def has_budget(self) -> bool:
        """Whether the tokens that the batch may spend are limited."""
        return self._budget.limited

    async def models_to_price(self, model: str) -> tuple[str, ...]:
        """Return the models whose prices the budget needs to know before a request of *model*."""
        return (*self._budget.unpriced, model)

    async def quote(self, model: str, price: int) -> None:
        """Record that a generation of *model* costs at most *price* NeuralBox tokens."""
        self._budget.quote(model, price)

    async def admit(self, claim: Claim) -> int | None:
        """
        Wait until budget and rate limits let the request of *claim* start, and record its start.

        A pending one need not wait: to retrieve its outcome costs nothing. Returns the reserved tokens, None without a
        budget or when the price is unknown. Raises `BudgetReachedError` when the budget does not cover it, and
        `NotAdmittedError` when nothing more is to be sent.
        """
        if claim.is_pending:
            self._budget.begin_retrieval()
            return None
        if not self._budget.limited:
            await self._start()
            return None
        await self._reserve(claim.model)
        return await self._start_reserved(claim.model, again=False)

    async def admit_repair(self, claim: Claim) -> int | None:
        """Do the same as `admit` for a further request of *claim*, which starts before new ones."""
        # It counts as postponed only with its reservation: a new request may have one and wait for it.
        await self._reserve(claim.model)
        self.postponed += 1
        try:
            return await self._start_reserved(claim.model, again=True)
        finally:
            self.postponed -= 1
            self._changed.notify_all()

    async def _reserve(self, model: str) -> None:
        while not (self._sending and self._budget.reserve(model)):
            if not self._sending:
                raise NotAdmittedError
            if not self._budget.holding:
                raise self._budget.reached_error(model)
            await self._changed.wait()

    async def _start_reserved(self, model: str, *, again: bool) -> int | None:
        try:
            await self._start(again=again)
        except BaseException:
            self._budget.settle(model, 0)
            raise
        return self._budget.price(model) if self._budget.limited else None

    async def admit_again(self) -> None:
        """Wait until the rate limits let a refused request start again. Raises `NotAdmittedError`."""
        self.postponed += 1
        try:
            await self._start(again=True)
        finally:
            self.postponed -= 1
            self._changed.notify_all()

    async def _start(self, *, again: bool = False) -> None:
        while self._sending:
            now = time.monotonic()
            delay = self._pacer.delay(now)
            self._on_limit(self._pacer.opens_at)
            if delay <= 0 and (again or not self.postponed):
                self._pacer.record_start(now)
                return
            await self._changed.wait(delay if 0 < delay < math.inf else None)
        raise NotAdmittedError

    # ------------------------------------------------------------------------------------------- on the way, outcomes

    async def record_sent(self, claim: Claim, idempotency_key: str, reserved: int | None) -> None:
        """Record in the journal that the request of *claim* is about to be sent. Raises `JournalError`."""
        if self._journal is not None:
            self._journal.write_start(claim.key, idempotency_key, claim.model, reserved, claim.request_hash)

    async def observe(self, signal: ServerSignal, started: float) -> None:
        """Learn the pace from the end of a request that started at *started* (`time.monotonic`)."""
        if signal is _ADMITTED:
            self._pacer.record_admitted()
        elif signal is ServerSignal.PUSHED_BACK:
            self._pacer.record_pushed_back(time.monotonic(), started)
        elif signal is ServerSignal.FAILED:
            self._pacer.record_failed(time.monotonic(), started)
        else:
            self._pacer.record_ended()
        self._changed.notify_all()

    async def record_accepted(self, claim: Claim, generation_id: GenerationId) -> JournalError | None:
        """Record in the journal that the API accepted the request of *claim*. Returns the error of the journal."""
        if self._journal is not None:
            try:
                self._journal.write_pending(claim.key, generation_id)
            except JournalError as error:
                return self._lost(error)
        return None

    async def record_completed(
        self,
        claim: Claim,
        result: BatchResult,
        body: bytes,
        *,
        is_valid: bool = True,
        tokens_of_invalid: Sequence[int | None] = (),
    ) -> JournalError | None:
        """
        Record the generation of *result*, with the *body* of its response. Returns the error of the journal.

        *is_valid*, *tokens_of_invalid*: see `Journal.write_done`; *result* has the tokens of this generation alone.
        """
        error = None
        if self._journal is not None and result.generation is not None:
            try:
                self._journal.write_done(
                    claim.key,
                    result.generation,
                    body,
                    attempts=result.attempts,
                    elapsed=result.elapsed,
                    tokens_used=result.tokens_used,
                    is_valid=is_valid,
                    tokens_of_invalid=tokens_of_invalid,
                )
            except JournalError as refused:
                error = refused
        self._settle(claim, result.tokens_used)
        return error if error is None else self._lost(error)

    async def record_failed(
        self, claim: Claim, result: BatchResult, generation_id: GenerationId | None
    ) -> JournalError | None:
        """Record the error of *result*; *generation_id* if it was accepted. Returns the error of the journal."""
        error = None if self._journal is None else _write_failed(self._journal, claim, result, generation_id)
        self._settle(claim, result.tokens_used)
        return self._lost(error)

    async def record_refused(
        self, claim: Claim, result: BatchResult, generation_id: GenerationId | None
    ) -> JournalError | None:
        """Record a 429, after which the request is sent again: its reservation stays. Returns the journal's error."""
        self._rate_limited += 1
        error = None if self._journal is None else _write_failed(self._journal, claim, result, generation_id)
        return self._lost(error)

    async def record_unresolved(self, claim: Claim) -> None:
        """Record that the request ended without a response and may be billed. The journal has its start."""
        self._settle(claim, None)

    async def record_withdrawn(self, claim: Claim) -> None:
        """Record that the request, which is new or was refused, will not be sent. The journal has its state."""
        self._settle(claim, 0)

    def _lost(self, error: JournalError | None) -> JournalError | None:
        """Remember the first *error* with which the journal refused an outcome, and return *error*."""
        self._journal_error = self._journal_error or error
        return error

    def _settle(self, claim: Claim, tokens_used: int | None) -> None:
        """Record in the budget that *tokens_used* were billed, None when that is unknown."""
        if claim.unresolved is not None and claim.is_pending:
            self._budget.resolve(claim.unresolved.model, claim.unresolved.reserved, tokens_used)
        else:
            self._budget.settle(claim.model, tokens_used)
        if self._budget.limited:
            self._changed.notify_all()

    # --------------------------------------------------------------------------------------------------- report, stop

    def report(self) -> AccountReport:
        """Return the numbers of the account, as far as they are known in this process."""
        return AccountReport(
            spent_before=self._budget.spent_before,
            possibly_billed=self._budget.possibly_billed,
            rate_limited=self._rate_limited,
        )

    def wake(self) -> None:
        """Let waiting requests check again: limits may have been learned elsewhere."""
        self._changed.notify_all()

    @property
    def sending(self) -> bool:
        """Whether requests may still be sent."""
        return self._sending

    def stop_sending(self) -> None:
        """Admit nothing more."""
        self._sending = False
        self._changed.notify_all()

    def sync(self) -> None:
        """
        Wait until the disk has every line of the journal, and check that its file is still there.

        Blocks; from any thread. Raises `JournalError`, also one with which the journal refused an outcome.
        """
        if self._journal is not None:
            self._journal.check()
            self._journal.sync()
        if self._journal_error is not None:
            raise self._journal_error

    def finish(self) -> None:
        """End the pace: nothing more will start. Idempotent."""
        self._pacer.close()

    def close(self) -> None:
        """Finish, and release the journal. Idempotent; from any thread."""
        self._pacer.close()
        if self._journal is not None:
            self._journal.close()


class NotAdmittedError(Exception):
    """The batch sends nothing more."""


def _write_failed(
    journal: Journal, claim: Claim, result: BatchResult, generation_id: GenerationId | None
) -> JournalError | None:
    if result.error is not None:
        try:
            journal.write_failed(
                claim.key, result.error, generation_id, attempts=result.attempts, elapsed=result.elapsed
            )
        except JournalError as error:
            return error
    return None
