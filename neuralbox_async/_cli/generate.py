"""`neuralbox generate`: generate text from one prompt."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import anyio
import attrs
import click

from neuralbox_async import (
    NOT_GIVEN,
    AsyncNeuralBox,
    AsyncStream,
    ContentDelta,
    Generation,
    Message,
    NeuralBoxError,
    ParsingError,
    TextPart,
)
from neuralbox_async._cli import options
from neuralbox_async._cli.json_output import event_line, print_generation, print_parsed
from neuralbox_async._cli.prompt import read_images, read_prompt
from neuralbox_async._cli.schema import Schema, max_repairs_option, schema_option
from neuralbox_async._cli.terminal import (
    TextWriter,
    check_stdout,
    print_footer,
    print_invalid_text,
    print_unwritten,
    spinner,
)

_LOCAL_EVENT_INTERVAL: Final = 0.02  # seconds between the events of a local stream at a terminal


@attrs.frozen(kw_only=True)
class _Call:
    """The call to make: its parameters, whether to stream it, and how to print it."""

    parameters: dict[str, Any]
    stream: bool
    as_json: bool
    schema: Schema | None
    max_repairs: int


@click.command(short_help="Generate text from a prompt.")
@click.argument("prompt", required=False)
@options.model
@options.system
@options.temperature
@options.max_tokens
@click.option(
    "--stream/--no-stream", default=None, help="Print the text while it is generated. Default: if stdout is a terminal."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object; with --stream, one JSON line for each event."
)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help='An image to send with the prompt; "-" reads it from stdin. Can be repeated.',
)
@schema_option
@max_repairs_option
@options.local
@click.option("--timeout", type=options.SECONDS, metavar="SECONDS", help="Time limit, including retries.")
def generate(
    *,
    prompt: str | None,
    model: str,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    stream: bool | None,
    as_json: bool,
    images: tuple[str, ...],
    schema: Schema | None,
    max_repairs: int,
    local: bool,
    timeout: float | None,
) -> None:
    """
    Generate text from PROMPT and print it.

    Text on stdin is appended to PROMPT; without PROMPT, or if it is "-", it is the prompt. In a loop that reads
    from stdin itself, use < /dev/null. Only the text goes to stdout; at a terminal, its cost is shown on stderr.

    \b
    Examples:
      neuralbox generate "Write a haiku"
      neuralbox generate "Write a haiku" --local
      git diff | neuralbox generate --system "Write the commit message." --no-stream
      neuralbox generate "What is in these images?" --image a.png --image b.jpg
      neuralbox generate "Summarise:" < article.txt
      curl -s https://example.com/cat.jpg | neuralbox generate "What is this?" --image -
      neuralbox generate "Count to ten" --json --stream
      neuralbox generate "Three rivers, with lengths" --schema rivers.json | jq .
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    if stream and schema is not None:
        raise click.UsageError("--stream and --schema are mutually exclusive: JSON is printed when all of it is valid.")
    parts = read_images(images)
    text = read_prompt(prompt, reads_stdin="-" not in images)
    check_stdout()
    call = _Call(
        parameters={
            "model": model,
            "messages": Message("user", [*parts, TextPart(text)] if parts else text),
            "system": system,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "timeout": NOT_GIVEN if timeout is None else timeout,
        },
        stream=sys.stdout.isatty() and not as_json and schema is None if stream is None else stream,
        as_json=as_json,
        schema=schema,
        max_repairs=max_repairs,
    )
    with _open_client(local=local) as client:
        anyio.run(_generate, client, call)


@contextmanager
def _open_client(*, local: bool) -> Generator[AsyncNeuralBox]:
    """Yield a client of a temporary local server, or one that the environment configures."""
    if not local:
        yield AsyncNeuralBox()
        return
    from neuralbox_async.testing import NeuralBoxServer  # not above: it imports aiohttp

    with NeuralBoxServer(event_interval=_LOCAL_EVENT_INTERVAL if sys.stdout.isatty() else 0.0) as server:
        yield AsyncNeuralBox(server.api_key, base_url=server.base_url)


async def _generate(client: AsyncNeuralBox, call: _Call) -> None:
    writer = TextWriter()
    async with client:
        started = time.monotonic()
        try:
            if call.schema is not None:
                generation = await _print_value(client, call, call.schema.output_type, writer)
            else:
                generation = await (_print_stream if call.stream else _print_generation)(client, call, writer)
        finally:
            # After an error, too: the text that arrived stays readable, and the error begins a line.
            writer.end_line()
    print_footer(generation, time.monotonic() - started)


async def _print_stream(client: AsyncNeuralBox, call: _Call, writer: TextWriter) -> Generation:
    stream = client.stream(**call.parameters)
    try:
        with spinner(f"waiting for {call.parameters['model']}") as stop_spinner:
            await _print_events(stream, call, writer, stop_spinner)
    except NeuralBoxError as error:
        # Text that arrived in another way than by events is billed, too.
        rest = error.text.removeprefix(stream.generation.content)
        writer.write(event_line(ContentDelta(rest)) if call.as_json and rest else rest)
        raise
    except OSError:
        print_unwritten(stream.generation)
        raise
    return stream.generation


async def _print_events(stream: AsyncStream, call: _Call, writer: TextWriter, stop_spinner: Callable[[], None]) -> None:
    async with stream:
        if call.as_json:
            async for event in stream:
                stop_spinner()
                writer.write(event_line(event))
        else:
            async for text in stream.text_stream:
                stop_spinner()
                writer.write(text)


async def _print_value(client: AsyncNeuralBox, call: _Call, output_type: type[Any], writer: TextWriter) -> Generation:
    with spinner(f"waiting for {call.parameters['model']}") as stop_spinner:
        try:
            parsed = await client.parse(**call.parameters, output_type=output_type, max_repairs=call.max_repairs)
        except ParsingError as error:
            stop_spinner()
            print_invalid_text(error)
            raise
    # All attempts were billed.
    generation = attrs.evolve(parsed.generation, tokens_used=parsed.tokens_used)
    print_parsed(parsed.value, generation, writer, as_json=call.as_json)
    return generation


async def _print_generation(client: AsyncNeuralBox, call: _Call, writer: TextWriter) -> Generation:
    with spinner(f"waiting for {call.parameters['model']}") as stop_spinner:
        try:
            generation = await client.generate(**call.parameters, wait=True)
        except NeuralBoxError as error:
            stop_spinner()
            # The text of a malformed response is billed, too.
            print_generation(error, writer, as_json=call.as_json)
            raise
    print_generation(generation, writer, as_json=call.as_json)
    return generation
