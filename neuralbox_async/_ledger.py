"""The ledger of a batch: what it has done so far, and who is told of it."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from neuralbox_async._results import BatchProgress, BatchReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._budget import Budget
    from neuralbox_async._errors import NeuralBoxError
    from neuralbox_async._items import Items
    from neuralbox_async._results import BatchResult

_LISTED = 10_000  # keys of a kind; there can be a million
_PROGRESS_INTERVAL = 0.1


class Ledger:
    """
    Counts what becomes of *items*, whose cost *budget* knows, and tells *on_progress* of it.

    What *on_progress* raises goes to *fail*, and it is not called again.
    """

    def __init__(
        self,
        items: Items,
        budget: Budget,
        on_progress: Callable[[BatchProgress], object] | None,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.skipped = self.rate_limited = 0
        self.under_way = self.refused = 0  # now; what was refused is not sent
        self.stopped_by: NeuralBoxError | None = None
        self._items, self._budget, self._on_progress, self._fail = items, budget, on_progress, fail
        self._completed = self._tokens = self._unknown = 0
        self._failed: Counter[str] = Counter()
        self._unknown_keys: list[str] = []
        self._cancelled_keys: list[str] = []
        self._waiting_until: datetime | None = None
        self._began = time.monotonic()
        self._ended: float | None = None
        self._told_at = 0.0

    # ------------------------------------------------------------------------------------------------------- counting

    def add(self, result: BatchResult) -> None:
        """Count *result*."""
        self._tokens += result.tokens or 0
        if result.error is None:
            self._completed += 1
            return
        self._failed[type(result.error).__name__] += 1
        if result.error.billed != "no":
            self._doubt(result.key)

    def give_up(self, key: str, *, maybe_billed: bool) -> None:
        """Count a request that was cancelled on its way."""
        self._cancelled_keys.append(key)
        if maybe_billed:
            self._doubt(key)

    def finish(self) -> None:
        """Note that all is done that will be, and tell of it."""
        self._ended = time.monotonic()
        self.tell(at_once=True)

    def _doubt(self, key: str) -> None:
        self._unknown += 1
        if len(self._unknown_keys) < _LISTED:
            self._unknown_keys.append(key)

    # -------------------------------------------------------------------------------------------------------- telling

    def tell(self, *, at_once: bool = False) -> None:
        """Tell of progress, not too often unless *at_once*."""
        now = time.monotonic()
        if self._on_progress is None or (now - self._told_at < _PROGRESS_INTERVAL and not at_once):
            return
        self._told_at = now
        try:
            self._on_progress(self.progress)
        except Exception as error:  # noqa: BLE001 - the user's own: it is raised where the user reads
            self._on_progress = None
            self._fail(error)

    def wait_until(self, opens_at: float | None, now: float) -> None:
        """Note, and tell, that a limit holds up what comes next until *opens_at* (`time.monotonic`), or none does."""
        was_waiting = self._waiting_until is not None
        if opens_at is None:
            self._waiting_until = None
        else:
            self._waiting_until = datetime.now(UTC) + timedelta(seconds=opens_at - now)
        if was_waiting != (opens_at is not None):
            self.tell(at_once=True)

    @property
    def progress(self) -> BatchProgress:
        """How far it has come."""
        total, results = self._items.total, self._results
        rate = results / self._seconds if self._seconds > 0 else 0.0
        left = None if total is None else total - results - self.skipped
        return BatchProgress(
            done=self._completed,
            failed=self._failed.total(),
            skipped=self.skipped,
            in_flight=self.under_way - self.refused,
            total=total,
            tokens=self._tokens,
            rate=rate,
            eta_seconds=left / rate if left is not None and rate else None,
            waiting_until=self._waiting_until,
        )

    @property
    def report(self) -> BatchReport:
        """What was done, and what was left."""
        total = self._items.total
        others = self._results + self.skipped + self.under_way + len(self._cancelled_keys)
        return BatchReport(
            completed=self._completed,
            failed=dict(self._failed),
            skipped=self.skipped,
            unknown=self._unknown,
            unknown_keys=tuple(self._unknown_keys),
            cancelled_keys=tuple(self._cancelled_keys),
            not_started=None if total is None else total - others,
            stopped_by=self.stopped_by,
            rate_limited=self.rate_limited,
            tokens=self._tokens,
            tokens_before=self._budget.spent_before,
            tokens_at_risk=self._budget.at_risk,
            seconds=self._seconds,
        )

    @property
    def _results(self) -> int:
        return self._completed + self._failed.total()

    @property
    def _seconds(self) -> float:
        return (self._ended or time.monotonic()) - self._began
