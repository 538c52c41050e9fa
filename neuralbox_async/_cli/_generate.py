"""`neuralbox generate`: one prompt in, its text out."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, TextIO

import anyio
import attrs
import click

from neuralbox_async import NOT_GIVEN, AsyncNeuralBox, Generation, ImagePart, Message, NeuralBoxError, TextPart
from neuralbox_async._cli._json import event_line, generation_line
from neuralbox_async._cli._terminal import Page, footer, waiting

_DEFAULT_MODEL: Final = "gpt-5"
_LOCAL_PACE: Final = 0.02  # seconds between the pieces of a local stream that somebody watches


@attrs.frozen(kw_only=True)
class _Call:
    """What was asked for, as the command was told."""

    parameters: dict[str, Any]
    timeout: float | None
    stream: bool
    as_json: bool


def _pictures(_context: click.Context, parameter: click.Parameter, paths: tuple[str, ...]) -> tuple[ImagePart, ...]:
    return tuple(_picture(parameter, path) for path in paths)


def _picture(parameter: click.Parameter, path: str) -> ImagePart:
    try:
        return ImagePart.from_file(path)
    except NeuralBoxError:
        raise click.BadParameter(f"{path!r} is not an image.", param=parameter) from None
    except OSError as error:
        raise click.BadParameter(f"{path!r} cannot be read: {error.strerror}.", param=parameter) from None


@click.command()
@click.argument("prompt", required=False)
@click.option("-m", "--model", default=_DEFAULT_MODEL, show_default=True, metavar="SLUG", help="The model.")
@click.option("-s", "--system", metavar="TEXT", help="Instructions that come before the prompt.")
@click.option(
    "-t",
    "--temperature",
    type=click.FloatRange(0, 2),
    metavar="T",
    help="How random the text is; the API's default is 0.7.",
)
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="The length at which the text ends.")
@click.option(
    "--stream/--no-stream", default=None, help="Print the text as it comes. Default: if stdout is a terminal."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object; with --stream, one line for each event.")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    callback=_pictures,
    help="A picture to send along; may be repeated.",
)
@click.option("--local", is_flag=True, help="Ask a server that runs for this call only: no key, no cost, an echo.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="How long it may take.")
def generate(
    *,
    prompt: str | None,
    model: str,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    stream: bool | None,
    as_json: bool,
    images: tuple[ImagePart, ...],
    local: bool,
    timeout: float | None,
) -> None:
    """
    Generate text from PROMPT and print it.

    Without PROMPT, or with "-" for it, the prompt is read from stdin. Only the text goes to stdout; what it cost,
    to stderr, if that is a terminal.

    \b
    Examples:
      neuralbox generate "Write a haiku"
      neuralbox generate "Write a haiku" --local
      git diff | neuralbox generate --system "Write the commit message." --no-stream
      neuralbox generate "What is in these pictures?" --image a.png --image b.jpg
      neuralbox generate "Count to ten" --json --stream
    """  # noqa: D301 - click's mark for lines to be left alone
    text = _prompt(prompt)
    call = _Call(
        parameters={
            "model": model,
            "messages": Message("user", [*images, TextPart(text)] if images else text),
            "system": system,
            "temperature": temperature,
            "max_tokens": max_tokens,
        },
        timeout=timeout,
        stream=sys.stdout.isatty() and not as_json if stream is None else stream,
        as_json=as_json,
    )
    with _client(local=local) as client:
        anyio.run(_generate, client, call)


def _prompt(argument: str | None) -> str:
    text = _stdin(even_terminal=argument == "-") if argument is None or argument == "-" else argument
    if not text or text.isspace():
        raise click.UsageError("The prompt is empty.")
    return text


def _stdin(*, even_terminal: bool) -> str:
    stdin: TextIO | None = sys.stdin  # None: the process was started with it closed
    if stdin is None or (stdin.isatty() and not even_terminal):
        raise click.UsageError("There is no prompt: give one as an argument, or on stdin.")
    try:
        # Not the locale's encoding: what a prompt means must not depend on the machine.
        return stdin.buffer.read().decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"The prompt on stdin is not UTF-8 text: byte {error.start} cannot be decoded."
        ) from None


@contextmanager
def _client(*, local: bool) -> Generator[AsyncNeuralBox]:
    """Hand out a client: of a local server that runs meanwhile, or as the environment says."""
    if not local:
        yield AsyncNeuralBox()
        return
    from neuralbox_async.testing import NeuralBoxServer

    with NeuralBoxServer(event_interval=_LOCAL_PACE if sys.stdout.isatty() else 0.0) as server:
        yield AsyncNeuralBox(server.api_key, base_url=server.base_url)


async def _generate(client: AsyncNeuralBox, call: _Call) -> None:
    page = Page()
    async with client:
        started = time.monotonic()
        try:
            generation = await (_live if call.stream else _whole)(client, call, page)
        finally:
            # Also when it broke off: what came stays readable, and the error gets a line of its own.
            page.end_line()
    footer(generation, time.monotonic() - started)


async def _live(client: AsyncNeuralBox, call: _Call, page: Page) -> Generation:
    with waiting(call.parameters["model"]) as stop_waiting:
        async with client.stream(**call.parameters, timeout=call.timeout) as stream:
            if call.as_json:
                async for event in stream:
                    stop_waiting()
                    page.write(event_line(event))
            else:
                async for text in stream.text_stream:
                    stop_waiting()
                    page.write(text)
    return stream.generation


async def _whole(client: AsyncNeuralBox, call: _Call, page: Page) -> Generation:
    timeout = NOT_GIVEN if call.timeout is None else call.timeout
    try:
        with waiting(call.parameters["model"]):
            generation = await client.generate(**call.parameters, timeout=timeout, wait=True)
    except NeuralBoxError as error:
        # An answer that is wrong elsewhere may have the text all the same, and it is paid for.
        page.write("" if call.as_json else error.text)
        raise
    page.write(generation_line(generation) if call.as_json else generation.content)
    return generation
