"""The events of a batch for observers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._call.monitor import error_type_of, new_id, notify, run_elsewhere
from neuralbox_async._lazy_imports import asyncio
from neuralbox_async._observers import BatchEnded, BatchInfo, BatchItemEnded, BatchItemStarted, BatchStarted

if TYPE_CHECKING:
    from neuralbox_async._batch.results import BatchReport, BatchResult
    from neuralbox_async._call.executor import Executor
    from neuralbox_async._observers import Event, ItemOutcome, Observer


class BatchObservation:
    """Informs *observers* of one batch; without observers it does nothing."""

    def __init__(self, observers: tuple[Observer, ...] = (), budget: int | None = None) -> None:
        self._observers = observers
        self._info: BatchInfo | None = None  # once it has begun; None again at its end
        self._budget = budget
        self.running = False
        """Whether anything is observed now: it has begun, has not ended, and has observers."""

    def begin(self, executor: Executor) -> Executor:
        """Report the beginning. Return an executor whose calls belong to the batch."""
        if not self._observers:
            return executor
        self._info = info = BatchInfo(id=new_id(), budget=self._budget)
        self.running = True
        self._notify(BatchStarted(batch=info))
        return attrs.evolve(executor, monitor=attrs.evolve(executor.monitor, batch=info))

    def begin_item(self, index: int) -> None:
        """Report that the item *index* is being processed."""
        if self._info is not None:
            self._notify(BatchItemStarted(batch=self._info, index=index))

    def end_item(self, result: BatchResult) -> None:
        """Report *result*."""
        if self._info is None:
            return
        error = result.error
        outcome: ItemOutcome = "completed"
        if error is not None:
            outcome = "unresolved" if error.billed == "unknown" else "failed"
        self._end_item(result.index, outcome, result.tokens_used, None if error is None else error_type_of(error))

    def end_item_without_result(self, index: int, *, possibly_billed: bool) -> None:
        """Report that the item *index* was not sent, or was cancelled."""
        if self._info is not None:
            self._end_item(
                index, "unresolved" if possibly_billed else "withdrawn", None if possibly_billed else 0, None
            )

    def _end_item(self, index: int, outcome: ItemOutcome, tokens_used: int | None, error_type: str | None) -> None:
        if self._info is not None:
            self._notify(
                BatchItemEnded(
                    batch=self._info, index=index, outcome=outcome, tokens_used=tokens_used, error_type=error_type
                )
            )

    def end(self, report: BatchReport) -> None:
        """Report the end of the batch. Idempotent."""
        if self._info is None:
            return
        info, self._info, self.running = self._info, None, False
        stopped_by = report.stopped_by
        self._notify(
            BatchEnded(
                batch=info,
                completed=report.completed,
                failed=report.failed,
                unresolved=report.unknown,
                skipped=report.skipped,
                tokens_used=report.tokens_used,
                elapsed=report.elapsed,
                error_type=None if stopped_by is None else error_type_of(stopped_by),
            )
        )

    def _notify(self, event: Event) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # the loop was closed, and the batch is collected
            run_elsewhere(functools.partial(notify, self._observers, event))
        else:
            notify(self._observers, event)
