"""
The supervisor of a batch: one coroutine that holds a task group from the first request to the last result.

The supervisor takes requests, one by one, and passes them through a memory object stream to at most *max_in_flight*
workers, which run them to completion. Results leave through a `ResultBuffer`, so the user may read from any task.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from neuralbox_async._batch.batch_request import BatchRequest
from neuralbox_async._batch.coordinator import NotAdmittedError
from neuralbox_async._batch.errors import BudgetReachedError, JournalError, RequestChangedError
from neuralbox_async._batch.inputs import END
from neuralbox_async._batch.notifier import Notifier, receive_soon
from neuralbox_async._batch.results import last_error
from neuralbox_async._errors import (
    APIConnectionError,
    AuthenticationError,
    ClientClosedError,
    InsufficientTokensError,
    InvalidParameterError,
    NeuralBoxError,
    PermissionDeniedError,
    UnsupportedEventLoopError,
)
from neuralbox_async._lazy_imports import anyio, asyncio

if TYPE_CHECKING:
    from anyio.abc import TaskGroup
    from anyio.streams.memory import MemoryObjectReceiveStream

    from neuralbox_async._batch.coordinator import Coordinator
    from neuralbox_async._batch.inputs import InputReader
    from neuralbox_async._batch.preparation import RequestPreparer
    from neuralbox_async._batch.results import BatchResult, ResultBuffer
    from neuralbox_async._batch.stats import BatchStats
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._options import CallOptions

_UNWIND_TIMEOUT, _SYNC_TIMEOUT = 2.0, 5.0
_POLL_INTERVAL = 0.5  # seconds after which waiting requests check again: limits are learned, clients closed elsewhere
_POLLS_PER_SYNC = 2
_PASSES_PER_CHECKPOINT = 256
_FATAL_ERRORS = (AuthenticationError, ClientClosedError, UnsupportedEventLoopError, JournalError)
_CLIENT_PARAMETERS = frozenset({"api_key", "base_url", "proxy"})  # that no request can change


class RunState(enum.Enum):
    """
    The states of a running batch.

        RUNNING --402, 403 insufficient_plan, budget reached--> DRAINING
        RUNNING, DRAINING --stop(), fatal error--> STOPPING
        RUNNING, DRAINING, STOPPING --last result, aclose()--> FINISHED

    DRAINING: sends nothing new; requests that earlier runs completed or left pending are still taken, as that is free.
    STOPPING: takes nothing more; requests in flight finish. `aclose` cancels these as well. Fatal errors: those after
    which no request can succeed (`_FATAL_ERRORS`), and exceptions of the user's own code.
    """

    RUNNING = enum.auto()
    DRAINING = enum.auto()
    STOPPING = enum.auto()
    FINISHED = enum.auto()


_RUNNING = RunState.RUNNING  # in Python 3.11 the lookup takes as long as a call


class BatchRunner:
    """One running batch: at most *max_in_flight* of *inputs* are in flight, and their results go to *buffer*."""

    def __init__(
        self,
        *,
        executor: Executor,
        options: CallOptions,
        inputs: InputReader,
        preparer: RequestPreparer,
        coordinator: Coordinator,
        stats: BatchStats,
        buffer: ResultBuffer,
        max_in_flight: int,
    ) -> None:
        self.buffer, self.stats = buffer, stats
        self._executor, self._options, self._inputs = executor, options, inputs
        self._preparer, self._coordinator = preparer, coordinator
        self._max_in_flight = max_in_flight
        self._state = _RUNNING
        self._failure: BaseException | None = None  # of the user's code: raised after the last result
        self._capacity_changed, self._results_changed = Notifier(), Notifier()
        self._results_final, self._closed = anyio.Event(), anyio.Event()
        self._scope = anyio.CancelScope()
        self._workers = self._busy_workers = self._passed = 0
        stats.start(coordinator, on_error=self._fail)

    # ------------------------------------------------------------------------------------------------- the supervisor

    async def run(self) -> None:
        """Run the batch to its end. To be called once, in a task of its own."""
        loop = asyncio.get_running_loop()
        try:
            with self._scope:
                async with anyio.create_task_group() as housekeeping:
                    housekeeping.start_soon(self._run_periodically)
                    await self._take_and_process()
                    housekeeping.cancel_scope.cancel()
        except GeneratorExit:  # the loop was closed
            raise
        except BaseException as error:
            self._failure = self._failure or _as_failure(error)  # the reader must not take this for the end
            if not isinstance(error, Exception):
                raise
        finally:
            if loop.is_closed():  # before the batch ended: nothing can be awaited any more
                self.release()
            else:
                await self._end()
        if isinstance(self._failure, KeyboardInterrupt | SystemExit):
            raise self._failure  # the program ends

    async def _take_and_process(self) -> None:
        """Take all requests, and wait until the workers have completed them."""
        send, receive = anyio.create_memory_object_stream[BatchRequest](self._max_in_flight)
        with receive:
            async with anyio.create_task_group() as workers:
                with send:
                    try:
                        while (batch_request := await self._take()) is not None:
                            send.send_nowait(batch_request)
                            self._assign_worker(workers, receive)
                    except BaseException as error:  # noqa: BLE001 - of the user's own code
                        self._fail_unless_ending(error)

    async def _end(self) -> None:
        try:
            self._finish()
            await self._inputs.aclose(_UNWIND_TIMEOUT)
            await self._sync()
        finally:
            self._coordinator.close()
            self._closed.set()

    def _finish(self) -> None:
        """Let the readers see the end. Idempotent."""
        if not self.has_finished:
            self._state = RunState.FINISHED
            self._coordinator.finish()
            self.buffer.finish()
            self.stats.finish()
        self._results_final.set()
        self._results_changed.notify_all()

    async def _run_periodically(self) -> None:
        """Check every half second for a closed client; every second, check and fsync the journal, report progress."""
        polls = 0
        while True:
            await anyio.sleep(_POLL_INTERVAL)
            try:
                self._executor.check_open()
            except ClientClosedError as error:
                self.stop(error)
            self._coordinator.wake()
            polls += 1
            if polls % _POLLS_PER_SYNC == 0:
                await self._sync()
                self.stats.report_progress()

    async def _sync(self) -> None:
        if not self._coordinator.has_journal:
            return
        with anyio.move_on_after(_SYNC_TIMEOUT, shield=True):
            try:
                await anyio.to_thread.run_sync(self._coordinator.sync, abandon_on_cancel=True)
            except JournalError as error:
                self.stop(error)

    # --------------------------------------------------------------------------------------------------------- ending

    @property
    def has_finished(self) -> bool:
        """Whether the last result is in the buffer."""
        return self._state is RunState.FINISHED

    def stop(self, error: NeuralBoxError | None = None) -> None:
        """Take no more requests, because of *error*; requests in flight finish. Idempotent."""
        self._stop_sending(RunState.STOPPING, error)

    def _stop_sending(self, state: RunState, error: NeuralBoxError | None) -> None:
        if self._state is _RUNNING or (self._state is RunState.DRAINING and state is RunState.STOPPING):
            self._state = state
        self.stats.stop(error)
        self._coordinator.stop_sending()
        if not self._is_taking:
            self._inputs.stop()
            self._capacity_changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        """Stop because the user's own code raised *error*."""
        self._failure = self._failure or error
        if isinstance(error, Exception):
            self.stop()
        else:
            self.cancel()

    def _fail_unless_ending(self, error: BaseException) -> None:
        """Stop because of *error*, which the user's own code raised; re-raise it if it only ends this batch."""
        if isinstance(error, GeneratorExit) or (
            isinstance(error, asyncio.CancelledError) and self._scope.cancel_called
        ):
            raise error
        self._fail(_as_failure(error))

    async def aclose(self) -> None:
        """Cancel the requests in flight and release the journal. Waits for no response."""
        self.cancel()
        try:
            with anyio.move_on_after(_UNWIND_TIMEOUT, shield=True):
                await self._results_final.wait()
            self._finish()  # also if the user's own code, such as a key function, does not unwind
            with anyio.move_on_after(_UNWIND_TIMEOUT + _SYNC_TIMEOUT, shield=True):
                await self._closed.wait()
        finally:
            self._coordinator.close()

    def cancel(self) -> None:
        """Do the same as `aclose` without waiting."""
        self.stop()
        self._scope.cancel()

    def release(self) -> None:
        """Release the journal after the loop was closed, and all tasks ended with it. From any thread."""
        self.stats.observation.end(self.stats.report)
        self._coordinator.close()

    # -------------------------------------------------------------------------------------------------------- reading

    async def wait_for_results(self) -> bool:
        """Wait for more results; return False after the last one. Raises the error of the user's own code."""
        if not self.has_finished:
            await self._results_changed.wait()
            return True
        if self._failure is not None:
            raise self._failure
        return False

    def on_results_read(self) -> None:
        """Take more requests: results were read."""
        self._capacity_changed.notify_all()

    # ------------------------------------------------------------------------------------------------- taking requests

    async def _take(self) -> BatchRequest | None:
        """Return the next request, once it may be sent and a worker is free; None after the last."""
        while self._is_taking:
            if self.buffer.full or self._busy_workers >= self._max_in_flight:
                await self._capacity_changed.wait()
            elif (item := await self._inputs.next()) is not END:
                self.buffer.reserve()
                if (batch_request := await self._prepare(self._inputs.taken - 1, item)) is not None:
                    return batch_request
        return None

    @property
    def _is_taking(self) -> bool:
        if self._inputs.ended:
            return False
        if self._state is _RUNNING:
            return True
        return self._state is RunState.DRAINING and self._coordinator.expects_claims(self._inputs.total)

    async def _prepare(self, index: int, item: object) -> BatchRequest | None:
        """Return the request that *item* describes, once it may be sent; None if it is not sent."""
        try:
            prepared = await self._preparer.prepare(index, item)
        except BudgetReachedError as error:
            self._stop_sending(RunState.DRAINING, error)
        except NotAdmittedError:
            pass
        except RequestChangedError as error:
            self.stop(error)
            raise
        else:
            if isinstance(prepared, BatchRequest):
                return prepared
            if prepared is None:
                self.stats.add_skipped()
            elif prepared.from_journal:
                self._deliver_earlier(prepared)
                return None
            elif self._state is _RUNNING:
                self._deliver(prepared)
                return None
        await self._pass_over(index)
        return None

    async def _pass_over(self, index: int) -> None:
        self.buffer.put(index, None)
        self._passed += 1
        if self._passed % _PASSES_PER_CHECKPOINT == 0:
            self.stats.report_progress()
            await anyio.sleep(0)  # there can be a million, and other tasks must run

    # --------------------------------------------------------------------------------------------------------- working

    def _assign_worker(self, workers: TaskGroup, receive: MemoryObjectReceiveStream[BatchRequest]) -> None:
        """Have a worker for the request that was passed: one that waits, or a new one."""
        self._busy_workers += 1
        if self._busy_workers > self._workers:
            self._workers += 1
            workers.start_soon(self._work, receive)

    async def _work(self, receive: MemoryObjectReceiveStream[BatchRequest]) -> None:
        try:
            while (batch_request := await receive_soon(receive)) is not None:
                await self._process(batch_request)
                self._busy_workers -= 1
                self._capacity_changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - of the user's own code
            self._fail_unless_ending(error)

    async def _process(self, batch_request: BatchRequest) -> None:
        self.stats.begin(batch_request)
        result: BatchResult | None = None
        try:
            result = await batch_request.run(self._executor, self._options, self._coordinator)
        except NotAdmittedError:
            pass
        except BaseException:
            if (result := batch_request.unread_result) is not None:
                self._deliver(result)
            raise
        finally:
            self.stats.end(batch_request, result)
        if batch_request.budget_error is not None:
            self._stop_sending(RunState.DRAINING, batch_request.budget_error)
        if batch_request.journal_error is not None:
            self.stop(batch_request.journal_error)
        if result is None:
            self.buffer.put(batch_request.index, None)
        elif result.error is not None and self._concerns_the_client(result.error):
            self.stats.observation.end_item(result)
            self.buffer.put(batch_request.index, None)
            self.stop(result.error)
            raise result.error
        else:
            self._deliver(result)

    def _concerns_the_client(self, error: NeuralBoxError) -> bool:
        """Return whether *error*, of a result, is about the client: it is one error, not that of each row."""
        # Not the error of a repair, behind which is a text that was paid for.
        if isinstance(error, APIConnectionError):
            # Such as a certificate that is not trusted. Once a request has succeeded, it is a passing trouble.
            return not (error.retryable or error.request_sent or self.stats.has_completed)
        return isinstance(error, InvalidParameterError) and error.parameter in _CLIENT_PARAMETERS

    def _deliver(self, result: BatchResult) -> None:
        self.stats.add(result)
        self.buffer.put(result.index, result)
        error = result.error
        if error is not None:
            self._stop_after(last_error(error))
        self._results_changed.notify_all()
        self.stats.report_progress()

    def _deliver_earlier(self, result: BatchResult) -> None:
        """Deliver the *result* of an earlier run, which is paid for: in any state, and counted as skipped if done."""
        if result.error is None:
            self.stats.add_skipped()
        else:
            self.stats.add(result)
        self.buffer.put(result.index, result)
        self._results_changed.notify_all()
        self.stats.report_progress()

    def _stop_after(self, error: NeuralBoxError) -> None:
        """Stop if each request would end with *error*."""
        if isinstance(error, _FATAL_ERRORS):
            self.stop(error)
        elif isinstance(error, InsufficientTokensError) or (
            isinstance(error, PermissionDeniedError) and error.code == "insufficient_plan"
        ):
            self._stop_sending(RunState.DRAINING, error)


def _as_failure(error: BaseException) -> BaseException:
    """Return the error that the reader gets for *error*: a cancellation of a task of the batch is not the reader's."""
    if not isinstance(error, asyncio.CancelledError):
        return error
    failure = RuntimeError("a task of the batch was cancelled from outside, or by code that it called")
    failure.__cause__ = error
    return failure
