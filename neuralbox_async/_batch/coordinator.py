"""
The `Coordinator` of a batch: the one owner of the account's state (journal, budget, rate limits).

Its interface passes values and is awaitable, so that it can stand in another process. Each method updates journal,
budget and pace in the one right order.
"""

from __future__ import annotations

import enum
import math
import time
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._batch.journal import KeyStatus, Unresolved
from neuralbox_async._batch.notifier import Notifier
from neuralbox_async._errors import BudgetReachedError, InvalidParameterError, JournalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._batch.budget import Budget
    from neuralbox_async._batch.journal import Journal
    from neuralbox_async._batch.pacer import Pacer
    from neuralbox_async._errors import NeuralBoxError
    from neuralbox_async._types import Generation, GenerationId


class ServerSignal(enum.Enum):
    """The information about the server in the end of a request."""

    ADMITTED = enum.auto()  # it accepted the request, whatever its outcome
    PUSHED_BACK = enum.auto()  # it refused the request: 429
    FAILED = enum.auto()  # no response, or the model is unavailable
    NONE = enum.auto()  # the request ended for another reason


@attrs.frozen
class Claim:
    """A *key* that this batch has claimed, and the state in which earlier runs left it."""

    key: str
    status: KeyStatus = KeyStatus.NEW
    unresolved: Unresolved | None = None


@attrs.frozen(kw_only=True)
class Sent:
    """A request that is about to be sent; *reserved* tokens of the budget, None without a budget."""

    key: str
    idempotency_key: str
    model: str
    reserved: int | None


@attrs.frozen(kw_only=True)
class Outcome:
    """
    The outcome of a request.

    *generation* with the *body* of its response, or *error*, or neither when it was not sent. *tokens_used*: NeuralBox
    tokens billed, None when it is unknown. *final*: False for a refusal, after which it is sent again.
    """

    claim: Claim
    model: str
    generation: Generation | None = None
    body: bytes = b""
    error: NeuralBoxError | None = None
    generation_id: GenerationId | None = None
    attempts: int = 0
    elapsed: float = 0.0
    tokens_used: int | None = None
    final: bool = True


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

    *journal*: None without one. *on_limit* is called with the time (`time.monotonic`) when a rate limit that holds up
    the batch ends, or None when none does.
    """

    def __init__(
        self, journal: Journal | None, budget: Budget, pacer: Pacer, on_limit: Callable[[float | None], None]
    ) -> None:
        self._journal, self._budget, self._pacer, self._on_limit = journal, budget, pacer, on_limit
        self._changed = Notifier()
        self._sending = True
        self.refused = 0  # requests that wait to be sent again; they go first
        self._rate_limited = 0

    # ---------------------------------------------------------------------------------------------------------- claim

    async def claim(self, key: str, *, may_number: bool) -> Claim:
        """
        Claim *key* for this batch; a key that it has already gets a number if it *may_number*.

        Raises `InvalidParameterError` for a repeated key otherwise.
        """
        if self._journal is None:
            return Claim(key)
        claimed = self._journal.claim(key)
        if claimed is None and may_number:
            key = self._journal.number(key)
            claimed = self._journal.claim(key)
        if claimed is None:
            raise InvalidParameterError("key", key, "different for each request of a batch")
        return Claim(key, *claimed)

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
    def sending(self) -> bool:
        """Whether requests may still be sent."""
        return self._sending

    async def models_to_price(self, model: str) -> tuple[str, ...]:
        """Return the models whose prices the budget needs to know before a request of *model*."""
        return (*self._budget.unpriced, model) if self._budget.limited else ()

    async def quote(self, model: str, price: int) -> None:
        """Record that a generation of *model* costs at most *price* NeuralBox tokens."""
        self._budget.quote(model, price)

    async def admit(self, model: str) -> int | None:
        """
        Wait until budget and rate limits let a request of *model* start, and record its start.

        Returns the reserved tokens, None without a budget or when its price is unknown. Raises `BudgetReachedError` when
        the budget does not cover it, and `NotAdmittedError` when nothing more is to be sent.
        """
        while True:
            if not self._sending:
                raise NotAdmittedError
            if self._budget.reserve(model):
                break
            if not self._budget.holding:
                raise self._budget_reached(model)
            await self._changed.wait()
        try:
            await self._start()
        except BaseException:
            self._budget.settle(model, 0)
            raise
        return self._budget.price(model) if self._budget.limited else None

    async def admit_pending(self) -> None:
        """Record that the outcome of a request of an earlier run is being retrieved, which costs nothing."""
        self._budget.begin_retrieval()

    async def admit_again(self) -> None:
        """Wait until the rate limits let a refused request start again. Raises `NotAdmittedError`."""
        self.refused += 1
        try:
            await self._start(again=True)
        finally:
            self.refused -= 1
            self._changed.notify_all()

    async def _start(self, *, again: bool = False) -> None:
        while self._sending:
            now = time.monotonic()
            delay = self._pacer.delay(now)
            self._on_limit(self._pacer.opens_at)
            if delay <= 0 and (again or not self.refused):
                self._pacer.started(now)
                return
            await self._changed.wait(delay if 0 < delay < math.inf else None)
        raise NotAdmittedError

    def _budget_reached(self, model: str) -> BudgetReachedError:
        name, limit, used, possibly_billed = self._budget.tightest
        message = f"the {name} of {limit} tokens does not cover another generation of {model}: {used} are spent"
        if possibly_billed:
            message += f", counting {possibly_billed} that may have been billed without a response"
        return BudgetReachedError(message, budget=limit, spent=used, model=model)

    # ------------------------------------------------------------------------------------------------ observe, settle

    async def sent(self, request: Sent) -> None:
        """Record in the journal that *request* is about to be sent. Raises `JournalError`."""
        if self._journal is not None:
            self._journal.write_start(request.key, request.idempotency_key, request.model, request.reserved)

    async def observe(self, signal: ServerSignal, started: float) -> None:
        """Learn the pace from the end of a request that started at *started* (`time.monotonic`)."""
        match signal:
            case ServerSignal.ADMITTED:
                self._pacer.admitted()
            case ServerSignal.PUSHED_BACK:
                self._pacer.pushed_back(time.monotonic(), started)
            case ServerSignal.FAILED:
                self._pacer.failed(time.monotonic(), started)
            case ServerSignal.NONE:
                self._pacer.dropped()
        self._changed.notify_all()

    async def accepted(self, key: str, generation_id: GenerationId) -> None:
        """Record in the journal that the API accepted the request of *key*. Raises `JournalError`."""
        if self._journal is not None:
            self._journal.write_pending(key, generation_id)

    async def settle(self, outcome: Outcome) -> JournalError | None:
        """
        Record *outcome*: first in the journal, then in the budget.

        Returns the error when the journal cannot be written. The outcome stands nevertheless: it is paid for.
        """
        try:
            self._write(outcome)
        except JournalError as error:
            return error
        finally:
            if outcome.final:
                self._settle_budget(outcome)
            else:
                self._rate_limited += 1
            self._changed.notify_all()
        return None

    def _write(self, outcome: Outcome) -> None:
        if self._journal is None:
            return
        if outcome.generation is not None:
            self._journal.write_done(
                outcome.claim.key,
                outcome.generation,
                outcome.body,
                attempts=outcome.attempts,
                elapsed=outcome.elapsed,
                tokens_used=outcome.tokens_used,
            )
        elif outcome.error is not None:
            self._journal.write_failed(
                outcome.claim.key,
                outcome.error,
                outcome.generation_id,
                attempts=outcome.attempts,
                elapsed=outcome.elapsed,
            )

    def _settle_budget(self, outcome: Outcome) -> None:
        unresolved = outcome.claim.unresolved
        if unresolved is not None and outcome.claim.status is KeyStatus.PENDING:
            self._budget.resolve(unresolved.model, unresolved.reserved, outcome.tokens_used)
        else:
            self._budget.settle(outcome.model, outcome.tokens_used)

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

    def stop_sending(self) -> None:
        """Admit nothing more."""
        self._sending = False
        self._changed.notify_all()

    @property
    def unsynced(self) -> bool:
        """Whether the journal has lines that the disk may not have."""
        return self._journal is not None and self._journal.unsynced

    def sync(self) -> None:
        """Wait until the disk has every line of the journal. Blocks; from any thread. Raises `JournalError`."""
        if self._journal is not None:
            self._journal.sync()

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
