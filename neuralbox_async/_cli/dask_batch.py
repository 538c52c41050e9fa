"""`neuralbox batch --dask`: a batch on a cluster with the interface of a batch on one machine."""

from __future__ import annotations

import importlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.lowlevel
import attrs
import click

from neuralbox_async import BatchProgress, BatchReport, BatchResult, NeuralBoxError
from neuralbox_async._batch.changed_requests import check_unchanged
from neuralbox_async._batch.inputs import RequestDefaults
from neuralbox_async._batch.journal import Journal
from neuralbox_async._batch.typed_items import TypedOutput
from neuralbox_async._cli.completed_rows import CompletedRows
from neuralbox_async._cli.error_messages import printable_line
from neuralbox_async._cli.input_rows import InputRows
from neuralbox_async._cli.input_text import InvalidRowError
from neuralbox_async._cli.terminal import print_error
from neuralbox_async._cluster.plan import Plan, make_plan
from neuralbox_async._cluster.row_results import RowResult

_CONNECT_TIMEOUT: Final = 30.0  # seconds
_LEAVE_TIMEOUT: Final = 30.0
_PARTITION_SIZE: Final = 100  # rows


class DaskRunner:
    """
    Stands in for a client: its batches run on the cluster whose scheduler is at *address*. An async context manager.

    *timeout*, *max_retries*: of each request. Entering raises `click.ClickException` without a cluster.
    """

    def __init__(self, address: str, *, timeout: float, max_retries: int) -> None:
        self._address, self._timeout, self._max_retries = address, timeout, max_retries
        self._client: Any = None

    async def __aenter__(self) -> Self:
        try:
            distributed = importlib.import_module("distributed")
        except ModuleNotFoundError:
            raise click.UsageError("--dask needs other packages: pip install 'neuralbox[dask]'") from None
        try:
            # A client would refuse a malformed one too, and then block for a minute.
            importlib.import_module("distributed.comm").get_address_host(self._address)
            self._client = await anyio.to_thread.run_sync(
                lambda: distributed.Client(self._address, timeout=_CONNECT_TIMEOUT, set_as_default=False)
            )
            has_workers = await self._has_workers()
        except (OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise click.ClickException(f"there is no scheduler at {self._address}: {reason}") from None
        if not has_workers:
            print_error("neuralbox: the cluster has no workers: waiting for the first one")
        return self

    async def _has_workers(self) -> bool:
        try:
            return bool(await anyio.to_thread.run_sync(self._client.nthreads))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._client.close)
            raise

    async def __aexit__(self, *_: object) -> None:
        await anyio.to_thread.run_sync(self._client.close)

    def generate_many(
        self,
        rows: InputRows,
        *,
        max_concurrency: int,
        on_progress: Callable[[BatchProgress], object],
        ordered: bool,
        limit_to_balance: bool,
        **options: Any,
    ) -> DaskRun:
        """Return the batch of *rows*; the options are those of a client."""
        if ordered or limit_to_balance:
            raise AssertionError("the command refuses these options")
        plan = make_plan(
            max_concurrency_per_worker=max_concurrency,
            timeout=self._timeout,
            max_retries=self._max_retries,
            **options,
        )
        plan = attrs.evolve(plan, worker=attrs.evolve(plan.worker, keeps_outcomes=True))
        return DaskRun(self._client, rows, plan, on_progress)


class DaskRun:
    """
    One batch, with what the command uses of `AsyncBatch`.

    *completed*: the rows that are not sent, because earlier runs completed them; to be set after entering.
    """

    def __init__(
        self, client: Any, rows: InputRows, plan: Plan, on_progress: Callable[[BatchProgress], object]
    ) -> None:
        from neuralbox_async.dask import DaskBatch  # not above: it imports Dask

        self.completed: CompletedRows | None = None
        self._rows, self._plan, self._on_progress = rows, plan, on_progress
        self._batch = DaskBatch(
            client,
            self._remaining(),
            plan,
            partition_size=_PARTITION_SIZE,
            journal_worker=None,
            on_progress=None,
        )
        self._stopped = self._ended = False
        self._skipped = self._done = 0
        self._failed_by_type: Counter[str] = Counter()
        self._started, self._elapsed = time.monotonic(), 0.0

    async def __aenter__(self) -> Self:
        """Start the coordinator. Raises what a batch of a client raises, and waits for it without a time limit."""
        if self._plan.service.on_changed == "raise":
            await self._check_unchanged()
        await self._start()
        return self

    async def _start(self) -> None:
        """Start the coordinator. It waits for a worker that has a thread for it; cancelling this ends the wait."""
        ended = threading.Event()

        def enter() -> None:
            try:
                self._batch.__enter__()
            finally:
                ended.set()

        try:
            await anyio.to_thread.run_sync(enter, abandon_on_cancel=True)
        except anyio.get_cancelled_exc_class():
            self._batch.cancel_start()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(ended.wait, _LEAVE_TIMEOUT)
                await anyio.to_thread.run_sync(self._batch.__exit__, None, None, None)
            raise

    async def _check_unchanged(self) -> None:
        journal = Journal(self._plan.service.journal)
        try:
            for _ in journal.open():
                await anyio.lowlevel.checkpoint()
            output = self._plan.worker.output_type
            await check_unchanged(
                journal, self._rows, RequestDefaults(), None if output is None else TypedOutput.of(output, 0)
            )
        finally:
            journal.close()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = True
        self._stopped = self._stopped or exc_type is not None  # what it reports then is the end of itself
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._batch.__exit__, exc_type, exc, traceback)
        self._elapsed = time.monotonic() - self._started
        self._on_progress(self.progress)

    def stop(self) -> None:
        """Let nothing more be sent; what is in flight still has results."""
        self._stopped = True
        self._batch.stop()

    async def read_batch(self) -> list[BatchResult[Any]]:
        """Return the next results; none at the end."""
        while not self._ended:
            partition = await anyio.to_thread.run_sync(self._next_partition, abandon_on_cancel=True)
            if partition is None:
                break
            # A row without an outcome was not sent, because nothing more is.
            outcomes = [result.outcome for result in partition if result.outcome is not None]
            for outcome in outcomes:
                self._count(outcome)
            self._on_progress(self.progress)
            if outcomes:
                return outcomes
        return []

    def _next_partition(self) -> list[RowResult] | None:
        try:
            return self._batch.next_partition()
        except (NeuralBoxError, InvalidRowError, OSError):
            raise
        except Exception as error:
            reason = printable_line(f"{type(error).__name__}: {error}")
            raise click.ClickException(f"the cluster lost a part of the batch: {reason}") from error

    def _count(self, outcome: BatchResult[Any]) -> None:
        if outcome.error is None:
            self._done += 1
        else:
            self._failed_by_type[type(outcome.error).__name__] += 1

    def _remaining(self) -> Iterator[object]:
        for request in self._rows:
            if self._stopped or self._batch.report.stopped_by is not None:
                return
            if self.completed is not None and request in self.completed:
                self._skipped += 1
            else:
                yield request

    @property
    def progress(self) -> BatchProgress:
        """The progress, at most some seconds old."""
        report, elapsed = self._batch.report, self._seconds
        results = self._done + self._failed_by_type.total()
        rate = results / elapsed if elapsed else 0.0
        left = len(self._rows) - results - self._skipped
        return BatchProgress(
            completed=self._done,
            failed=self._failed_by_type.total(),
            failed_by_type=dict(self._failed_by_type),
            skipped=self._skipped,
            in_flight=report.in_flight,
            total=len(self._rows),
            tokens_used=report.tokens_used - report.tokens_used_before,
            rate=rate,
            eta_seconds=left / rate if rate else None,
            elapsed=elapsed,
            waiting_until=None,
        )

    @property
    def report(self) -> BatchReport:
        """The report so far; after the block, the final one."""
        report = self._batch.report
        failed = self._failed_by_type.total()
        return BatchReport(
            completed=self._done,
            failed=failed,
            failed_by_type=dict(self._failed_by_type),
            skipped=self._skipped,
            unknown=report.unresolved,
            unknown_keys=report.unresolved_keys,
            unknown_ids={},
            cancelled_keys=(),
            not_started=len(self._rows) - self._done - failed - self._skipped,
            stopped_by=None if self._stopped else report.stopped_by,
            rate_limited=report.refused,
            tokens_used=report.tokens_used - report.tokens_used_before,
            tokens_used_before=report.tokens_used_before,
            tokens_possibly_billed=report.tokens_possibly_billed,
            elapsed=self._seconds,
        )

    @property
    def _seconds(self) -> float:
        return self._elapsed or time.monotonic() - self._started
