"""One run of a batch: what is sent, what is written, how signals stop it, and what is said at its end."""

from __future__ import annotations

import asyncio
import shlex
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Literal, TypeAlias

import anyio
import attrs
import click

from neuralbox_async import (
    AsyncBatch,
    AsyncNeuralBox,
    BatchReport,
    BatchResult,
    BudgetReachedError,
    JournalError,
)
from neuralbox_async._cli._failures import described, one_line
from neuralbox_async._cli._gauge import Gauge, gauge
from neuralbox_async._cli._outcomes import Output, line_of, lines_done
from neuralbox_async._cli._rows import BadRowError, Rows
from neuralbox_async._cli._terminal import complain

Pace: TypeAlias = float | Literal["auto"]

_DONE, _FAILURE, _SOME_FAILED, _STOPPED, _SIGNALLED = 0, 1, 3, 4, 128
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SHOWN_KEYS: Final = 5
_UNKNOWN: Final = "OutcomeUnknownError"


@attrs.frozen(kw_only=True)
class Plan:
    """What was asked for, as the command was told."""

    source: str
    output: Output
    journal: str | None
    on_unknown: Literal["skip", "retry", "ask"]
    concurrency: int
    pace: Pace
    budget: int | None
    limit_to_balance: bool
    timeout: float | None
    max_retries: int | None
    ordered: bool
    local: bool
    skip_bad: bool
    arguments: tuple[str, ...]


class Run:
    """Carries *plan* out with *client*, for the good ones of *rows*."""

    def __init__(self, plan: Plan, rows: Rows, client: AsyncNeuralBox) -> None:
        self._plan, self._rows, self._client = plan, rows, client
        self._batch: AsyncBatch | None = None  # once it is at work
        self._report: BatchReport | None = None
        self._first_failed: BatchResult | None = None
        self._signal: int | None = None
        self._failure: OSError | BadRowError | None = None

    def result(self) -> int:
        """
        Run, say on stderr how it went, and return the exit status.

        Raises `NeuralBoxError` when nothing could be sent, `OutcomeUnknownError` among them when it is to be asked, and
        `OSError` or `click.ClickException` when rows could not be read or results not be written.
        """
        anyio.run(self._carry_out)
        if isinstance(self._failure, BrokenPipeError):
            raise self._failure
        if self._report is not None:
            self._tell(self._report)
        if isinstance(self._failure, BadRowError):
            raise click.ClickException(f"{self._plan.source}: {self._failure}")
        if self._failure is not None:
            raise self._failure
        if self._signal is not None:
            complain("neuralbox: interrupted")
        return self._status()

    # ---------------------------------------------------------------------------------------------------------- running

    async def _carry_out(self) -> None:
        with gauge(moving=not self._plan.output.is_terminal) as shown:
            async with self._client:
                with anyio.CancelScope() as scope, _heeded(lambda number: self._stop(number, scope, shown)):
                    await self._send(shown)

    async def _send(self, shown: Gauge) -> None:
        plan = self._plan
        batch = self._client.generate_many(
            self._rows,
            max_concurrency=plan.concurrency,
            ordered=plan.ordered,
            journal=plan.journal,
            on_unknown=plan.on_unknown,
            budget=plan.budget,
            limit_to_balance=plan.limit_to_balance,
            pace=plan.pace,
            on_progress=shown.show,
        )
        try:
            async with batch:
                # Nothing is sent before the first wait, so that the journal has what earlier runs did and no more.
                plan.output.begin(() if plan.journal is None else lines_done(plan.journal, self._rows))
                self._batch = batch
                shown.show(batch.progress)
                await self._write(batch)
        finally:
            if self._batch is not None:
                self._report = batch.report
                await self._write(batch)  # what was answered before it was left
            self._end_output()

    def _end_output(self) -> None:
        plan, report = self._plan, self._report
        try:
            if plan.ordered and report is not None and report.skipped and self._failure is None:
                plan.output.sort()  # what earlier runs did stands in the order in which it was done
        except OSError as error:
            self._failure = error
        finally:
            plan.output.close()

    async def _write(self, batch: AsyncBatch) -> None:
        try:
            while results := await batch.read_batch():
                self._write_lines(batch, [line_of(result, self._rows) for result in results])
                self._first_failed = self._first_failed or next((one for one in results if one.error is not None), None)
                if self._failure is not None and self._plan.journal is None:
                    return  # what is in flight could be kept nowhere
        except (BadRowError, OSError) as error:  # of the rows, which are read a second time
            self._failure = self._failure or error

    def _write_lines(self, batch: AsyncBatch, lines: list[str]) -> None:
        if self._failure is None:
            try:
                self._plan.output.write(lines)
            except OSError as error:
                self._failure = error
                batch.stop()  # what is in flight is paid for: the journal keeps it for the next run

    def _stop(self, number: int, scope: anyio.CancelScope, shown: Gauge) -> None:
        """Do what a signal asks for: finish what is in flight; at once if it is the second."""
        if self._signal is not None or self._batch is None:
            scope.cancel()
        else:
            self._batch.stop()
            in_flight = self._batch.progress.in_flight
            what = f"finishing {in_flight:,} in flight" if in_flight else "stopping"
            shown.note(f"neuralbox: {what}; Ctrl-C again stops at once")
        self._signal = self._signal or number

    # -------------------------------------------------------------------------------------------------- what it came to

    def _status(self) -> int:
        report = self._report
        if self._signal is not None or report is None:
            return _SIGNALLED + (self._signal or signal.SIGINT)
        if report.stopped_by is not None:
            return _FAILURE if isinstance(report.stopped_by, JournalError) else _STOPPED
        return _SOME_FAILED if report.failed else _DONE

    def _tell(self, report: BatchReport) -> None:
        first = self._first_failed
        if report.stopped_by is not None:
            complain(described(report.stopped_by))
        elif first is not None and first.error is not None:
            complain(one_line(f"neuralbox: the first to fail was {first.key}: {first.error.message}"))
        complain(f"neuralbox: {'; '.join(_facts(report, self._rows))}")
        if report.unknown:
            complain(one_line(f"neuralbox: {_doubts(report)}"))
        if again := self._again(report):
            complain(again)

    def _again(self, report: BatchReport) -> str:
        """Return how to go on, if anything is left to do."""
        others = sum(count for kind, count in report.failed.items() if kind != _UNKNOWN)
        left = others + len(report.cancelled_keys) + (report.not_started or 0)
        left += isinstance(self._failure, OSError)  # what is done is in the journal, and not in the output
        if not left and not report.unknown:
            return ""
        if self._plan.journal is None:
            return "neuralbox: there is no journal: another run would send all rows again"
        stdin = " (with the same rows on stdin)" if self._plan.source == "-" else ""
        if left:
            # The same budget is the same money, and is spent; it may have been the balance that was too small.
            stop = report.stopped_by
            stopped = isinstance(stop, BudgetReachedError) and stop.budget == self._plan.budget
            return f"To go on{stdin}{', with a larger --budget' if stopped else ''}: {self._command()}"
        return f"To send them again{stdin}, and perhaps pay twice: {self._command('--on-unknown', 'retry')}"

    def _command(self, *options: str) -> str:
        """Return the command, with *options* as well."""
        given = self._plan.arguments
        end = len(given)  # where an option counts, whatever the same one says before
        if "--" in given[-2:]:
            end = given.index("--", max(0, end - 2))  # behind it is no option, but IN at most
        return shlex.join(("neuralbox", "batch", *given[:end], *options, *given[end:]))


def _facts(report: BatchReport, rows: Rows) -> list[str]:
    facts = [f"{report.completed:,} done"]
    if report.failed:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(report.failed.items()))
        facts.append(f"{sum(report.failed.values()):,} failed ({kinds})")
    if report.skipped:
        facts.append(f"{report.skipped:,} done before")
    if report.cancelled_keys:
        facts.append(f"{len(report.cancelled_keys):,} given up")
    if report.not_started:
        facts.append(f"{report.not_started:,} not started")
    if rows.bad:
        facts.append(f"{rows.bad:,} left out as bad")
    return [*facts, _cost(report), f"{report.elapsed:,.1f} s"]


def _cost(report: BatchReport) -> str:
    cost = f"{report.tokens_used:,} token{'' if report.tokens_used == 1 else 's'}"
    more = [f"{report.tokens_used_total:,} in all runs"] if report.tokens_used_before else []
    if report.tokens_possibly_billed and not report.unknown:  # otherwise it is said with their keys
        more.append(f"up to {report.tokens_possibly_billed:,} more for what may have been billed")
    return f"{cost} ({', '.join(more)})" if more else cost


def _doubts(report: BatchReport) -> str:
    keys = ", ".join(report.unknown_keys[:_SHOWN_KEYS]) + (", ..." if report.unknown > _SHOWN_KEYS else "")
    price = f", for {report.tokens_possibly_billed:,} tokens" if report.tokens_possibly_billed else ""
    return f"{report.unknown:,} may have been billed without an answer{price}: {keys}"


@contextmanager
def _heeded(take: Callable[[int], None]) -> Generator[None]:
    """Let *take* have, in the event loop, the signals that ask to end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # they come to the main thread only
        return
    loop = asyncio.get_running_loop()

    # Not `loop.add_signal_handler`, which Windows has not.
    def hand_over(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(take, number)

    before = {number: signal.signal(number, hand_over) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
