"""`neuralbox batch`: generate text for each row of a file; completed rows are never sent twice."""

from __future__ import annotations

import csv
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Final, Literal

import attrs
import click

from neuralbox_async import AsyncNeuralBox, OutcomeUnknownError, RetryPolicy
from neuralbox_async._cli import batch_rows, file_checks, options
from neuralbox_async._cli.batch_run import BatchRun, RunOptions
from neuralbox_async._cli.dask_batch import DaskRunner
from neuralbox_async._cli.dry_run import print_dry_run
from neuralbox_async._cli.input_file import check_encoding, open_input
from neuralbox_async._cli.input_formats import Format
from neuralbox_async._cli.input_rows import InputRows, RequestBuilder, Template
from neuralbox_async._cli.kept_items import KeptItems
from neuralbox_async._cli.output import Output
from neuralbox_async._cli.schema import Schema, max_repairs_option, schema_option
from neuralbox_async._cli.unknown_requests import ask
from neuralbox_async._options import DEFAULT_MAX_CONCURRENCY, DEFAULT_MAX_CONNECTIONS, DEFAULT_TIMEOUT

_STOPPED: Final = 4
_RESERVED_CONNECTIONS: Final = 10  # a batch leaves so many of the client's connections to other calls
_LOCAL_HISTORY: Final = 1000  # requests that a local server keeps
_TAB_NAMES: Final = {"tab", "\\t"}
_ARGUMENTS: Final = f"{__name__}.arguments"


class _Command(click.Command):
    """A command that stores its arguments, for the command line that continues the batch."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


def _parse_template(_context: click.Context, parameter: click.Parameter, text: str | None) -> Template | None:
    try:
        return None if text is None else Template(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param=parameter) from None


def _parse_delimiter(_context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    if text is None or text.lower() in _TAB_NAMES:
        return text and "\t"
    if len(text) != 1 or text in '"\r\n\0':
        raise click.BadParameter("it must be one character, or tab.", param=parameter)
    return text


def _parse_columns(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names in *texts*, separated by commas as in CSV."""
    return tuple(dict.fromkeys(name.strip() for cells in csv.reader(texts) for name in cells if name.strip()))


@click.command(cls=_Command, short_help="Generate text for each row of a file.")
@click.argument("source", metavar="[INPUT]", required=False, type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "-o",
    "--output",
    default="-",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="OUTPUT",
    help="The file for the results, one JSON object per line. Default: stdout.",
)
@click.option(
    "--format",
    "input_format",
    type=click.Choice(["jsonl", "json", "csv", "tsv", "lines"]),
    help="The format of INPUT; lines: each line is a prompt. Default: by the file extension and the first line.",
)
@click.option(
    "--delimiter",
    callback=_parse_delimiter,
    metavar="CHARACTER",
    help="The character between the cells of CSV, or tab. Default: comma, semicolon or tab, by the first line.",
)
@click.option(
    "--encoding",
    default="utf-8",
    show_default=True,
    callback=check_encoding,
    metavar="NAME",
    help="The encoding of INPUT: cp1252 for what Excel saves as CSV on Windows, utf-16 for its Unicode text.",
)
@click.option(
    "--template",
    callback=_parse_template,
    metavar="TEXT",
    help="Template for the prompts: {column} is replaced by the row's value; {{ and }} are literal braces.",
)
@click.option(
    "--key-column",
    metavar="COLUMN",
    help='The column with the keys of the rows, instead of "key": unique, such as the ids of your table.',
)
@click.option(
    "--keep",
    multiple=True,
    callback=_parse_columns,
    metavar="COLUMNS",
    help='Repeat these columns of the row in its result, as "item": comma-separated names, or all.',
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Use only the first N rows.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the number of rows and the first requests. Nothing is sent, and no file is written.",
)
@options.model
@options.system
@options.temperature
@options.max_tokens
@click.option(
    "-c",
    "--max-concurrency",
    default=DEFAULT_MAX_CONCURRENCY,
    show_default=True,
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Maximum number of requests in flight.",
)
@click.option(
    "--max-rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RATE",
    help="Maximum number of requests per second. Default: adapts to the API. Rate limits are respected in either case.",
)
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Maximum number of NeuralBox tokens that all runs with the same journal may spend together.",
)
@click.option("--limit-to-balance", is_flag=True, help="Fetch the token balance first, and never exceed it.")
@click.option(
    "--timeout",
    default=DEFAULT_TIMEOUT,
    show_default=True,
    type=options.SECONDS,
    metavar="SECONDS",
    help="Time limit of one request, including retries; waits for rate limits do not count.",
)
@click.option(
    "--max-retries",
    default=RetryPolicy().max_retries,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="Maximum number of retries of a request. Requests that may have been billed are not retried.",
)
@click.option("--ordered", is_flag=True, help="Write the results in the order of the rows.")
@click.option(
    "--journal",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="The journal file, from which the next run continues. Default: OUTPUT.journal.jsonl, if OUTPUT is a regular "
    "file.",
)
@click.option("--no-journal", is_flag=True, help="Keep no journal: another run sends, and pays for, all rows again.")
@click.option(
    "--on-unknown",
    default="skip",
    show_default=True,
    type=click.Choice(["skip", "retry", "ask"]),
    help="What to do with requests of an earlier run that may have been billed but got no response.",
)
@click.option(
    "--on-changed",
    default="refuse",
    show_default=True,
    type=click.Choice(["refuse", "skip", "retry"]),
    help="What to do with rows that differ from those that an earlier run sent with the same keys: refuse the whole "
    "file, keep the earlier results, or send the rows again and pay for new results.",
)
@click.option(
    "--skip-invalid",
    is_flag=True,
    help="Skip invalid rows. Otherwise nothing is sent if a row is invalid. A file that is invalid as a whole, or CSV "
    "with a misplaced quote, is refused in either case.",
)
@schema_option
@max_repairs_option
@options.local
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Run on the Dask cluster with this scheduler, such as tcp://host:8786. The workers need the API key in "
    "their environment and access to the journal's file system; --max-concurrency applies to each worker process.",
)
@click.pass_context
def batch(
    context: click.Context,
    *,
    source: str | None,
    output: str,
    input_format: Format | None,
    delimiter: str | None,
    encoding: str,
    template: Template | None,
    key_column: str | None,
    keep: tuple[str, ...],
    limit: int | None,
    dry_run: bool,
    model: str,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    max_concurrency: int,
    max_rate: float | None,
    budget: int | None,
    limit_to_balance: bool,
    timeout: float,
    max_retries: int,
    ordered: bool,
    journal: str | None,
    no_journal: bool,
    on_unknown: Literal["skip", "retry", "ask"],
    on_changed: Literal["refuse", "skip", "retry"],
    skip_invalid: bool,
    schema: Schema | None,
    max_repairs: int,
    local: bool,
    dask: str | None,
) -> None:
    """
    Generate text for each row of INPUT, many rows concurrently. Write each result as a line of JSON.

    INPUT is text. Each row is:

    \b
      .jsonl, .ndjson  an object per line: "prompt" or "messages", optionally "key"
                       and other fields of a request
      .json            an item of an array: such an object, or a prompt as a string
      .csv, .tsv       a row under a header: the column "prompt" (with --template,
                       any columns), optionally key, model, system, temperature,
                       max_tokens
      .txt             a line, which is the prompt

    If INPUT is omitted, rows are read from stdin. There, and for other file names, the first line decides the format;
    unrecognised input is refused. All rows are validated before the first one is sent. --model, --system,
    --temperature and --max-tokens apply to rows that do not set them.

    With -o OUTPUT, a journal records the progress. Run the same command again to continue an interrupted batch:
    completed rows are not sent again. Ctrl-C waits for the requests in flight; a second Ctrl-C stops immediately.

    Exit status: 0 all rows completed, 1 error, 2 usage error or invalid rows, 3 some rows failed, 4 stopped early
    (budget, balance, API key or plan), 130 interrupted by Ctrl-C.

    \b
    Examples:
      neuralbox batch prompts.txt -o results.jsonl
      neuralbox batch prompts.jsonl -o results.jsonl --model claude-sonnet-4.5 --budget 50000
      neuralbox batch reviews.csv -o moods.jsonl --template "The mood of this review, in one word: {review}"
      neuralbox batch reviews.csv --template "{review}" --dry-run --limit 100
      neuralbox batch excel.csv -o out.jsonl --encoding cp1252 --key-column id --keep all
      neuralbox batch prompts.txt --local | jq -r .content
      neuralbox batch reviews.csv -o moods.jsonl --template "{review}" --schema mood.json
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    if journal is not None and no_journal:
        raise click.UsageError("--journal and --no-journal are mutually exclusive.")
    if not output or journal == "":
        raise click.UsageError("The path of the output or of the journal is empty.")
    file = Output(None if output == "-" else output)
    fields = {"model": model, "system": system, "temperature": temperature, "max_tokens": max_tokens}
    columns = None if keep == ("all",) else keep
    builder = RequestBuilder(
        defaults={name: value for name, value in fields.items() if value is not None},
        template=template,
        key_column=key_column,
        schema=None if schema is None else schema.contents,
    )
    run = RunOptions(
        source=source or "-",
        output=file,
        journal=None if no_journal else journal or file_checks.default_journal(output, file, local=local),
        on_unknown=on_unknown,
        on_changed="raise" if on_changed == "refuse" else on_changed,
        max_concurrency=max_concurrency,
        max_rate=max_rate,
        budget=budget,
        limit_to_balance=limit_to_balance,
        ordered=ordered,
        schema=schema,
        max_repairs=max_repairs,
        arguments=context.meta[_ARGUMENTS],
    )
    if dask is not None:
        _check_cluster_options(run, local=local)
    file_checks.check_files(run.source, file, run.journal)
    with open_input(source, encoding) as stream, KeptItems(columns) if keep else nullcontext() as items:
        rows = batch_rows.open_rows(
            run.source, stream, input_format, builder, delimiter=delimiter, items=items, limit=limit
        )
        batch_rows.check_rows(run.source, rows, builder, skip_invalid=skip_invalid)
        file_checks.check_content(file, run.journal)
        connections = max(DEFAULT_MAX_CONNECTIONS, max_concurrency + _RESERVED_CONNECTIONS)
        settings: dict[str, Any] = {"timeout": timeout, "max_retries": max_retries, "max_connections": connections}
        with _local_server(enabled=local) as server_options:
            if dry_run:
                print_dry_run(run, rows, {**settings, **server_options})
                return
            if dask is None:
                client = partial(AsyncNeuralBox, **settings, **server_options)
                status = _execute(run, rows, client)
            else:
                status = _execute(run, rows, partial(DaskRunner, dask, timeout=timeout, max_retries=max_retries))
    context.exit(status)


@contextmanager
def _local_server(*, enabled: bool) -> Generator[dict[str, Any]]:
    """Yield the options for a client of a temporary local server if *enabled*, otherwise none."""
    if not enabled:
        yield {}
        return
    from neuralbox_async.testing import NeuralBoxServer  # not above: it imports aiohttp

    with NeuralBoxServer(history=_LOCAL_HISTORY) as server:
        yield dict(server.client_options)


# -------------------------------------------------------------------------------------------------------------- the run


def _check_cluster_options(run: RunOptions, *, local: bool) -> None:
    """Refuse options that a cluster does not have."""
    if local:
        raise click.UsageError("--local and --dask are mutually exclusive: the workers have no access to that server.")
    if run.journal is None:
        raise click.UsageError("--dask needs a journal: -o OUTPUT, a regular file, or --journal FILE.")
    if run.ordered:
        raise click.UsageError("--ordered and --dask are mutually exclusive: each line has the number of its row.")
    if run.limit_to_balance:
        raise click.UsageError("--limit-to-balance and --dask are mutually exclusive: use --budget TOKENS.")


def _execute(run: RunOptions, rows: InputRows, make_client: Callable[[], AsyncNeuralBox | DaskRunner]) -> int:
    """Run the batch, ask about requests that may have been billed if need be, and return the exit status."""
    try:
        return BatchRun(run, rows, make_client()).execute()
    except OutcomeUnknownError as error:
        on_unknown = ask(run.source, error)
    if on_unknown is None:
        return _STOPPED
    return BatchRun(attrs.evolve(run, on_unknown=on_unknown), rows, make_client()).execute()
