"""`AsyncBatch`: many generations at a time, each paid for once: an async context manager and an async iterator."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import attrs

from neuralbox_async import _options, _protocol
from neuralbox_async._budget import Budget
from neuralbox_async._calls import Call, deadline_after
from neuralbox_async._errors import BatchStateError, InvalidParameterError, OutcomeUnknownError
from neuralbox_async._items import Items
from neuralbox_async._jobs import Jobs
from neuralbox_async._journal import Journal
from neuralbox_async._loading import asyncio
from neuralbox_async._pacing import Pace
from neuralbox_async._results import BatchProgress, BatchReport, BatchResult, Buffer
from neuralbox_async._run import Run

if TYPE_CHECKING:
    from types import TracebackType

    from neuralbox_async._calls import Caller
    from neuralbox_async._items import Defaults, Requests
    from neuralbox_async._options import CallOptions

OnUnknown: TypeAlias = Literal["retry", "skip", "ask"] | Callable[[str], bool]
"""What to do with requests that may have been billed without an answer; a function is given the key."""

_SHOWN_KEYS = 5
_CONNECTIONS_LEFT = 10


def _check_concurrency(_self: Any, field: attrs.Attribute[Any], value: Any) -> None:
    _options.check_count(field.name, value, least=1)


def _check_budget(_self: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None:
        _options.check_count(field.name, value, least=1)


def _check_pace(_self: Any, field: attrs.Attribute[Any], value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "auto" and not (number and math.isfinite(value) and value > 0):
        raise InvalidParameterError(field.name, value, "'auto' or a number of requests per second above 0")


def _check_journal(_self: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not _is_path(value):
        raise InvalidParameterError(field.name, value, "a path, or None")


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) and value != ""


def _check_on_unknown(_self: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not callable(value) and value not in ("retry", "skip", "ask"):
        raise InvalidParameterError(field.name, value, "'retry', 'skip', 'ask' or a function of the key")


def _check_on_progress(_self: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not callable(value):
        raise InvalidParameterError(field.name, value, "a function, or None")


@attrs.frozen(kw_only=True)
class BatchOptions:
    """How a batch goes; see `AsyncNeuralBox.generate_many` for each. Checked when it is made."""

    max_concurrency: int = attrs.field(default=64, validator=_check_concurrency)
    ordered: bool = False
    journal: str | os.PathLike[str] | None = attrs.field(default=None, validator=_check_journal)
    on_unknown: OnUnknown = attrs.field(default="skip", validator=_check_on_unknown)
    budget: int | None = attrs.field(default=None, validator=_check_budget)
    check_balance: bool = False
    pace: float | Literal["auto"] = attrs.field(default="auto", validator=_check_pace)
    on_progress: Callable[[BatchProgress], object] | None = attrs.field(default=None, validator=_check_on_progress)

    @property
    def retries(self) -> Callable[[str], bool]:
        """Whether the request with a key, which may have been billed, is sent again."""
        policy = self.on_unknown
        return policy if callable(policy) else lambda _key: policy == "retry"


class AsyncBatch:
    """
    Many generations, some at a time: an async context manager and an async iterator over their results.

    Made by `AsyncNeuralBox.generate_many`. Entering opens the journal and begins; iterating gives each result when it
    is there, a failure as well as a generation. Leaving early cancels what is in flight; `report` says what was left,
    and what was answered and not read can be read afterwards. A read that is cancelled loses nothing, and any number of
    tasks may read.

    Reading raises what the iterator of the requests or *on_progress* raised, after the last result.
    """

    def __init__(
        self, caller: Caller, options: CallOptions, requests: Requests, defaults: Defaults, plan: BatchOptions
    ) -> None:
        self._caller, self._options, self._plan = caller, options, plan
        self._items, self._defaults = Items(requests), defaults
        self._run: Run | None = None
        self._entered = False
        self._finalizer: weakref.finalize[..., AsyncBatch] | None = None

    # ------------------------------------------------------------------------------------------- entering and leaving

    async def __aenter__(self) -> Self:
        """
        Open the journal, ask for the balance if told to, and begin.

        Raises `JournalLockedError`, `JournalError`, `OutcomeUnknownError` (with ``on_unknown="ask"``), and what asking
        for the balance raises.
        """
        if self._entered:
            raise BatchStateError("a batch is entered once; call generate_many() again for another")
        self._entered = True
        journal = None if self._plan.journal is None else Journal(self._plan.journal)
        try:
            if journal is not None:
                await self._open(journal)
            budget = await self._budget(journal)
        except BaseException:
            if journal is not None:
                journal.close()
            raise
        self._run = run = self._make_run(journal, budget)
        run.begin()
        self._finalizer = weakref.finalize(self, _abandon_from_anywhere, run, asyncio.get_running_loop())
        self._finalizer.atexit = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel what is in flight, and give the journal back. Idempotent; waits for no answer."""
        if self._finalizer is not None and self._run is not None and self._finalizer.detach():
            await self._run.end()

    def stop(self) -> None:
        """Send nothing more; what is in flight is finished, and its results come. From the event loop's thread."""
        self._running().stop()

    # -------------------------------------------------------------------------------------------------------- reading

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BatchResult:
        """Return the next result."""
        run = self._running()
        while (result := run.buffer.pop()) is None:
            if not await run.more():
                raise StopAsyncIteration
        run.room_made()
        return result

    async def read_batch(self) -> list[BatchResult]:
        """Return all results that are there, at least one; ``[]`` at the end. For those who handle them in bulk."""
        run = self._running()
        while not (results := run.buffer.drain()):
            if not await run.more():
                return []
        run.room_made()
        return results

    @property
    def progress(self) -> BatchProgress:
        """How far it has come."""
        return self._running().ledger.progress

    @property
    def report(self) -> BatchReport:
        """What was done, and what was left; so far, while it runs."""
        return self._running().ledger.report

    # --------------------------------------------------------------------------------------------------------- inside

    def _running(self) -> Run:
        if self._run is None:
            raise BatchStateError("the batch is not entered: use `async with client.generate_many(...) as results`")
        return self._run

    async def _open(self, journal: Journal) -> None:
        for _ in journal.open():
            await asyncio.sleep(0)  # a long one takes seconds to read
        keys = journal.unknown if self._plan.on_unknown == "ask" else ()
        if keys:
            shown = ", ".join(keys[:_SHOWN_KEYS]) + ("" if len(keys) <= _SHOWN_KEYS else ", ...")
            message = f"{len(keys)} requests may have been billed without an answer: {shown}"
            raise OutcomeUnknownError(message, keys=keys)

    async def _budget(self, journal: Journal | None) -> Budget:
        """Return the budget, less what the journal says was spent of it, and what may have been."""
        balance = await self._balance() if self._plan.check_balance else None
        if journal is None:
            return Budget(self._plan.budget, balance)
        budget = Budget(self._plan.budget, balance, journal.spent)
        for model, price in journal.prices.items():
            budget.quote(model, price)
        for doubt in journal.doubts:
            budget.doubt(doubt.model, doubt.reserved)
        return budget

    async def _balance(self) -> int:
        options = self._options
        call = Call(_protocol.balance(options.headers), options, deadline_after(options.timeout))
        return await self._caller.answer(call, _protocol.load_balance)

    @property
    def _cap(self) -> int:
        """How many are in flight at most: calls that are not part of the batch must find a connection, too."""
        shared = self._caller.shared
        if shared.given_transport is not None:
            return self._plan.max_concurrency
        connections = shared.connections.max_connections
        kept = max(1, min(_CONNECTIONS_LEFT, connections // 50))
        return min(self._plan.max_concurrency, max(1, connections - kept))

    def _make_run(self, journal: Journal | None, budget: Budget) -> Run:
        plan, cap = self._plan, self._cap
        # The batch itself waits for limits: one refusal holds up all, and costs none an attempt.
        options = attrs.evolve(self._options, retry=attrs.evolve(self._options.retry, retry_rate_limits=False))
        return Run(
            caller=self._caller,
            options=options,
            items=self._items,
            jobs=Jobs(self._items, self._defaults, journal, plan.retries, options.headers),
            journal=journal,
            budget=budget,
            pace=Pace(
                self._caller.shared.limits,
                cap=cap,
                rate=None if plan.pace == "auto" else plan.pace,
                is_over=asyncio.get_running_loop().is_closed,
            ),
            # In order, a slow one holds up those behind it: there are more of them before all wait.
            buffer=Buffer((4 if plan.ordered else 2) * cap, ordered=plan.ordered),
            cap=cap,
            on_progress=plan.on_progress,
        )


def _abandon_from_anywhere(run: Run, loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.call_soon_threadsafe(run.abandon)
    except RuntimeError:  # the loop is closed
        run.forsake()
