"""What a batch would send and cost: the rows, the first requests, the estimated cost and the balance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, cast

import anyio

from neuralbox_async import AsyncNeuralBox, Balance, Estimate, GenerateRequest, NeuralBoxError
from neuralbox_async._cli.batch_rows import name_of
from neuralbox_async._cli.batch_run import RunOptions
from neuralbox_async._cli.error_messages import error_line, printable_line
from neuralbox_async._cli.input_rows import InputRows
from neuralbox_async._cli.schema import Schema
from neuralbox_async._cli.terminal import TextWriter, counted, spinner

_REQUESTS_SHOWN: Final = 3
_MAX_TEXT: Final = 2000  # characters; images may have millions
_KEY: Final = "nb_dry_run"  # a client needs one, and this one sends nothing


def print_dry_run(run: RunOptions, rows: InputRows, client_options: dict[str, Any]) -> None:
    """
    Print to stdout the number of *rows*, and of those that are left, the first as they would be sent, and their cost.

    *client_options*: of the client that asks for prices and the balance, which costs nothing.
    """
    completed = run.completed(rows)
    left = sum(1 for request in rows if request not in completed)
    facts = [counted(len(rows), "row")]
    if rows.invalid:
        facts.append(f"{counted(rows.invalid, 'invalid row')} skipped")
    if left < len(rows):
        facts += [f"{len(rows) - left:,} completed by earlier runs", f"{left:,} left"]
    writer = TextWriter()
    writer.write(printable_line(f"{name_of(run.source)}: {', '.join(facts)}") + "\n")
    first = list(islice((request for request in rows if request not in completed), _REQUESTS_SHOWN))
    for request, body in zip(first, anyio.run(_bodies, first, run.schema), strict=True):
        place = rows.place_of(request.key) or {}
        key = json.dumps(request.key, ensure_ascii=False)
        writer.write(f"\nThe request of {rows.unit} {place.get('line')}, with the key {key}:\n")
        writer.write(json.dumps(_shortened(body), ensure_ascii=False, indent=2) + "\n")
    writer.write(
        "\n" + printable_line(_cost((request for request in rows if request not in completed), client_options)) + "\n"
    )
    writer.write("This was a dry run: no row was sent.\n")


def _cost(left: Iterator[GenerateRequest], client_options: dict[str, Any]) -> str:
    """Return the sentence about the cost of the requests that are *left*, and the balance."""
    try:
        with spinner("asking for prices and the balance"):
            estimate, balance = anyio.run(_estimate, left, client_options)
    except NeuralBoxError as error:
        return f"The cost is unknown: {error_line(error).removeprefix('neuralbox: ').rstrip('.')}."
    cost, most = estimate.token_cost, estimate.max_token_cost
    at_most = f", at most {counted(most, 'token')}" if most > cost else ""
    return f"Estimated cost: {counted(cost, 'token')}{at_most}. Balance: {counted(balance.token_balance, 'token')}."


async def _estimate(requests: Iterator[GenerateRequest], client_options: dict[str, Any]) -> tuple[Estimate, Balance]:
    async with AsyncNeuralBox(**client_options) as client:
        return await client.estimate(requests), await client.get_balance()


async def _bodies(requests: list[GenerateRequest], schema: Schema | None) -> list[Any]:
    """Return the bodies that a client sends for *requests*."""
    from neuralbox_async.testing import FakeTransport  # not above: most runs do not need it

    transport = FakeTransport({"id": 1, "status": "completed", "content": "-"})
    async with AsyncNeuralBox(_KEY, transport=transport) as client:
        for request in requests:
            output_type = None if schema is None else schema.output_type
            async with client.generate_many([request], output_type=output_type, max_repairs=0) as batch:
                await batch.read_batch()
    return [request.json for request in transport.requests]


def _shortened(value: Any) -> Any:
    """Return the JSON *value* with long texts cut off."""
    if isinstance(value, dict):
        return {name: _shortened(member) for name, member in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return list(map(_shortened, cast("Iterable[Any]", value)))
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        return f"{value[:_MAX_TEXT]}... ({len(value):,} characters)"
    return value
