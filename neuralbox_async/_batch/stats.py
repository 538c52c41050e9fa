"""The statistics of a batch, and the reports of its progress."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from neuralbox_async._batch.observation import BatchObservation
from neuralbox_async._batch.results import BatchProgress, BatchReport, last_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._batch.batch_request import BatchRequest
    from neuralbox_async._batch.coordinator import Coordinator
    from neuralbox_async._batch.inputs import InputReader
    from neuralbox_async._batch.results import BatchResult
    from neuralbox_async._errors import NeuralBoxError
    from neuralbox_async._types import GenerationId

_MAX_KEYS = 10_000  # in a report; there can be a million
_PROGRESS_INTERVAL = 0.1


class BatchStats:
    """Counts the results of a batch, and reports its progress to *on_progress*."""

    _coordinator: Coordinator  # it has the account's numbers
    _on_error: Callable[[BaseException], None]

    def __init__(
        self,
        inputs: InputReader,
        on_progress: Callable[[BatchProgress], object] | None,
        observation: BatchObservation | None = None,
    ) -> None:
        self._inputs, self._on_progress = inputs, on_progress
        self.observation = observation or BatchObservation()
        self._skipped = self._completed = self._tokens_used = self._unknown = 0
        self._in_progress = 0  # requests that workers have now
        self._failed_by_type: Counter[str] = Counter()
        self._unknown_keys: list[Any] = []
        self._unknown_ids: dict[Any, GenerationId] = {}
        self._cancelled_keys: list[Any] = []
        self._stopped_by: NeuralBoxError | None = None
        self._waiting_until: datetime | None = None
        self._started = time.monotonic()
        self._ended: float | None = None
        self._reported_at = 0.0

    def start(self, coordinator: Coordinator, on_error: Callable[[BaseException], None]) -> None:
        """
        Start, for a batch that *coordinator* serves; to be called once, first.

        An exception of *on_progress* is passed to *on_error*, and it is not called again.
        """
        self._coordinator, self._on_error = coordinator, on_error

    # ------------------------------------------------------------------------------------------------------- counting

    @property
    def has_completed(self) -> bool:
        """Whether any request of this run had a generation."""
        return self._completed > 0

    def begin(self, batch_request: BatchRequest) -> None:
        """Count *batch_request*, which a worker begins to process."""
        self._in_progress += 1
        if self.observation.running:
            self.observation.begin_item(batch_request.index)

    def end(self, batch_request: BatchRequest, result: BatchResult | None) -> None:
        """Count the end of *batch_request*'s processing, whatever its outcome; *result*: None without one."""
        self._in_progress -= 1
        self._tokens_used += batch_request.tokens_billed
        if result is None:
            self.observation.end_item_without_result(batch_request.index, possibly_billed=batch_request.possibly_billed)
        if batch_request.cancelled_in_flight:
            self._cancelled_keys.append(batch_request.key)
            if batch_request.possibly_billed:
                self._add_unknown(batch_request.key, batch_request.generation_id)

    def add(self, result: BatchResult) -> None:
        """Count *result*."""
        if self.observation.running:
            self.observation.end_item(result)
        if result.error is None:
            self._completed += 1
            return
        self._failed_by_type[type(result.error).__name__] += 1
        error = last_error(result.error)
        if error.billed == "unknown":
            self._add_unknown(result.key, error.generation_id)

    def add_skipped(self) -> None:
        """Count a request that is done since an earlier run."""
        self._skipped += 1

    def stop(self, error: NeuralBoxError | None) -> None:
        """Record the first error after which nothing more is sent."""
        self._stopped_by = self._stopped_by or error

    def finish(self) -> None:
        """Stop the time, and report the final progress."""
        self._ended = time.monotonic()
        self.observation.end(self.report)
        self.report_progress(force=True)

    def _add_unknown(self, key: Any, generation_id: GenerationId | None) -> None:
        self._unknown += 1
        if len(self._unknown_keys) < _MAX_KEYS:
            self._unknown_keys.append(key)
            if generation_id is not None:
                self._unknown_ids[key] = generation_id

    # ------------------------------------------------------------------------------------------------------ reporting

    def report_progress(self, *, force: bool = False) -> None:
        """Report the progress, some ten times a second at most unless *force*."""
        if self._on_progress is None:
            return
        now = time.monotonic()
        if now - self._reported_at < _PROGRESS_INTERVAL and not force:
            return
        self._reported_at = now
        try:
            self._on_progress(self.progress)
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - it is raised where the user reads
            self._on_progress = None
            self._on_error(error)

    def wait_for_limit(self, opens_at: float | None) -> None:
        """Record and report that a rate limit delays the batch until *opens_at* (`time.monotonic`), or None."""
        was_waiting = self._waiting_until is not None
        if opens_at is None:
            self._waiting_until = None
        else:
            self._waiting_until = datetime.now(UTC) + timedelta(seconds=opens_at - time.monotonic())
        if was_waiting != (opens_at is not None):
            self.report_progress(force=True)

    @property
    def progress(self) -> BatchProgress:
        """The progress now."""
        total, results, elapsed = self._inputs.total, self._results, self._elapsed
        rate = results / elapsed if elapsed > 0 else 0.0
        left = None if total is None else total - results - self._skipped
        return BatchProgress(
            completed=self._completed,
            failed=self._failed_by_type.total(),
            failed_by_type=dict(self._failed_by_type),
            skipped=self._skipped,
            in_flight=self._in_progress - self._coordinator.postponed,
            total=total,
            tokens_used=self._tokens_used,
            rate=rate,
            eta_seconds=left / rate if left is not None and rate else None,
            elapsed=elapsed,
            waiting_until=self._waiting_until,
        )

    @property
    def report(self) -> BatchReport:
        """The report so far."""
        account, total = self._coordinator.report(), self._inputs.total
        others = self._results + self._skipped + self._in_progress + len(self._cancelled_keys)
        return BatchReport(
            completed=self._completed,
            failed=self._failed_by_type.total(),
            failed_by_type=dict(self._failed_by_type),
            skipped=self._skipped,
            unknown=self._unknown,
            unknown_keys=tuple(self._unknown_keys),
            unknown_ids=dict(self._unknown_ids),
            cancelled_keys=tuple(self._cancelled_keys),
            not_started=None if total is None else total - others,
            stopped_by=self._stopped_by,
            rate_limited=account.rate_limited,
            tokens_used=self._tokens_used,
            tokens_used_before=account.spent_before,
            tokens_possibly_billed=account.possibly_billed,
            elapsed=self._elapsed,
        )

    @property
    def _results(self) -> int:
        return self._completed + self._failed_by_type.total()

    @property
    def _elapsed(self) -> float:
        return (self._ended or time.monotonic()) - self._started
