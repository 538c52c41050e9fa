"""The progress of a batch on stderr: a bar at a terminal, otherwise a line from time to time."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from neuralbox_async import BatchProgress
from neuralbox_async._cli.error_messages import printable_line
from neuralbox_async._cli.terminal import console, counted, print_error

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_STEP_PERCENT: Final = 10
_MIN_INTERVAL, _MAX_INTERVAL = 1.0, 10.0  # seconds between two lines
_WAITING_INTERVAL: Final = 60.0  # seconds between two lines during the wait for a rate limit
_BAR_WIDTH: Final = 20
_SECONDS_MATTER: Final = timedelta(minutes=2)


class ProgressDisplay(Protocol):
    """Shows the progress of a batch."""

    def update(self, progress: BatchProgress) -> None:
        """Show *progress*."""

    def message(self, text: str) -> None:
        """Write *text* as a line that stays."""


@contextmanager
def progress_display(*, animated: bool) -> Generator[ProgressDisplay]:
    """Yield a bar if *animated* and stderr is a terminal, otherwise a display of lines."""
    if not (animated and sys.stderr.isatty()):
        yield _ProgressLines()
        return
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    texts = Column(no_wrap=True, overflow="ellipsis")
    columns = (BarColumn(bar_width=_BAR_WIDTH), TextColumn("{task.description}", markup=False, table_column=texts))
    with Progress(*columns, console=console(sys.stderr), transient=True, refresh_per_second=5) as progress:
        yield _ProgressBar(progress)


class _ProgressBar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task("", total=None)

    def update(self, progress: BatchProgress) -> None:
        self._progress.update(
            self._task, completed=_finished(progress), total=progress.total, description=" · ".join(_facts(progress))
        )

    def message(self, text: str) -> None:
        self._progress.console.print(printable_line(text))


class _ProgressLines:
    """A line every 10 % or 10 seconds; when a wait for a rate limit begins, one at once and then one a minute."""

    def __init__(self) -> None:
        self._percent = 0
        self._printed_at = time.monotonic()
        self._waiting = False

    def update(self, progress: BatchProgress) -> None:
        percent = 100 * _finished(progress) // progress.total if progress.total else 0
        wait_begins = progress.waiting_until is not None and not self._waiting
        self._waiting = progress.waiting_until is not None
        age = time.monotonic() - self._printed_at
        stepped = percent >= self._percent + _STEP_PERCENT and age >= _MIN_INTERVAL
        if stepped or wait_begins or age >= (_WAITING_INTERVAL if self._waiting else _MAX_INTERVAL):
            self._printed_at, self._percent = time.monotonic(), percent
            print_error(printable_line(f"neuralbox: {percent} %: {', '.join(_facts(progress))}"))

    def message(self, text: str) -> None:
        print_error(printable_line(text))


def _finished(progress: BatchProgress) -> int:
    return progress.completed + progress.failed + progress.skipped


def _facts(progress: BatchProgress) -> list[str]:
    """Return the facts of *progress*, the most important first: a narrow terminal cuts off the end."""
    facts = [f"{progress.completed + progress.skipped:,} of {progress.total or 0:,} completed"]
    if progress.failed:
        facts.append(f"{progress.failed:,} failed")
    if progress.waiting_until is not None:
        facts.append(f"rate limit: waiting until {_clock_time(progress.waiting_until)}")
    facts.append(f"{progress.in_flight:,} in flight")
    facts.append(counted(progress.tokens_used, "token"))
    if progress.rate:
        facts.append(f"{progress.rate:,.1f}/s")
    if progress.eta_seconds is not None and _finished(progress) != progress.total:
        facts.append(f"{timedelta(seconds=round(progress.eta_seconds))} left")
    return facts


def _clock_time(when: datetime) -> str:
    distance = when - datetime.now(UTC)
    if distance < _SECONDS_MATTER:
        return f"{when.astimezone():%H:%M:%S}"
    return f"{when.astimezone():%H:%M}" if distance < timedelta(days=1) else f"{when.astimezone():%d %b %H:%M}"
