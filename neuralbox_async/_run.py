"""
The work of a batch: what is to be sent is sent, some at a time, and the results are kept ready.

The workers are plain tasks with references of their own: no task group or scope is held while the user's code runs
(PEP 789), and the user may read from one task after another.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from neuralbox_async import _protocol
from neuralbox_async._calls import POLL_INTERVAL, Call, deadline_after
from neuralbox_async._errors import (
    APIConnectionError,
    AuthenticationError,
    BudgetReachedError,
    ClientClosedError,
    GenerationFailedError,
    InsufficientTokensError,
    JournalError,
    ModelUnavailableError,
    NeuralBoxError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UnsupportedEventLoopError,
)
from neuralbox_async._jobs import Done, Job
from neuralbox_async._logging import logger
from neuralbox_async._results import BatchProgress, BatchReport, BatchResult, Tally
from neuralbox_async._types import Generation

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._budget import Budget
    from neuralbox_async._calls import Caller
    from neuralbox_async._items import Items
    from neuralbox_async._jobs import Jobs
    from neuralbox_async._journal import Journal
    from neuralbox_async._options import CallOptions
    from neuralbox_async._pacing import Pace
    from neuralbox_async._results import Buffer

_NAP = 0.5  # seconds after which a wait looks again: limits may be learned, and clients closed, elsewhere
_UNWINDING_TIME = 1.0
_SYNCING_TIME = 5.0
_TICK = 1.0  # seconds between two fsyncs, and at most between two reports of progress
_PROGRESS_INTERVAL = 0.1
_PRICE_TIME = 30.0
_SKIPPED_AT_ONCE = 256
_POINTLESS = (
    AuthenticationError,
    InsufficientTokensError,
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
    """One batch at work. All but *items*, *caller* and *options* belongs to it alone."""

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
        self.failure: BaseException | None = None  # of the user's code: raised when all results are read
        self._caller, self._options = caller, options
        self._items, self._jobs, self._journal = items, jobs, journal
        self._budget, self._pace, self._cap = budget, pace, cap
        self._on_progress = on_progress
        self._tally = Tally()
        self._stopped_by: NeuralBoxError | None = None
        self._stopping = self._exhausted = self._leaving = False
        self._gate = asyncio.Lock()  # one worker at a time takes the next request
        self._at_gate = self._refused = 0
        self._under_way: dict[int, Job] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._asked_prices: set[str] = set()
        self._change, self._news, self._parting = Signal(), Signal(), Signal()  # for workers, readers, the keeper
        self._parted = False
        self._began = time.monotonic()
        self._ended: float | None = None
        self._told_at = 0.0
        self._waiting_until: datetime | None = None

    # ----------------------------------------------------------------------------------------------------- from outside

    def begin(self) -> None:
        """Start working."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        self._hire()

    def stop(self, error: NeuralBoxError | None = None) -> None:
        """Take no more requests, because of *error*; what is in flight goes on."""
        self._stopping = True
        self._stopped_by = self._stopped_by or error
        self._change.give()

    async def end(self) -> None:
        """Give up what is in flight, and leave nothing behind. Waits for no answer."""
        self._leaving = True
        self.stop()
        try:
            with anyio.CancelScope(shield=True):
                await self._dismiss()
                await self._items.aclose(_UNWINDING_TIME)
                await self._finish_keeping()
        finally:
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

    @property
    def progress(self) -> BatchProgress:
        """How far it has come."""
        tally = self._tally
        elapsed = (self._ended or time.monotonic()) - self._began
        rate = tally.results / elapsed if elapsed > 0 else 0.0
        total = self._items.total
        left = None if total is None else total - tally.results - tally.skipped
        return BatchProgress(
            done=tally.completed,
            failed=tally.failed.total(),
            skipped=tally.skipped,
            in_flight=len(self._under_way) - self._refused,
            total=total,
            tokens=tally.tokens,
            rate=rate,
            eta_seconds=left / rate if left is not None and rate else None,
            waiting_until=self._waiting_until,
        )

    @property
    def report(self) -> BatchReport:
        """What was done, and what was left."""
        tally, total = self._tally, self._items.total
        under_way = len(self._under_way) + len(tally.cancelled_keys)
        return BatchReport(
            completed=tally.completed,
            failed=dict(tally.failed),
            skipped=tally.skipped,
            unknown=tally.unknown,
            unknown_keys=tuple(tally.unknown_keys),
            cancelled_keys=tuple(tally.cancelled_keys),
            not_started=None if total is None else total - tally.results - tally.skipped - under_way,
            stopped_by=self._stopped_by,
            rate_limited=tally.rate_limited,
            tokens=tally.tokens,
            tokens_at_risk=self._budget.at_risk,
            seconds=(self._ended or time.monotonic()) - self._began,
        )

    # ---------------------------------------------------------------------------------------------------- the workers

    def _hire(self) -> None:
        """Add a worker, if there is work for one more."""
        if len(self._workers) < self._cap and not (self._at_gate or self._stopping or self._exhausted):
            self._at_gate += 1
            worker = asyncio.get_running_loop().create_task(self._work())
            self._workers.add(worker)

    async def _work(self) -> None:
        worker = asyncio.current_task()
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
        finally:
            if worker is not None:
                self._workers.discard(worker)
            if not self._workers:
                self._complete()

    def _fail(self, error: BaseException) -> None:
        """Stop because the user's own code raised *error*."""
        self.failure = self.failure or error
        self.stop()

    def _complete(self) -> None:
        """Note that all is done that will be."""
        self.buffer.give_up_order()
        self._ended = time.monotonic()
        self._tell(at_once=True)
        self._news.give()

    # ------------------------------------------------------------------------------------------------- taking requests

    async def _take(self) -> Job | None:
        """Return the next job, once it may be sent; None when there is no more."""
        async with self._gate:
            while not (self._stopping or self._exhausted):
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
                    self.buffer.put(taken.index, None)
                elif isinstance(taken, Done):
                    await self._skip(taken)
                else:
                    self._deliver(taken)
        return None

    async def _skip(self, done: Done) -> None:
        self._tally.skipped += 1
        self.buffer.put(done.index, None)
        if self._tally.skipped % _SKIPPED_AT_ONCE == 0:
            self._tell()
            await asyncio.sleep(0)  # there can be a million of them, and others want to run

    async def _admitted(self, job: Job) -> bool:
        """Wait until budget and limits let *job* start; return False when the batch stops before."""
        model = job.request.model
        await self._learn_price(model)
        while not self._stopping and not self._budget.reserve(model):
            if not self._budget.holding:
                self.stop(self._budget_reached(model))
                return False
            await self._change.wait()
        if not self._stopping and (job.generation_id is not None or await self._may_send()):
            return True
        self._budget.settle(model, 0)
        return False

    def _budget_reached(self, model: str) -> BudgetReachedError:
        limit, spent = self._budget.limit or 0, self._budget.spent + self._budget.at_risk
        message = f"the budget of {limit} tokens does not cover another generation of {model}: {spent} are spent"
        return BudgetReachedError(message, budget=limit, spent=spent, model=model)

    async def _learn_price(self, model: str) -> None:
        if self._budget.limit is None or self._budget.knows(model) or model in self._asked_prices:
            return
        self._asked_prices.add(model)
        call = Call(_protocol.price(model, self._options.headers), self._options, deadline_after(_PRICE_TIME))
        try:
            self._budget.quote(model, await self._caller.answer(call, _protocol.load_price))
        except NeuralBoxError as error:
            logger.info("the price of %s is not told (%s): its first request will tell", model, type(error).__name__)

    async def _may_send(self, *, again: bool = False) -> bool:
        """Wait until the pace allows a POST, and note its start; what is to be sent *again* goes first."""
        while not self._stopping:
            now = time.monotonic()
            delay = self._pace.delay(now)
            self._wait_until(self._pace.opens_at, now)
            if delay <= 0 and (again or not self._refused):
                self._pace.start(now)
                return True
            if self._caller.shared.closed:
                self.stop(ClientClosedError("the client was closed"))
            await self._change.wait(min(delay, _NAP) if delay > 0 else _NAP)
        return False

    # ------------------------------------------------------------------------------------------------ carrying them out

    async def _carry_out(self, job: Job) -> None:
        self._under_way[job.index] = job
        try:
            result = await self._result_of(job)
        except BaseException:
            self._note_given_up(job)
            raise
        finally:
            del self._under_way[job.index]
            self._change.give()
        self._budget.settle(job.request.model, 0 if result is None else result.tokens)
        if result is None:
            self.buffer.put(job.index, None)
        else:
            self._deliver(result)

    async def _result_of(self, job: Job) -> BatchResult | None:
        """Return what becomes of *job*; None when it was refused, and the batch stops before it can be sent again."""
        while True:
            try:
                return self._completed(job, await self._generation(job))
            except RateLimitError as error:
                if error.headers.get("x-should-retry") == "false":
                    return self._failed(job, error)
                self._note_refused(job, error)
            except NeuralBoxError as error:
                return self._failed(job, error)
            self._refused += 1
            try:
                if not await self._may_send(again=True):
                    return None
            finally:
                self._refused -= 1
                self._change.give()

    async def _generation(self, job: Job) -> Generation:
        deadline = deadline_after(self._options.timeout)
        if job.generation_id is not None:  # of an earlier run
            state = Generation(id=job.generation_id, status="pending")
            return await self._wait_for(job, state, deadline, at_once=True)
        generation = await self._post(job, deadline)
        if generation.finished or generation.id is None:
            return generation
        job.generation_id, job.body = generation.id, b""
        if self._journal is not None:
            self._journal.pending(job.key, generation.id)
        return await self._wait_for(job, generation, deadline)

    async def _post(self, job: Job, deadline: float) -> Generation:
        job.call = Call(job.wire, self._options, deadline)
        started = time.monotonic()
        try:
            if self._journal is not None:
                self._journal.start(job.key, job.wire.headers["Idempotency-Key"])
            generation = await self._caller.answer(job.call, job.load)
        except BaseException as error:
            self._slow_down(error, started)
            raise
        finally:
            job.attempts += job.call.attempts
        self._pace.admitted()
        self._change.give()
        return generation

    def _slow_down(self, error: BaseException, started: float) -> None:
        """Tell the pace what *error*, of a request *started* then, says of the server."""
        now = time.monotonic()
        if isinstance(error, RateLimitError):
            self._pace.pushed_back(now, started)
        elif isinstance(error, APIConnectionError | ModelUnavailableError):
            self._pace.failed(now, started)
        elif isinstance(error, NeuralBoxError) and not isinstance(error, JournalError | ClientClosedError):
            self._pace.admitted()
        else:
            self._pace.dropped()

    async def _wait_for(self, job: Job, state: Generation, deadline: float, *, at_once: bool = False) -> Generation:
        try:
            return await self._caller.wait(state, self._options, deadline, interval=POLL_INTERVAL, at_once=at_once)
        except GenerationFailedError:
            raise
        except NeuralBoxError as error:
            # Of the questions, which cost nothing; but what they ask for may be billed when it is completed.
            error.billed, error.generation_id = "unknown", state.id
            if isinstance(error, NotFoundError):
                job.generation_id = error.generation_id = None  # it leads nowhere
            raise

    # ---------------------------------------------------------------------------------------------------- the outcomes

    def _completed(self, job: Job, generation: Generation) -> BatchResult:
        tokens = generation.tokens_used
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

    def _note_refused(self, job: Job, error: RateLimitError) -> None:
        self._tally.rate_limited += 1
        self._write_failure(job, error)  # to be sent again, perhaps in hours: until then nothing is in doubt
        job.call = None

    def _note_given_up(self, job: Job) -> None:
        if job.maybe_billed:
            self._tally.doubt(job.key)
            self._budget.settle(job.request.model, None)
        elif job.call is not None:
            self._write_failure(job, APIConnectionError("it was given up before it was sent"))
        else:
            return
        self._tally.cancelled_keys.append(job.key)

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
        self._tally.add(result)
        self.buffer.put(result.index, result)
        error = result.error
        if isinstance(error, _POINTLESS) or (
            isinstance(error, PermissionDeniedError) and error.code == "insufficient_plan"
        ):
            self.stop(error)
        self._news.give()
        self._tell()

    # ------------------------------------------------------------------------------------------------------- the house

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
            self._tell()

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

    def _wait_until(self, opens_at: float | None, now: float) -> None:
        """Note that limits hold up what comes next, or no longer do."""
        was_waiting = self._waiting_until is not None
        if opens_at is None:
            self._waiting_until = None
        else:
            self._waiting_until = datetime.now(UTC) + timedelta(seconds=opens_at - now)
        if was_waiting != (opens_at is not None):
            self._tell(at_once=True)

    def _tell(self, *, at_once: bool = False) -> None:
        """Tell of progress, not too often unless *at_once*."""
        now = time.monotonic()
        if self._on_progress is None or (now - self._told_at < _PROGRESS_INTERVAL and not at_once):
            return
        self._told_at = now
        try:
            self._on_progress(self.progress)
        except Exception as error:  # noqa: BLE001 - the user's own: it is raised where the user reads
            self._on_progress = None
            self._fail(error)
