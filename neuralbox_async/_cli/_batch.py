"""`neuralbox batch`: a file of prompts in, a line of JSON out for each, none of them paid for twice."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import Any, BinaryIO, Final, Literal, TextIO

import attrs
import click

from neuralbox_async import AsyncNeuralBox, GenerateRequest, OutcomeUnknownError
from neuralbox_async._cli import _rows
from neuralbox_async._cli._batch_run import Pace, Plan, Run
from neuralbox_async._cli._failures import one_line
from neuralbox_async._cli._gauge import busy
from neuralbox_async._cli._outcomes import Output, knows_anything
from neuralbox_async._cli._rows import BadRowError, Recipe, Rows, Template
from neuralbox_async._cli._terminal import complain

_DEFAULT_MODEL: Final = "gpt-5"
_USAGE: Final = 2
_STOPPED: Final = 4
_SHOWN_KEYS: Final = 10
_CONNECTIONS: Final = 1000  # the client's own limit
_CONNECTIONS_LEFT: Final = 10  # by a batch, for calls beside it
_REMEMBERED: Final = 1000  # requests, by a local server
_GLANCE: Final = 0.2  # seconds between looks for an interrupt, while an answer is awaited
_ARGUMENTS: Final = f"{__name__}.arguments"


class _Command(click.Command):
    """A command that remembers its arguments, so that it can say how it is called again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


def _template(_context: click.Context, parameter: click.Parameter, text: str | None) -> Template | None:
    try:
        return None if text is None else Template(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param=parameter) from None


def _pace(_context: click.Context, parameter: click.Parameter, text: str) -> Pace:
    if text == "auto":
        return "auto"
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.0 < rate < float("inf"):
        raise click.BadParameter(f"{text!r} is neither 'auto' nor a number of requests per second.", param=parameter)
    return rate


@click.command(cls=_Command, short_help="Generate for each row of a file, once.")
@click.argument("source", metavar="[IN]", required=False, type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "-o",
    "--output",
    default="-",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="OUT",
    help="The file for the results, one line of JSON for each row; stdout by default.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["jsonl", "csv", "lines"]),
    help="What IN is; by default as its name ends, or as its first line looks.",
)
@click.option(
    "--template",
    callback=_template,
    metavar="TEXT",
    help="The prompt, with {column} for what a row has there; {{ and }} for braces.",
)
@click.option(
    "-m",
    "--model",
    default=_DEFAULT_MODEL,
    show_default=True,
    metavar="SLUG",
    help="The model, for rows without one; so with the next three.",
)
@click.option("-s", "--system", metavar="TEXT", help="Instructions that come before the prompt.")
@click.option("-t", "--temperature", type=click.FloatRange(0, 2), metavar="T", help="How random the text is.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="The length at which a text ends.")
@click.option(
    "-c",
    "--concurrency",
    default=64,
    show_default=True,
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="How many requests are in flight at most.",
)
@click.option(
    "--pace",
    default="auto",
    show_default=True,
    callback=_pace,
    metavar="RATE",
    help="Requests per second; limits are kept and waited for either way.",
)
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="NeuralBox tokens that all runs with the same journal spend at most, this one included.",
)
@click.option("--check-balance", is_flag=True, help="Ask for the balance first, and spend no more than that.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="What one request may take, retries included; waits for limits do not count.  [default: 600]",
)
@click.option(
    "--max-retries",
    type=click.IntRange(min=0),
    metavar="N",
    help="How often a request that surely was not billed is tried again.  [default: 2]",
)
@click.option("--ordered", is_flag=True, help="Write the results in the order of the rows.")
@click.option(
    "--journal",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="What remembers, for the next run, what is done. Default: OUT.journal.jsonl, if there is an OUT.",
)
@click.option("--no-journal", is_flag=True, help="Remember nothing: another run would pay for all of it again.")
@click.option(
    "--on-unknown",
    default="skip",
    show_default=True,
    type=click.Choice(["skip", "retry", "ask"]),
    help="What to do about requests of a run that was killed, which may have been billed without an answer.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out rows that cannot be sent, instead of sending none.")
@click.option("--local", is_flag=True, help="Ask a server that runs for this call only: no key, no cost, an echo.")
@click.pass_context
def batch(
    context: click.Context,
    *,
    source: str | None,
    output: str,
    kind: _rows.Format | None,
    template: Template | None,
    model: str,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    concurrency: int,
    pace: Pace,
    budget: int | None,
    limit_to_balance: bool,
    timeout: float | None,
    max_retries: int | None,
    ordered: bool,
    journal: str | None,
    no_journal: bool,
    on_unknown: Literal["skip", "retry", "ask"],
    skip_bad: bool,
    local: bool,
) -> None:
    """
    Generate for each row of IN, many at a time, and write each result as a line of JSON.

    IN is JSONL ({"prompt": ...} or {"messages": ...}, perhaps "key" and other fields of a request), CSV with a header
    (column prompt, or a --template; perhaps key, model, system, temperature, max_tokens), or a prompt a line; stdin
    without IN. All rows are checked before the first is sent.

    With -o, a run that was stopped, or killed, goes on where it was when it is called again: nothing that is done is
    paid for again. Ctrl-C finishes what is in flight; a second one stops at once.

    Exit status: 0 all done, 1 failed, 2 wrongly called or bad rows, 3 some rows failed, 4 stopped because the rest is
    pointless (budget, balance, key, plan), 130 stopped by Ctrl-C.

    \b
    Examples:
      neuralbox batch prompts.txt -o answers.jsonl
      neuralbox batch prompts.jsonl -o answers.jsonl --model claude-sonnet-4.5 --budget 50000
      neuralbox batch reviews.csv -o moods.jsonl --template "One word, the mood of: {review}"
      neuralbox batch prompts.txt --local | jq -r .content
    """  # noqa: D301 - click's mark for lines to be left alone
    if journal is not None and no_journal:
        raise click.UsageError("--journal and --no-journal exclude each other.")
    out = Output(None if output == "-" else output)
    given = {"model": model, "system": system, "temperature": temperature, "max_tokens": max_tokens}
    recipe = Recipe(defaults={name: value for name, value in given.items() if value is not None}, template=template)
    plan = Plan(
        source=source or "-",
        output=out,
        journal=None if no_journal else journal or _default_journal(output, out, local=local),
        on_unknown=on_unknown,
        concurrency=concurrency,
        pace=pace,
        budget=budget,
        limit_to_balance=limit_to_balance,
        timeout=timeout,
        max_retries=max_retries,
        ordered=ordered,
        local=local,
        skip_bad=skip_bad,
        arguments=context.meta[_ARGUMENTS],
    )
    _check_files(plan)
    with _opened(source) as file:
        rows = Rows(file, kind or _format_of(plan.source, file), recipe)
        _check_rows(plan, rows, recipe)
        _check_output(plan)
        with _client_options(plan) as options:
            status = _run(plan, rows, options)
    context.exit(status)


# ---------------------------------------------------------------------------------------------- before anything is paid


def _default_journal(output: str, out: Output, *, local: bool) -> str | None:
    if not out.is_regular:
        return None
    # What a local server said must not pass for what the API would say.
    return f"{output}.local.journal.jsonl" if local else f"{output}.journal.jsonl"


def _check_files(plan: Plan) -> None:
    """Refuse to write into what is read, or into the journal."""
    if plan.source != "-" and plan.output.path is not None and _is_same(plan.source, plan.output.path):
        raise click.UsageError("IN and OUT are the same file.")
    for path, name in ((plan.source, "IN"), (plan.output.path, "OUT")):
        if plan.journal is not None and path not in {None, "-"} and _is_same(plan.journal, path or ""):
            raise click.UsageError(f"{name} and the journal are the same file.")


def _is_same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _check_output(plan: Plan) -> None:
    """Refuse to replace what no journal can bring back."""
    if plan.output.is_regular and not plan.output.is_empty and not (plan.journal and knows_anything(plan.journal)):
        path = plan.output.path
        raise click.UsageError(f"{path} is there already, and no journal knows what is in it: remove it first.")


@contextmanager
def _opened(source: str | None) -> Generator[BinaryIO]:
    """Hand out the bytes of IN, which can be read twice."""
    with nullcontext(_stdin(source)) if source in {None, "-"} else open(source or "", "rb") as file:  # noqa: PTH123
        rows = _rows.seekable(file)
        try:
            yield rows
        finally:
            if rows is not file:
                rows.close()


def _stdin(source: str | None) -> BinaryIO:
    stdin: TextIO | None = sys.stdin  # None: the process was started with it closed
    if stdin is None or (stdin.isatty() and source is None):
        raise click.UsageError("There are no rows: give a file, or rows on stdin.")
    return stdin.buffer


def _format_of(source: str, file: BinaryIO) -> _rows.Format:
    suffix = os.path.splitext(source)[1].lower()  # noqa: PTH122 - one path, one style
    return _rows.FORMATS.get(suffix) or _rows.guessed_format(file)


def _check_rows(plan: Plan, rows: Rows, recipe: Recipe) -> None:
    """Exit with status 2 if there are bad rows, unless they are to be left out; say which."""
    name = "stdin" if plan.source == "-" else plan.source
    try:
        GenerateRequest(messages="", **recipe.defaults)  # what is wrong with options is not wrong with rows
        with busy(f"checking the rows of {name}"):
            rows.check()
    except BadRowError as error:
        raise click.UsageError(f"{name}: {error}") from None
    for complaint in rows.complaints:
        complain(one_line(f"neuralbox: {name}, {complaint}"))
    if rows.bad > len(rows.complaints):
        complain(f"neuralbox: and {rows.bad - len(rows.complaints):,} more")
    if rows.bad and not plan.skip_bad:
        total = rows.bad + len(rows)
        complain(f"neuralbox: {rows.bad:,} of {total:,} rows are bad; nothing was sent (--skip-bad leaves them out)")
        raise click.exceptions.Exit(_USAGE)


@contextmanager
def _client_options(plan: Plan) -> Generator[dict[str, Any]]:
    """Hand out what a client is made of: for a local server that runs meanwhile, or as the environment says."""
    given = {"timeout": plan.timeout, "max_retries": plan.max_retries}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options["max_connections"] = max(_CONNECTIONS, plan.concurrency + _CONNECTIONS_LEFT)
    if not plan.local:
        yield options
        return
    from neuralbox_async.testing import NeuralBoxServer

    with NeuralBoxServer(history=_REMEMBERED) as server:
        yield {**options, **server.client_options}


# ------------------------------------------------------------------------------------------------------------- the run


def _run(plan: Plan, rows: Rows, options: dict[str, Any]) -> int:
    """Carry *plan* out and return the exit status."""
    try:
        return Run(plan, rows, AsyncNeuralBox(**options)).result()
    except OutcomeUnknownError as error:
        on_unknown = _decided(plan, error)
    if on_unknown is None:
        return _STOPPED
    return Run(attrs.evolve(plan, on_unknown=on_unknown), rows, AsyncNeuralBox(**options)).result()


def _typed_line() -> str:
    """Return the line that is typed next, or "" at the end."""
    # An interrupt that comes just before a read blocks is not heeded until that returns. Windows has no such select.
    while os.name != "nt" and not select.select([sys.stdin], [], [], _GLANCE)[0]:
        pass
    return sys.stdin.readline()


def _decided(plan: Plan, error: OutcomeUnknownError) -> Literal["retry", "skip"] | None:
    """Return what to do about requests that may have been billed, as a person says; None to do nothing."""
    for key in error.keys[:_SHOWN_KEYS]:
        complain(one_line(f"neuralbox: it may have been billed without an answer: {key}"))
    if len(error.keys) > _SHOWN_KEYS:
        complain(f"neuralbox: and {len(error.keys) - _SHOWN_KEYS:,} more")
    if plan.source == "-" or not (sys.stdin.isatty() and sys.stderr.isatty()):
        complain("neuralbox: nothing was sent; --on-unknown retry sends them again, --on-unknown skip leaves them out")
        return None
    while True:
        sys.stderr.write("Send them again, and perhaps pay twice? [yes: retry, no: skip, Ctrl-C: stop] ")
        sys.stderr.flush()
        answer = _typed_line()
        if not answer:  # Ctrl-D
            complain("")
            return None
        if answer.strip().lower() in {"y", "yes", "retry"}:
            return "retry"
        if answer.strip().lower() in {"n", "no", "skip"}:
            return "skip"
