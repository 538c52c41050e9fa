"""`AsyncBatch`: many concurrent generations, each paid once: an async context manager and an async iterator."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Generic, Self

from neuralbox_async._async_only import AsyncIterationOnly, AsyncOnly
from neuralbox_async._batch.errors import BatchStateError
from neuralbox_async._batch.inputs import InputReader, check_requests
from neuralbox_async._batch.results import BatchProgress, BatchReport, BatchResult
from neuralbox_async._lazy_imports import asyncio, lazy_module
from neuralbox_async._type_parameters import T

if TYPE_CHECKING:
    from types import TracebackType

    from neuralbox_async._batch import opening
    from neuralbox_async._batch.inputs import RequestDefaults, Requests
    from neuralbox_async._batch.options import BatchOptions
    from neuralbox_async._batch.runner import BatchRunner
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._options import CallOptions
else:
    opening = lazy_module("neuralbox_async._batch.opening")


class AsyncBatch(AsyncOnly, AsyncIterationOnly, Generic[T]):
    """
    Many concurrent generations: an async context manager and an async iterator over their results.

    Returned by `AsyncNeuralBox.generate_many`. Entering it opens the journal and starts; iterating yields each result
    as it arrives, failures included. Leaving early cancels the requests in flight; `report` counts them, and results
    that were not read can be read afterwards. A read that is cancelled loses nothing, and any number of tasks may read.

    After the last result, reading raises what the iterator of the requests or *on_progress* has raised, or a failure
    that affects every connection of the client, such as a certificate that is not trusted.
    """

    def __init__(
        self,
        executor: Executor,
        call_options: CallOptions,
        requests: Requests,
        defaults: RequestDefaults,
        options: BatchOptions,
    ) -> None:
        check_requests(requests, defaults)
        self._executor, self._call_options, self._options = executor, call_options, options
        self._inputs, self._defaults = InputReader(requests), defaults
        self._runner: BatchRunner | None = None
        self._was_entered = False
        self._supervisor: asyncio.Task[None] | None = None
        self._finalizer: weakref.finalize[..., AsyncBatch[Any]] | None = None

    # ------------------------------------------------------------------------------------------- entering and leaving

    async def __aenter__(self) -> Self:
        """
        Open the journal, get the balance if *limit_to_balance*, and start.

        Raises `JournalLockedError`, `JournalError`, `OutcomeUnknownError` (with ``on_unknown="raise"``),
        `RequestChangedError` (with ``on_changed="raise"``), and the errors of getting the balance.
        """
        if self._was_entered:
            raise BatchStateError("a batch can be entered only once; call generate_many() again for another")
        self._was_entered = True
        self._runner = runner = await opening.open_batch(
            self._executor, self._call_options, self._inputs, self._defaults, self._options
        )
        # A task of its own, not of a group: a batch may be entered, read and left by different tasks (PEP 789). The
        # loop alone would keep a weak reference to it.
        self._supervisor = asyncio.get_running_loop().create_task(runner.run())
        self._supervisor.add_done_callback(_retrieve_exception)
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
        if self._finalizer is not None and self._runner is not None:
            self._finalizer.detach()
            await self._runner.aclose()

    def stop(self) -> None:
        """Send nothing more; requests in flight finish, and their results arrive. From the event loop's thread."""
        self._running().stop()

    # -------------------------------------------------------------------------------------------------------- reading

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BatchResult[T]:
        """Return the next result."""
        runner = self._running()
        while (result := runner.buffer.pop()) is None:
            if not await runner.wait_for_results():
                raise StopAsyncIteration
        runner.on_results_read()
        return result

    async def read_batch(self) -> list[BatchResult[T]]:
        """Return all results that have arrived, at least one; ``[]`` at the end. For bulk processing."""
        runner = self._running()
        while not (results := runner.buffer.pop_all()):
            if not await runner.wait_for_results():
                return []
        runner.on_results_read()
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


def _retrieve_exception(supervisor: asyncio.Task[None]) -> None:
    if not supervisor.cancelled():
        supervisor.exception()  # the reader gets it; asyncio logs exceptions that nobody has retrieved


def _cancel_threadsafe(runner: BatchRunner, _supervisor: asyncio.Task[None], loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.call_soon_threadsafe(runner.cancel)
    except RuntimeError:  # the loop is closed
        runner.release()
