"""`neuralbox retrieve`: print a generation that was made before."""

from __future__ import annotations

import time

import anyio
import click

from neuralbox_async import NOT_GIVEN, AsyncNeuralBox, Generation, NeuralBoxError
from neuralbox_async._cli import options
from neuralbox_async._cli.json_output import print_generation
from neuralbox_async._cli.terminal import TextWriter, check_stdout, print_footer, spinner
from neuralbox_async._options import DEFAULT_WAIT_TIMEOUT


@click.command(short_help="Print the text of an earlier generation.")
@click.argument("generation_id", metavar="ID")
@click.option(
    "--wait",
    is_flag=True,
    help=f"Wait until the generation is completed, by default up to {DEFAULT_WAIT_TIMEOUT:g} s.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, whatever the status of the generation.")
@click.option("--timeout", type=options.SECONDS, metavar="SECONDS", help="Time limit.")
def retrieve(*, generation_id: str, wait: bool, as_json: bool, timeout: float | None) -> None:
    """
    Print the text of the generation with the id ID. This costs nothing.

    \b
    Examples:
      neuralbox retrieve gen_01j9x2abc123
      neuralbox retrieve gen_01j9x2abc123 --wait --timeout 60
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    check_stdout()
    started = time.monotonic()
    writer = TextWriter()
    try:
        generation = anyio.run(_retrieve, generation_id, wait, timeout)
    except NeuralBoxError as error:
        print_generation(error, writer, as_json=as_json)
        writer.end_line()
        raise
    if not as_json and not generation.completed:
        raise click.ClickException(_status(generation, generation_id))
    print_generation(generation, writer, as_json=as_json)
    writer.end_line()
    print_footer(generation, time.monotonic() - started)


async def _retrieve(generation_id: str, wait: bool, timeout: float | None) -> Generation:  # noqa: FBT001 - anyio.run passes positional arguments only
    async with AsyncNeuralBox() as client:
        with spinner(f"waiting for generation {generation_id}"):
            if wait:
                return await client.wait(generation_id, timeout=DEFAULT_WAIT_TIMEOUT if timeout is None else timeout)
            return await client.retrieve(generation_id, timeout=NOT_GIVEN if timeout is None else timeout)


def _status(generation: Generation, generation_id: str) -> str:
    facts = (
        None if generation.progress is None else f"{generation.progress:g} %",
        None if generation.eta_seconds is None else f"about {generation.eta_seconds:g} s left",
    )
    known = ", ".join(filter(None, facts))
    status = f"{generation.status} ({known})" if known else generation.status
    return f"generation {generation_id} is {status}; use --wait to wait for it"
