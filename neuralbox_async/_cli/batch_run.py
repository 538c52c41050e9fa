"""One run of a batch: it sends the requests, writes the results, handles signals, and prints a summary."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final, Literal

import anyio
import attrs
import click

from neuralbox_async import (
    AsyncBatch,
    AsyncNeuralBox,
    BatchProgress,
    BatchReport,
    BatchResult,
    JournalError,
)
from neuralbox_async._batch.journal_import import import_results
from neuralbox_async._cli.completed_rows import CompletedRows
from neuralbox_async._cli.error_messages import error_line, printable_line
from neuralbox_async._cli.input_rows import InputRows
from neuralbox_async._cli.input_text import InvalidRowError
from neuralbox_async._cli.next_command import next_steps
from neuralbox_async._cli.output import Output, escaped, result_line
from neuralbox_async._cli.progress import ProgressDisplay, progress_display
from neuralbox_async._cli.saved_results import saved_results
from neuralbox_async._cli.schema import Schema
from neuralbox_async._cli.signals import SIGHUP, handle_signals
from neuralbox_async._cli.terminal import counted, discard_stderr, print_error

if TYPE_CHECKING:
    from neuralbox_async._cli.dask_batch import DaskRun, DaskRunner

_COMPLETED, _ERROR, _SOME_FAILED, _STOPPED, _SIGNALLED = 0, 1, 3, 4, 128
_MAX_KEYS_SHOWN: Final = 5


@attrs.frozen(kw_only=True)
class RunOptions:
    """The options of one run; see ``neuralbox batch --help``. *arguments*: the command line after "batch"."""

    source: str
    output: Output
    journal: str | None
    on_unknown: Literal["skip", "retry", "ask"]
    on_changed: Literal["raise", "skip", "retry"]
    max_concurrency: int
    max_rate: float | None
    budget: int | None
    limit_to_balance: bool
    ordered: bool
    schema: Schema | None
    max_repairs: int
    arguments: tuple[str, ...]

    def completed(self, rows: InputRows) -> CompletedRows:
        """Return those of *rows* that earlier runs completed, and that are not sent again."""
        return CompletedRows(self.journal, rows, self.schema, retries_changed=self.on_changed == "retry")


class BatchRun:
    """Runs the batch of the valid *rows* once, with *client*."""

    def __init__(self, options: RunOptions, rows: InputRows, client: AsyncNeuralBox | DaskRunner) -> None:
        self._options, self._rows, self._client = options, rows, client
        self._batch: AsyncBatch | DaskRun | None = None  # set when it is running
        self._report: BatchReport | None = None
        self._first_failure: BatchResult | None = None
        self._signal: int | None = None
        self._error: OSError | InvalidRowError | None = None  # the first, of reading rows or of writing results
        self._output_failed = False
        self._unwritten: list[str] = []  # lines that the output does not have

    def execute(self) -> int:
        """
        Run, print a summary to stderr, and return the exit status.

        Raises `NeuralBoxError` when nothing could be sent (`OutcomeUnknownError` if the user must decide), and
        `OSError` or `click.ClickException` when rows could not be read or results could not be written.
        """
        anyio.run(self._run)
        if self._unwritten and not self._is_journaled:
            print_error("neuralbox: these results were not written, or not completely, and no journal has them:")
            for line in self._unwritten:
                print_error(line)
        if self._report is not None:
            self._print_summary(self._report)
        if isinstance(self._error, InvalidRowError):
            raise click.ClickException(f"{self._options.source}: {self._error}")
        if self._error is not None:
            raise self._error
        if self._signal is not None:
            print_error("neuralbox: interrupted")
        return self._exit_status()

    # ---------------------------------------------------------------------------------------------------------- running

    async def _run(self) -> None:
        with progress_display(animated=not self._options.output.is_terminal) as display:
            async with self._client:
                with anyio.CancelScope() as scope, handle_signals(lambda number: self._stop(number, scope, display)):
                    await self._send(display)

    async def _send(self, display: ProgressDisplay) -> None:
        options = self._options
        batch = self._client.generate_many(
            self._rows,
            max_concurrency=options.max_concurrency,
            ordered=options.ordered,
            journal=options.journal,
            on_unknown="raise" if options.on_unknown == "ask" else options.on_unknown,
            on_changed=options.on_changed,
            budget=options.budget,
            limit_to_balance=options.limit_to_balance,
            max_rate=options.max_rate,
            output_type=None if options.schema is None else options.schema.output_type,
            max_repairs=options.max_repairs,
            on_progress=lambda progress: self._on_progress(progress, display),
        )
        if options.journal is not None and options.output.is_regular:
            # It had no room for some of the results, perhaps.
            import_results(options.journal, lambda: saved_results(options.output.path))
        try:
            async with batch:
                # Nothing is sent before the first await: the journal has the results of earlier runs, and no others.
                if options.journal is None:
                    options.output.open_empty()
                else:
                    completed = options.completed(self._rows)
                    options.output.open(completed.lines())
                    if not isinstance(batch, AsyncBatch):
                        batch.completed = completed
                self._batch = batch
                display.update(batch.progress)
                await self._write_results(batch)
        finally:
            try:
                if self._batch is not None:
                    self._report = batch.report
                    await self._write_results(batch)  # those that arrived before the batch was closed
            finally:
                self._finish_output()

    def _on_progress(self, progress: BatchProgress, display: ProgressDisplay) -> None:
        try:
            self._options.output.check_in_place()
        except OSError as error:
            self._fail_output(error)
        try:
            display.update(progress)
        except OSError:
            discard_stderr()

    def _finish_output(self) -> None:
        options, report = self._options, self._report
        try:
            if not self._output_failed:
                options.output.check_in_place()
            if options.ordered and report is not None and report.skipped and self._error is None:
                options.output.sort()  # the lines of earlier runs are in the order of their completion
        except OSError as error:
            self._error = self._error or error
        finally:
            options.output.close()

    async def _write_results(self, batch: AsyncBatch | DaskRun) -> None:
        options = self._options
        try:
            while results := await batch.read_batch():
                self._write_lines([result_line(result, self._rows, options.schema) for result in results])
                failures = (result for result in results if result.error is not None)
                self._first_failure = self._first_failure or next(failures, None)
        except (InvalidRowError, OSError) as error:  # from reading the rows a second time
            self._error = self._error or error

    def _write_lines(self, lines: list[str]) -> None:
        if not self._output_failed:
            try:
                self._options.output.write(lines)
            except OSError as error:
                self._fail_output(error)
        if self._output_failed:
            self._unwritten += map(escaped, lines)  # few: only requests in flight, which are paid for

    def _fail_output(self, error: OSError) -> None:
        self._error, self._output_failed = self._error or error, True
        if self._batch is not None:
            self._batch.stop()

    @property
    def _is_journaled(self) -> bool:
        """Whether the journal has the results for the next run."""
        lost = self._report is not None and isinstance(self._report.stopped_by, JournalError)
        return self._options.journal is not None and not lost

    def _stop(self, number: int, scope: anyio.CancelScope, display: ProgressDisplay) -> None:
        """Handle the signal *number*: let requests in flight finish; at the second signal, stop immediately."""
        first, self._signal = self._signal, self._signal or number
        if number == first == SIGHUP:
            return  # the system and the shell may both report that the terminal was closed
        if first is not None or self._batch is None:
            scope.cancel()
            return
        self._batch.stop()
        in_flight = self._batch.progress.in_flight
        state = f"waiting for {counted(in_flight, 'request')} in flight" if in_flight else "stopping"
        try:
            display.message(f"neuralbox: {state}; press Ctrl-C again to stop immediately")
        except OSError:
            discard_stderr()

    # ------------------------------------------------------------------------------------------------------ the summary

    def _exit_status(self) -> int:
        report = self._report
        if self._signal is not None or report is None:
            return _SIGNALLED + (self._signal or signal.SIGINT)
        if report.stopped_by is not None:
            return _ERROR if isinstance(report.stopped_by, JournalError) else _STOPPED
        return _SOME_FAILED if report.failed else _COMPLETED

    def _print_summary(self, report: BatchReport) -> None:
        first = self._first_failure
        if report.stopped_by is not None:
            print_error(error_line(report.stopped_by))
        elif first is not None and first.error is not None:
            print_error(printable_line(f"neuralbox: first failure: {first.key}: {first.error.message}"))
        print_error(f"neuralbox: {'; '.join(_facts(report, self._rows))}")
        if report.unknown:
            print_error(printable_line(f"neuralbox: {_unknown_fact(report)}"))
        options = self._options
        for line in next_steps(
            report,
            arguments=options.arguments,
            rows_on_stdin=options.source == "-",
            budget=options.budget,
            has_journal=options.journal is not None,
            has_unwritten=self._output_failed,
        ):
            print_error(line)


def _facts(report: BatchReport, rows: InputRows) -> list[str]:
    facts = [f"{report.completed:,} completed"]
    if report.failed:
        types = ", ".join(f"{count:,} {error_type}" for error_type, count in sorted(report.failed_by_type.items()))
        facts.append(f"{report.failed:,} failed ({types})")
    if report.skipped:
        facts.append(f"{report.skipped:,} completed by earlier runs")
    if report.cancelled_keys:
        facts.append(f"{len(report.cancelled_keys):,} cancelled")
    if report.not_started:
        facts.append(f"{report.not_started:,} not started")
    if rows.invalid:
        facts.append(f"{counted(rows.invalid, 'invalid row')} skipped")
    return [*facts, _cost(report), f"{report.elapsed:,.1f} s"]


def _cost(report: BatchReport) -> str:
    cost = counted(report.tokens_used, "token")
    details = [f"{report.tokens_used_total:,} in all runs"] if report.tokens_used_before else []
    if report.tokens_possibly_billed and not report.unknown:  # otherwise it is printed with the keys
        details.append(f"up to {report.tokens_possibly_billed:,} more may have been billed")
    return f"{cost} ({', '.join(details)})" if details else cost


def _unknown_fact(report: BatchReport) -> str:
    keys = ", ".join(report.unknown_keys[:_MAX_KEYS_SHOWN]) + (", ..." if report.unknown > _MAX_KEYS_SHOWN else "")
    price = f" ({counted(report.tokens_possibly_billed, 'token')})" if report.tokens_possibly_billed else ""
    return f"{counted(report.unknown, 'request')} may have been billed without a response{price}: {keys}"
