"""`DaskBatch`: a batch that runs on a Dask cluster; its results as they come, or as a Dask collection."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections import deque
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Self

from neuralbox_async._batch.errors import BatchStateError
from neuralbox_async._cluster.tables import frame_with_columns
from neuralbox_async.dask._coordinator import CoordinatorActor
from neuralbox_async.dask._library import dask, distributed, optional
from neuralbox_async.dask._partitions import partitions
from neuralbox_async.dask._tasks import dicts_of, frame_of, results_of, run_frame, run_partition

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from neuralbox_async._cluster.plan import Plan
    from neuralbox_async._cluster.row_results import RowResult
    from neuralbox_async._cluster.service import ClusterReport

_SIZE_INTERVAL = 5.0  # seconds between two looks at the size of the cluster


class DaskBatch:
    """
    A batch on a Dask cluster: a context manager, and an iterator over its results as tasks complete.

    Made by `generate`. Entering starts the coordinator. Leaving early lets nothing more be sent; what is in flight is
    recorded in the journal when it arrives. Iterating, `to_bag` and `to_dataframe` raise the error of a task, such as
    ``KilledWorker``, that of *on_progress*, and `JournalError` when the coordinator was lost for good. One of them is
    used, once.
    """

    def __init__(
        self,
        client: Any,
        rows: Any,
        plan: Plan,
        *,
        partition_size: int,
        journal_worker: str | None,
        on_progress: Callable[[ClusterReport], object] | None,
    ) -> None:
        self._client, self._rows, self._plan, self._partition_size = client, rows, plan, partition_size
        self._is_frame = hasattr(rows, "to_delayed") and hasattr(rows, "columns")
        self._coordinator = CoordinatorActor(client, plan, journal_worker, self._take_report, self._lose)
        self._on_progress = on_progress
        self._report: ClusterReport | None = None
        self._failure: BaseException | None = None
        self._futures: set[Any] = set()
        self._completed: Any = None
        self._ready: deque[RowResult] = deque()
        self._partitions: Iterator[Any] | None = None
        self._numbers = itertools.count()
        self._threads, self._threads_until = 1, 0.0

    def __enter__(self) -> Self:
        """Start the coordinator. Raises `JournalLockedError`, `JournalError` and `OutcomeUnknownError`."""
        if self._report is not None:
            raise BatchStateError("a batch can be entered only once; call generate() again for another")
        self._coordinator.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        early = bool(self._futures) or exc_type is not None
        try:
            if self._futures:
                self._client.cancel(list(self._futures))
                self._futures.clear()
        finally:
            self._coordinator.stop(early=early)

    @property
    def report(self) -> ClusterReport:
        """The report so far, at most some seconds old; after the block, the final one."""
        if self._report is None:
            raise BatchStateError("the batch is not entered: use `with generate(...) as batch`")
        return self._report

    # -------------------------------------------------------------------------------------------------- as they come

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RowResult:
        """Return the next result."""
        while not self._ready:
            if (results := self.next_partition()) is None:
                raise StopIteration
            self._ready.extend(results)
        return self._ready.popleft()

    def next_partition(self) -> list[RowResult] | None:
        """Return the results of the next task that completes; None at the end. Instead of iterating, not as well."""
        if self._failure is not None:
            raise self._failure
        self._submit_more()
        if not self._futures:
            return None
        future = next(self._completed)
        self._futures.discard(future)
        return self._value_of(future)

    def cancel_start(self) -> None:
        """End the wait for a coordinator, in another thread: entering then raises `BatchStateError`."""
        self._coordinator.cancel_start()

    def stop(self) -> None:
        """Let nothing more be sent. The results of what is in flight still come; other rows have an error."""
        self._partitions = iter(())
        self._coordinator.stop_sending()

    def _value_of(self, future: Any) -> list[RowResult]:
        with self._own_errors():
            value = future.result()
        return results_of(value) if self._is_frame else value

    @contextlib.contextmanager
    def _own_errors(self) -> Generator[None]:
        """Raise the failure of the batch, if there is one, instead of that of futures that it has cancelled."""
        try:
            yield
        except BaseException:
            if self._failure is not None:
                raise self._failure from None
            raise

    def _submit_more(self) -> None:
        """Have as many partitions on the cluster as its threads need, so that neither side holds them all."""
        self._begin()
        while self._partitions is not None and len(self._futures) < 2 * self._count_threads() + 2:
            if (future := next(self._partitions, None)) is None:
                self._partitions = iter(())
                return
            self._futures.add(future)
            self._completed.add(future)

    def _begin(self) -> None:
        if self._partitions is None:
            self._check_entered()
            with self._client.as_current():  # otherwise it belongs to the latest client of this process
                self._completed = distributed.as_completed([])
            self._partitions = self._submissions()

    def _count_threads(self) -> int:
        if time.monotonic() >= self._threads_until:
            self._threads = max(1, sum(self._client.nthreads().values()))
            self._threads_until = time.monotonic() + _SIZE_INTERVAL
        return self._threads

    def _submissions(self) -> Iterator[Any]:
        """Submit partition after partition, each when its future is taken."""
        settings, run = self._plan.worker, self._plan.run
        if hasattr(self._rows, "to_delayed"):
            function = functools.partial(run_frame if self._is_frame else run_partition, settings)
            for part in self._rows.to_delayed():
                name = f"neuralbox-{run}-{next(self._numbers)}"
                yield self._client.compute(dask.delayed(function, pure=False)(part, dask_key_name=name))
            return
        for part in partitions(self._rows, self._partition_size, self._count_threads):
            key = f"neuralbox-{run}-{next(self._numbers)}"
            yield self._client.submit(run_partition, settings, part, key=key, pure=False)

    # ------------------------------------------------------------------------------------------------- as a collection

    def to_bag(self) -> Any:
        """
        Wait for all results, and return a Dask bag of dicts: the row's members, and those of the result.

        Its partitions stay in the memory of the workers. The dicts have ``key``, ``content``, ``value`` (with an output
        type), ``tokens_used``, ``error_type``, ``message`` and ``billed``; see `RowResult`.
        """
        if self._is_frame:
            raise BatchStateError("the rows are a DataFrame: use to_dataframe()")
        convert = dask.delayed(functools.partial(dicts_of, typed=self._plan.worker.output_type is not None))
        return self._persisted(optional("dask.bag").from_delayed([convert(future) for future in self._all_futures()]))

    def to_dataframe(self) -> Any:
        """
        Wait for all results, and return the Dask DataFrame of the rows with the columns of the results.

        Its partitions stay in the memory of the workers. The columns are ``key``, ``content``, ``value`` (with an
        output type), ``tokens_used``, ``error_type``, ``message`` and ``billed``; see `RowResult`.
        """
        if not self._is_frame:
            raise BatchStateError("the rows are not a DataFrame: use to_bag()")
        typed = self._plan.worker.output_type is not None
        meta = frame_with_columns(self._rows._meta, [], typed=typed)  # noqa: SLF001 - Dask's own name for an empty partition
        parts = [dask.delayed(frame_of)(future) for future in self._all_futures()]
        # Dask would make strings of all objects, and values of the output type are objects.
        with dask.config.set({"dataframe.convert-string": False}):
            frame = optional("dask.dataframe").from_delayed(
                parts, meta=meta, divisions=self._rows.divisions, verify_meta=False
            )
            return self._persisted(frame)

    def _all_futures(self) -> list[Any]:
        if self._partitions is not None:
            raise BatchStateError("the results of this batch were read already")
        self._begin()
        futures: list[Any] = list(self._submissions())
        self._futures.update(futures)
        self._wait(futures)
        for future in futures:
            if future.status != "finished":
                self._value_of(future)
        return futures

    def _wait(self, futures: Any) -> None:
        with self._own_errors(), self._client.as_current():
            distributed.wait(futures)
        if self._failure is not None:
            raise self._failure

    def _persisted(self, collection: Any) -> Any:
        persisted = self._client.persist(collection)
        self._wait(persisted)
        self._futures.clear()
        return persisted

    # --------------------------------------------------------------------------------------------------------- private

    def _check_entered(self) -> None:
        if self._report is None:
            raise BatchStateError("the batch is not entered: use `with generate(...) as batch`")

    def _take_report(self, report: ClusterReport) -> None:
        self._report = report
        if self._on_progress is not None:
            try:
                self._on_progress(report)
            except Exception as error:  # noqa: BLE001 - it is raised where the user reads
                self._on_progress = None
                self._lose(error)

    def _lose(self, error: BaseException) -> None:
        self._failure = error
        self._client.cancel(list(self._futures))


def is_collection(rows: object) -> bool:
    """Return whether *rows* is a Dask bag or DataFrame."""
    return bool(dask.is_dask_collection(rows)) and hasattr(rows, "to_delayed")
