"""`AsyncBatch`: many concurrent generations, each paid once: an async context manager and an async iterator."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import attrs

from neuralbox_async._batch.budget import Budget
from neuralbox_async._batch.coordinator import Coordinator
from neuralbox_async._batch.inputs import InputReader
from neuralbox_async._batch.journal import Journal
from neuralbox_async._batch.pacer import Pacer
from neuralbox_async._batch.preparation import RequestPreparer
from neuralbox_async._batch.results import BatchProgress, BatchReport, BatchResult, ResultBuffer
from neuralbox_async._batch.runner import BatchRunner
from neuralbox_async._batch.stats import BatchStats
from neuralbox_async._call.executor import Call
from neuralbox_async._clock import time_after
from neuralbox_async._errors import BatchStateError, InvalidParameterError, OutcomeUnknownError
from neuralbox_async._lazy_imports import anyio, asyncio
from neuralbox_async._options import DEFAULT_MAX_CONCURRENCY
from neuralbox_async._validation import (
    check_callable,
    check_count,
    check_flag,
    check_optional_count,
    check_rate,
    field_validator,
)
from neuralbox_async._wire import endpoints
from neuralbox_async._wire.responses import decode_balance

if TYPE_CHECKING:
    from types import TracebackType

    from neuralbox_async._batch.inputs import RequestDefaults, Requests
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._options import CallOptions

OnUnknown: TypeAlias = Literal["retry", "skip", "raise"] | Callable[[str], bool]
"""The treatment of requests that may have been billed without a response; a function is called with the key."""

_MAX_KEYS_IN_MESSAGE = 5
_MAX_RESERVED_CONNECTIONS = 10


def _check_journal(_options: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not _is_path(value):
        raise InvalidParameterError(field.name, value, "a path, or None")


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike) and value != ""


def _check_on_unknown(_options: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not callable(value) and value not in ("retry", "skip", "raise"):
        raise InvalidParameterError(field.name, value, "'retry', 'skip', 'raise' or a function of the key")


@attrs.frozen(kw_only=True)
class BatchOptions:
    """The options of a batch; see `AsyncNeuralBox.generate_many` for each. Validated when they are made."""

    max_concurrency: int = attrs.field(
        default=DEFAULT_MAX_CONCURRENCY, validator=field_validator(check_count, minimum=1)
    )
    ordered: bool = attrs.field(default=False, validator=field_validator(check_flag))
    journal: str | os.PathLike[str] | None = attrs.field(default=None, validator=_check_journal)
    on_unknown: OnUnknown = attrs.field(default="skip", validator=_check_on_unknown)
    budget: int | None = attrs.field(default=None, validator=field_validator(check_optional_count, minimum=1))
    limit_to_balance: bool = attrs.field(default=False, validator=field_validator(check_flag))
    max_rate: float | None = attrs.field(default=None, validator=field_validator(check_rate))
    on_progress: Callable[[BatchProgress], object] | None = attrs.field(
        default=None, validator=field_validator(check_callable)
    )

    @property
    def choose_retry(self) -> Callable[[str], bool]:
        """The function that decides whether a request with a key, which may have been billed, is sent again."""
        policy = self.on_unknown
        return policy if callable(policy) else lambda _key: policy == "retry"


class AsyncBatch:
    """
    Many concurrent generations: an async context manager and an async iterator over their results.

    Made by `AsyncNeuralBox.generate_many`. Entering opens the journal and starts; iterating yields each result when it
    is there, failures included. Leaving early cancels the requests in flight; `report` counts them, and results that
    were not read can be read afterwards. A read that is cancelled loses nothing, and any number of tasks may read.

    Reading raises the error of the iterator of the requests or of *on_progress*, after the last result.
    """

    def __init__(
        self,
        executor: Executor,
        call_options: CallOptions,
        requests: Requests,
        defaults: RequestDefaults,
        options: BatchOptions,
    ) -> None:
        self._executor, self._call_options, self._options = executor, call_options, options
        self._inputs, self._defaults = InputReader(requests), defaults
        self._runner: BatchRunner | None = None
        self._was_entered = False
        self._supervisor: asyncio.Task[None] | None = None
        self._finalizer: weakref.finalize[..., AsyncBatch] | None = None

    # ------------------------------------------------------------------------------------------- entering and leaving

    async def __aenter__(self) -> Self:
        """
        Open the journal, get the balance if *limit_to_balance*, and start.

        Raises `JournalLockedError`, `JournalError`, `OutcomeUnknownError` (with ``on_unknown="raise"``), and the errors
        of getting the balance.
        """
        if self._was_entered:
            raise BatchStateError("a batch is entered once; call generate_many() again for another")
        self._was_entered = True
        journal = None if self._options.journal is None else Journal(self._options.journal)
        try:
            if journal is not None:
                await self._open(journal)
            budget = await self._make_budget(journal)
        except BaseException:
            if journal is not None:
                journal.close()
            raise
        self._runner = runner = self._make_runner(journal, budget)
        # A task of its own, not of a group: a batch may be entered, read and left by different tasks (PEP 789). The
        # loop alone would keep a weak reference to it.
        self._supervisor = asyncio.get_running_loop().create_task(runner.run())
        self._finalizer = weakref.finalize(
            self, _cancel_threadsafe, runner, self._supervisor, asyncio.get_running_loop()
        )
        self._finalizer.atexit = False
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel the requests in flight, and release the journal. Idempotent; waits for no response."""
        if self._finalizer is not None and self._runner is not None and self._finalizer.detach():
            await self._runner.aclose()

    def stop(self) -> None:
        """Send nothing more; requests in flight finish, and their results arrive. From the event loop's thread."""
        self._running().stop()

    # -------------------------------------------------------------------------------------------------------- reading

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BatchResult:
        """Return the next result."""
        runner = self._running()
        while (result := runner.buffer.pop()) is None:
            if not await runner.wait_for_results():
                raise StopAsyncIteration
        runner.results_read()
        return result

    async def read_batch(self) -> list[BatchResult]:
        """Return all results that are there, at least one; ``[]`` at the end. For bulk processing."""
        runner = self._running()
        while not (results := runner.buffer.pop_all()):
            if not await runner.wait_for_results():
                return []
        runner.results_read()
        return results

    @property
    def progress(self) -> BatchProgress:
        """The progress now."""
        return self._running().stats.progress

    @property
    def report(self) -> BatchReport:
        """The final report; the report so far while the batch runs."""
        return self._running().stats.report

    # -------------------------------------------------------------------------------------------------------- private

    def _running(self) -> BatchRunner:
        if self._runner is None:
            raise BatchStateError("the batch is not entered: use `async with client.generate_many(...) as results`")
        return self._runner

    async def _open(self, journal: Journal) -> None:
        for _ in journal.open():
            await anyio.sleep(0)  # a long one takes seconds to read
        keys = journal.unresolved_keys if self._options.on_unknown == "raise" else ()
        if keys:
            names = ", ".join(keys[:_MAX_KEYS_IN_MESSAGE]) + ("" if len(keys) <= _MAX_KEYS_IN_MESSAGE else ", ...")
            message = f"{len(keys)} requests may have been billed without a response: {names}"
            raise OutcomeUnknownError(message, keys=keys)

    async def _make_budget(self, journal: Journal | None) -> Budget:
        """Return the budget, less the spending of earlier runs and what they may have been billed for."""
        balance = await self._balance() if self._options.limit_to_balance else None
        if journal is None:
            return Budget(self._options.budget, balance)
        budget = Budget(self._options.budget, balance, journal.spent)
        for model, price in journal.prices.items():
            budget.quote(model, price)
        for unresolved in journal.unresolved:
            budget.add_unresolved(unresolved.model, unresolved.reserved)
        return budget

    async def _balance(self) -> int:
        options = self._call_options
        call = Call(endpoints.balance(options.headers), options, time_after(options.timeout))
        return await self._executor.execute(call, decode_balance)

    @property
    def _max_in_flight(self) -> int:
        """The maximum of requests in flight: calls that are not part of the batch need a connection, too."""
        shared = self._executor.shared
        if shared.custom_transport is not None:
            return self._options.max_concurrency
        connections = shared.connections.max_connections
        reserved = max(1, min(_MAX_RESERVED_CONNECTIONS, connections // 50))
        return min(self._options.max_concurrency, max(1, connections - reserved))

    def _make_runner(self, journal: Journal | None, budget: Budget) -> BatchRunner:
        options, max_in_flight = self._options, self._max_in_flight
        pacer = Pacer(
            self._executor.shared.rate_limits,
            max_in_flight=max_in_flight,
            rate=options.max_rate,
            is_over=asyncio.get_running_loop().is_closed,
        )
        # The batch itself waits for rate limits: one refusal holds up all requests, and costs none an attempt.
        retry = attrs.evolve(self._call_options.retry, retry_rate_limits=False)
        call_options = attrs.evolve(self._call_options, retry=retry)
        stats = BatchStats(self._inputs, options.on_progress)
        coordinator = Coordinator(journal, budget, pacer, on_limit=stats.wait_for_limit)
        preparer = RequestPreparer(
            executor=self._executor,
            options=call_options,
            defaults=self._defaults,
            coordinator=coordinator,
            choose_retry=options.choose_retry,
            idempotency_prefix=os.urandom(16).hex(),  # once: for each request, it would cost 3 %
        )
        return BatchRunner(
            executor=self._executor,
            options=call_options,
            inputs=self._inputs,
            preparer=preparer,
            coordinator=coordinator,
            stats=stats,
            # In order, a slow request holds up those behind it: more of them may wait.
            buffer=ResultBuffer((4 if options.ordered else 2) * max_in_flight, ordered=options.ordered),
            max_in_flight=max_in_flight,
        )


def _cancel_threadsafe(runner: BatchRunner, _supervisor: asyncio.Task[None], loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.call_soon_threadsafe(runner.cancel)
    except RuntimeError:  # the loop is closed
        runner.release()
