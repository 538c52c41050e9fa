"""
The work of a batch: what is to be sent is sent, some at a time, and the results are kept ready.

The workers are plain tasks with references of their own: no task group or scope is held while the user's code runs
(PEP 789), and the user may read from one task after another.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from neuralbox_async._errors import (
    APIConnectionError,
    AuthenticationError,
    BudgetReachedError,
    ClientClosedError,
    InsufficientTokensError,
    JournalError,
    NeuralBoxError,
    PermissionDeniedError,
    RateLimitError,
    UnsupportedEventLoopError,
)
from neuralbox_async._jobs import Done, Job
from neuralbox_async._ledger import Ledger
from neuralbox_async._loading import anyio, asyncio
from neuralbox_async._results import BatchResult
from neuralbox_async._sending import Sender

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._budget import Budget
    from neuralbox_async._calls import Caller
    from neuralbox_async._items import Items
    from neuralbox_async._jobs import Jobs
    from neuralbox_async._journal import Journal
    from neuralbox_async._options import CallOptions
    from neuralbox_async._pacing import Pace
    from neuralbox_async._results import BatchProgress, Buffer
    from neuralbox_async._types import Generation

_NAP = 0.5  # seconds after which a wait looks again: limits may be learned, and clients closed, elsewhere
_UNWINDING_TIME = 1.0
_SYNCING_TIME = 5.0
_TICK = 1.0  # seconds between two fsyncs, and at most between two reports of progress
_PASSED_AT_ONCE = 256
_POINTLESS = (
    AuthenticationError,
    ClientClosedError,
    UnsupportedEventLoopError,
    JournalError,
)


class Signal:
    """Wakes all who wait for it; each looks for itself what has changed."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def give(self) -> None:
        """Wake those who wait now."""
        if self._waiters:
            for waiter in self._waiters:
                _wake(waiter)
            self._waiters.clear()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait for it, *seconds* at most."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.add(waiter)
        timer = None if seconds is None else loop.call_later(seconds, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Run:
    """One batch at work: at most *cap* of *jobs* are on their way at a time, and their results go to *buffer*."""

    def __init__(
        self,
        *,
        caller: Caller,
        options: CallOptions,
        items: Items,
        jobs: Jobs,
        journal: Journal | None,
        budget: Budget,
        pace: Pace,
        buffer: Buffer,
        cap: int,
        on_progress: Callable[[BatchProgress], object] | None,
    ) -> None:
        self.buffer = buffer
        self.ledger = Ledger(items, budget, on_progress, self._fail)
        self.failure: BaseException | None = None  # of the user's code: raised when all results are read
        self._items, self._jobs, self._journal = items, jobs, journal
        self._budget, self._pace, self._cap = budget, pace, cap
        self._change, self._news, self._parting = Signal(), Signal(), Signal()  # for workers, readers, the keeper
        self._sender = Sender(caller, options, journal, pace, self._change.give)
        self._sending = True  # otherwise what earlier runs paid for is still looked for, until it stops
        self._stopping = self._exhausted = self._parted = False
        self._gate = asyncio.Lock()  # one worker at a time takes the next request
        self._at_gate = 0
        self._passed = 0  # requests that need nothing, or get nothing
        self._asked_prices: set[str] = set()
        self._workers: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    # ----------------------------------------------------------------------------------------------------- from outside

    def begin(self) -> None:
        """Start working."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep_to_the_end())
        self._hire()

    def stop(self, error: NeuralBoxError | None = None) -> None:
        """Take no more requests, because of *error*; what is in flight goes on."""
        self._stopping = True
        self._close(error)

    async def end(self) -> None:
        """Give up what is in flight, and leave nothing behind. Waits for no answer."""
        self.stop()
        try:
            with anyio.CancelScope(shield=True):
                await self._dismiss()
                await self._items.aclose(_UNWINDING_TIME)
                await self._finish_keeping()
        finally:
            if self._journal is not None:
                self._journal.close()

    def forsake(self) -> None:
        """Give the journal back, because the loop is closed, and all tasks ended with it. From any thread."""
        self._pace.end()
        if self._journal is not None:
            self._journal.close()

    def abandon(self) -> None:
        """Do what `end` does, because nobody holds the batch any more."""
        self._ending = asyncio.get_running_loop().create_task(self.end())

    async def more(self) -> bool:
        """Wait for news about results; return False when there will be no more. Raises `failure`."""
        if self._workers:
            await self._news.wait()
            return True
        if self.failure is not None:
            raise self.failure
        return False

    def room_made(self) -> None:
        """Note that results were read."""
        self._change.give()

    # ---------------------------------------------------------------------------------------------------- the workers

    def _hire(self) -> None:
        """Add a worker, if there is work for one more."""
        if len(self._workers) < self._cap and not (self._at_gate or self._stopping or self._exhausted):
            self._at_gate += 1
            worker = asyncio.get_running_loop().create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._retire)  # also of one that is cancelled before it begins

    async def _work(self) -> None:
        try:
            while (job := await self._take()) is not None:
                self._at_gate -= 1
                self._hire()
                await self._carry_out(job)
                self._at_gate += 1
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise

    def _close(self, error: NeuralBoxError | None) -> None:
        """Send nothing new, because of *error*; what was done or accepted before is still looked for, as it is free."""
        self._sending, self._jobs.closed = False, True
        self.ledger.stopped_by = self.ledger.stopped_by or error
        self._change.give()

    def _fail(self, error: BaseException) -> None:
        """Stop because the user's own code raised *error*."""
        self.failure = self.failure or error
        self.stop()

    def _retire(self, worker: asyncio.Task[None]) -> None:
        """Let *worker* go; with the last one all is done that will be."""
        self._workers.discard(worker)
        if not self._workers:
            self._pace.end()
            self.buffer.give_up_order()
            self.ledger.finish()
            self._news.give()

    # ------------------------------------------------------------------------------------------------- taking requests

    async def _take(self) -> Job | None:
        """Return the next job, once it may be sent; None when there is no more."""
        async with self._gate:
            while self._reading:
                if self.buffer.full:
                    await self._change.wait()
                    continue
                taken = await self._jobs.next()
                if taken is None:
                    self._exhausted = True
                    break
                self.buffer.take()
                if isinstance(taken, Job):
                    if await self._admitted(taken):
                        return taken
                    await self._pass_by(taken.index)
                elif isinstance(taken, Done):
                    self.ledger.skipped += 1
                    await self._pass_by(taken.index)
                elif self._sending:
                    self._deliver(taken)
                else:
                    await self._pass_by(taken.index)
        return None

    @property
    def _reading(self) -> bool:
        """Whether requests are still taken."""
        return not (self._stopping or self._exhausted) and (self._sending or self._jobs.any_paid_for)

    async def _pass_by(self, index: int) -> None:
        self.buffer.put(index, None)
        self._passed += 1
        if self._passed % _PASSED_AT_ONCE == 0:
            self.ledger.tell()
            await asyncio.sleep(0)  # there can be a million of them, and others want to run

    async def _admitted(self, job: Job) -> bool:
        """Wait until budget and limits let *job* start; return False when the batch ends before."""
        if job.doubt is not None:
            self._budget.ask()  # which costs nothing
            return not self._stopping
        if not self._sending:
            return False
        model = job.request.model
        if self._budget.bounded:
            for name in (*self._budget.unpriced, model):
                await self._learn_price(name)
        if not await self._covered(model):
            return False
        if await self._may_send():
            job.reserved = self._budget.price(model) if self._budget.bounded else None
            return True
        self._budget.settle(model, 0)
        return False

    async def _covered(self, model: str) -> bool:
        """Wait until the budget has the price of *model*, and reserve it; return False when the batch ends before."""
        while self._sending:
            if self._budget.reserve(model):
                return True
            if self._budget.holding:
                await self._change.wait()
            else:
                self._close(self._budget_reached(model))
        return False

    def _budget_reached(self, model: str) -> BudgetReachedError:
        name, bound, used, at_risk = self._budget.tightest
        message = f"the {name} of {bound} tokens does not cover another generation of {model}: {used} are spent"
        if at_risk:
            message += f", counting {at_risk} that may have been billed without an answer"
        return BudgetReachedError(message, budget=bound, spent=used, model=model)

    async def _learn_price(self, model: str) -> None:
        if model in self._asked_prices:
            return
        self._asked_prices.add(model)
        price = await self._sender.price(model)
        if price is not None:
            self._budget.quote(model, price)

    async def _may_send(self, *, again: bool = False) -> bool:
        """Wait until the pace allows a POST, and note its start; what is to be sent *again* goes first."""
        while self._sending:
            now = time.monotonic()
            delay = self._pace.delay(now)
            self.ledger.wait_until(self._pace.opens_at, now)
            if delay <= 0 and (again or not self.ledger.refused):
                self._pace.start(now)
                return True
            if self._sender.closed:
                self.stop(ClientClosedError("the client was closed"))
            await self._change.wait(min(delay, _NAP) if delay > 0 else _NAP)
        return False

    # ------------------------------------------------------------------------------------------------ carrying them out

    async def _carry_out(self, job: Job) -> None:
        self.ledger.under_way += 1
        try:
            result = await self._result_of(job)
        except BaseException:
            self._note_given_up(job)
            raise
        finally:
            self.ledger.under_way -= 1
            self._change.give()
        self._settle(job, 0 if result is None else result.tokens)
        if result is None:
            self.buffer.put(job.index, None)
        else:
            self._deliver(result)

    async def _result_of(self, job: Job) -> BatchResult | None:
        """Return what becomes of *job*; None when it was refused, and the batch stops before it can be sent again."""
        while True:
            try:
                return self._completed(job, await self._sender.generation(job))
            except RateLimitError as error:
                if error.headers.get("x-should-retry") == "false":
                    return self._failed(job, error)
                self._note_refused(job, error)
            except NeuralBoxError as error:
                return self._failed(job, error)
            self.ledger.refused += 1
            try:
                if not await self._may_send(again=True):
                    return None
            finally:
                self.ledger.refused -= 1
                self._change.give()

    # ---------------------------------------------------------------------------------------------------- the outcomes

    def _completed(self, job: Job, generation: Generation) -> BatchResult:
        told = generation.tokens_used
        tokens = None if told is None or told < 0 else told  # what is no number of tokens tells nothing
        result = job.result(generation=generation, tokens=tokens)
        self._writing(
            lambda journal: journal.done(
                job.key, generation, job.body, attempts=result.attempts, seconds=result.seconds, tokens=tokens
            )
        )
        return result

    def _failed(self, job: Job, error: NeuralBoxError) -> BatchResult:
        self._write_failure(job, error)
        return job.result(error=error, tokens=0 if error.billed == "no" else None)

    def _settle(self, job: Job, tokens: int | None) -> None:
        """Note that *tokens* were billed for *job*, None when that is not known."""
        if job.doubt is None:
            self._budget.settle(job.request.model, tokens)
        else:
            self._budget.resolve(job.doubt.model, job.doubt.reserved, tokens)

    def _note_refused(self, job: Job, error: RateLimitError) -> None:
        self.ledger.rate_limited += 1
        self._write_failure(job, error)  # to be sent again, perhaps in hours: until then nothing is in doubt
        job.call = None

    def _note_given_up(self, job: Job) -> None:
        if job.maybe_billed:
            self._settle(job, None)
        elif job.call is not None:
            self._write_failure(job, APIConnectionError("it was given up before it was sent"))
        else:
            return
        self.ledger.give_up(job.key, maybe_billed=job.maybe_billed)

    def _write_failure(self, job: Job, error: NeuralBoxError) -> None:
        generation_id = job.generation_id or error.generation_id
        facts = {"attempts": job.attempts, "seconds": round(time.monotonic() - job.started, 3)}
        self._writing(lambda journal: journal.failed(job.key, error, generation_id, **facts))

    def _writing(self, write: Callable[[Journal], None]) -> None:
        """Write an outcome. When that fails the batch stops, and the result is delivered all the same."""
        if self._journal is not None:
            try:
                write(self._journal)
            except JournalError as error:
                self.stop(error)

    def _deliver(self, result: BatchResult) -> None:
        self.ledger.add(result)
        self.buffer.put(result.index, result)
        error = result.error
        if isinstance(error, _POINTLESS):
            self.stop(error)
        elif isinstance(error, InsufficientTokensError) or (
            isinstance(error, PermissionDeniedError) and error.code == "insufficient_plan"
        ):
            self._close(error)
        self._news.give()
        self.ledger.tell()

    # ------------------------------------------------------------------------------------------------------- the house

    async def _keep_to_the_end(self) -> None:
        try:
            await self._keep()
        except asyncio.CancelledError:  # the loop ends, or `end` waits no longer
            if self._workers:
                await asyncio.wait(set(self._workers), timeout=_UNWINDING_TIME)  # they write what they give up
            self.forsake()
            raise

    async def _keep(self) -> None:
        """Bring the journal to the disk and tell of progress, now and then, and a last time at the end."""
        parted = False
        while not parted:
            if not self._parted:
                await self._parting.wait(_TICK)
            parted = self._parted
            if self._journal is not None and self._journal.unsynced:
                try:
                    await anyio.to_thread.run_sync(self._journal.sync)
                except JournalError as error:
                    self.stop(error)
            self.ledger.tell()

    async def _dismiss(self) -> None:
        workers = set(self._workers)
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers, timeout=_UNWINDING_TIME)

    async def _finish_keeping(self) -> None:
        self._parted = True
        self._parting.give()
        if self._keeper is not None:
            await asyncio.wait({self._keeper}, timeout=_SYNCING_TIME)
            self._keeper.cancel()
