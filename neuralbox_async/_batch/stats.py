"""The statistics of a batch, and the reports of its progress."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from neuralbox_async._batch.results import BatchProgress, BatchReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._batch.coordinator import Coordinator
    from neuralbox_async._batch.inputs import InputReader
    from neuralbox_async._batch.results import BatchResult
    from neuralbox_async._errors import NeuralBoxError

_MAX_KEYS = 10_000  # in a report; there can be a million
_PROGRESS_INTERVAL = 0.1


class BatchStats:
    """
    Counts the results of a batch, and reports its progress to *on_progress*; the *coordinator* has the account's numbers.

    An exception of *on_progress* is passed to *on_error*, and it is not called again.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        inputs: InputReader,
        on_progress: Callable[[BatchProgress], object] | None,
        on_error: Callable[[BaseException], None],
    ) -> None:
        self.skipped = 0
        self.in_progress = 0  # requests that workers have now
        self.stopped_by: NeuralBoxError | None = None
        self._coordinator, self._inputs = coordinator, inputs
        self._on_progress, self._on_error = on_progress, on_error
        self._completed = self._tokens_used = self._unknown = 0
        self._failed_by_type: Counter[str] = Counter()
        self._unknown_keys: list[str] = []
        self._cancelled_keys: list[str] = []
        self._waiting_until: datetime | None = None
        self._started = time.monotonic()
        self._ended: float | None = None
        self._reported_at = 0.0

    # ------------------------------------------------------------------------------------------------------- counting

    def add(self, result: BatchResult) -> None:
        """Count *result*."""
        self._tokens_used += result.tokens_used or 0
        if result.error is None:
            self._completed += 1
            return
        self._failed_by_type[type(result.error).__name__] += 1
        if result.error.billed != "no":
            self._add_unknown(result.key)

    def add_cancelled(self, key: str, *, possibly_billed: bool) -> None:
        """Count a request that was cancelled in flight."""
        self._cancelled_keys.append(key)
        if possibly_billed:
            self._add_unknown(key)

    def finish(self) -> None:
        """Stop the time, and report the final progress."""
        self._ended = time.monotonic()
        self.report_progress(force=True)

    def _add_unknown(self, key: str) -> None:
        self._unknown += 1
        if len(self._unknown_keys) < _MAX_KEYS:
            self._unknown_keys.append(key)

    # ------------------------------------------------------------------------------------------------------ reporting

    def report_progress(self, *, force: bool = False) -> None:
        """Report the progress, some ten times a second at most unless *force*."""
        now = time.monotonic()
        if self._on_progress is None or (now - self._reported_at < _PROGRESS_INTERVAL and not force):
            return
        self._reported_at = now
        try:
            self._on_progress(self.progress)
        except Exception as error:  # noqa: BLE001 - the user's own: it is raised where the user reads
            self._on_progress = None
            self._on_error(error)

    def wait_for_limit(self, opens_at: float | None) -> None:
        """Record and report that a rate limit holds up the batch until *opens_at* (`time.monotonic`); None: none does."""
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
        left = None if total is None else total - results - self.skipped
        return BatchProgress(
            completed=self._completed,
            failed=self._failed_by_type.total(),
            failed_by_type=dict(self._failed_by_type),
            skipped=self.skipped,
            in_flight=self.in_progress - self._coordinator.refused,
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
        others = self._results + self.skipped + self.in_progress + len(self._cancelled_keys)
        return BatchReport(
            completed=self._completed,
            failed=self._failed_by_type.total(),
            failed_by_type=dict(self._failed_by_type),
            skipped=self.skipped,
            unknown=self._unknown,
            unknown_keys=tuple(self._unknown_keys),
            cancelled_keys=tuple(self._cancelled_keys),
            not_started=None if total is None else total - others,
            stopped_by=self.stopped_by,
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
