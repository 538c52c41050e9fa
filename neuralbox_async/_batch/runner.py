"""
The supervisor of a batch: one coroutine that holds a task group from the first request to the last result.

In the group run the task that takes requests, up to *max_in_flight* workers, and the housekeeping. Requests reach the
workers through a memory object stream; results leave through a `ResultBuffer`, so the user may read from any task.
"""

from __future__ import annotations

import enum
from contextlib import suppress
from typing import TYPE_CHECKING

from neuralbox_async._batch.coordinator import NotAdmittedError
from neuralbox_async._batch.inputs import END, content_key, key_of
from neuralbox_async._batch.journal import KeyStatus
from neuralbox_async._batch.notifier import Notifier
from neuralbox_async._batch.request_state import RequestState
from neuralbox_async._batch.results import BatchResult
from neuralbox_async._batch.stats import BatchStats
from neuralbox_async._call.executor import Call
from neuralbox_async._clock import time_after
from neuralbox_async._errors import (
    AuthenticationError,
    BudgetReachedError,
    ClientClosedError,
    InsufficientTokensError,
    InvalidParameterError,
    JournalError,
    NeuralBoxError,
    OutcomeUnknownError,
    PermissionDeniedError,
    UnsupportedEventLoopError,
)
from neuralbox_async._lazy_imports import anyio
from neuralbox_async._logging import logger
from neuralbox_async._wire import endpoints
from neuralbox_async._wire.responses import decode_price

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from neuralbox_async._batch.coordinator import Coordinator
    from neuralbox_async._batch.inputs import InputReader, RequestDefaults
    from neuralbox_async._batch.results import BatchProgress, ResultBuffer
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._options import CallOptions

_UNRESOLVED = "an earlier run sent it and ended before the response; it may have been billed"
_PRICE_TIMEOUT = 30.0
_UNWIND_TIMEOUT, _SYNC_TIMEOUT = 2.0, 5.0
_POLL_INTERVAL = 0.5  # seconds after which waiting requests check again: limits are learned, clients closed elsewhere
_POLLS_PER_SYNC = 2
_PASSES_PER_CHECKPOINT = 256
_FATAL_ERRORS = (AuthenticationError, ClientClosedError, UnsupportedEventLoopError, JournalError)


class RunState(enum.Enum):
    """
    The states of a batch at work.

        RUNNING --no money, budget reached--> DRAINING
        RUNNING, DRAINING --stop()--> STOPPING
        RUNNING, DRAINING, STOPPING --last result--> FINISHED

    DRAINING: sends nothing new; requests that earlier runs completed or left pending are still taken, as that is free.
    STOPPING: takes nothing more; requests in flight finish. `aclose` cancels these as well.
    """

    RUNNING = enum.auto()
    DRAINING = enum.auto()
    STOPPING = enum.auto()
    FINISHED = enum.auto()


class BatchRunner:
    """
    One batch at work.

    *choose_retry* decides for a key, whose request may have been billed without a response, whether it is sent again.
    """

    def __init__(
        self,
        *,
        executor: Executor,
        options: CallOptions,
        inputs: InputReader,
        defaults: RequestDefaults,
        make_coordinator: Callable[[Callable[[float | None], None]], Coordinator],
        choose_retry: Callable[[str], bool],
        idempotency_prefix: str,
        buffer: ResultBuffer,
        max_in_flight: int,
        on_progress: Callable[[BatchProgress], object] | None,
    ) -> None:
        self.buffer = buffer
        self._coordinator = make_coordinator(lambda opens_at: self.stats.wait_for_limit(opens_at))
        self.stats = BatchStats(self._coordinator, inputs, on_progress, self._fail)
        self._executor, self._options, self._inputs, self._defaults = executor, options, inputs, defaults
        self._choose_retry, self._idempotency_prefix = choose_retry, idempotency_prefix
        self._max_in_flight = max_in_flight
        self._state = RunState.RUNNING
        self._failure: BaseException | None = None  # of the user's code: raised after the last result
        self._room, self._news = Notifier(), Notifier()
        self._unwound, self._closed = anyio.Event(), anyio.Event()
        self._workers = self._assigned = self._passed = 0
        self._scope, self._taking = anyio.CancelScope(), anyio.CancelScope()
        self._quoted_models: set[str] = set()

    # ------------------------------------------------------------------------------------------------- the supervisor

    async def run(self) -> None:
        """Run the batch to its end. To be called once, in a task of its own."""
        try:
            with self._scope:
                async with anyio.create_task_group() as housekeeping:
                    housekeeping.start_soon(self._keep_house)
                    async with anyio.create_task_group() as workers:
                        await self._take_requests(workers)
                    housekeeping.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - a defect: it must not leave the user waiting
            self._failure = self._failure or error
        finally:
            self._finish()
            try:
                await self._sync()
            finally:
                self._coordinator.close()
                self._closed.set()

    def _finish(self) -> None:
        self._state = RunState.FINISHED
        self._unwound.set()
        self._coordinator.finish()
        self.buffer.finish()
        self.stats.finish()
        self._news.notify_all()

    async def _keep_house(self) -> None:
        """Bring the journal to the disk and report progress, now and then."""
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
        if not self._coordinator.unsynced:
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
        self._taking.cancel()

    def _stop_sending(self, state: RunState, error: NeuralBoxError | None) -> None:
        if self._state is not RunState.FINISHED and self._state is not RunState.STOPPING:
            self._state = state
        self.stats.stopped_by = self.stats.stopped_by or error
        self._coordinator.stop_sending()

    def _fail(self, error: BaseException) -> None:
        """Stop because the user's own code raised *error*."""
        self._failure = self._failure or error
        self.stop()

    async def aclose(self) -> None:
        """Cancel the requests in flight and release the journal. Waits for no response."""
        self.cancel()
        try:
            with anyio.move_on_after(_UNWIND_TIMEOUT, shield=True):
                await self._unwound.wait()
            if self.has_finished:
                with anyio.move_on_after(_SYNC_TIMEOUT, shield=True):
                    await self._closed.wait()
        finally:
            self._coordinator.close()

    def cancel(self) -> None:
        """Do the same as `aclose` without waiting."""
        self.stop()
        self._scope.cancel()

    def release(self) -> None:
        """Release the journal after the loop was closed, and all tasks ended with it. From any thread."""
        self._coordinator.close()

    # -------------------------------------------------------------------------------------------------------- reading

    async def wait_for_results(self) -> bool:
        """Wait for more results; return False after the last one. Raises the error of the user's own code."""
        if not self.has_finished:
            await self._news.wait()
            return True
        if self._failure is not None:
            raise self._failure
        return False

    def results_read(self) -> None:
        """Take more requests: results were read."""
        self._room.notify_all()

    # ------------------------------------------------------------------------------------------------- taking requests

    async def _take_requests(self, workers: TaskGroup) -> None:
        """Take requests, one by one, and pass each to a worker when it may be sent."""
        send, receive = anyio.create_memory_object_stream[RequestState](self._max_in_flight)
        with send, receive:
            async with anyio.create_task_group() as reading:
                with self._inputs, self._taking:
                    reading.start_soon(self._inputs.run)
                    try:
                        while self._is_taking and (item := await self._next_item()) is not END:
                            if (state := await self._take(item)) is not None:
                                self._assign(state, workers, send, receive)
                    except Exception as error:  # noqa: BLE001 - of the user's iterator
                        self._fail(error)
                reading.cancel_scope.cancel()

    @property
    def _is_taking(self) -> bool:
        match self._state:
            case RunState.RUNNING:
                return True
            case RunState.DRAINING:
                return self._coordinator.expects_claims(self._inputs.total)
            case RunState.STOPPING | RunState.FINISHED:
                return False

    async def _next_item(self) -> object:
        while self.buffer.full or self._assigned >= self._max_in_flight:
            await self._room.wait()
        return await self._inputs.next()

    async def _take(self, item: object) -> RequestState | None:
        """Return the request that *item* describes, once it may be sent; None if it is not sent."""
        index = self._inputs.taken - 1
        self.buffer.reserve()
        prepared = await self._prepare(index, item)
        if isinstance(prepared, RequestState):
            if await self._admit(prepared):
                return prepared
        elif prepared is None:
            self.stats.skipped += 1
        elif self._state is RunState.RUNNING:
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

    async def _prepare(self, index: int, item: object) -> RequestState | BatchResult | None:
        """Return the state of a request to send, or its result if it has one; None if it is done already."""
        headers = {**self._options.headers, "Idempotency-Key": f"{self._idempotency_prefix}-{index}"}
        try:
            request = self._defaults.request(item)
            wire = endpoints.generate(request, headers)
        except InvalidParameterError as error:
            return BatchResult(index=index, key=key_of(item) or f"#{index}", error=error, tokens_used=0)
        key = request.key or content_key(wire.body or b"")
        try:
            claim = await self._coordinator.claim(key, may_number=request.key is None)
        except InvalidParameterError as error:
            return BatchResult(index=index, key=key, request=request, error=error, tokens_used=0)
        if claim.status is KeyStatus.DONE:
            return None
        if claim.status is KeyStatus.UNRESOLVED and claim.unresolved is not None and self._state is RunState.RUNNING:
            if not self._choose_retry(claim.key):
                unknown = OutcomeUnknownError(_UNRESOLVED, keys=(claim.key,))
                return BatchResult(index=index, key=claim.key, request=request, error=unknown)
            # Should the API honour this header after all, it will not bill a second time.
            headers["Idempotency-Key"] = claim.unresolved.idempotency_key or headers["Idempotency-Key"]
        return RequestState(index, claim, request, wire)

    async def _admit(self, state: RequestState) -> bool:
        """Wait until budget and rate limits let *state* start; return False when the batch ends before."""
        if state.is_pending_before:
            await self._coordinator.admit_pending()
            return True
        if self._state is not RunState.RUNNING:
            return False
        try:
            for model in await self._coordinator.models_to_price(state.request.model):
                await self._quote(model)
            state.reserved = await self._coordinator.admit(state.request.model)
        except BudgetReachedError as error:
            self._stop_sending(RunState.DRAINING, error)
            return False
        except NotAdmittedError:
            return False
        return True

    async def _quote(self, model: str) -> None:
        """Get the price of *model* from the API, once."""
        if model in self._quoted_models:
            return
        self._quoted_models.add(model)
        call = Call(endpoints.price(model, self._options.headers), self._options, time_after(_PRICE_TIMEOUT))
        try:
            price = await self._executor.execute(call, decode_price)
        except NeuralBoxError as error:
            logger.info("the price of %s is unknown (%s): its first bill sets it", model, type(error).__name__)
        else:
            await self._coordinator.quote(model, price)

    # --------------------------------------------------------------------------------------------------------- working

    def _assign(
        self,
        state: RequestState,
        workers: TaskGroup,
        send: MemoryObjectSendStream[RequestState],
        receive: MemoryObjectReceiveStream[RequestState],
    ) -> None:
        """Pass *state* to a worker: an idle one, or a new one up to the maximum."""
        self._assigned += 1
        send.send_nowait(state)
        if self._assigned > self._workers:
            self._workers += 1
            workers.start_soon(self._work, receive.clone())

    async def _work(self, receive: MemoryObjectReceiveStream[RequestState]) -> None:
        with receive:
            while (state := await _next(receive)) is not None:
                try:
                    await self._process(state)
                finally:
                    self._assigned -= 1
                    self._room.notify_all()

    async def _process(self, state: RequestState) -> None:
        self.stats.in_progress += 1
        result: BatchResult | None = None
        try:
            result = await state.run(self._executor, self._options, self._coordinator)
        except NotAdmittedError:
            pass
        except Exception as error:  # noqa: BLE001 - of the user's own code, such as a key function
            self._fail(error)
        except (KeyboardInterrupt, SystemExit) as error:
            self._fail(error)
            raise
        finally:
            self.stats.in_progress -= 1
            if state.cancelled_in_flight:
                self.stats.add_cancelled(state.claim.key, possibly_billed=state.possibly_billed)
        if state.journal_error is not None:
            self.stop(state.journal_error)
        if result is None:
            self.buffer.put(state.index, None)
        else:
            self._deliver(result)

    def _deliver(self, result: BatchResult) -> None:
        self.stats.add(result)
        self.buffer.put(result.index, result)
        error = result.error
        if isinstance(error, _FATAL_ERRORS):
            self.stop(error)
        elif isinstance(error, InsufficientTokensError) or (
            isinstance(error, PermissionDeniedError) and error.code == "insufficient_plan"
        ):
            self._stop_sending(RunState.DRAINING, error)
        self._news.notify_all()
        self.stats.report_progress()


async def _next(receive: MemoryObjectReceiveStream[RequestState]) -> RequestState | None:
    """Return the next request, or None after the last."""
    with suppress(anyio.EndOfStream):
        try:
            return receive.receive_nowait()  # without the checkpoint of `receive` (benchmark scenario `batch`)
        except anyio.WouldBlock:
            return await receive.receive()
    return None
