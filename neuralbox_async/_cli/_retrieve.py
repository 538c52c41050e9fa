"""`neuralbox retrieve`: get back what was generated, and paid for, before."""

from __future__ import annotations

import time
from typing import Final

import anyio
import click

from neuralbox_async import NOT_GIVEN, AsyncNeuralBox, Generation
from neuralbox_async._cli._json import generation_line
from neuralbox_async._cli._terminal import Page, footer, waiting

_WAIT_SECONDS: Final = 300.0


@click.command()
@click.argument("generation_id", metavar="ID")
@click.option(
    "--wait", is_flag=True, help=f"Wait until it is finished, {_WAIT_SECONDS:g} seconds if --timeout does not say."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, also of one that is not finished.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="How long it may take.")
def retrieve(*, generation_id: str, wait: bool, as_json: bool, timeout: float | None) -> None:
    """
    Print the text of the generation ID. Costs nothing.

    \b
    Examples:
      neuralbox retrieve gen_01j9x2abc123
      neuralbox retrieve gen_01j9x2abc123 --wait --timeout 60
    """  # noqa: D301 - click's mark for lines to be left alone
    started = time.monotonic()
    generation = anyio.run(_retrieve, generation_id, wait, timeout)
    if not as_json and not generation.completed:
        raise click.ClickException(_unfinished(generation, generation_id))
    page = Page()
    page.write(generation_line(generation) if as_json else generation.content or generation.url or "")
    page.end_line()
    footer(generation, time.monotonic() - started)


async def _retrieve(generation_id: str, wait: bool, timeout: float | None) -> Generation:  # noqa: FBT001 - anyio.run knows no names
    async with AsyncNeuralBox() as client:
        with waiting(f"generation {generation_id}"):
            if wait:
                return await client.wait(generation_id, timeout=_WAIT_SECONDS if timeout is None else timeout)
            return await client.retrieve(generation_id, timeout=NOT_GIVEN if timeout is None else timeout)


def _unfinished(generation: Generation, generation_id: str) -> str:
    facts = (
        None if generation.progress is None else f"{generation.progress:g} %",
        None if generation.eta_seconds is None else f"about {generation.eta_seconds:g} s left",
    )
    known = ", ".join(filter(None, facts))
    state = f"{generation.status} ({known})" if known else generation.status
    return f"generation {generation_id} is {state}; --wait waits for it"
