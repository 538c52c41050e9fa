"""The user's code of a blocking batch, run in the threads that read its results."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import AsyncIterable, Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from neuralbox_async._batch.caller_items import CallerItems, lazy_messages
from neuralbox_async._batch.errors import BatchStateError
from neuralbox_async._batch.inputs import check_iterable
from neuralbox_async._lazy_imports import anyio, asyncio

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio import CancelScope

    from neuralbox_async._batch.batch import AsyncBatch
    from neuralbox_async._batch.inputs import Requests
    from neuralbox_async._batch.options import OnUnknown
    from neuralbox_async._batch.results import BatchProgress, BatchResult

_RUNNER = "thread"
_REFRESH_INTERVAL = 1.0  # seconds
_NOTHING = object()
_REENTRANT = "the iterator of the requests, or a function that the batch calls, reads results of this batch"


class CallerThread:
    """
    Runs the user's code of a blocking batch (iterator, functions, and the one that returns the key) in its readers.

    A thread that reads calls `run`, and then waits for results with `read_until_work`, which returns early when there
    is work. Several threads may read: one at a time does the work. *requests*, *on_progress* and *on_unknown* are those
    for the batch.
    """

    def __init__(
        self,
        requests: Requests,
        on_progress: Callable[[BatchProgress], object] | None,
        on_unknown: OnUnknown,
    ) -> None:
        check_iterable(requests)
        self._items: CallerItems | None = None
        self.requests: Requests = requests
        # The iterator of a list is no code of the user: no thread needs to read it, unless it has lazy messages.
        # (Compared with None: to ask a queryset whether it is true reads it.)
        is_plain = isinstance(requests, list | tuple) and all(lazy_messages(item) is None for item in requests)
        if not (is_plain or isinstance(requests, AsyncIterable)):
            self.requests = self._items = CallerItems(requests, self._wake_reader)
        self._on_progress: Any = on_progress
        self._on_unknown: Any = on_unknown
        self.on_progress = self._set_progress if callable(on_progress) else on_progress
        self.on_unknown: OnUnknown = self._ask if callable(on_unknown) else on_unknown
        self._progress: BatchProgress | None = None  # the latest that was not reported
        self._error: Exception | None = None  # of *on_progress*
        self._question: _Question | None = None
        self._waiting: deque[_Work] = deque()  # what the loop's thread wants to be run
        self._last: dict[Callable[[], object], object] = {}  # results of what was run
        self._run_at = 0.0
        self._running: dict[str, int] = {}  # has the thread that does the work
        self._reads: list[CancelScope] = []  # that wait for results
        self._loop: asyncio.AbstractEventLoop | None = None

    # --------------------------------------------------------------------------------------------- in the loop's thread

    async def read_until_work(self, read: Callable[[], Awaitable[bool]]) -> bool:
        """Return the result of *read*; True when there is work for the thread that waits."""
        self._loop = asyncio.get_running_loop()
        has_results = self._items is not None and self._items.has_results
        if self._has_work and not has_results:
            return True
        with anyio.CancelScope() as scope:
            self._reads.append(scope)
            try:
                return await read()
            finally:
                self._reads.remove(scope)
        return True

    def _wake_reader(self) -> None:
        if self._reads and self._has_work:
            self._reads[0].cancel()

    def _set_progress(self, progress: BatchProgress) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        self._progress = progress
        self._wake_reader()

    async def _ask(self, key: object) -> bool:
        question = self._question = _Question(key)
        try:
            self._wake_reader()
            await question.answered.wait()
        finally:
            self._question = None
        if question.error is not None:
            raise question.error
        return await answer if isinstance(answer := question.answers[0], Awaitable) else answer

    async def run_in_caller(self, function: Callable[[], object]) -> object:
        """
        Return the result of *function*, which a thread that reads runs: the last one while none waits for results.

        The thread may be in the iterator, or in the user's own code, for long, and requests must not wait for that:
        the iterator may wait for the result of this request, while another thread waits for results.
        """
        if not self._reads or self._running:
            last = self._last.get(function, _NOTHING)  # one step: the thread may be about to replace it
            if last is not _NOTHING:
                return last
        work = _Work(function)
        self._waiting.append(work)
        self._loop = asyncio.get_running_loop()
        self._wake_reader()
        await work.ended.wait()
        if work.error is not None:
            raise work.error
        return work.results[0]

    def remember(self, function: Callable[[], object], result: object) -> None:
        """Take *result* for the last one of *function*, unless it can be used only once."""
        if not isinstance(result, Awaitable):
            self._last[function], self._run_at = result, time.monotonic()

    # ------------------------------------------------------------------------------------------- in the caller's thread

    @property
    def _has_work(self) -> bool:
        if self._running:
            return False
        is_wanted = self._items is not None and self._items.wanted
        return is_wanted or self._progress is not None or self._question is not None or bool(self._waiting)

    def run(self, *, has_results: bool) -> None:
        """
        Do the work: read one item at most if the reader *has_results*.

        Raises `BatchStateError` if this thread does the work now, and otherwise only what interrupts it.
        """
        if self._items is None:
            if self._has_work:
                self._run_exclusively(self._work, has_results)
            return
        if self._running == {_RUNNER: threading.get_ident()}:
            raise BatchStateError(_REENTRANT)
        self._run_exclusively(self._work, has_results)
        if self._items.stopped:
            self._run_exclusively(self._items.close)

    def leave(self) -> None:
        """Have another thread that waits for results do the rest of the work, if any."""
        if self._reads and self._has_work and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and that thread's read too
                self._loop.call_soon_threadsafe(self._wake_reader)

    def finish(self) -> None:
        """Do the rest after the last result. Raises the error of *on_progress*, unless the batch has raised it."""
        self.close()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Report the final progress, and close the iterator, if this thread has read it."""
        self._run_exclusively(self._close)

    def _run_exclusively(self, work: Callable[..., None], *arguments: object) -> None:
        """Call *work*, unless a thread does work now."""
        if self._running:
            return
        this_thread = {_RUNNER: threading.get_ident()}
        try:
            if self._running.setdefault(_RUNNER, this_thread[_RUNNER]) == this_thread[_RUNNER]:
                work(*arguments)
        finally:
            # Not a lock: an interrupt could come between its `acquire` and the `try`. Here is no call before `clear`.
            if self._running == this_thread:
                self._running.clear()

    def _work(self, has_results: bool) -> None:  # noqa: FBT001
        self._report_progress()
        self._answer()
        self._run_waiting()
        if (items := self._items) is None:
            return
        items.wake()
        while items.has_room:
            items.read()
            self._report_progress()
            self._answer()
            self._run_waiting()
            if has_results or items.has_results:  # they are paid for, and the next item may take long
                break

    def _close(self) -> None:
        self._report_progress()
        if self._items is not None:
            self._items.close()

    def _report_progress(self) -> None:
        progress, self._progress = self._progress, None
        if progress is None or self._on_progress is None:
            return
        try:
            self._on_progress(progress)
        except Exception as error:  # noqa: BLE001 - raised after the last result
            self._on_progress, self._error = None, error

    def _answer(self) -> None:
        if (question := self._question) is None:
            return
        if not question.answers and question.error is None:  # otherwise an interrupt came before the wake-up
            try:
                question.answers.append(self._on_unknown(question.key))
            except Exception as error:  # noqa: BLE001 - raised after the last result
                question.error = error
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and the batch with it
                self._loop.call_soon_threadsafe(question.answered.set)

    def _run_waiting(self) -> None:
        """Run what is waited for: once for all that wait now. What is not waited for is run again after a second."""
        while self._waiting:
            self._run_for(self._waiting[0].function)
        if self._last and time.monotonic() - self._run_at > _REFRESH_INTERVAL:
            for function in list(self._last):
                self._run_for(function)

    def _run_for(self, function: Callable[[], object]) -> None:
        self._last.pop(function, None)
        result, error = None, None
        try:
            self.remember(function, result := function())
        except Exception as raised:  # noqa: BLE001 - of the user's own code: raised to the request
            error = raised
        for work in self._waiting.copy():
            if work.function != function:
                continue
            self._waiting.remove(work)
            work.results, work.error = [result], error
            if self._loop is not None:
                with suppress(RuntimeError):  # the loop has ended, and the batch with it
                    self._loop.call_soon_threadsafe(work.ended.set)
            if isinstance(result, Awaitable):  # for one of them
                break


def take_results(batch: AsyncBatch, results: deque[BatchResult]) -> None:
    """
    Move the results that *batch* has to *results*, after its loop has ended. From any thread.

    An interrupt loses none: CPython handles signals between calls of Python, and `extend` calls functions in C alone.
    """
    runner = batch._runner  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - not a method: it is not for users
    if runner is not None:
        with suppress(IndexError):  # the end
            results.extend(iter(runner.buffer.ready.popleft, None))


class _Work:
    """A *function* to be run, and how it ended."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.results: list[object] = []
        self.error: Exception | None = None
        self.ended = anyio.Event()


class _Question:
    """A question to *on_unknown*, and its answer."""

    def __init__(self, key: object) -> None:
        self.key = key
        self.answers: list[bool | Awaitable[bool]] = []
        self.error: Exception | None = None
        self.answered = anyio.Event()
