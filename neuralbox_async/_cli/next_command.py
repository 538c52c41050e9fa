"""The command line that continues a batch which did not complete all rows."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Final

from neuralbox_async import BatchReport, BudgetReachedError
from neuralbox_async._cli.shells import command_lines, user_shells

_MODULE: Final = "neuralbox_async"


def next_steps(
    report: BatchReport,
    *,
    arguments: Sequence[str],
    rows_on_stdin: bool,
    budget: int | None,
    has_journal: bool,
    has_unwritten: bool,
) -> list[str]:
    """
    Return lines with the command that continues the batch of *report*; none if nothing is left to do.

    *arguments*: those of the command so far, after "batch". *has_unwritten*: results are in the journal, but not in the
    output.
    """
    left = report.failed - report.failed_by_type.get("OutcomeUnknownError", 0)
    left += len(report.cancelled_keys) + (report.not_started or 0)
    if not left and not has_unwritten and not report.unknown:
        return []
    if not has_journal:
        return ["neuralbox: there is no journal: another run would send all rows again"]
    stdin = ", with the same rows on stdin" if rows_on_stdin else ""
    if not left and not has_unwritten:
        title = f"To send them again{stdin} (they may be billed twice)"
        return _lines(title, with_option(arguments, "--on-unknown", "retry"))
    # A larger budget helps if the budget was the limit; it may have been the balance.
    if budget is not None and isinstance(report.stopped_by, BudgetReachedError) and report.stopped_by.budget == budget:
        larger = _larger_budget(report, budget, left)
        return _lines(f"To continue{stdin}, with a larger --budget", with_option(arguments, "--budget", str(larger)))
    return _lines(f"To continue{stdin}", arguments)


def _larger_budget(report: BatchReport, budget: int, left: int) -> int:
    """Return what all rows will probably cost together, at least twice *budget* if no row has a price yet."""
    completed = report.completed + report.skipped
    if not completed or not report.tokens_used_total:
        return 2 * budget
    spent = report.tokens_used_total
    return max(budget + 1, spent + math.ceil(spent / completed * left))


def with_option(arguments: Sequence[str], option: str, value: str) -> list[str]:
    """Return *arguments* with *option* set to *value*."""
    end = len(arguments)
    if "--" in arguments[-2:]:
        end = list(arguments).index("--", max(0, end - 2))  # after it there are no options
    return [*_without_option(arguments[:end], option), option, value, *arguments[end:]]


def _without_option(arguments: Sequence[str], option: str) -> list[str]:
    """Return *arguments* without *option*. Where it may be the value of another option it stays: the last counts."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        may_be_a_value = bool(kept) and kept[-1].startswith("-") and "=" not in kept[-1]
        if may_be_a_value or argument.partition("=")[0] != option:
            kept.append(argument)
        elif argument == option:
            next(rest, None)
    return kept


def _lines(title: str, arguments: Sequence[str]) -> list[str]:
    lines = command_lines([*_program(), "batch", *arguments], user_shells())
    if not lines:
        return [f"{title}: run the same command again"]
    return [f"{title}{f' ({shell})' if shell else ''}: {line}" for shell, line in lines.items()]


def _program() -> list[str]:
    """Return the words that start this command: it may not be on the PATH."""
    started_as_module = sys.argv[0].endswith(os.path.join(_MODULE, "__main__.py"))  # noqa: PTH118 - an end of a path
    if started_as_module and shutil.which("neuralbox") is None and sys.executable:
        return [sys.executable, "-m", _MODULE]
    return ["neuralbox"]
