"""How a batch is going, on stderr: a bar that moves where somebody watches, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from neuralbox_async import BatchProgress
from neuralbox_async._cli._failures import one_line
from neuralbox_async._cli._terminal import complain, console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_STEP_PERCENT: Final = 10
_OFTEN, _SELDOM, _WAITING = 1.0, 10.0, 60.0  # seconds between two lines: at least; at most; while a limit is waited for
_BAR_WIDTH: Final = 20
_SOON: Final = timedelta(minutes=2)


class Gauge(Protocol):
    """Shows how far a batch has come."""

    def show(self, progress: BatchProgress) -> None:
        """Show *progress*."""

    def note(self, text: str) -> None:
        """Write a line that stays."""


@contextmanager
def gauge(*, moving: bool) -> Generator[Gauge]:
    """Hand out what shows the progress: a bar if *moving* and stderr is a terminal, else lines."""
    if not (moving and sys.stderr.isatty()):
        yield _Lines()
        return
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    texts = Column(no_wrap=True, overflow="ellipsis")
    columns = (BarColumn(bar_width=_BAR_WIDTH), TextColumn("{task.description}", markup=False, table_column=texts))
    with Progress(*columns, console=console(sys.stderr), transient=True, refresh_per_second=5) as progress:
        yield _Bar(progress)


@contextmanager
def busy(text: str) -> Generator[None]:
    """Show *text* on stderr meanwhile, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with console(sys.stderr).status(one_line(text)):
        yield


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task("", total=None)

    def show(self, progress: BatchProgress) -> None:
        self._progress.update(
            self._task, completed=_ended(progress), total=progress.total, description=" · ".join(_facts(progress))
        )

    def note(self, text: str) -> None:
        self._progress.console.print(one_line(text))


class _Lines:
    """A line every 10 % or 10 seconds, at once when a limit begins to hold it up, and then every minute."""

    def __init__(self) -> None:
        self._percent = 0
        self._told_at = time.monotonic()
        self._waiting = False

    def show(self, progress: BatchProgress) -> None:
        percent = 100 * _ended(progress) // progress.total if progress.total else 0
        began_to_wait = progress.waiting_until is not None and not self._waiting
        self._waiting = progress.waiting_until is not None
        quiet = time.monotonic() - self._told_at
        stepped = percent >= self._percent + _STEP_PERCENT and quiet >= _OFTEN
        if stepped or began_to_wait or quiet >= (_WAITING if self._waiting else _SELDOM):
            self._told_at, self._percent = time.monotonic(), percent
            complain(one_line(f"neuralbox: {percent} %: {', '.join(_facts(progress))}"))

    def note(self, text: str) -> None:
        complain(one_line(text))


def _ended(progress: BatchProgress) -> int:
    return progress.done + progress.failed + progress.skipped


def _facts(progress: BatchProgress) -> list[str]:
    """Return what there is to say of *progress*, what matters most first: a narrow terminal cuts off the rest."""
    facts = [f"{progress.done + progress.skipped:,} of {progress.total or 0:,} done"]
    if progress.failed:
        facts.append(f"{progress.failed:,} failed")
    if progress.waiting_until is not None:
        facts.append(f"waiting until {_clock(progress.waiting_until)}")
    facts.append(f"{progress.in_flight:,} in flight")
    facts.append(f"{progress.tokens_used:,} tokens")
    if progress.rate:
        facts.append(f"{progress.rate:,.1f}/s")
    if progress.eta_seconds is not None and _ended(progress) != progress.total:
        facts.append(f"{timedelta(seconds=round(progress.eta_seconds))} left")
    return facts


def _clock(moment: datetime) -> str:
    away = moment - datetime.now(UTC)
    if away < _SOON:
        return f"{moment.astimezone():%H:%M:%S}"
    return f"{moment.astimezone():%H:%M}" if away < timedelta(days=1) else f"{moment.astimezone():%d %b %H:%M}"
