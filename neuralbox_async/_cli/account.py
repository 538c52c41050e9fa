"""`neuralbox balance` and `neuralbox history`: what is left, and what was generated."""

from __future__ import annotations

import sys

import anyio
import click

from neuralbox_async import AsyncNeuralBox, Balance, HistoryEntry
from neuralbox_async._cli import options
from neuralbox_async._cli.json_output import value_line
from neuralbox_async._cli.tables import local_time, print_table
from neuralbox_async._cli.terminal import check_stdout, counted, print_error, spinner

_MAX_PAGE = 100  # entries, by the API


@click.command(short_help="Print how many tokens are left.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def balance(*, as_json: bool) -> None:
    """
    Print the balance of the account in NeuralBox tokens, and its plan. This costs nothing.

    \b
    Examples:
      neuralbox balance
      neuralbox balance --json | jq .token_balance
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    check_stdout()
    found = anyio.run(_get_balance)
    if as_json:
        sys.stdout.write(value_line(found))
        return
    print_table(
        ("BALANCE", "PLAN", "PLAN ENDS"), [(found.token_balance, found.plan, local_time(found.plan_expires_at))]
    )


async def _get_balance() -> Balance:
    async with AsyncNeuralBox() as client:
        with spinner("getting the balance"):
            return await client.get_balance()


@click.command(short_help="List earlier generations.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="List at most N generations.",
)
@click.option("-m", "--model", metavar="MODEL", help="Only generations of this model.")
@options.category
@click.option("--status", metavar="STATUS", help="Only completed, pending or failed generations.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def history(*, limit: int, model: str | None, category: str | None, status: str | None, as_json: bool) -> None:
    """
    List the generations of the account, the newest first. This costs nothing.

    `neuralbox retrieve` prints the text of one of them.

    \b
    Examples:
      neuralbox history
      neuralbox history -n 100 --status failed
      neuralbox history --json | jq -r .prompt
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    check_stdout()
    entries, total = anyio.run(_get_history, limit, model, category, status)
    if as_json:
        sys.stdout.writelines(map(value_line, entries))
        return
    print_table(("ID", "CREATED", "STATUS", "MODEL", "TOKENS", "PROMPT"), map(_row, entries), cut="PROMPT")
    if sys.stderr.isatty() and total is not None:
        print_error(f"{len(entries):,} of {counted(total, 'generation')}")


def _row(entry: HistoryEntry) -> tuple[object, ...]:
    # An id that is a number gets no commas.
    identity = None if entry.id is None else str(entry.id)
    return identity, local_time(entry.created_at), entry.status, entry.model, entry.tokens_used, entry.prompt


async def _get_history(
    limit: int, model: str | None, category: str | None, status: str | None
) -> tuple[list[HistoryEntry], int | None]:
    entries: list[HistoryEntry] = []
    async with AsyncNeuralBox() as client:
        found = client.list_generations(model=model, category=category, status=status, limit=min(limit, _MAX_PAGE))
        with spinner("getting the history"):
            async for entry in found:
                entries.append(entry)
                if len(entries) == limit:
                    break
    return entries, found.total
