"""
The worker of a batch in one process: a client, a session with the coordinator, and an event loop in a thread.

Tasks of an engine, in any thread, have their rows run by it. It ends some seconds after the last of them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._batch.errors import BatchStateError
from neuralbox_async._batch.typed_items import TypedOutput
from neuralbox_async._call.account_state import AccountState
from neuralbox_async._client import AsyncNeuralBox
from neuralbox_async._cluster.learned_limits import LearnedLimits
from neuralbox_async._cluster.rows import RowRunner
from neuralbox_async._cluster.session import WorkerSession
from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._fork_delay import forks_wait_for_thread
from neuralbox_async._lazy_imports import anyio, asyncio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neuralbox_async._call.executor import Executor
    from neuralbox_async._cluster.messages import Link
    from neuralbox_async._cluster.row_results import RowResult
    from neuralbox_async._cluster.settings import WorkerSettings
    from neuralbox_async._options import CallOptions

_KEY_VARIABLE = "NEURALBOX_API_KEY"
_IDLE_TIMEOUT = 5.0  # seconds without a partition after which a worker ends
_POLL_INTERVAL = 0.25
_SPARE_CONNECTIONS = 10

_workers: dict[str, ProcessWorker] = {}  # by run
_lock = threading.Lock()


def run_rows(
    settings: WorkerSettings,
    connect: Callable[[], Link],
    rows: Sequence[object],
    on_last_started: Callable[[], object] = lambda: None,
) -> list[RowResult]:
    """
    Return the results of *rows*, in their order. Blocks; from any thread.

    *connect* returns the link to the coordinator. *on_last_started* is called, in this thread, when no row waits any
    more for others of this process, or when the coordinator is lost: the engine may need the thread to start another
    one. Raises only errors of the settings, such as a missing API key.
    """
    worker = _enter(settings, connect)
    try:
        return worker.run(rows, on_last_started)
    finally:
        worker.exit()


def end_worker(run: str, timeout: float) -> None:
    """Have the worker of *run* in this process, if there is one, end soon; wait for that, at most *timeout* seconds."""
    with _lock:
        worker = _workers.get(run)
    if worker is not None:
        worker.end(timeout)


def _enter(settings: WorkerSettings, connect: Callable[[], Link]) -> ProcessWorker:
    with _lock:
        worker = _workers.get(settings.run)
        if worker is None or not worker.enter():
            worker = _workers[settings.run] = ProcessWorker(settings, connect)
            worker.enter()
            worker.start()
        return worker


class _WorkerClient(AsyncNeuralBox):
    def parts(self) -> tuple[Executor, CallOptions, LearnedLimits]:
        """Return an executor whose account reports what it learns of limits, and options for a batch."""
        limits = LearnedLimits()
        account_state = AccountState(rate_limits=limits, retry_budget=self._executor.account_state.retry_budget)
        options = attrs.evolve(self._options, retry=attrs.evolve(self._options.retry, retry_rate_limits=False))
        return attrs.evolve(self._executor, account_state=account_state), options, limits


class ProcessWorker:
    """
    The worker of this process in one batch.

    RUNNING until no partition has needed it for some seconds, or its session has failed and its partitions have
    returned; then it takes no more.
    """

    def __init__(self, settings: WorkerSettings, connect: Callable[[], Link]) -> None:
        self._settings, self._connect = settings, connect
        self._users = 0
        self._waiting: set[threading.Event] = set()  # of partitions with rows that wait for others
        self._futures: set[concurrent.futures.Future[list[RowResult]]] = set()  # of all partitions
        self._pid = os.getpid()
        self._is_ending = False
        self._idle_timeout = _IDLE_TIMEOUT if settings.idle_timeout is None else settings.idle_timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runner: RowRunner | None = None
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run_loop, name="neuralbox-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self, timeout: float) -> None:
        """End as soon as no partition needs it; wait for that, at most *timeout* seconds."""
        self._idle_timeout = 0.0
        self._thread.join(timeout)

    def enter(self) -> bool:
        """Count one more user; False if it takes no more. With the lock."""
        if self._is_ending or self._pid != os.getpid():
            return False
        self._users += 1
        return True

    def exit(self) -> None:
        """Count one user less."""
        with _lock:
            self._users -= 1

    def run(self, rows: Sequence[object], on_last_started: Callable[[], object]) -> list[RowResult]:
        """Return the results of *rows*; see `run_rows`."""
        self._ready.wait()
        if self._loop is None or self._runner is None:
            raise self._failure or BatchStateError("the worker has ended")
        started = threading.Event()
        self._waiting.add(started)
        future = asyncio.run_coroutine_threadsafe(self._runner.run(rows, started.set), self._loop)
        future.add_done_callback(lambda _: started.set())
        self._futures.add(future)
        if self._is_ending:
            self._end_futures()
        started.wait()
        self._waiting.discard(started)
        on_last_started()
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise BatchStateError("the worker has ended") from None
        finally:
            self._futures.discard(future)

    def _end_futures(self) -> None:
        """End the partitions of a loop that has broken: nothing else does."""
        for future in self._futures.copy():
            with contextlib.suppress(concurrent.futures.InvalidStateError):  # it has its result
                future.set_exception(BatchStateError("the worker has ended"))

    # --------------------------------------------------------------------------------------------------- in its thread

    def _run_loop(self) -> None:
        with forks_wait_for_thread():
            try:
                asyncio.run(self._main())
            except BaseException as error:  # noqa: BLE001 - it is raised where the rows are awaited
                self._failure = error
            with _lock:
                self._is_ending = True
                if _workers.get(self._settings.run) is self:
                    del _workers[self._settings.run]
            self._end_futures()
            self._ready.set()

    async def _main(self) -> None:
        settings = self._settings
        if settings.api_key is None and not os.environ.get(_KEY_VARIABLE):
            rule = f"in the environment of each worker, as {_KEY_VARIABLE}, or returned by a function there"
            raise InvalidParameterError("api_key", None, f"{rule}: a worker has neither", show=False)
        output = None
        if settings.output_type is not None:
            output = TypedOutput.of(settings.output_type, settings.max_repairs)
        async with _WorkerClient(
            settings.api_key,
            base_url=settings.base_url,
            timeout=settings.timeout,
            max_retries=settings.max_retries,
            max_connections=settings.width + _SPARE_CONNECTIONS,
        ) as client:
            executor, call_options, limits = client.parts()
            session = WorkerSession(
                f"{os.getpid()}-{os.urandom(6).hex()}",
                self._connect,
                limits,
                reconnect_timeout=settings.reconnect_timeout,
                width=settings.width,
                on_lost=self._release_threads,
            )
            self._loop = asyncio.get_running_loop()
            self._runner = RowRunner(session, executor, call_options, settings, output)
            async with anyio.create_task_group() as group:
                group.start_soon(session.run)
                self._ready.set()
                await self._wait_until_idle(session)
                group.cancel_scope.cancel()
            await session.leave()

    def _release_threads(self) -> None:
        for started in self._waiting.copy():
            started.set()

    async def _wait_until_idle(self, session: WorkerSession) -> None:
        idle = 0.0
        while True:
            await anyio.sleep(_POLL_INTERVAL)
            with _lock:
                idle = 0.0 if self._users else idle + _POLL_INTERVAL
                if idle and (idle >= self._idle_timeout or session.has_failed):
                    self._is_ending = True
                    return
